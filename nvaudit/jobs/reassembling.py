"""The arrays of a mapping put together again, and compared with the quantised model."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import load_array
from nvaudit.device import profile_digest
from nvaudit.errors import DataError, NvauditError, OptionError
from nvaudit.files import holding_inputs
from nvaudit.jobs.deploying import map_report, mapped_rows
from nvaudit.jobs.mapped_manifest import crossbar_entry, edits_of, manifest_of, tensor_entry
from nvaudit.jobs.on_crossbars import OnCrossbars, check_hashes, settle_mapping
from nvaudit.mapping.array_files import find_arrays, in_threads, read_arrays
from nvaudit.mapping.groups import unmapped
from nvaudit.mapping.manifest import (
    MANIFEST,
    CrossbarEntry,
    Manifest,
    TensorEntry,
    content_digest,
    crossbar_file,
    read_manifest,
)
from nvaudit.mapping.outliers import Outliers
from nvaudit.mapping.places import TargetArrays, target_arrays
from nvaudit.model import Weight, build_template
from nvaudit.model.digital_part import DigitalPart, digital_part
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.session import feed_samples, open_session, run_session
from nvaudit.perturb.workload import ArrayFile, TensorFile, Workload, save_array
from nvaudit.report.deployment.result import MapReport, Reassembly, reassembly_text
from nvaudit.session import Session, prepare
from nvaudit.spec import RunSpec, default_workers

Doubles = NDArray[np.float64]

SAMPLES = 8
"""Run through both models where no number is given."""

_MOST_FAULTS = 20
_MOST_OUTPUTS = 1 << 26
"""Numbers that are compared at most."""


class Rebuilt(NamedTuple):
    """What the files of a tensor give."""

    code: ArrayFile
    scale: NDArray[np.float32]
    outliers: tuple[ArrayFile, ArrayFile] | None


@dataclass
class _Compared:
    """What the comparison gave so far."""

    tensors: int = 0
    weights: int = 0
    faults: list[str] = field(default_factory=list)
    rebuilt: dict[str, Rebuilt] = field(default_factory=dict)
    entries: list[TensorEntry] = field(default_factory=list)


def spec_of(manifest: Manifest, where: Path, model: str | Path | None, **own: Any) -> RunSpec:
    """The audit that a mapping is for.

    Parameters
    ----------
    model : str or Path, optional
        Where the model is now; by default where it was.

    Raises
    ------
    OptionError
        If it is not there.
    """
    path = Path(manifest.model.path if model is None else model)
    if model is None and not path.is_file():
        raise OptionError(
            f"{where}: its manifest names the model {path}, which is not there; name it before --check"
        )
    return RunSpec.validated({**manifest.run, "model": path, **own})


def check_mapping(
    folder: Path,
    model: Path | None = None,
    *,
    progress: Progress = quiet,
    **options: Any,
) -> MapReport:
    """Put the arrays of a mapping together, and compare with the quantised model.

    Parameters
    ----------
    folder : Path
        What ``nvaudit map`` wrote.
    model : Path, optional
        By default that of the manifest.
    **options
        Of the data: fields of :class:`nvaudit.options.DataOptions`, and ``provider``.

    Returns
    -------
    MapReport
        With ``check``: also where the arrays do not hold what they should.

    Raises
    ------
    NvauditError
        If the folder is no mapping, or of another model or device.
    """
    begin = time.perf_counter()
    manifest = read_manifest(folder, edited=True)
    if manifest.chips:
        raise OptionError(
            f"--check {folder}: these are chips; `nvaudit audit MODEL --chip {folder}` runs them"
        )
    spec = spec_of(manifest, folder, model, **options)
    with scratch_folder() as scratch, holding_inputs():
        on = settle_mapping(spec, scratch)
        check_hashes(manifest, folder, on.loaded.digest, profile_digest(on.profile))
        tally = _Compared()
        if [weight.key for weight in on.weights] != [entry.name for entry in manifest.tensors]:
            raise DataError(f"{folder}: its manifest names other tensors; map the model anew")
        total = sum(int(np.prod(weight.shape)) for weight in on.weights)
        cut = digital_part(on.loaded, [weight.key for weight in on.weights])
        for index, (weight, tensor) in enumerate(on.tensors()):
            _compare(on, folder, index, weight, tensor, manifest, cut, tally, scratch)
            progress("putting weights together", tally.weights, total)
        tally.faults += _manifest_faults(on, manifest, folder, tally.entries)
        samples = outputs = different = 0
        part: float | None = None
        notes: tuple[str, ...] = ()
        if not tally.faults:
            progress("running both models", 0, 1)
            try:
                session = _session(spec, scratch)
                samples, outputs, different = _run_both(session, tally.rebuilt)
                if manifest.digital_part is not None:
                    part = _digital_part_off(session, cut, folder / manifest.digital_part, tally)
            except NvauditError as error:  # such as an operator that ONNX Runtime does not have
                notes = (f"the models were not run: {error}",)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    result = Reassembly(
        tensors=tally.tensors, weights=tally.weights, samples=samples, outputs=outputs, different=different,
        digital_part=part, faults=tuple(tally.faults[:_MOST_FAULTS]),
    )  # fmt: skip
    word = "PASS" if result.holds else "FAIL"
    return map_report(
        replace(on, notes=(*on.notes, *notes)), manifest, folder, mapped_rows(manifest), size,
        time.perf_counter() - begin, check=result, headline=f"{word}: {folder}: {reassembly_text(result)}",
    )  # fmt: skip


def _manifest_faults(
    on: OnCrossbars, manifest: Manifest, folder: Path, entries: Sequence[TensorEntry]
) -> list[str]:
    """What the manifest says otherwise than the mapping is; entries that are missing are faults already."""
    if len(entries) < len(manifest.tensors):
        return []
    expected = manifest_of(on, entries, form=manifest.format, plan=manifest.plan, chips=())
    faults = [f"{folder}: {edit}" for edit in edits_of(manifest, expected)]
    if not faults and content_digest(manifest) != manifest.sha256:
        faults = [f"{folder / MANIFEST}: was edited after it was written (SHA-256); map the model anew"]
    return faults


def _compare(
    on: OnCrossbars,
    folder: Path,
    index: int,
    weight: Weight,
    tensor: TensorFile,
    manifest: Manifest,
    cut: DigitalPart,
    tally: _Compared,
    scratch: Path,
) -> None:
    """Compare the crossbars of one tensor with what they should hold, and keep the weights they make."""
    entry, mapped = manifest.tensors[index], tensor.open()
    geometry = on.geometry(tensor, mapped.code.shape)
    matrix = geometry.to_matrix.apply(mapped.code)
    gone = None if mapped.skip_rows is None else unmapped(mapped.code, mapped.lines, mapped.skip_rows)
    empty = None if gone is None else geometry.to_matrix.apply(gone)
    value = np.full(matrix.shape, 0.0 if empty is None else float(entry.zero))
    if empty is not None:
        value[~empty] = 0.0
    factors = np.abs(np.array(entry.factors))
    places = list(geometry.places(empty))
    if len(places) != len(entry.crossbars):
        tally.faults.append(
            f"{entry.name}: {len(entry.crossbars)} crossbars in the manifest; there are {len(places)}"
        )
        return
    before = len(tally.faults)

    def read(number: int) -> tuple[Doubles, CrossbarEntry] | str:
        place, stem = places[number], crossbar_file(index, tensor.key, number)
        target = target_arrays(matrix, place, tensor.array, on.size, empty)
        found = _held(folder / stem, on.spec.crossbar, target, planned=manifest.plan is not None)
        if isinstance(found, str):
            return found
        held, verify = found
        signed = held.sign[place.used] * held.level[place.used] * factors[place.devices]
        added = np.asarray(np.add.reduceat(signed, place.starts, axis=1))
        return added, crossbar_entry(stem, place, held, verify)

    crossbars = []
    for place, one in zip(places, in_threads(read, range(len(places)), default_workers()), strict=True):
        if isinstance(one, str):
            tally.faults.append(one)
        else:
            value[slice(*place.rows), place.outputs[place.starts]] += one[0]
            crossbars.append(one[1])
    if len(crossbars) == len(places):
        tally.entries.append(
            tensor_entry(
                index, weight, tensor, geometry, crossbars, layer=on.layers.get(tensor.key),
                outliers=mapped.outliers, part=cut,
            )
        )  # fmt: skip
    code = np.rint(value) - entry.zero
    scale = _scale(folder, entry)
    same = np.array_equal(code, matrix) and scale.tobytes() == tensor.scale.tobytes()
    digital = _outliers(folder, entry)
    if _digest_of(digital) != _digest_of(mapped.outliers):
        tally.faults.append(f"{entry.name}: its digital weights are not those of the quantised model")
    if not same and len(tally.faults) == before:
        tally.faults.append(f"{entry.name}: its weights are not those of the quantised model")
    tally.tensors += same
    tally.weights += matrix.size if same else 0
    back = geometry.to_matrix.inverse(mapped.code.shape).apply(code.astype(np.int16))
    tally.rebuilt[entry.name] = _kept(back, scale.reshape(tensor.scale.shape), digital, scratch, index)


def _kept(
    code: NDArray[np.int16],
    scale: NDArray[np.float32],
    digital: Outliers | None,
    scratch: Path,
    index: int,
) -> Rebuilt:
    """Put what the files of a tensor give where a model is made of it."""
    path = scratch / f"rebuilt-{index}.npy"
    np.save(path, np.ascontiguousarray(code))
    files = None
    if digital is not None:
        files = (
            save_array(scratch, f"places-{index}", digital.place),
            save_array(scratch, f"values-{index}", digital.values),
        )
    return Rebuilt(ArrayFile(str(path)), scale, files)


def _held(
    stem: Path, shape: tuple[int, int], target: TargetArrays, planned: bool
) -> tuple[TargetArrays, NDArray[np.bool_] | None] | str:
    """What the file of one crossbar holds, and the devices to write-verify; where it is wrong, how."""
    path = find_arrays(stem)
    if path is None:
        return f"{stem}: is missing"
    try:
        arrays = read_arrays(path, shape)
        held = as_targets(arrays, target)
    except DataError as error:
        return str(error)
    if held is None:
        return f"{path}: lacks one of {', '.join(vars(target))}, or one has another shape"
    for name, wanted in vars(target).items():
        there = getattr(held, name)
        if not np.array_equal(there, wanted):
            row, column = np.argwhere(there != wanted)[0]
            return (
                f"{path}: {name} of row {row}, column {column} is {there[row, column]}; the quantised model "
                f"has {wanted[row, column]} ({np.count_nonzero(there != wanted):,} differ)"
            )
    verify = arrays.get("verify")
    if (verify is not None) != planned:
        return f"{path}: {'lacks' if planned else 'has'} the mask verify, and the manifest has " + (
            "a plan" if planned else "none"
        )
    if verify is None:
        return held, None
    marked = np.nan_to_num(np.asarray(verify, np.float64)).astype(np.bool_)
    if marked.shape != shape or (marked & ~target.used).any():
        return f"{path}: verify marks places that have no device"
    return held, marked


def as_targets(arrays: Mapping[str, NDArray[Any]], like: TargetArrays) -> TargetArrays | None:
    """Arrays of a file as targets; of CSV, where only devices in use have lines, completed."""
    arrays = dict(arrays)
    if "used" not in arrays and "level" in arrays:
        arrays["used"] = ~np.isnan(arrays["level"].astype(np.float64))
    made = {}
    for name, wanted in vars(like).items():
        if name not in arrays or arrays[name].shape != wanted.shape:
            return None
        array = arrays[name]
        array = np.nan_to_num(array, nan=0.0) if array.dtype.kind == "f" else array
        made[name] = array.astype(wanted.dtype)
    return TargetArrays(**made)


def _scale(folder: Path, entry: TensorEntry) -> NDArray[np.float32]:
    """Weight units per value of a tensor, from its manifest."""
    if entry.scale is not None:
        return np.array(entry.scale, np.float32)
    return np.asarray(_numbers(folder / str(entry.scales)), np.float32)


def _outliers(folder: Path, entry: TensorEntry) -> Outliers | None:
    """The weights of a tensor that no device holds, from its manifest."""
    if entry.outliers is None:
        return None
    place, values = (_numbers(folder / name) for name in (entry.outliers.places, entry.outliers.values))
    there = Outliers(np.asarray(place, np.int64), np.asarray(values, np.float32))
    if there.digest != entry.outliers.sha256 or place.shape != values.shape:
        raise DataError(
            f"{folder / entry.outliers.values}: not the digital weights of the manifest (SHA-256); map the "
            "model anew"
        )
    return there


def _digest_of(outliers: Outliers | None) -> str | None:
    return None if outliers is None or not outliers.place.size else outliers.digest


def _numbers(path: Path) -> NDArray[Any]:
    try:
        return load_array(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}; map the model anew") from None


def _session(spec: RunSpec, scratch: Path) -> Session:
    """An audit on a few samples."""
    folder = scratch / "run"
    folder.mkdir()
    return prepare(spec if spec.limit is not None else spec.model_copy(update={"limit": SAMPLES}), folder)


def _run_both(session: Session, rebuilt: Mapping[str, Rebuilt]) -> tuple[int, int, int]:
    """Run the quantised model and the one of the arrays; samples, outputs, and how many differ in a bit."""
    work = session.workload
    tensors = tuple(replace(tensor, **rebuilt[tensor.key]._asdict()) for tensor in work.tensors)
    first = _outputs(work)
    second = _outputs(replace(work, tensors=tensors))
    different = sum(int(np.count_nonzero(_bits(a) != _bits(b))) for a, b in zip(first, second, strict=True))
    return session.dataset.count, sum(part.size for part in first), different


def _digital_part_off(session: Session, part: DigitalPart, path: Path, tally: _Compared) -> float | None:
    """Give the digital part the products that the model's own weights make, and compare with the model.

    Returns
    -------
    float or None
        Largest difference over the largest output; None where no product is taken from an array.
    """
    work, data = session.workload, session.dataset
    weights = {d.constant.weight.key: d.constant.weight for d in session.decisions
               if d.mapped and d.constant.weight is not None}  # fmt: skip
    if not path.is_file():
        tally.faults.append(f"{path}: is missing")
        return None
    if not part.cuts:
        return None
    fixed = work.original.batch
    count = min(data.count, fixed or SAMPLES)
    feeds = feed_samples(data.inputs, data.batch_axes, slice(0, count), count, fixed)
    fills = {slot.name: slot.fill(np.asarray(weights[slot.weight_key].load().values))
             for slot in part.computed.slots}  # fmt: skip
    products = [cut.product for cut in part.cuts]
    opened = open_session(part.computed.proto, {**fills, **part.computed.digital}, work.provider)
    made = dict(zip(products, run_session(opened, products, feeds), strict=True))
    del opened, fills
    names = [output.name for output in session.loaded.outputs]
    alone = run_session(open_session(path, {}, work.provider), names, {**feeds, **made})
    plain = build_template(session.loaded, [])
    model = run_session(open_session(plain.proto, plain.digital, work.provider), names, feeds)
    off = 0.0
    for name, ours, wanted in zip(names, alone, model, strict=True):
        if ours.shape != wanted.shape:
            tally.faults.append(
                f"{path}: {name} has shape {list(ours.shape)}; the model's {list(wanted.shape)}"
            )
        elif wanted.dtype.kind == "f" and wanted.size:
            a, b = (np.nan_to_num(one.astype(np.float64), posinf=0, neginf=0) for one in (ours, wanted))
            share = float(np.abs(a - b).max() / (np.abs(b).max() or 1.0))
            off = max(off, share)
            if share > math.sqrt(part.precision):  # rounding adds up from layer to layer
                tally.faults.append(
                    f"{path}: {name} is off by {share:.2g} of its largest value from the model's; map it anew"
                )
    return off


def _outputs(work: Workload) -> list[NDArray[Any]]:
    """The scored output of the noiseless chip, batch by batch."""
    samples = np.arange(work.count)
    probe = Engine(work).inner({work.output: work.output})
    at_once = work.together or work.template.batch or work.batch
    parts, size = [], 0
    for _, values in probe.batches(samples, at_once=at_once):
        parts.append(np.asarray(values[work.output]))
        size += parts[-1].size
        if size > _MOST_OUTPUTS:
            break
    return parts


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers as their bits, so that NaN equals NaN and −0 differs from 0."""
    if values.dtype.kind in "fc" and values.dtype.itemsize in (2, 4, 8):
        return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
    return values
