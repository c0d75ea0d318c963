"""What an audit settles before anything runs: model, device, data, metric, files for the workers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nvaudit._version import __version__
from nvaudit.arrays import Array
from nvaudit.data import Dataset, InputSpec, LabelRules, label_rules, load_dataset
from nvaudit.data.split import first_of, set_aside, unseen
from nvaudit.device import (
    ADDED_TERMS,
    DeviceProfile,
    OperatingPoint,
    add_terms,
    load_profile,
    operating_point,
    override_profile,
    profile_digest,
)
from nvaudit.errors import DataError, ModelError, OptionError
from nvaudit.files import holding_inputs, read_noted
from nvaudit.mapping.chip_files import read_several_times
from nvaudit.mapping.mapping_file import mapping_beside
from nvaudit.mapping.select import Decision, select
from nvaudit.model import (
    LoadedModel,
    Rebatch,
    analyse_batch,
    cannot_be_scored,
    class_list,
    constants,
    load_model,
    output_facts,
    scoreable_outputs,
    scores_beside_label,
)
from nvaudit.model.runtime import runtime
from nvaudit.options import DeviceOptions
from nvaudit.perturb.apart import BATCH, settle_cut
from nvaudit.perturb.choose_codes import ChosenCodes
from nvaudit.perturb.crossbar import ConverterSpec, CrossbarRun, put_on_crossbars
from nvaudit.perturb.metrics import Metric, Reading, check_drop, check_threshold, resolve_metric
from nvaudit.perturb.outcome import Outcome, Probe
from nvaudit.perturb.own_metric import metric_digest
from nvaudit.perturb.pools import WorkloadPool, open_pool
from nvaudit.perturb.prepare import Placement, Request, build_workload, original_batch
from nvaudit.perturb.providers import Ran
from nvaudit.perturb.reading import read_output
from nvaudit.perturb.record import Identity, Input
from nvaudit.perturb.scores import try_function
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.settle_codes import find_mapping, notes_on_codes, settle_codes
from nvaudit.perturb.task import box_outputs, box_reader, check_task, reads_boxes, with_alphabet
from nvaudit.perturb.workers import Pool
from nvaudit.perturb.workload import Workload
from nvaudit.report.codes import CodesInfo
from nvaudit.report.sections import OperatingPointInfo
from nvaudit.rng import stream
from nvaudit.sharing import shared, shared_pool
from nvaudit.spec import RunSpec
from nvaudit.task_options import TaskOptions
from nvaudit.tensor_table import codes_info

Result = TypeVar("Result")

REBATCH_TOLERANCE = 1e-3
"""Largest difference, relative to the largest output, that re-batching may make by rounding."""


def point_info(point: OperatingPoint) -> OperatingPointInfo:
    """What a report says of an operating point."""
    return OperatingPointInfo(
        sigma=point.sigma, sigma_unit=point.sigma_unit, level_of=point.level_of, time_s=point.time_s,
        terms=tuple(term.name for term in point.terms),
    )  # fmt: skip


@dataclass
class Session:
    """What an audit has settled so far."""

    spec: RunSpec
    loaded: LoadedModel
    profile: DeviceProfile
    points: tuple[OperatingPoint, ...]
    decisions: tuple[Decision, ...]
    rebatch: Rebatch
    dataset: Dataset
    workload: Workload
    notes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)
    crossbar: CrossbarRun | None = None
    codes: ChosenCodes | None = None
    ran: Ran | None = None
    calibration: Dataset | None = None  # samples that each chip is corrected by; they are not scored

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add up the seconds of a phase."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.timing[what] = self.timing.get(what, 0.0) + time.perf_counter() - begin

    def runtime(self) -> dict[str, Any] | None:
        """What a report says of what the samples ran on; None before anything ran."""
        return None if self.ran is None else asdict(self.ran)

    def hashes(self) -> dict[str, str | None]:
        """SHA-256 of model, data, device and mapping file; None without such a file."""
        path = self.spec.mapping
        return {
            "model": self.loaded.digest,
            "data": self.dataset.digest,
            "device": profile_digest(self.profile),
            "mapping": None if path is None else hashlib.sha256(read_noted(Path(path))).hexdigest(),
        }

    def codes_info(self) -> CodesInfo | None:
        """What a report says of the codes of weights; None where they are slices."""
        sizes = {tensor.key: tensor.code.open().size for tensor in self.workload.tensors}
        return codes_info(self.codes, sizes, self.spec.code or self.spec.mapping or "")

    def header(self) -> dict[str, Any]:
        """What every report says of a session: fields of :class:`nvaudit.report.header.Header`."""
        point = self.points[0]
        return {
            "nvaudit_version": __version__,
            "model": {**self.loaded.facts(), "batching": self._batching()},
            "device": self.profile.model_dump(mode="json"),
            "operating_point": point_info(point),
            "codes": self.codes_info(),
            "runtime": self.runtime(),
            "hashes": self.hashes(),
            "timing": self.timing,
            "events": tuple(self.events),
        }

    def _batching(self) -> str:
        """How samples are put together, in words."""
        reason, batch = self.rebatch.reason, self.workload.batch
        if self.crossbar is None or batch == self.crossbar.plain.batch:
            return reason
        return f"{reason}; {batch} at a time, for the size of the column sums"

    def identity(self, metric: Metric) -> Identity:
        """Everything that the values of the chips depend on."""
        names = {
            "model": str(self.loaded.path),
            "data": self.dataset.source,
            "device": self.profile.name,
            "mapping": self.spec.mapping or "",
        }
        inputs = {
            what: Input(name=names[what], sha256=digest)
            for what, digest in self.hashes().items()
            if digest is not None
        }
        if metric.kind == "function":
            # The user's function decides every value of a chip, so a record of chips is of this text of it.
            inputs["metric"] = Input(name=metric.name, sha256=metric_digest(metric.name))
        if metric.alphabet:
            content = hashlib.sha256("\n".join(metric.alphabet).encode()).hexdigest()
            inputs["alphabet"] = Input(name=self.spec.alphabet or "", sha256=content)
        versions = {"nvaudit": __version__, "numpy": np.__version__, "onnxruntime": runtime().__version__}
        return Identity(inputs=inputs, options=self.spec.chip_options(), versions=versions)

    def pool(self) -> Pool:
        """Open what runs the calls, or what several runs share."""
        spec, work = self.spec, self.workload
        common = shared_pool()
        if common is not None:
            return WorkloadPool(common, work)
        return open_pool(spec.workers, spec.dask, work, work.folder, self.events.append)

    def ideal_key(self, what: str, metric: Metric) -> tuple[Any, ...] | None:
        """What a result of the unmodified model depends on; None where a run needs its own file of them."""
        spec, work = self.spec, self.workload
        scored = (
            self.loaded.digest,
            self.dataset.digest,
            self.dataset.count,
            spec.limit,
            spec.calibrate_chips,
        )
        how = (
            work.output,
            work.boxes,
            work.beside,
            self.batch,
            self.rebatch.status,
            spec.provider,
            spec.seed,
        )
        return None if self.reference_file(metric) is not None else (what, metric, *scored, *how)

    def rebatching_failed(self, probe: Probe) -> bool:
        """Whether re-batching moved the outputs by more than rounding."""
        return probe.rebatch_error is not None and probe.rebatch_error > REBATCH_TOLERANCE

    @property
    def batch(self) -> int:
        """Samples that run at a time, crossbars with converters apart."""
        return self.workload.batch if self.crossbar is None else self.crossbar.plain.batch

    def reference_file(self, metric: Metric) -> str | None:
        """Where the nominal outputs are kept that a metric compares with, if it does."""
        return str(Path(self.workload.folder) / "nominal.npy") if metric.against == "nominal" else None


FILE_FIELDS = (
    "labels",
    "alphabet",
    "mapping",
    "calibrate_data",
    "baseline_report",
    "calibration_data",
    "chip",
    "val_data",
    "test_data",
)
"""Fields of specifications that name a further file to read."""


def input_files(spec: Any) -> dict[str, Path]:
    """What a specification reads, by its name in words: no output may be one of these files."""
    model = Path(spec.model)
    inputs = {
        "the model": model,
        "the data": model.with_suffix(".npz") if spec.data is None else Path(spec.data),
    }
    if hasattr(spec, "device"):
        inputs["the device profile"] = Path(spec.device)
    if hasattr(spec, "mapping"):
        inputs["the mapping file"] = mapping_beside(model)
    given = {name: getattr(spec, name, None) for name in FILE_FIELDS}
    return inputs | {spec.flag(name): Path(path) for name, path in given.items() if path is not None}


def settle_device(spec: RunSpec) -> tuple[DeviceProfile, tuple[OperatingPoint, ...]]:
    """Profile and operating points of a run."""
    profile = load_profile(spec.device)
    given = (spec.cell_bits, spec.bits, spec.encoding, spec.top_slice, spec.offset_zero)
    if any(value is not None for value in given):
        profile = override_profile(
            profile,
            cell_bits=spec.cell_bits,
            weight_bits=spec.bits,
            encoding=spec.encoding,
            top_slice=spec.top_slice,
            offset_zero=spec.offset_zero,
        )
    if spec.offset_zero is not None and (profile.encoding != "offset" or profile.cell_bits is None):
        raise OptionError(
            "--offset-zero is for slices of --encoding offset on devices of whole bits; leave it out"
        )
    own = {
        name: getattr(spec, name) for name in DeviceOptions.model_fields if name not in ("device", "sigmas")
    }
    profile = add_terms(profile, **{name: own.pop(name) for name in ADDED_TERMS})
    sigmas: Sequence[float | None] = spec.sigmas or (None,)
    return profile, tuple(operating_point(profile, sigma, **own) for sigma in sigmas)


def settle_placement(spec: RunSpec, profile: DeviceProfile, codes: ChosenCodes | None) -> Placement:
    """How weights are put on the array."""
    return Placement(
        profile.weight_bits, profile.cell_bits, profile.encoding, spec.scale == "per_channel",
        spec.crossbar[0] if spec.skip_zero_groups else None,
        codes, spec.digital_outliers,
    )  # fmt: skip


def load_runnable(path: str | Path, seed: int) -> LoadedModel:
    """Read a model that is to be run; what it draws at random follows the seed.

    Raises
    ------
    ModelError
        As :func:`load_model`, and if ONNX Runtime has no operator for one of its nodes.
    """
    loaded = load_model(path, seed)
    if loaded.obstacle is not None:
        raise ModelError(loaded.obstacle)
    return loaded


def settle_output(loaded: LoadedModel, wanted: str | None) -> tuple[str, list[str]]:
    """Which output is scored, and a note where that was our choice.

    Parameters
    ----------
    wanted : str or None
        As given by the user. None: the scores of a classifier whose first output is its label, else the
        first output.

    Raises
    ------
    ModelError, OptionError
        If there is no such output, or no metric can read it: with those that some can.
    """
    names = [output.name for output in loaded.outputs]
    if not names:
        raise ModelError(f"{loaded.path}: the model has no outputs")
    if wanted is not None:
        if wanted not in names:
            raise OptionError(f"--output-name {wanted!r} is not an output; the model has {', '.join(names)}")
        _check_output(loaded, names.index(wanted))
        return wanted, []
    if len(names) == 1:
        _check_output(loaded, 0)
        return names[0], []
    scores = scores_beside_label(loaded)
    if scores is not None:
        why = f"the class scores beside the label '{names[0]}'; choose with --output-name"
        return scores, [f"the model has {len(names)} outputs; scored: '{scores}' ({why})"]
    _check_output(loaded, 0, chosen=False)
    return names[0], [f"the model has {len(names)} outputs; scored: '{names[0]}' (choose with --output-name)"]


def _check_output(loaded: LoadedModel, index: int, *, chosen: bool = True) -> None:
    """Refuse an output that no metric can read, and name those that some can."""
    spec, usable = loaded.outputs[index], scoreable_outputs(loaded)
    what = cannot_be_scored(loaded, spec)
    if what is None and (chosen or spec.name in usable or not usable):
        return  # an output of varying length may after all not vary on these samples
    what = what or "of another length for each sample (it is what was found in it)"
    others = [name for name in usable if name != spec.name]
    cure = f"choose one that can with --output-name: {', '.join(others)}"
    if not others:
        cure = "the model has no other that can; export it with its scores as an output"
    raise OptionError(f"output {spec.name!r} is {what} and cannot be scored; {cure}")


def rules_for(
    loaded: LoadedModel, output: str, metric: str | None, ignore: tuple[int, ...], task: TaskOptions
) -> LabelRules:
    """How labels are to be taken: by the metric, and by the model's own list of its classes.

    Parameters
    ----------
    output : str
        The scored one: where it holds decisions, these are the classes' own numbers already.
    task : TaskOptions
        Where labels are, and what they mean.
    """
    check_task(metric, task)
    own = class_list(loaded)
    facts = output_facts(loaded, output, 2)
    decided = facts.decisions and facts.one_hot_axis is None  # a one-hot's places are numbered from 0
    numbers = () if decided else own.numbers
    return label_rules(
        metric, ignore, names=own.names, numbers=numbers, decided=decided,
        file=task.labels, column=task.label_column, kind=task.label_kind,
    )  # fmt: skip


def input_specs(loaded: LoadedModel, rebatch: Rebatch) -> tuple[InputSpec, ...]:
    """What the data must provide."""
    return tuple(
        InputSpec(spec.name, spec.dtype, spec.shape, rebatch.batch_axes.get(spec.name))
        for spec in loaded.inputs
    )


def prepare(spec: RunSpec, folder: Path, *, rebatching: bool = True) -> Session:
    """Read everything, decide everything, and write the workload; nothing has run yet."""
    check_converters(spec)
    profile, points = settle_device(spec)
    loaded = shared(("model", spec.model, spec.seed), lambda: load_runnable(spec.model, spec.seed))
    spec, mapping_notes = find_mapping(spec, loaded)
    check_converters(spec)  # once more: the file may have digital outliers
    rebatch = analyse_batch(loaded.model)
    # Second attempt: the rule-based rewrite to a free batch size turned out to change outputs, so the model
    # runs with the batch that it was exported with.
    if rebatch.status == "rebatched" and not rebatching:
        rebatch = replace(rebatch, status="fixed", fixed_batch=original_batch(loaded, rebatch))
    detects = reads_boxes(spec.metric, spec)
    if detects:
        (output, *beside), notes = box_outputs(loaded, spec.output_name), list[str]()
    else:
        (output, notes), beside = settle_output(loaded, spec.output_name), []
    decisions = select(constants(loaded), spec.layers, spec.digital)
    if not any(d.mapped for d in decisions):
        raise ModelError(
            f"{loaded.path}: no tensor would be mapped to the array, so there is nothing to audit; "
            "`nvaudit inspect` lists every tensor with its reason"
        )
    rules = rules_for(loaded, output, spec.metric, spec.ignore_labels, spec)
    dataset, calibration = _load_data(spec, loaded, rebatch, rules, folder)
    cut = settle_cut(loaded, rebatch, dataset, output, spec.batch_size, spec.provider)
    rebatch, dataset = cut.rebatch, cut.dataset
    notes += [*mapping_notes, *cut.notes]
    if spec.batch_size is None:  # what is reported, and run again by `replay`, is what was run
        spec = spec.model_copy(update={"batch_size": cut.batch if dataset.together else BATCH})
    codes = settle_codes(spec, points, decisions)
    notes += notes_on_codes(codes, decisions)
    request = Request(
        loaded=loaded,
        rebatch=rebatch,
        decisions=decisions,
        points=points,
        how=settle_placement(spec, profile, codes),
        dataset=dataset,
        output=output,
        batch=cut.batch,
        seed=spec.seed,
        every_device=spec.every_device,
        provider=spec.provider,
        all_read=spec.chip is not None and read_several_times(Path(spec.chip)),
        boxes=box_reader(spec, dataset) if detects else None,
        beside=tuple(beside),
    )
    workload = build_workload(request, folder)
    notes += loaded.notes
    session = Session(
        spec, loaded, profile, points, decisions, rebatch, dataset, workload, notes, codes=codes
    )
    session.calibration = calibration
    if spec.adc_bits is not None:
        how = ConverterSpec(*spec.crossbar, spec.adc_bits, spec.dac_bits, spec.adc_range)
        with session.timed("calibrate"):
            session.crossbar = put_on_crossbars(request, workload, how, folder)
        session.workload = session.crossbar.workload
    return session


def _load_data(
    spec: RunSpec, loaded: LoadedModel, rebatch: Rebatch, rules: LabelRules, folder: Path
) -> tuple[Dataset, Dataset | None]:
    """The samples that are scored, and those that each chip is corrected by."""
    given, count = input_specs(loaded, rebatch), spec.calibrate_chips
    own = count if count is not None and spec.calibrate_data is None else 0  # taken from the data

    def load(path: str | None, limit: int | None, scratch: Path) -> Dataset:
        place = None if path is None else Path(path)
        how = rules if path == spec.data else replace(rules, file=None)  # --labels are of --data
        return load_dataset(
            place, given, model_path=loaded.path, limit=limit, seed=spec.seed, scratch=scratch, rules=how
        )

    dataset = load(spec.data, None if spec.limit is None else spec.limit + own, folder)
    if count is None:
        return dataset, None
    if spec.calibrate_data is None:
        return set_aside(dataset, count, spec.seed, folder)
    other = folder / "calibration"
    other.mkdir()
    calibration = load(spec.calibrate_data, None, other)
    others = unseen(calibration, dataset)
    if not len(others):
        raise OptionError(
            f"--calibrate-data {spec.calibrate_data}: these are the samples that are scored; give others, or "
            "leave it out: then samples of --data are set aside"
        )
    if len(others) < count:
        scored = calibration.count - len(others)
        raise DataError(
            f"{spec.calibrate_data}: has {calibration.count} samples"
            + (f", of which {scored} are scored" if scored else "")
            + f"; --calibrate-chips {count} wants more"
        )
    chosen = others[stream(spec.seed, "calibration samples").choice(len(others), count, replace=False)]
    return dataset, first_of(calibration, np.sort(chosen))


def prepare_again(session: Session, probe: Probe) -> Session:
    """Prepare once more without re-batching, which turned out to move the outputs."""
    folder = Path(session.workload.folder) / "fixed"
    folder.mkdir()
    fixed = prepare(session.spec, folder, rebatching=False)
    fixed.notes.append(
        f"re-batching was undone: it moved the outputs by {probe.rebatch_error:.1e} of their range"
    )
    fixed.events.extend(session.events)
    fixed.timing.update(session.timing)
    return fixed


def settle_metric(session: Session, probe: Probe, pool: Pool | None = None) -> Metric:
    """Settle what is measured from the unmodified model's first outputs; a user's code is run in the pool."""
    spec, dataset = session.spec, session.dataset
    output = session.workload.output
    if session.workload.boxes is not None:
        reading = Reading(output, boxes=True, places=dataset.places)
    else:
        reading = read_output(
            session.loaded, session.rebatch, output, probe.output.ndim, dataset, probe.rows > 1
        )
        reading = with_alphabet(reading, session.loaded, spec.metric, spec)
    metric = resolve_metric(
        spec.metric, probe.output, dataset.labels, dataset.label_kind, spec.class_axis, reading,
        try_function if pool is None else partial(_tried, pool),
    )  # fmt: skip
    if probe.rows > 1:
        session.notes.append(rows_note(session.workload.output, probe.rows))
    check_thresholds(spec, metric)
    return metric


def _tried(pool: Pool, metric: Metric, output: Array, target: Array | None) -> Array:
    """Call a user's metric where the chips call it: it may crash, or take long."""
    values: Array = pool.submit("the unmodified model", "try_function", metric, output, target).result()
    return values


