"""Harden a model without training: the same function on narrower ranges, written as an ordinary ONNX file."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit._version import __version__
from nvaudit.errors import EngineError, KeptError, ModelError, NvauditError, OptionError
from nvaudit.files import check_product, forget_input, holding_inputs, write_text_atomic, writing
from nvaudit.jobs.auditing import run_audit
from nvaudit.keywords import takes_old, takes_options
from nvaudit.mapping.code_search import Conversion
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.mapping_file import mapping_beside, mapping_data, read_mapping, write_mapping
from nvaudit.mapping.tiling import Crossbar, device_columns
from nvaudit.model import load_model
from nvaudit.model.regrid import with_numbers
from nvaudit.model.rescale.find import plan_scaling
from nvaudit.model.rescale.plan import Insert
from nvaudit.model.rewrite import write_model
from nvaudit.perturb.choose_codes import ChosenCodes, CodeRequest, choose_codes, code_request
from nvaudit.perturb.crossbar import ConverterSpec
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.lock import lock_folder
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.outcome import Probe
from nvaudit.perturb.record import open_record
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.stop import TimeLimit
from nvaudit.perturb.workload import Workload
from nvaudit.remapping.activations import activation_moments, activation_sizes, watched_axes
from nvaudit.remapping.bench import Bench, BenchConditions, ChipScores, OnCode, stored, subset
from nvaudit.remapping.choose import COSTS, RemapCandidate, RemapSearch
from nvaudit.remapping.finals import settle_finalists
from nvaudit.remapping.kept_scores import KeptScores
from nvaudit.remapping.limits import has_mean, noise_by_code, relative_spread
from nvaudit.remapping.program import RescalingBasis
from nvaudit.remapping.reporting import RemapOutcome, remap_report, with_audits
from nvaudit.remapping.round_weights import LATE
from nvaudit.remapping.spec import MAX_CLEAN_LOSS, NOISE_SHARE, RemapSpec, make_remap_spec
from nvaudit.remapping.time_budget import (
    PROBED,
    Clock,
    Cost,
    checked_samples,
    first_samples,
    fitted,
    read_sizes,
    tail_seconds,
    timed,
    write_sizes,
)
from nvaudit.report.remap.result import RemapReport
from nvaudit.report.result import AuditReport, boxed_together
from nvaudit.report.wording import count_text
from nvaudit.session import Session, check_converters, prepared, settle_metric
from nvaudit.spec import make_spec
from nvaudit.technology_options import TechnologyOptions, check_technology
from nvaudit.tensor_table import codes_info

WATCHED = 128
"""Samples on which activations are looked at."""

_INSERTS: dict[str, tuple[Insert, ...]] = {
    "absorb": (),
    "insert": ("columns",),
    "insert-both": ("columns", "both"),
}

_NO_COST = {name: field.default for name, field in TechnologyOptions.model_fields.items()}
"""While it is calibrated nothing is costed."""

_MARGIN = 0.9
"""Share of the time left that is planned with."""

_ROUNDING, _HALF_ROUNDING = 1e-3, 5e-2
"""Largest difference, relative to the largest output, that rescaling may make by rounding."""


@takes_old(output="out")
@takes_options(RemapSpec)
def remap(
    model: str | Path,
    device: str | Path = "rram",
    data: str | Path | None = None,
    *,
    out: str | Path,
    progress: Progress = quiet,
    **options: Any,
) -> RemapReport:
    """Write a model that computes the same, or nearly, and survives device noise better.

    Parameters
    ----------
    model : str or Path
        An ONNX file; it is not changed.
    device : str or Path
        Name of a bundled profile, or a profile file.
    data : str or Path, optional
        Data, as for an audit: a part of it calibrates, all of it audits.
    out : str or Path
        The ONNX file to write.
    progress : callable or bool
        Called with (what, done, total); True shows a bar.
    **options
        The fields of :class:`nvaudit.remapping.spec.RemapSpec`.

    Raises
    ------
    NvauditError
        If anything about the input is wrong, or a file cannot be written.
    """
    spec = make_remap_spec(model=model, device=device, data=data, **options)
    return run_remap(spec, out, progress)


@holding_inputs()
def run_remap(
    spec: RemapSpec, output: str | Path, progress: Progress = quiet, resume: Path | None = None
) -> RemapReport:
    """Run a specification; as :func:`remap`.

    Parameters
    ----------
    resume : Path, optional
        A folder that keeps what was found and the finished chips of the audits; made if it is missing.

    Raises
    ------
    KeptError
        If what it keeps is of another run.
    """
    with ExitStack() as stack:
        if resume is not None:
            stack.enter_context(lock_folder(resume))
        return _run(spec, Path(output), progress, resume)


def _run(spec: RemapSpec, output: Path, progress: Progress, folder: Path | None) -> RemapReport:
    limit = TimeLimit.of_run(spec.max_minutes)
    clock = Clock(0 if math.isinf(spec.calibration_s) else spec.calibration_s)
    inputs = {
        "the model": spec.model,
        "the data": Path(spec.model).with_suffix(".npz") if spec.data is None else spec.data,
        "the calibration data": spec.calibration_data,
        "the device profile": spec.device,
    }
    check_product(output, inputs)
    check_product(mapping_beside(output), {**inputs, "the mapping": spec.mapping})
    data = spec.data if spec.calibration_data is None else spec.calibration_data
    # Other chips and, without data, other inputs than the audit's: what is chosen must hold for new ones, and
    # the best of many candidates on some chips is better there than it is (it was chosen for its luck, too).
    # The model is prepared as it is mapped now; the code that is asked for is one of the steps.
    asked = code_request(make_spec(**spec.audit_options(data=data)))
    if asked is not None and spec.mapping is not None:
        raise OptionError("--mapping and --code: choose one; the file has the codes of all weights")
    # Without converters: the bench puts every candidate on crossbars of its own.
    check_converters(make_spec(**spec.audit_options(data=data)))
    check_technology(spec, spec.adc_bits, audited=True)
    if spec.technology is not None and not spec.trials:
        raise OptionError(
            "--technology: costs stand beside the audits, and --trials 0 has none; leave one out"
        )
    ideal: dict[str, Any] = {"adc_bits": None, "dac_bits": None, "adc_range": "max", **_NO_COST}
    if spec.calibration_data is not None:
        ideal |= {"labels": None, "label_column": None}  # --labels are of --data
    calibration = make_spec(**spec.audit_options(data=data, seed=spec.seed + 1, **_as_mapped(spec), **ideal))
    found = kept = None if folder is None else _kept(folder, spec, output)
    if found is None:
        outcome = prepared(
            calibration,
            progress,
            lambda session: _choose(spec, asked, session, output, progress, clock, folder),
        )
        seconds = time.perf_counter() - clock.begin
        found = remap_report(spec, outcome, output, load_model(output).digest, seconds)
        if folder is not None:
            write_text_atomic(folder / _FOUND, found.model_dump_json())
    if not spec.trials:
        return found
    begin = time.perf_counter()
    pair = _audits(spec, output, progress, folder, limit)
    made_up = found.label_free and pair[0].data.source == "synthetic"  # other samples than the audit's
    if kept is not None and not made_up and pair[0].hashes.data != found.hashes.data:
        raise KeptError(f"{folder}: keeps a remapping on other data; choose another folder")
    report = with_audits(found, spec, pair, time.perf_counter() - begin)
    boxed = boxed_together(limit.minutes, pair)
    if boxed is None:
        return report
    return report.model_copy(update={"time_boxed": boxed, "notes": (boxed.text, *report.notes)})


_CALIBRATION, _FOUND = "calibration", "remapping.json"
"""In a folder of ``--resume``: what candidates measured, and the report without its audits."""


def _kept(folder: Path, spec: RemapSpec, output: Path) -> RemapReport | None:
    """What an earlier run found, if its model still lies where it was written."""
    path = folder / _FOUND
    # Of other calibration data nothing is known but their name.
    if not path.is_file() or spec.calibration_data is not None:
        return None
    report = RemapReport.model_validate_json(path.read_bytes())
    # Workers have no influence, the size of batches is settled by the run, and times may grow.
    asked = spec.model_dump(mode="json", exclude={"workers", "batch_size", "max_minutes", "time_budget"})
    same = report.nvaudit_version == __version__
    same = same and all(name in report.run and report.run[name] == asked[name] for name in asked)
    if not same or report.hashes.model != load_model(spec.model).digest:
        raise KeptError(
            f"{folder}: keeps a remapping of another model, with other options or by another version; choose "
            "another folder"
        )
    if not output.is_file() or load_model(output).digest != report.hashes.output:
        return None
    reasons = (*report.not_tried, *(step.reason for step in report.steps))
    times = {name: report.run[name] for name in ("time_budget", "max_minutes")}
    more_time = spec.calibration_s > spec.model_copy(update=times).calibration_s
    if more_time and any(reason.endswith(LATE) for reason in reasons):
        return None  # there is time now for what there was none for
    return None if report.mapping is not None and not Path(report.mapping).is_file() else report


def _as_mapped(spec: RemapSpec) -> dict[str, Any]:
    """Options under which the given model is mapped as it was before: by slices, or by a file beside it."""
    plain = spec.code if spec.code == "slices" else None
    return {"code": plain, "devices_per_weight": None, "allocate": None}


def _choose(
    spec: RemapSpec,
    asked: CodeRequest | None,
    session: Session,
    output: Path,
    progress: Progress,
    clock: Clock,
    keeping: Path | None,
) -> RemapOutcome | Probe:
    """Find the best candidate and write it; the probe if re-batching turned out to change the outputs."""
    probe = Engine(first_samples(session.workload, PROBED)).probe()
    if session.rebatching_failed(probe):
        return probe
    given = _first_outputs(session.workload, probe)
    check_finite(session, given)
    metric = settle_metric(session, probe)
    with ExitStack() as stack:
        scores = None
        if keeping is not None:
            keeping = keeping / _CALIBRATION
            with writing(keeping):
                keeping.mkdir(exist_ok=True)
            scores = KeptScores(stack.enter_context(open_record(keeping, session.identity(metric))))
        original, cost = _original(spec, session, metric, clock, scores, keeping)
        return _search(spec, asked, session, given, original, cost, output, progress, clock)


def _search(
    spec: RemapSpec,
    asked: CodeRequest | None,
    session: Session,
    given: NDArray[np.float64],
    original: Bench,
    cost: Cost,
    output: Path,
    progress: Progress,
    clock: Clock,
) -> RemapOutcome:
    """Try every step, and write what is best."""
    folder, conditions = Path(session.workload.folder), original.conditions
    calibration = conditions.dataset
    seen = activation_sizes(session.loaded, calibration, session.rebatch, spec.provider)
    layers = plan_scaling(session.loaded.model, list(original.values), seen=seen).layers
    moments = activation_moments(
        session.loaded, calibration, watched_axes(layers), WATCHED, session.rebatch, spec.provider
    )
    basis = RescalingBasis(session.loaded, original.held, seen, moments)
    room_s = _MARGIN * clock.left_s - tail_seconds(cost, session.dataset.count)
    search = RemapSearch(
        basis, original, folder, lambda measured: _allowed(spec, measured, conditions.metric), progress,
        deadline=time.perf_counter() + room_s,
    )  # fmt: skip
    spread = relative_spread(original)
    _take_steps(search, spec, asked, session, spread)
    offered = None if asked or spec.code else _offered_code(search, session)
    checked = checked_samples(cost, session.dataset.count, clock.left_s)
    best = _that_holds(search, session, checked)
    error = _write(best, session, given, output)
    if conditions.scores is not None and conditions.scores.found:
        session.notes.append(
            f"{conditions.scores.found:,} scores of the calibration's chips are those of a run before, which "
            "was ended early"
        )
    return RemapOutcome(
        search=search,
        best=best,
        spread=spread,
        metric=conditions.metric,
        point=session.points[0],
        label_free=session.dataset.label_kind == "none",
        samples=session.dataset.count,
        checked=checked,
        calibrated=conditions.dataset.count,
        source=session.dataset.source,
        header=session.header(),
        batch_size=session.spec.batch_size,
        error=error,
        notes=tuple(session.notes),
        offered=offered,
        noise_by_code=_noise_by_code(search, best) if session.codes is None else {},
        codes=codes_info(
            best.bench.codes,
            {key: values.size for key, values in best.bench.values.items()},
            spec.code or session.spec.mapping or "",
        ),
    )


def _noise_by_code(search: RemapSearch, best: RemapCandidate) -> dict[str, float]:
    """Noise of each weight on its code relative to slices; as calculated where no chip was run on it."""
    codes = best.bench.codes
    if best is not search.calculated or codes is None or codes.slices is None:
        return noise_by_code(best.bench)
    return {key: error.noise / codes.slices.error.noise for key, error in codes.errors.items()}


def _take_steps(
    search: RemapSearch,
    spec: RemapSpec,
    asked: CodeRequest | None,
    session: Session,
    spread: dict[str, float],
) -> None:
    """Try every step that is asked for, each on what the ones before it gave."""
    search.structures(_INSERTS[spec.digital_scale], spec.equalise)
    if asked is not None:
        _give_codes(search, asked, session)
    if search.calculated is not None:  # no further step can be measured
        return
    # A mean shift adds up over the inputs of a layer, where a spread averages: where it matters means are
    # corrected first, and rounding and clipping are judged by what is left.
    shifted = spec.recalibrate and has_mean(search.original)
    if shifted:  # what pays most comes first
        search.corrections(search.basis.seen)
    if spec.rounding:
        search.roundings(WATCHED)
    if spec.clip:
        search.clippings(spread, spec.equalise)
    if spec.recalibrate and not shifted:
        search.corrections(search.basis.seen)
    settle_finalists(search)


def _give_codes(search: RemapSearch, asked: CodeRequest, session: Session) -> None:
    """One code for all layers, then codes by layers, as far as they are asked for."""
    size, how = Crossbar(*session.spec.crossbar), search.conditions.converters

    def choose(request: CodeRequest, bench: Bench, importance: Mapping[str, float] | None) -> ChosenCodes:
        return choose_codes(
            list(bench.weights.values()),
            session.points,
            request,
            per_channel=bench.conditions.per_channel,
            size=size,
            importance=importance,
            conversion=None if how is None else Conversion(how.adc_bits, how.rows, how.method),
            outliers=bench.conditions.outliers,
        )

    alike = replace(asked, allocate=None)
    slices = layout(session.profile, bits=session.profile.weight_bits)
    too_many = asked.devices is not None and asked.devices < device_columns(slices)
    required = asked.significances is not None or too_many
    pairs = 2 if session.profile.encoding == "differential" else 1
    calculated = not required and not search.room_for_code()  # then one code is enough to choose
    if asked.allocate is None or (not calculated and (asked.devices is None or asked.devices % pairs == 0)):
        search.codes(partial(choose, alike), required=required)
    if asked.allocate is not None:
        search.codes(partial(choose, asked), required=required and search.required is None, images=WATCHED)


def _offered_code(search: RemapSearch, session: Session) -> RemapCandidate | None:
    """What a code would give on as many devices; None where there is no time for it, or no choice."""
    if session.codes is not None or session.profile.cell_bits is None or not search.room_for_code():
        return None
    # What was tried and refused is copied: what is only offered must not become a candidate for the result.
    aside = replace(search, tried=list(search.tried), untried=[], refused=dict(search.refused))
    try:
        _give_codes(aside, CodeRequest(None), session)
    except OptionError:  # more bits than a code can have
        return None
    return aside.tried[-1] if len(aside.tried) > len(search.tried) else None


def _original(
    spec: RemapSpec,
    session: Session,
    metric: Metric,
    clock: Clock,
    scores: KeptScores | None,
    keeping: Path | None,
) -> tuple[Bench, Cost]:
    """Set the original up on as many images and chips as fit into the time; and what a chip takes."""
    folder = Path(session.workload.folder)
    conditions = replace(_conditions(spec, session, metric), scores=scores)
    # On other sizes than before nothing that was measured could be used.
    before = None if keeping is None else read_sizes(keeping, spec)
    if before is not None:
        samples, chips, cost = before
        dataset = subset(conditions.dataset, min(samples, conditions.dataset.count), spec.seed)
        return _bench(session, replace(conditions, dataset=dataset, chips=chips), folder / "original"), cost
    bench = _bench(session, conditions, folder / "timed")
    cost = timed(bench)
    room_s = _MARGIN * clock.left_s - tail_seconds(cost, session.dataset.count)
    fits = fitted(conditions, cost, room_s, spec.seed)
    if keeping is not None:
        write_sizes(keeping, spec, fits, cost)
    return (bench if fits is conditions else _bench(session, fits, folder / "original")), cost


def _bench(session: Session, conditions: BenchConditions, folder: Path) -> Bench:
    """Set the original up; its outputs are kept where the metric compares with them."""
    bench = Bench(session.loaded, conditions, folder, session.codes)
    if conditions.metric.against == "nominal":
        keep = str(folder / "nominal.npy")
        Engine(bench.workload).nominal(conditions.metric, keep, bench.workload.ideal)
        bench.conditions = replace(conditions, keep=keep)
    return bench


def _conditions(spec: RemapSpec, session: Session, metric: Metric) -> BenchConditions:
    profile, work = session.profile, session.workload
    return BenchConditions(
        point=session.points[0],
        bits=profile.weight_bits,
        cell_bits=profile.cell_bits,
        encoding=profile.encoding,
        per_channel=spec.scale == "per_channel",
        layers=spec.layers,
        digital=spec.digital,
        outliers=session.spec.digital_outliers,
        dataset=subset(session.dataset, spec.calibration_images, spec.seed),
        output=work.output,
        metric=metric,
        keep=None,
        batch=session.batch,
        seed=session.spec.seed,
        chips=spec.calibration_chips,
        threads=max(1, spec.workers),
        provider=spec.provider,
        converters=None
        if spec.adc_bits is None
        else ConverterSpec(*spec.crossbar, spec.adc_bits, spec.dac_bits, spec.adc_range),
        boxes=work.boxes,
        beside=work.beside,
    )


def check_finite(session: Session, outputs: NDArray[np.float64]) -> None:
    """Refuse a model whose outputs overflow: nothing can be compared with them.

    Raises
    ------
    ModelError
    """
    if not np.isfinite(outputs).all():
        raise ModelError(
            f"{session.loaded.path}: output {session.workload.output!r} of the given model is NaN or "
            "infinite on the data, so no remapped model can be compared with it; check the scale of weights "
            "and data"
        )


def _allowed(spec: RemapSpec, first: ChipScores, metric: Metric) -> float:
    """Nominal loss that is allowed.

    Where the user does not say, as much as a share of what noise costs: a point is cheap that brings thirty.
    Of a metric that is no fraction the limit is relative.
    """
    noise = first.sign * (first.nominal - first.mean)
    scale = 1.0 if metric.unit == "fraction" else max(abs(first.nominal), abs(noise))
    if spec.max_clean_loss is not None:
        return spec.max_clean_loss * scale
    return max(MAX_CLEAN_LOSS * scale, NOISE_SHARE * noise if np.isfinite(noise) else 0.0)


def _that_holds(search: RemapSearch, session: Session, checked: int) -> RemapCandidate:
    """The best candidate whose nominal loss is allowed on more samples than the calibration images."""
    best, original = search.best(), search.tried[0]
    if best is original or not best.changes_function:
        return best
    samples = replace(
        search.conditions, dataset=subset(session.dataset, checked, session.spec.seed), keep=None
    )
    bench = _bench(session, samples, search.folder / "checked")
    keep = bench.conditions.keep
    before = original.bench.nominal({}, bench.workload, keep)
    while True:
        best = search.best()
        if best is original or not best.changes_function:
            return best
        # The calibration images chose the candidate, and so flatter it: whether its loss is allowed is
        # asked on other samples.
        after = best.bench.nominal(best.arrays(), bench.workload, keep)
        lost = best.measured.sign * (before - after)
        if lost <= search.allowed:
            return best
        search.refused[best.name] = f"{COSTS} on {count_text(checked, 'sample')}"
        search.more_cautious(best)


def _first_outputs(workload: Workload, probe: Probe | None = None) -> NDArray[np.float64]:
    """The first outputs as the model gives them: which boxes are read from them may turn on a rounding."""
    if probe is None or workload.boxes is not None:
        probe = Engine(replace(first_samples(workload, PROBED), boxes=None)).probe()
    return np.asarray(probe.output, np.float64)


def _write(best: RemapCandidate, session: Session, given: NDArray[np.float64], output: Path) -> float:
    """Write a candidate, read it back and compare it with the original; the largest relative difference."""
    arrays = {key: stored(new) if isinstance(new, OnCode) else new for key, new in best.arrays().items()}
    write_model(with_numbers(best.rescaling.loaded, arrays), output)
    back = load_model(output, session.spec.seed)
    folder = Path(session.workload.folder) / "written"
    bench = Bench(back, best.bench.conditions, folder)
    if set(bench.values) != set(best.bench.values):
        missing = sorted(set(best.bench.values) ^ set(bench.values))
        raise EngineError(f"{output}: written, but its weights have other names: {', '.join(missing[:5])}")
    samples = first_samples(session.workload, PROBED)
    workload = replace(
        bench.workload,
        inputs=samples.inputs,
        labels=samples.labels,
        count=samples.count,
    )
    now = _first_outputs(workload)
    error = float(np.abs(now - given).max(initial=0.0) / max(float(np.abs(given).max(initial=0.0)), 1e-30))
    half = any(values.dtype.itemsize < 4 for values in bench.values.values())
    if not best.changes_function and not error <= (_HALF_ROUNDING if half else _ROUNDING):
        forget_input(output)
        output.unlink()
        raise EngineError(
            f"{output}: rescaling moved the outputs by {error:.1e} of their range, more than rounding does; "
            "nothing was written: --no-equalise rescales nothing"
        )
    try:
        _write_codes(best, session, output, back.digest)
    except NvauditError:
        forget_input(output)
        output.unlink()
        raise
    return error


def _write_codes(best: RemapCandidate, session: Session, output: Path, digest: str) -> None:
    """Write the mapping file beside a model; where it needs none, one of a model that lay there goes."""
    path, codes = mapping_beside(output), best.bench.codes
    outliers = best.bench.conditions.outliers
    if codes is None and outliers is None:
        path.unlink(missing_ok=True)
        return
    rounded = {key for key, new in best.arrays().items() if isinstance(new, OnCode)}
    point = session.points[0]
    data = mapping_data(
        {} if codes is None else codes.of,
        model_sha256=digest,
        device=point.profile.name,
        sigma=point.sigma,
        variance=() if codes is None else tuple(codes.rounded_by.tolist()),
        nearest=() if codes is None else codes.nearest | rounded,
        digital_outliers=outliers,
    )
    write_mapping(path, data)


def _audits(
    spec: RemapSpec, output: Path, progress: Progress, folder: Path | None, limit: TimeLimit
) -> tuple[AuditReport, AuditReport]:
    """The same chips before and after, each on every sample."""
    # Of each model a folder of its own: with more time another one may be found.
    of_model = f"remapped-{load_model(output).digest[:12]}"
    places = [None if folder is None else folder / name for name in ("given", of_model)]
    options = spec.audit_options(exhaustive=True, trials=spec.trials, max_minutes=limit.share(0.5))
    if spec.data is None and Path(spec.model).with_suffix(".npz").is_file():
        options["data"] = str(Path(spec.model).with_suffix(".npz"))
    before = run_audit(make_spec(**{**options, **_as_mapped(spec)}), progress, places[0])
    path, after = mapping_beside(output), {"mapping": None, **_as_mapped(spec)}
    if path.is_file():  # it is found by itself
        after |= {"code": None} | ({"encoding": None} if read_mapping(path).codes else {})
    spec_after = make_spec(**{**options, **after, "model": str(output), "max_minutes": limit.share()})
    return before, run_audit(spec_after, progress, places[1])
