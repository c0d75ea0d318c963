"""A device profile from what was programmed and what was read back, and whether it predicts the chips."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit._version import __version__
from nvaudit.device import DeviceProfile, dump_profile, fit_profile, load_profile, profile_digest
from nvaudit.device.fit_arrays import ArrayFit, fit_arrays
from nvaudit.device.fit_samples import FEWEST, CrossbarSample, Estimated
from nvaudit.device.fitted_profile import fitted_profile
from nvaudit.device.load import parse_profile
from nvaudit.errors import DataError, OptionError
from nvaudit.files import check_product, holding_inputs, write_text_atomic
from nvaudit.jobs.auditing import run_audit
from nvaudit.mapping.array_files import CONDUCTANCE, Arrays, find_arrays, read_arrays
from nvaudit.mapping.chip_files import (
    ChipSource,
    at_target,
    check_conductances,
    find_chips,
    is_of_arrays,
    readings_digest,
    refuse_same_chips,
    refuse_targets,
)
from nvaudit.mapping.manifest import Manifest, read_manifest
from nvaudit.perturb.schedule import Progress, labelled, quiet
from nvaudit.report.deployment.fit import (
    FitReport,
    FittedComponent,
    FittedLawRow,
    FittedLevel,
    FittedNumber,
    PredictedChip,
)
from nvaudit.report.sections import InputHashes
from nvaudit.report.wording import count_text
from nvaudit.spec import RunSpec
from nvaudit.stats.among_chips import among_chips

_LAWS = 12
"""Laws that a report lists."""


def read_by_fit(sources: Sequence[Path], places: Iterable[Path]) -> dict[str, Path]:
    """What a fit reads, by its name in words: tables, and what of ``places`` is a file of the arrays."""
    tables = {f"the measurements {path}": path for path in sources if path.is_file()}
    return tables | {
        f"{place.name} of {folder}": place
        for folder, place in product(sources, places)
        if folder.is_dir() and place.is_file() and is_of_arrays(folder, place)
    }


def fit_table(csv: Path, out: Path, *, name: str | None = None, **options: Any) -> DeviceProfile:
    """Make a profile from a table of levels, and write it.

    Parameters
    ----------
    csv, **options
        As of :func:`nvaudit.device.fit_profile`; None stands for its default.
    out : Path
        The profile.
    name : str, optional
        Of the profile; without it that of the file.

    Raises
    ------
    NvauditError
        If anything about the table is wrong, or the profile would be written over it.
    """
    check_product(out, read_by_fit([csv], [out]))
    given = {option: value for option, value in options.items() if value is not None}
    profile = fit_profile(csv, _named(name, out), **given)
    write_text_atomic(out, dump_profile(profile))
    return profile


def _named(name: str | None, out: Path) -> str:
    if name is not None and not name.strip():
        raise OptionError("--name: got ''; give the profile a name, or leave it out")
    return name or out.stem


def fit_chips(
    mapping: Path,
    measured: Sequence[Path],
    out: Path,
    *,
    name: str | None = None,
    trials: int | None = None,
    data: str | None = None,
    technology: str | None = None,
    citation: str | None = None,
    progress: Progress = quiet,
) -> FitReport:
    """Make a profile from a mapping and chips that were read back.

    Parameters
    ----------
    mapping : Path
        What ``nvaudit map`` wrote.
    measured : sequence of Path
        Folders of chips; those of a chip at several times have the same name, and a ``chip.json``.
    out : Path
        The profile.
    name : str, optional
        Of the profile; without it that of the file.
    trials : int, optional
        Chips that are simulated with the new profile, beside which the measured ones are placed.
    data : str, optional
        For that.

    Raises
    ------
    NvauditError
        If anything about the input is wrong.
    """
    begin = time.perf_counter()
    if data is not None and trials is None:
        raise OptionError("--data: only with --trials, whose chips are run on it; leave it out")
    name = _named(name, out)
    check_product(out, read_by_fit([mapping, *measured], [out]))
    manifest, samples, left_out = _read_back(mapping, measured, progress)
    profile = manifest.device
    cell_bits = profile.get("cell_bits")
    levels = None if cell_bits is None else 2 ** int(str(cell_bits))
    window = (manifest.window.min, manifest.window.max)
    progress("fitting", 0, 1)
    fit = fit_arrays(samples, manifest.tensors[0].top_level, window, levels, t0_s=_reference_time(profile))
    source = {
        "citation": citation or f"Fitted to chips of {', '.join(path.name for path in measured)}",
        "where": f"mapping of {Path(manifest.model.path).name}, model SHA-256 {manifest.model.sha256[:12]}",
        "fit": f"{fit.laws[0].name}, by cross-validation over {count_text(fit.crossbars, 'crossbar')}",
    }
    like = {**profile, **({} if technology is None else {"technology": technology})}
    made = fitted_profile(
        fit, like, name, size=manifest.crossbar, top_level=manifest.tensors[0].top_level, source=source
    )
    fitted = parse_profile(json.dumps(made), f"{out} as a profile")
    write_text_atomic(out, dump_profile(fitted))
    predicted = () if trials is None else _predict(manifest, measured, out, trials, data, progress)
    few = {int(one) for sample in samples for one in sample.level} - {one.level for one in fit.levels}
    if few:
        named = ", ".join(map(str, sorted(few)[:_LAWS])) + (", …" if len(few) > _LAWS else "")
        left_out.append(f"levels with fewer than {FEWEST} devices are not described: {named}")
    return _report(fit, manifest, mapping, measured, out, predicted, left_out, time.perf_counter() - begin)


def _read_back(
    mapping: Path, measured: Sequence[Path], progress: Progress
) -> tuple[Manifest, list[CrossbarSample], list[str]]:
    """Read a mapping and the devices of its chips; say what is left out, refuse what cannot be fitted."""
    with holding_inputs():
        manifest = read_manifest(mapping)
        if manifest.chips:
            raise DataError(
                f"{mapping}: these are chips; give the folder of targets that `nvaudit map` wrote first"
            )
        top = {entry.top_level for entry in manifest.tensors}
        if len(top) > 1:
            raise DataError(
                f"{mapping}: its tensors have devices of {' and '.join(map(str, sorted(top)))} levels; "
                "fit tensors of one kind: map with --layers"
            )
        sources = [source for folder in measured for source in find_chips(folder)]
        chips = [_samples(mapping, manifest, source, progress) for source in sources]
    samples = [sample for chip in chips for sample in chip]
    if not samples:
        raise DataError(
            f"{', '.join(map(str, measured))}: no device was measured, every conductance is NaN; give chips "
            "that were read back"
        )
    if _all_at_targets(samples, manifest):
        raise DataError(
            f"{', '.join(map(str, measured))}: every device holds its target exactly, so these are targets; "
            "give chips that were read back"
        )
    refuse_same_chips([
        (source.path, readings_digest(part for one in chip for part in (one.g, one.row, one.column)))
        for source, chip in zip(sources, chips, strict=True)
        if chip
    ])  # fmt: skip
    devices = len(sources) * sum(one.devices for entry in manifest.tensors for one in entry.crossbars)
    missing = devices - sum(len(sample.g) for sample in samples)
    notes = []
    if missing:
        notes.append(f"{missing:,} of {devices:,} devices were not measured (NaN), and are left out")
    return manifest, samples, notes


def _all_at_targets(samples: Sequence[CrossbarSample], manifest: Manifest) -> bool:
    """Whether every device holds its target, which no programmed device does."""
    low = manifest.window.min
    step = (manifest.window.max - low) / manifest.tensors[0].top_level
    return all(at_target(one.g, low + step * one.level, step).all() for one in samples)


def _reference_time(profile: dict[str, Any]) -> float | None:
    """The reference time of the drift in the profile of the mapping, if it has one."""
    terms = profile.get("noise") or []
    return next((float(term["t0_s"]) for term in terms if term.get("kind") == "drift"), None)


def _samples(
    mapping: Path, manifest: Manifest, source: ChipSource, progress: Progress
) -> list[CrossbarSample]:
    """The devices of one chip, crossbar by crossbar."""
    read, done = [], 0
    for entry in manifest.tensors:
        for crossbar in entry.crossbars:
            progress(f"reading {source.name}", done, manifest.crossbars)
            done += 1
            wanted, path = find_arrays(mapping / crossbar.file), source.crossbar(crossbar.file)
            if wanted is None:
                raise DataError(f"{mapping / crossbar.file}: is missing; map the model anew")
            if path is None:
                raise DataError(
                    f"{source.path}: lacks {crossbar.file}; add it, with NaN for what was not measured"
                )
            target = read_arrays(wanted, manifest.crossbar)
            read.append(_sample(path, source, crossbar.file, target, manifest))
    return [sample for sample in read if len(sample.g)]


def _sample(path: Path, source: ChipSource, name: str, target: Arrays, manifest: Manifest) -> CrossbarSample:
    arrays = read_arrays(path, manifest.crossbar)
    g = arrays.get(CONDUCTANCE)
    if g is None or g.shape[-2:] != manifest.crossbar or g.ndim not in (2, 3):
        raise DataError(
            f"{path}: needs {CONDUCTANCE!r} of shape {list(manifest.crossbar)}, or [reads, rows, columns]"
        )
    reads = np.asarray(g, np.float64).reshape(-1, *manifest.crossbar)
    used = np.asarray(target["used"] if "used" in target else ~np.isnan(target["level"]), np.bool_)
    window = (manifest.window.min, manifest.window.max)
    step = (window[1] - window[0]) / manifest.tensors[0].top_level
    wanted = np.where(used, window[0] + step * np.nan_to_num(np.asarray(target["level"], np.float64)), 0.0)
    check_conductances(path, np.where(used, reads, np.nan), wanted, used, window, step, manifest.window.unit)
    # A device that was never read has no mean: it is left out with those that are not in use.
    count = (~np.isnan(reads)).sum(axis=0)
    there = used & (count > 0)
    mean = np.where(np.isnan(reads), 0.0, reads).sum(axis=0) / np.maximum(count, 1)
    refuse_targets(path, arrays, at_target(mean, wanted, step), there)
    variance = None
    if len(reads) > 1:
        square = np.where(np.isnan(reads), 0.0, np.square(reads - mean)).sum(axis=0)
        variance = np.where(count > 1, square / np.maximum(count - 1, 1), np.nan)[there]
    row, column = np.nonzero(there)
    level = np.asarray(target["level"], np.float64)[there].astype(np.intp)
    return CrossbarSample(source.name, source.time_s, level, mean[there], row, column, variance, name)


def _predict(
    manifest: Manifest,
    measured: Sequence[Path],
    out: Path,
    trials: int,
    data: str | None,
    progress: Progress,
) -> tuple[PredictedChip, ...]:
    """Place the measured chips among chips of the new profile: the test of the whole model."""
    shared = {"data": data, "roughness": False, "workers": 0, "exhaustive": True}
    mapped = {**manifest.run, "model": manifest.model.path}
    predicted = run_audit(
        RunSpec.validated({**mapped, **shared, "device": str(out), "sigmas": (), "trials": trials}),
        labelled(progress, "with the new profile"),
    )
    values = np.array(predicted.trials.values, np.float64)
    placed = []
    for folder in measured:
        report = run_audit(
            RunSpec.validated({**mapped, **shared, "chip": str(folder), "trials": 1}),
            labelled(progress, str(folder)),
        )
        assert report.measured_chips is not None
        for chip in report.measured_chips.chips:
            found = among_chips(values, chip.value, predicted.metric_info.higher_is_better, 0.95)
            placed.append(
                PredictedChip(
                    name=chip.name,
                    metric=report.metric,
                    unit=report.metric_info.unit,
                    measured=chip.value,
                    mean=float(values.mean()),
                    std=float(values.std(ddof=1)) if trials > 1 else 0.0,
                    trials=trials,
                    percentile=100 * found.share,
                    percentile_low=100 * found.low,
                    percentile_high=100 * found.high,
                    outside=found.high < 0.025 or found.low > 0.975,
                )
            )
    return tuple(placed)


def _interval(one: Estimated) -> FittedNumber:
    return FittedNumber(value=one.value, low=one.low, high=one.high)


def _notes(fit: ArrayFit, predicted: Sequence[PredictedChip]) -> list[str]:
    """Say what was left out, and what the profile does not predict."""
    notes = [
        f"level {one.level}: {one.clipped:.1%} of its devices are at one value, to which conductances are "
        "limited; its law follows from the other levels"
        for one in fit.levels
        if one.clipped > 0.01
    ][:8]
    if fit.crossbars < 2:
        notes.append("one crossbar: laws are judged on rows of it that they were not fitted to")
    if fit.drift is not None:
        how = "as the profile of the mapping has it, or the first time: the times do not tell it"
        if (t0 := fit.drift.t0) is not None:
            how = f"fitted, {t0.low:.3g} … {t0.high:.3g} s"
        notes.append(f"drift is counted from t0 = {fit.drift.t0_s:.3g} s ({how})")
    misses = [chip.name for chip in predicted if chip.outside]
    if misses:
        notes.append(f"the profile does not predict {', '.join(misses)}: beyond 95 % of its own chips")
    return notes


def _report(
    fit: ArrayFit,
    manifest: Manifest,
    mapping: Path,
    measured: Sequence[Path],
    out: Path,
    predicted: tuple[PredictedChip, ...],
    left_out: Sequence[str],
    seconds: float,
) -> FitReport:
    law, profile = fit.laws[0], load_profile(out)
    what = f"{count_text(fit.devices, 'device')} of {count_text(fit.crossbars, 'crossbar')}"
    notes = [*left_out, *_notes(fit, predicted)]
    drift = fit.drift
    return FitReport(
        nvaudit_version=__version__,
        headline=f"{out}: {profile.name}, {law.name}, from {what}",
        device=profile.model_dump(mode="json"),
        hashes=InputHashes(model=manifest.model.sha256, device=profile_digest(profile)),
        timing={"total": seconds},
        notes=tuple(notes),
        mapping=str(mapping),
        measured=tuple(map(str, measured)),
        profile=str(out),
        unit=manifest.window.unit,
        chips=fit.chips,
        crossbars=fit.crossbars,
        devices=fit.devices,
        levels=tuple(
            FittedLevel(
                level=one.level, devices=one.devices, target=one.target, mean=_interval(one.mean),
                std=_interval(one.spread), skewness=one.skewness, distance=one.distance,
                p_normal=one.p_normal, clipped=one.clipped,
            )
            for one in fit.levels
        ),
        laws=tuple(
            FittedLawRow(
                name=one.name, parameters=one.size, score=one.score, behind=law.score - one.score,
                error=one.error,
            )
            for one in fit.laws[:_LAWS]
        ),
        components=tuple(
            FittedComponent.model_validate({"part": part, "std": _interval(one), "sure": one.low > 0})
            for part, one in fit.components.items()
        ),
        stuck_low=_interval(fit.stuck_low),
        stuck_high=_interval(fit.stuck_high),
        drift_mean=None if drift is None else _interval(drift.mean),
        drift_std=None if drift is None else _interval(drift.spread),
        drift_t0=None if drift is None or drift.t0 is None else _interval(drift.t0),
        times=() if drift is None else drift.times,
        read=fit.read is not None,
        predicted=predicted,
    )  # fmt: skip
