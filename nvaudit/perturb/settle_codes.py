"""Settle which code the weights of a run have: asked for, or from a mapping file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nvaudit.device import OperatingPoint
from nvaudit.errors import OptionError
from nvaudit.mapping.code_search import Conversion
from nvaudit.mapping.mapping_file import mapping_beside, read_mapping
from nvaudit.mapping.select import Decision
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import LoadedModel
from nvaudit.perturb.choose_codes import ChosenCodes, choose_codes, code_request, codes_of_file
from nvaudit.spec import RunSpec


def find_mapping(spec: RunSpec, loaded: LoadedModel) -> tuple[RunSpec, list[str]]:
    """Settle which mapping file holds: the one given, or that beside the model if it was made for it.

    Returns
    -------
    spec : RunSpec
        With the file that is used, and the share of digital outliers that it states.
    notes : list of str
        On a file that lies there and is not used.

    Raises
    ------
    OptionError
        If the given file was made for another model, or an option says otherwise than the file.
    """
    path = mapping_beside(loaded.path) if spec.mapping is None else Path(spec.mapping)
    if spec.mapping is None and (spec.code is not None or not path.is_file()):
        return spec, []
    if spec.mapping is not None and spec.code is not None:
        raise OptionError("--mapping and --code: choose one; the file has the codes of its weights")
    made_for = read_mapping(path)
    if made_for.model_sha256 != loaded.digest:
        which = f"SHA-256 {made_for.model_sha256[:12]}…, this one has {loaded.digest[:12]}…"
        if spec.mapping is not None:
            raise OptionError(f"--mapping: {path} was made for another model ({which}); make it anew")
        return spec, [f"{path} beside the model was made for another model ({which}) and is not used"]
    if spec.digital_outliers not in (None, made_for.digital_outliers):
        has = "none" if made_for.digital_outliers is None else f"{made_for.digital_outliers:g}"
        raise OptionError(
            f"--digital-outliers {spec.digital_outliers:g} and the mapping file {path}, which has {has}: its "
            "codes are for the weights that are left; leave the option out, or the file with --code slices"
        )
    return spec.model_copy(update={"mapping": str(path), "digital_outliers": made_for.digital_outliers}), []


def settle_codes(
    spec: RunSpec, points: Sequence[OperatingPoint], decisions: Sequence[Decision]
) -> ChosenCodes | None:
    """The code of every weight on the array; None: slices.

    Raises
    ------
    OptionError
        If options contradict each other, or what is asked cannot be had.
    """
    weights = [d.constant.weight for d in decisions if d.mapped and d.constant.weight is not None]
    of_file = None
    if spec.mapping is not None:
        of_file = codes_of_file(
            spec.mapping,
            weights,
            points,
            per_channel=spec.scale == "per_channel",
            conversion=conversion_of(spec),
        )
    if of_file is not None:
        for option, of_mapping in (
            ("--devices-per-weight", spec.devices_per_weight),
            ("--allocate", spec.allocate),
            ("--encoding", spec.encoding),
            ("--bits", spec.bits),
            ("--top-slice", spec.top_slice),
            ("--offset-zero", spec.offset_zero),
        ):
            if of_mapping is not None:
                raise OptionError(
                    f"{option} and the mapping file {spec.mapping}: choose one; the file has the codes, and "
                    "--code slices leaves it out"
                )
        return of_file
    asked = code_request(spec)
    if asked is None:
        return None
    return choose_codes(
        weights,
        points,
        asked,
        per_channel=spec.scale == "per_channel",
        size=Crossbar(*spec.crossbar),
        conversion=conversion_of(spec),
        outliers=spec.digital_outliers,
    )


def conversion_of(spec: RunSpec) -> Conversion | None:
    """The converters of a run, as far as codes depend on them; None: ideal ones."""
    if spec.adc_bits is None:
        return None
    return Conversion(spec.adc_bits, spec.crossbar[0], spec.adc_range)


def notes_on_codes(codes: ChosenCodes | None, decisions: Sequence[Decision]) -> list[str]:
    """Name the weights that a mapping file leaves to slices."""
    if codes is None:
        return []
    keys = [d.constant.weight.key for d in decisions if d.mapped and d.constant.weight is not None]
    plain = [key for key in keys if key not in codes.of]
    if not plain:
        return []
    return [
        f"{len(plain)} of {len(keys)} weights on the array are in no code of the mapping file and lie on "
        f"slices: {', '.join(plain[:3])}{', …' if len(plain) > 3 else ''}"
    ]