def rows_note(output: str, rows: int) -> str:
    """Say that samples and positions share an axis of the output."""
    return (
        f"output '{output}' has {rows} rows for each sample, one after another in the order of the samples "
        "(found by running some of them in another order)"
    )


def prepared(
    spec: RunSpec, progress: Callable[[str, int, int], None], work: Callable[[Session], Result | Probe]
) -> Result:
    """Prepare a run and do its work, once more if that found that re-batching changes the outputs."""
    with scratch_folder() as folder, holding_inputs():
        progress("reading model and data", 0, 1)
        session = prepare(spec, folder)
        result = work(session)
        if isinstance(result, Probe):
            result = work(prepare_again(session, result))
        assert not isinstance(result, Probe)
        return result


def run_probe(pool: Pool, session: Session) -> Metric | Probe:
    """Run the first samples and settle the metric; the probe if re-batching changes the outputs."""
    with session.timed("ideal"):
        probe: Probe = pool.submit("the first batch", "probe").result()
        session.ran = probe.ran
        return probe if session.rebatching_failed(probe) else settle_metric(session, probe, pool)


def run_nominal(pool: Pool, session: Session, metric: Metric) -> float:
    """Score the unmodified model, and keep its outputs if the metric compares with them."""
    keep, ideal = session.reference_file(metric), session.workload.ideal
    with session.timed("ideal"):
        outcome: Outcome = shared(
            session.ideal_key("nominal", metric),
            lambda: pool.submit("the unmodified model", "nominal", metric, keep, ideal).result(),
        )
    if outcome.undefined:
        session.notes.append(
            f"the unmodified model's outputs are not numbers (NaN) for {outcome.undefined} of "
            f"{session.dataset.count} samples; they count as wrong"
        )
    return outcome.value


