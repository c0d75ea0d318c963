"""The use case: which tensors of a model would be on the array, and why; nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nvaudit._version import __version__
from nvaudit.coverage import Coverage, count_coverage, declared_coverage
from nvaudit.data import load_dataset
from nvaudit.device import profile_digest
from nvaudit.errors import NvauditError, OptionError
from nvaudit.files import holding_inputs
from nvaudit.mapping.mapping_file import mapping_data, write_mapping
from nvaudit.mapping.select import Decision, select
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import LoadedModel, Rebatch, analyse_batch, constants, load_model
from nvaudit.perturb.choose_codes import ChosenCodes
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.settle_codes import find_mapping, notes_on_codes, settle_codes
from nvaudit.report.inspection.result import InspectReport, inspect_report
from nvaudit.report.mapped import judge_share
from nvaudit.report.sections import InputHashes
from nvaudit.session import input_specs, settle_device
from nvaudit.spec import INSPECTED, RunSpec
from nvaudit.tensor_table import codes_info, inspect_rows


def inspect(spec: RunSpec, write_mapping_to: Path | None = None) -> InspectReport:
    """Decide for every initializer and constant whether it is mapped, and count products.

    Parameters
    ----------
    write_mapping_to : Path, optional
        Where the chosen codes go as a mapping file.

    Raises
    ------
    NvauditError
        If anything about the input is wrong, or there are no codes to write.
    """
    profile, points = settle_device(spec)
    with holding_inputs():
        loaded = load_model(spec.model)
        rebatch = analyse_batch(loaded.model)
        decisions = select(constants(loaded), spec.layers, spec.digital)
        spec, notes = find_mapping(spec, loaded)
        codes = settle_codes(spec, points, decisions)
        notes += notes_on_codes(codes, decisions)
        rows = inspect_rows(
            decisions,
            profile,
            Crossbar(*spec.crossbar),
            profile.weight_bits,
            profile.cell_bits,
            profile.encoding,
            codes,
        )
        coverage = _coverage(loaded, rebatch, decisions)
    if write_mapping_to is not None:
        _write_mapping(write_mapping_to, codes, loaded)
    rows = coverage.rows(rows)
    gate = judge_share(coverage.share, spec.require_mapped)
    return inspect_report(
        nvaudit_version=__version__,
        model={**loaded.facts(), "batching": rebatch.reason},
        device=profile.model_dump(mode="json"),
        hashes=InputHashes(model=loaded.digest, device=profile_digest(profile)),
        run={
            name: value
            for name, value in spec.model_dump(mode="json").items()
            if name in ("model", *INSPECTED)
        },
        ir_version=loaded.ir_version,
        crossbar=spec.crossbar,
        tensors=tuple(rows),
        mapped=coverage.share,
        mapped_gate=gate,
        codes=codes_info(codes, _sizes(decisions), spec.code or spec.mapping or ""),
        notes=tuple(notes),
    )


def _sizes(decisions: Sequence[Decision]) -> dict[str, int]:
    """Weights of each tensor on the array."""
    mapped = (decision.constant for decision in decisions if decision.mapped)
    return {constant.weight.key: constant.size for constant in mapped if constant.weight is not None}


def _write_mapping(path: Path, codes: ChosenCodes | None, loaded: LoadedModel) -> None:
    if codes is None or codes.point is None:
        raise OptionError("--write-mapping: there are no codes to write; give --code")
    data = mapping_data(
        codes.of,
        model_sha256=loaded.digest,
        device=codes.point.profile.name,
        sigma=codes.point.sigma,
        variance=tuple(codes.variance.tolist()),
    )
    write_mapping(path, data)


def _coverage(loaded: LoadedModel, rebatch: Rebatch, decisions: Sequence[Decision]) -> Coverage:
    """Count products on the declared sizes; where these do not say enough, on data, as an audit would.

    The data are those beside the model, or else made up. Without any that can be fed some stay uncounted.
    """
    coverage, more = declared_coverage(loaded, rebatch, decisions)
    if not more:
        return coverage
    try:
        with scratch_folder() as folder:
            specs = input_specs(loaded, rebatch)
            dataset = load_dataset(None, specs, model_path=loaded.path, limit=1, scratch=folder)
            return count_coverage(loaded, rebatch, decisions, dataset)
    except (NvauditError, MemoryError):  # a model fixed at more samples than fit cannot be fed either
        return coverage
