"""Chips that are there: the conductances that were read back, run as they are, and where they err."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import profile_digest
from nvaudit.errors import DataError, OptionError
from nvaudit.jobs.mapped_manifest import converters_of
from nvaudit.jobs.on_crossbars import check_hashes, geometry_of
from nvaudit.mapping.chip_files import (
    ChipSource,
    ReadingCounts,
    TensorReadings,
    find_chips,
    line_errors,
    read_tensor_of_chip,
    readings_digest,
    refuse_same_chips,
)
from nvaudit.mapping.conductance import held_levels, target_conductance
from nvaudit.mapping.groups import unmapped
from nvaudit.mapping.manifest import MANIFEST, Manifest, crossbar_file, read_manifest
from nvaudit.mapping.places import CrossbarPlace, Geometry
from nvaudit.mapping.tiling import Crossbar
from nvaudit.options import OF_A_MAPPING, DataOptions
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.outcome import Outcome
from nvaudit.perturb.read_back import check_devices
from nvaudit.perturb.schedule import Progress
from nvaudit.perturb.variant import Variant
from nvaudit.perturb.workers import Pool
from nvaudit.perturb.workload import ArrayFile, ReadBack, TensorFile, Workload, save_array
from nvaudit.report.chips import Chips
from nvaudit.report.deployment.result import (
    CrossbarOnChip,
    DeviceErrors,
    MeasuredChip,
    MeasuredChips,
    TensorOnChip,
    WorstPlace,
)
from nvaudit.report.wording import count_text, listed_text
from nvaudit.session import Session
from nvaudit.spec import RunSpec
from nvaudit.stats.among_chips import among_chips

Doubles = NDArray[np.float64]

IMAGES = 1000
"""Samples that the costs of tensors rest on, where no other number is given."""

_WORST = 10
_NAMED = 5
_HALF_PER_CENT = 0.005


def with_manifest(spec: RunSpec) -> RunSpec:
    """Take from the manifest beside the chips how they are mapped.

    Raises
    ------
    OptionError
        If an option says otherwise.
    DataError
        If there is no chip, or no manifest beside several crossbars.
    """
    given_chips = spec.chip
    if given_chips is None:
        return spec
    if spec.calibrate_chips is not None:
        raise OptionError(
            "--chip and --calibrate-chips: choose one; `nvaudit calibrate MODEL --chip FOLDER` corrects a "
            "chip that is there"
        )
    if len(spec.sigmas or ()) > 1:
        raise OptionError("--chip and a sweep of --sigma: a chip is of one operating point; give one sigma")
    spec = spec.model_copy(update={"exhaustive": True})  # a place among others needs every chip's own value
    manifest = manifest_beside(Path(given_chips))
    if manifest is None:
        return spec
    taken = {}
    for name in (*OF_A_MAPPING, *(DataOptions.model_fields if "adc_bits" in manifest.run else ())):
        default = RunSpec.model_fields[name].default
        given, mapped = getattr(spec, name), manifest.run.get(name, default)
        mapped = tuple(mapped) if isinstance(mapped, list) else mapped
        if given not in (default, mapped) and name != "seed":
            raise OptionError(
                f"{RunSpec.flag(name)}: the chips of {spec.chip} were mapped "
                f"{'without it' if mapped == default else f'with {mapped}'}; leave it out"
            )
        taken[name] = given if name == "seed" and given != default else mapped
    return RunSpec.validated({**spec.model_dump(), **taken})


def manifest_beside(path: Path) -> Manifest | None:
    """The manifest of chips; None for the file of one crossbar."""
    if path.is_file():
        return None
    find_chips(path)
    return read_manifest(path)


@dataclass(frozen=True)
class _OnTensor:
    """One tensor, where its devices lie, and what they were to hold.

    Attributes
    ----------
    target : ndarray, float64, shape (device, row, output)
        In the window's unit.
    used : ndarray of bool, shape (row, output)
        Weights that have devices.
    """

    index: int
    tensor: TensorFile
    geometry: Geometry
    places: tuple[CrossbarPlace, ...]
    target: Doubles
    used: NDArray[np.bool_]

    @property
    def files(self) -> list[str]:
        """Of its crossbars, below the folder of a chip."""
        return [crossbar_file(self.index, self.tensor.key, number) for number in range(len(self.places))]


def _on_tensor(index: int, tensor: TensorFile, session: Session) -> _OnTensor:
    mapped, size = tensor.open(), Crossbar(*session.spec.crossbar)
    layers = {} if session.crossbar is None else {one.split.key: one for one in session.crossbar.layers}
    geometry = geometry_of(tensor, mapped.code.shape, size, layers.get(tensor.key))
    matrix = geometry.to_matrix.apply(mapped.code)
    gone = None if mapped.skip_rows is None else unmapped(mapped.code, mapped.lines, mapped.skip_rows)
    empty = None if gone is None else geometry.to_matrix.apply(gone)
    held = held_levels(matrix, tensor.array)
    target = np.stack([target_conductance(one.level, tensor.array) for one in held])
    used = np.ones(matrix.shape, np.bool_) if empty is None else ~empty
    return _OnTensor(index, tensor, geometry, tuple(geometry.places(empty)), target, used)


def check_manifest(manifest: Manifest, where: Path, session: Session) -> None:
    """Refuse chips of another model, of another device, or laid out in another way.

    Raises
    ------
    DataError
    """
    check_hashes(manifest, where, session.loaded.digest, profile_digest(session.profile))
    keys = [tensor.key for tensor in session.workload.tensors]
    named = [entry.name for entry in manifest.tensors]
    if keys != named:
        odd = sorted(set(keys) ^ set(named))
        raise DataError(
            f"{where / MANIFEST}: names {len(named)} tensors on the array, and this audit has {len(keys)}"
            + (f" ({odd[0]!r} is only on one side)" if odd else "")
        )
    layers = () if session.crossbar is None else session.crossbar.layers
    ranges = {layer.split.key: converters_of(layer) for layer in layers}
    for entry in manifest.tensors:
        if ranges.get(entry.name, "ideal") != entry.converters:
            raise DataError(
                f"{where / MANIFEST}: {entry.name!r} has other ranges of converters than are found on these "
                "samples; give the --data and --limit that it was mapped with"
            )


@dataclass(frozen=True)
class LoadedChip:
    """A chip, ready to be run; its errors are counted."""

    source: ChipSource
    devices: tuple[ReadBack, ...]
    counts: ReadingCounts
    errors: DeviceErrors
    tensors: tuple[DeviceErrors, ...]
    crossbars: tuple[CrossbarOnChip, ...]


def load_chips(session: Session, progress: Progress) -> list[LoadedChip]:
    """Read the chips that a run is given, and put them where workers find them.

    Raises
    ------
    DataError
        If anything about the files is wrong.
    """
    path = Path(str(session.spec.chip))
    check_devices(session.points[0], "--chip")
    manifest = manifest_beside(path)
    if manifest is not None:
        check_manifest(manifest, path, session)
    sources = find_chips(path)
    tensors = session.workload.tensors
    parts: list[list[_LoadedTensor]] = [[] for _ in sources]
    counts = [ReadingCounts() for _ in sources]
    for index, tensor in enumerate(tensors):
        at = _on_tensor(index, tensor, session)
        if path.is_file() and (len(tensors) > 1 or len(at.places) > 1):
            raise DataError(
                f"{path}: one crossbar, and the model lies on several ({len(tensors)} tensors); give a "
                "folder as `nvaudit map` writes it"
            )
        for number, source in enumerate(sources):
            progress("reading chips", index * len(sources) + number, len(tensors) * len(sources))
            parts[number].append(_load_tensor(at, source, session, counts[number], f"chip-{number}-{index}"))
    # Chips without noise are alike: all at their targets.
    refuse_same_chips([
        (source.path, "".join(part.digest for part in mine))
        for source, mine, count in zip(sources, parts, counts, strict=True)
        if count.exact < count.measured
    ])  # fmt: skip
    return [
        LoadedChip(
            source, tuple(part.devices for part in mine), count, _joined([part.errors for part in mine]),
            tuple(part.errors for part in mine), tuple(one for part in mine for one in part.crossbars),
        )
        for source, mine, count in zip(sources, parts, counts, strict=True)
    ]  # fmt: skip


class _LoadedTensor(NamedTuple):
    """One tensor of a chip, and the digest of what was read back."""

    devices: ReadBack
    errors: DeviceErrors
    crossbars: list[CrossbarOnChip]
    digest: str


def _load_tensor(
    at: _OnTensor, source: ChipSource, session: Session, counts: ReadingCounts, name: str
) -> _LoadedTensor:
    window, array = session.profile.window, at.tensor.array
    unit = "level" if window is None else window.unit
    readings = read_tensor_of_chip(
        source, at.files, at.places, at.geometry, array, unit, at.target, at.used, counts
    )
    error = (readings.mean.astype(np.float64) - at.target) / array.step
    crossbars = [_crossbar(at, place, file, error) for place, file in zip(at.places, at.files, strict=True)]
    folder = Path(session.workload.folder)
    kept = _at_target(readings, at)
    back = at.geometry.to_matrix.inverse(at.geometry.shape).with_devices(at.geometry.devices)

    def put(values: NDArray[np.floating], what: str) -> ArrayFile:
        return save_array(folder, f"{name}-{what}", np.ascontiguousarray(back.apply(values)))

    variance = None if kept.variance is None else put(kept.variance, "variance")
    used = np.broadcast_to(at.used, error.shape)
    digest = readings_digest((readings.mean, readings.variance))
    return _LoadedTensor(ReadBack(put(kept.mean, "mean"), variance), _errors(error[used]), crossbars, digest)


def _at_target(readings: TensorReadings, at: _OnTensor) -> TensorReadings:
    """Readings with what was not measured at its target; of one read alone the variance is the mean one."""
    kind = readings.mean.dtype.type
    # The target as a chip is drawn from it: in the precision of the file.
    target = at.target.astype(kind)
    mean = np.where(np.isnan(readings.mean), target, readings.mean)
    variance = readings.variance
    if variance is not None:
        known = variance[~np.isnan(variance)]
        variance = np.where(np.isnan(variance), known.mean() if known.size else 0.0, variance)
        variance = np.where(at.used, variance, 0.0)
    return TensorReadings(mean, variance)


def _errors(error: Doubles) -> DeviceErrors:
    known = error[~np.isnan(error)]
    if not known.size:
        return DeviceErrors(devices=error.size, measured=0, mean=None, std=None, rms=None, largest=None)
    return DeviceErrors(
        devices=error.size,
        measured=known.size,
        mean=float(known.mean()),
        std=float(known.std()),
        rms=float(np.sqrt(np.square(known).mean())),
        largest=float(np.abs(known).max()),
    )


def _joined(parts: Sequence[DeviceErrors]) -> DeviceErrors:
    """The errors of several parts together."""
    known = [part for part in parts if part.measured]
    devices, measured = sum(part.devices for part in parts), sum(part.measured for part in known)
    if not measured:
        return DeviceErrors(devices=devices, measured=0, mean=None, std=None, rms=None, largest=None)
    mean = sum((part.mean or 0.0) * part.measured for part in known) / measured
    square = sum((part.rms or 0.0) ** 2 * part.measured for part in known) / measured
    return DeviceErrors(
        devices=devices,
        measured=measured,
        mean=mean,
        std=float(np.sqrt(max(square - mean**2, 0.0))),
        rms=float(np.sqrt(square)),
        largest=max(part.largest or 0.0 for part in known),
    )


def _crossbar(at: _OnTensor, place: CrossbarPlace, file: str, error: Doubles) -> CrossbarOnChip:
    array = at.tensor.array
    mine = np.asarray(place.take(error), np.float64)
    level = (np.asarray(place.take(at.target), np.float64) - array.g_min) / array.step
    there = at.used[place.rows[0] : place.rows[1]][:, place.outputs]
    rows, columns = line_errors(mine, level, 1), line_errors(mine, level, 0)
    return CrossbarOnChip(
        tensor=at.tensor.key,
        file=file,
        errors=_errors(mine[there]),
        row_rms=_numbers(rows.rms),
        column_rms=_numbers(columns.rms),
        dead_rows=rows.dead,
        dead_columns=columns.dead,
    )


def _numbers(values: Doubles) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else round(float(value), 4) for value in values)


def run_measured(
    session: Session, metric: Metric, keep: str | None, simulated: Chips, progress: Progress
) -> MeasuredChips:
    """Run the chips that were read back, whole and with one tensor at a time as it should be.

    Parameters
    ----------
    simulated : Chips
        What the profile predicts, every chip on every sample.
    """
    spec = session.spec
    loaded = load_chips(session, progress)
    drawn = _drawn_alike(spec, len(simulated.low))
    own = [chip.source.name for chip in loaded if chip.source.name in drawn]
    if own:
        names = listed_text(own) if len(own) <= _NAMED else count_text(len(own), "chip")
        session.notes.append(
            f"{names}: simulated with --seed {spec.seed}, the one of this audit, whose simulated chips have "
            "them too; each is left out of its own comparison, and another --seed draws other chips"
        )
    work = replace(session.workload, chips=tuple(chip.devices for chip in loaded))
    images = min(session.dataset.count, spec.attribution_images or IMAGES)
    measured = []
    with replace(session, workload=work).pool() as pool:
        for number, chip in enumerate(loaded):
            progress("running chips that were read back", number, len(loaded))
            outcome: Outcome = pool.submit(chip.source.name, "chip", metric, keep, 0, number).result()
            costs = _costs(pool, work, metric, keep, number, images, progress)
            place = drawn.get(chip.source.name)
            others = simulated.low if place is None else np.delete(simulated.low, place)
            measured.append(_measured(chip, outcome, costs, work, others, metric, spec.confidence))
    return MeasuredChips(
        source=str(spec.chip), confidence=spec.confidence, images=images, chips=tuple(measured)
    )


def _drawn_alike(spec: RunSpec, trials: int) -> dict[str, int]:
    """Chips of `nvaudit map --simulate` that the audit has drawn as well, by name: its trials."""
    manifest = manifest_beside(Path(str(spec.chip)))
    # Of a single simulated chip nothing would be left to compare with.
    if manifest is None or manifest.seed != spec.seed or trials == 1:
        return {}
    return {name: trial for trial, name in enumerate(manifest.chips[:trials])}


def _costs(
    pool: Pool, work: Workload, metric: Metric, keep: str | None, chip: int, images: int, progress: Progress
) -> list[float]:
    """What the metric gains with one tensor at its quantised weights, tensor by tensor."""
    count = len(work.tensors)
    if work.together:
        images = work.count
    every = frozenset(range(count))
    variants = [Variant(), *(Variant(tensors=every - {index}) for index in range(count))]
    calls = [
        pool.submit(f"chip {chip}", "variant_scores", metric, keep, 0, chip, variant, images)
        for variant in variants
    ]
    means = []
    for done, call in enumerate(calls):
        means.append(float(np.mean(call.result())))
        progress("what each tensor costs", done, len(calls))
    sign = 1.0 if metric.higher_is_better else -1.0
    return [sign * (mean - means[0]) for mean in means[1:]]


def _measured(
    chip: LoadedChip,
    outcome: Outcome,
    costs: list[float],
    work: Workload,
    simulated: Doubles,
    metric: Metric,
    confidence: float,
) -> MeasuredChip:
    found = among_chips(simulated, outcome.value, metric.higher_is_better, confidence)
    tensors = []
    for tensor, errors, cost in zip(work.tensors, chip.tensors, costs, strict=True):
        crossbars = sum(one.tensor == tensor.key for one in chip.crossbars)
        tensors.append(TensorOnChip(name=tensor.key, crossbars=crossbars, errors=errors, cost=cost))
    counts = chip.counts
    return MeasuredChip(
        name=chip.source.name,
        time_s=chip.source.time_s,
        value=outcome.value,
        undefined=outcome.undefined,
        worse=found.worse,
        equal=found.equal,
        simulated=len(simulated),
        percentile=100 * found.share,
        percentile_low=100 * found.low,
        percentile_high=100 * found.high,
        outside=found.high < _HALF_PER_CENT or found.low > 1 - _HALF_PER_CENT,
        missing=counts.missing,
        negative=counts.negative,
        beyond=counts.beyond,
        exact=counts.exact,
        reads=counts.reads,
        errors=chip.errors,
        tensors=tuple(tensors),
        crossbars=chip.crossbars,
        worst=_worst_places(chip.crossbars),
    )


def _worst_places(crossbars: Sequence[CrossbarOnChip]) -> tuple[WorstPlace, ...]:
    """Dead rows and columns, then those with the largest errors."""
    places: list[WorstPlace] = []
    for line in ("row", "column"):
        every = [
            (crossbar, index, rms)
            for crossbar in crossbars
            for index, rms in enumerate(getattr(crossbar, f"{line}_rms"))
            if rms is not None
        ]
        usual = float(np.median([rms for _, _, rms in every])) if every else 0.0
        for crossbar, index, rms in every:
            places.append(
                WorstPlace.model_construct(
                    tensor=crossbar.tensor, file=crossbar.file, line=line, index=index, rms=rms,
                    times=rms / usual if usual > 0 else None,
                    dead=index in getattr(crossbar, f"dead_{line}s"),
                )
            )  # fmt: skip
    places.sort(key=lambda place: (not place.dead, -(place.times or place.rms)))
    dead = sum(place.dead for place in places)
    return tuple(places[: max(_WORST, min(dead, 10 * _WORST))])


def reading_notes(name: str, counts: ReadingCounts) -> list[str]:
    """Say what was assumed of a chip that was read back."""
    devices, notes = f"{counts.devices:,}", []
    if counts.missing:
        notes.append(
            f"{name}: {counts.missing:,} of {devices} devices were not measured (NaN) and are taken at their "
            "targets"
        )
    if 0 < counts.measured == counts.exact:
        notes.append(
            f"{name}: every device that was measured holds its target exactly, which no programming reaches: "
            "are these targets?"
        )
    if counts.negative:
        notes.append(f"{name}: {counts.negative:,} of {devices} conductances are negative, taken as they are")
    if counts.beyond:
        notes.append(
            f"{name}: {counts.beyond:,} of {devices} conductances are more than a window outside the window, "
            "taken as they are"
        )
    if counts.reads > 1:
        notes.append(
            f"{name}: read up to {counts.reads} times; the mean is the conductance, and the variance over "
            "reads the noise of reading it, instead of the profile's"
        )
    return notes


def notes_on_chips(chips: MeasuredChips, samples: int) -> list[str]:
    """Say what was assumed of chips that were read back, and where the profile does not predict them."""
    notes = []
    for chip in chips.chips:
        counts = {name: getattr(chip, name) for name in ("missing", "negative", "beyond", "exact", "reads")}
        notes += reading_notes(chip.name, ReadingCounts(devices=chip.errors.devices, **counts))
        if chip.undefined:
            notes.append(
                f"{chip.name}: outputs are not numbers (NaN) for {chip.undefined} of {samples} samples; they "
                "count as wrong"
            )
        if chip.outside:
            notes.append(
                f"{chip.name}: the profile does not predict this chip: it lies at percentile "
                f"{chip.percentile:.3g} of the simulated ones, {chip.percentile_low:.3g} to "
                f"{chip.percentile_high:.3g}; fit one to it with `nvaudit devices fit`"
            )
    return notes