def check_converters(spec: RunSpec) -> None:
    """Refuse options of converters where there are none, and what is not simulated beside them.

    Raises
    ------
    OptionError
        Naming it.
    """
    if spec.digital_outliers is not None and spec.adc_bits is not None:
        raise OptionError(
            f"--digital-outliers {spec.digital_outliers:g} and --adc-bits {spec.adc_bits}: choose one; what "
            "is digital beside the array is not simulated beside converters (`nvaudit cost` counts both)"
        )
    given = {"--dac-bits": spec.dac_bits is not None, "--adc-range": spec.adc_range != "max"}
    for name, there in given.items():
        if there and spec.adc_bits is None:
            raise OptionError(f"{name} is for crossbars with converters; give --adc-bits too")


def check_thresholds(spec: RunSpec, metric: Metric) -> None:
    """Refuse a gate that no value of the metric can miss or reach, such as 90 for 90 %.

    Raises
    ------
    OptionError
        Naming it.
    """
    gate = () if spec.min_kpp is None else (spec.min_kpp,)
    for option, values in (("--min-kpp", gate), ("--yield-at", spec.yield_at)):
        for value in values:
            check_threshold(option, value, metric)
    if spec.max_drop is not None:
        check_drop("--max-drop", spec.max_drop, metric)
