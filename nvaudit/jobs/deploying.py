"""The arrays of a model out, as a programmer of chips needs them; and simulated chips in the same form."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit._version import __version__
from nvaudit.device import profile_digest
from nvaudit.errors import DataError, OptionError
from nvaudit.files import holding_inputs, new_folder, note_files, write_text_atomic, writing
from nvaudit.jobs.mapped_manifest import crossbar_entry, manifest_of, numbers_file, tensor_entry
from nvaudit.jobs.on_crossbars import OnCrossbars, settle_mapping
from nvaudit.mapping.array_files import CONDUCTANCE, check_format, in_threads, write_arrays
from nvaudit.mapping.groups import unmapped
from nvaudit.mapping.manifest import (
    ARRAYS,
    DIGITAL_PART,
    MANIFEST,
    CrossbarEntry,
    Manifest,
    TensorEntry,
    crossbar_file,
    folder_name,
    manifest_text,
)
from nvaudit.mapping.places import CrossbarPlace, Geometry, TargetArrays, target_arrays
from nvaudit.mapping.spec import MapOptions
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import Weight, filled_model
from nvaudit.model.digital_part import DigitalPart, digital_part
from nvaudit.perturb.chip import TensorLaw, blocks
from nvaudit.perturb.read_back import HeldConductances, check_devices, simulated_conductances
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.workload import TensorFile
from nvaudit.report.deployment.result import MappedTensorRow, MapReport
from nvaudit.report.sections import InputHashes, ModelInfo
from nvaudit.report.wording import count_text
from nvaudit.rng import stream
from nvaudit.session import (
    point_info,
)
from nvaudit.spec import RunSpec, default_workers


class MapSpec(MapOptions, RunSpec):
    """A mapping, complete: the options of an audit that say how weights lie, and what is written of it."""


def map_model(spec: MapSpec, out: Path, progress: Progress = quiet) -> MapReport:
    """Write the arrays of a model, or simulated chips, into a folder.

    Parameters
    ----------
    out : Path
        The folder; made whole or not at all.

    Raises
    ------
    NvauditError
        If anything about the input is wrong, or the folder cannot be written.
    """
    begin = time.perf_counter()
    check_format(spec.format)
    if spec.reads is not None and spec.simulate is None:
        raise OptionError("--reads: only with --simulate; targets are not read")
    if spec.verify_plan is not None and spec.simulate is not None:
        raise OptionError("--verify-plan and --simulate: choose one; simulated chips are programmed already")
    with scratch_folder() as folder, holding_inputs():
        progress("reading the model", 0, 1)
        on = settle_mapping(
            RunSpec.validated({name: getattr(spec, name) for name in RunSpec.model_fields}), folder
        )
        if spec.simulate is not None:
            check_devices(on.point, "--simulate")
        with _verify_masks(spec.verify_plan, on) as masks, new_folder(out) as place:
            writer = _ArrayWriter(on, place, spec, masks, progress)
            with writing(out):
                manifest = writer.write()
                write_text_atomic(place / MANIFEST, manifest_text(manifest))
                size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return map_report(on, manifest, out, mapped_rows(manifest), size, time.perf_counter() - begin)


@contextmanager
def _verify_masks(path: str | None, on: OnCrossbars) -> Iterator[Mapping[str, NDArray[np.bool_]] | None]:
    """Open the masks of a plan, and check that they are of this model."""
    if path is None:
        yield None
        return
    try:
        note_files([Path(path)])
        file = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"--verify-plan {path}: cannot be read: {error}; give what verify-plan -o wrote"
        ) from None
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise DataError(f"--verify-plan {path}: not an .npz; give what verify-plan -o wrote")
    with file:
        keys = {weight.key for weight in on.weights}
        if set(file.files) != keys:
            odd = sorted(set(file.files) ^ keys)[0]
            raise DataError(
                f"--verify-plan {path}: has {len(file.files)} masks, and {len(keys)} tensors are on the "
                f"array ({odd!r} is only on one side); make the plan for this model and these --layers"
            )
        yield file


@dataclass
class _ArrayWriter:
    """Writes tensors one after the other."""

    on: OnCrossbars
    folder: Path
    spec: MapSpec
    masks: Mapping[str, NDArray[np.bool_]] | None
    progress: Progress
    done: int = 0
    part: DigitalPart | None = None

    @property
    def chips(self) -> tuple[str, ...]:
        """Folders of the simulated chips."""
        count = self.spec.simulate or 0
        return tuple(f"chip-{number:0{len(str(max(count - 1, 0)))}d}" for number in range(count))

    def write(self) -> Manifest:
        """Write every array; give the manifest."""
        on = self.on
        entries = []
        total = sum(int(np.prod(weight.shape)) for weight in on.weights)
        if not self.chips:
            self.part = digital_part(on.loaded, [weight.key for weight in on.weights])
            filled_model(self.part.template, {}, self.folder / DIGITAL_PART)
        for index, (weight, tensor) in enumerate(on.tensors()):
            self.progress("writing the weights of crossbars", self.done, total)
            entries.append(self._tensor(index, weight, tensor, total))
        return manifest_of(on, entries, form=self.spec.format, plan=self.spec.verify_plan, chips=self.chips)

    def _tensor(self, index: int, weight: Weight, tensor: TensorFile, total: int) -> TensorEntry:
        name = f"{ARRAYS}/{folder_name(index, tensor.key)}"
        for chip in self.chips or ("",):
            (self.folder / chip / name).mkdir(parents=True)
        mapped = tensor.open()
        geometry = self.on.geometry(tensor, mapped.code.shape)
        matrix = geometry.to_matrix.apply(mapped.code)
        empty = None
        if mapped.skip_rows is not None:
            gone = unmapped(mapped.code, mapped.lines, mapped.skip_rows)
            empty = None if gone is None else geometry.to_matrix.apply(gone)
        verify = self._verify(weight, geometry)
        places = list(geometry.places(empty))

        def one(number: int) -> CrossbarEntry:
            place = places[number]
            target = target_arrays(matrix, place, tensor.array, self.on.size, empty)
            stem = crossbar_file(index, tensor.key, number)
            marked = None if verify is None else _on_crossbar(verify, place, target)
            if not self.chips:
                arrays: dict[str, NDArray[Any]] = dict(vars(target))
                if marked is not None:
                    arrays["verify"] = marked
                write_arrays(self.folder / stem, arrays, self.spec.format)
            return crossbar_entry(stem, place, target, marked)

        crossbars = []
        for entry in in_threads(one, range(len(places)), default_workers()):
            crossbars.append(entry)
            self.done += entry.devices // geometry.devices
            self.progress("writing the weights of crossbars", min(self.done, total), total)
        if self.chips:
            self._chips(index, tensor, geometry, places, empty)
        self._save(index, tensor.key, "scales", tensor.scale if tensor.scale.size > 1 else None)
        outliers = mapped.outliers
        if outliers is not None and outliers.place.size:
            self._save(index, tensor.key, "outlier_places", outliers.place)
            self._save(index, tensor.key, "outlier_values", outliers.values)
        return tensor_entry(
            index, weight, tensor, geometry, crossbars, layer=self.on.layers.get(tensor.key),
            outliers=outliers, part=self.part,
        )  # fmt: skip

    def _verify(self, weight: Weight, geometry: Geometry) -> NDArray[np.bool_] | None:
        """The weights to write-verify, as a matrix."""
        if self.masks is None:
            return None
        mask = np.asarray(self.masks[weight.key])
        if mask.shape != weight.stored_shape or mask.dtype != np.bool_:
            raise DataError(
                f"--verify-plan: the mask of {weight.key!r} has shape {list(mask.shape)} and type "
                f"{mask.dtype}; the weight has {list(weight.stored_shape)}: make the plan for this model"
            )
        primary = weight.to_stored.inverse(weight.shape).apply(mask)
        return np.asarray(geometry.to_matrix.apply(primary))

    def _chips(
        self,
        index: int,
        tensor: TensorFile,
        geometry: Geometry,
        places: list[CrossbarPlace],
        empty: NDArray[np.bool_] | None,
    ) -> None:
        """Write one tensor of every simulated chip."""
        spec = self.on.spec
        law = TensorLaw(tensor.open(), self.on.point, spec.every_device, keep_tables=False)
        layer = self.on.layers.get(tensor.key)
        converters = layer is not None and layer.split.reason is None
        for trial, chip in enumerate(self.chips):
            self.progress(f"drawing {tensor.key}", trial, len(self.chips))
            g = simulated_conductances(law, spec.seed, trial, converters)
            read = g[None] if self.spec.reads is None else _read(law, g, spec.seed, trial, self.spec.reads)
            per_read = [geometry.to_matrix.with_devices(geometry.devices).apply(one) for one in read]

            def one(number: int, chip: str = chip, per_read: list[HeldConductances] = per_read) -> None:
                stem = self.folder / chip / crossbar_file(index, tensor.key, number)
                arrays = _chip_arrays(per_read, places[number], self.on.size, empty)
                write_arrays(stem, arrays, self.spec.format)

            deque(in_threads(one, range(len(places)), default_workers()), maxlen=0)

    def _save(self, index: int, key: str, what: str, array: NDArray[Any] | None) -> None:
        """Write numbers of a tensor that are on no crossbar, where there are any."""
        if array is None:
            return
        path = self.folder / numbers_file(index, key, what, beside_chips=bool(self.chips))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)


def _on_crossbar(verify: NDArray[np.bool_], place: CrossbarPlace, target: TargetArrays) -> NDArray[np.bool_]:
    """The devices of one crossbar whose weight is to be verified."""
    marked = np.zeros(target.used.shape, np.bool_)
    marked[place.used] = verify[place.rows[0] : place.rows[1]][:, place.outputs]
    return marked & target.used


def _read(law: TensorLaw, g: HeldConductances, seed: int, trial: int, reads: int) -> HeldConductances:
    """Read every device several times; shape (read, device, *weight)."""
    made = np.repeat(g[None], reads, axis=0)
    gen = stream(seed, "reads", trial, law.tensor.key)
    for _, block, _ in blocks(law.tensor.code, law.tensor.scale):
        part = (slice(None), *block)
        for number, spread in enumerate(law.spreads_at(g[part], block)):
            at = (slice(None), number, *block)
            made[at] += spread * gen.standard_normal(made[at].shape, dtype=made.dtype)
    return made


def _chip_arrays(
    reads: list[HeldConductances], place: CrossbarPlace, size: Crossbar, empty: NDArray[np.bool_] | None
) -> dict[str, NDArray[Any]]:
    """What one crossbar is read back as: NaN where there is no device."""
    made = np.full((len(reads), size.rows, size.cols), np.nan, reads[0].dtype)
    used = np.zeros((size.rows, size.cols), np.bool_)
    used[place.used] = True
    if empty is not None:
        used[place.used] = ~empty[place.rows[0] : place.rows[1]][:, place.outputs]
    for read, values in zip(made, reads, strict=True):
        read[place.used] = place.take(values)
    made[:, ~used] = np.nan
    return {CONDUCTANCE: made[0] if len(reads) == 1 else made, "used": used}


def mapped_rows(manifest: Manifest) -> tuple[MappedTensorRow, ...]:
    """The tensors of a manifest, counted."""
    return tuple(
        MappedTensorRow(
            name=tensor.name,
            weights=int(np.prod(tensor.shape)),
            devices_per_weight=len(tensor.factors),
            crossbars=len(tensor.crossbars),
            devices=sum(crossbar.devices for crossbar in tensor.crossbars),
            outliers=None if tensor.outliers is None else tensor.outliers.weights,
            verify=None
            if manifest.plan is None
            else sum(crossbar.verify or 0 for crossbar in tensor.crossbars),
            encoding=tensor.encoding,
            significances=tuple(factor for factor in reversed(tensor.factors) if factor > 0),
            folder=tensor.crossbars[0].file.rpartition("/")[0] if tensor.crossbars else "",
        )
        for tensor in manifest.tensors
    )


def map_report(
    on: OnCrossbars,
    manifest: Manifest,
    out: Path,
    rows: tuple[MappedTensorRow, ...],
    size: int,
    seconds: float,
    **more: Any,
) -> MapReport:
    """Put a report of a mapping together; the line that stands first is made here."""
    point, chips = on.point, len(manifest.chips)
    devices = count_text(sum(row.devices for row in rows), "device")
    what = f"{devices} on {count_text(manifest.crossbars, 'crossbar')}"
    of = f"{count_text(chips, 'simulated chip')}, each {what}" if chips else what
    return MapReport(
        nvaudit_version=__version__,
        headline=more.pop("headline", f"{on.loaded.path} on {on.profile.name}: {of} of "
                          f"{on.size.rows}x{on.size.cols}, in {out}"),
        model=ModelInfo(**on.loaded.facts(), batching="not run"),
        device=on.profile.model_dump(mode="json"),
        operating_point=point_info(point),
        hashes=InputHashes(model=on.loaded.digest, device=profile_digest(on.profile)),
        run=on.spec.model_dump(mode="json"),
        timing={"total": seconds},
        folder=str(out),
        crossbar=on.spec.crossbar,
        unit=manifest.window.unit,
        format=manifest.format,
        chips=chips,
        bytes=size,
        tensors=rows,
        digital=len(manifest.digital),
        notes=on.notes,
        **more,
    )  # fmt: skip
