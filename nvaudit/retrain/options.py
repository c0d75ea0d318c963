"""Options of a hardening, validated at the edge: each by itself, then beside the others."""

from __future__ import annotations

from nvaudit.errors import OptionError
from nvaudit.retrain.spec import CROSSBAR, VAT_SIGMAS, HardenSpec
from nvaudit.technology_options import check_technology


def make_harden_spec(**options: object) -> HardenSpec:
    """Validate options at the edge.

    Raises
    ------
    OptionError
        Naming each option that is wrong, what was found, and what is allowed; or two that contradict.
    """
    spec = HardenSpec.validated(options)
    _check_together(spec)
    return spec


def _check_together(spec: HardenSpec) -> None:
    """Refuse options that have no meaning beside each other."""
    if spec.val_data is not None and spec.val_split is not None:
        raise OptionError("--val-data and --val-split: choose one; --val-data is all of the validation")
    if spec.method == "trice":
        if spec.train_sigma is not None:
            raise OptionError(
                "--train-sigma and --method trice: TRICE searches for it between --trice-start and "
                "--trice-end; use --method rc for one value"
            )
        if spec.trice_end is not None and spec.trice_end <= spec.trice_start:
            raise OptionError(
                f"--trice-end {spec.trice_end:g} must be above --trice-start {spec.trice_start:g}"
            )
    elif spec.trice_end is not None or spec.trice_start != 0:
        raise OptionError(f"--trice-start and --trice-end are for --method trice, not {spec.method}")
    if spec.method == "stability-vat":
        _check_vat(spec)
    else:
        given = {"--vat-sigmas": spec.vat_sigmas != VAT_SIGMAS, "--vat-keep": spec.vat_keep != "roughness"}
        for name, there in given.items():
            if there:
                raise OptionError(f"{name} is for --method stability-vat, not {spec.method}; leave it out")
    _check_pruning(spec)
    _check_converters(spec)
    _check_budget(spec)
    if spec.method in ("device", "none") and spec.train_sigma is not None:
        why = "it injects none" if spec.method == "none" else "its noise is that of the audited device"
        raise OptionError(f"--train-sigma and --method {spec.method}: {why}; leave one out")


def _check_vat(spec: HardenSpec) -> None:
    if not spec.vat_sigmas:
        raise OptionError("--vat-sigmas: none is given; use 1 to 100 finite numbers, 0 or more")
    if spec.train_sigma is not None:
        raise OptionError(
            "--train-sigma and --method stability-vat: it trains at each of --vat-sigmas, in the unit of the "
            "profile; leave it out"
        )
    if spec.keep in ("best", "better"):
        raise OptionError(
            f"--keep {spec.keep} and --method stability-vat: it keeps the candidate that --vat-keep wants; "
            "leave it out"
        )
    if spec.run_epochs == 0:
        raise OptionError(
            "--epochs 0 and --method stability-vat: candidates are to be trained; use 1 or more"
        )


def _check_budget(spec: HardenSpec) -> None:
    if spec.max_clean_loss is None:
        return
    wrong = {
        "--keep last": spec.keep == "last",
        "--method stability-vat": spec.method == "stability-vat",
        "--reset": spec.reset,
        "--bits ternary": spec.ternary,
        "--sparsity": spec.sparsity is not None,
    }
    for name, there in wrong.items():
        if there:
            raise OptionError(
                f"--max-clean-loss and {name}: where the loss is too large the given weights are the result, "
                "which this rules out; leave one out"
            )


def _check_pruning(spec: HardenSpec) -> None:
    if spec.sparsity is None:
        given = {
            "--crossbar": spec.crossbar != CROSSBAR
            and spec.adc_bits is None
            and spec.allocate != "crossbars",
            "--dense": bool(spec.dense),
            "--prune-lambda": spec.prune_lambda != HardenSpec.model_fields["prune_lambda"].default,
        }
        for name, there in given.items():
            if there:
                other = ", --adc-bits or --allocate crossbars" if name == "--crossbar" else ""
                raise OptionError(f"{name} is for pruning; give --sparsity too{other}")
    elif spec.run_epochs == 0:
        raise OptionError(f"--sparsity {spec.sparsity:g} and --epochs 0: pruning is done while training")


def _check_converters(spec: HardenSpec) -> None:
    check_technology(spec, spec.adc_bits, audited=True)
    if spec.adc_bits is not None:
        return
    given = {
        "--dac-bits": spec.dac_bits is not None,
        "--adc-range": spec.adc_range != "max",
        "--hardware-aware": spec.hardware_aware is True,
        "--no-hardware-aware": spec.hardware_aware is False,
    }
    for name, there in given.items():
        if there:
            raise OptionError(f"{name} is for crossbars with converters; give --adc-bits too")
