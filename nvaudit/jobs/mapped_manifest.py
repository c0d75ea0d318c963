"""What the manifest of a mapping says: written by `nvaudit map`, and made again by its check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit._version import __version__
from nvaudit.device import profile_digest
from nvaudit.jobs.on_crossbars import OnCrossbars
from nvaudit.mapping.manifest import (
    ARRAYS,
    DIGITAL,
    DIGITAL_PART,
    MANIFEST,
    ConverterEntry,
    CrossbarEntry,
    DigitalEntry,
    Manifest,
    ModelEntry,
    OperatorEntry,
    OutliersEntry,
    TensorEntry,
    WindowEntry,
    content_digest,
    content_of,
    folder_name,
    runs_of,
)
from nvaudit.mapping.outliers import Outliers
from nvaudit.mapping.places import CrossbarPlace, Geometry, TargetArrays, arrays_digest
from nvaudit.mapping.spec import ArrayFormat
from nvaudit.model import Weight
from nvaudit.model.digital_part import DigitalPart
from nvaudit.model.layer_input import layer_inputs
from nvaudit.options import OF_A_MAPPING, DataOptions
from nvaudit.perturb.crossbar import WeightOnCrossbars
from nvaudit.perturb.workload import TensorFile
from nvaudit.spec import RunSpec


def manifest_of(
    on: OnCrossbars,
    tensors: Sequence[TensorEntry],
    *,
    form: ArrayFormat,
    plan: str | None,
    chips: tuple[str, ...],
) -> Manifest:
    """Say what lies where.

    Parameters
    ----------
    tensors : sequence of TensorEntry
        In the order of ``on.weights``.
    plan : str or None
        What is write-verified; then crossbars are in the order of how much of them is.
    chips : tuple of str
        Folders of simulated chips; none of a mapping.
    """
    profile, window = on.profile, on.profile.window
    order = [(t, c) for t, entry in enumerate(tensors) for c in range(len(entry.crossbars))]
    if plan is not None:
        order.sort(key=lambda at: tensors[at[0]].crossbars[at[1]].verify or 0)
    manifest = Manifest(
        nvaudit_version=__version__,
        sha256="0" * 64,
        model=ModelEntry(path=str(on.loaded.path), sha256=on.loaded.digest),
        device=profile.model_dump(mode="json"),
        device_sha256=profile_digest(profile),
        sigma=on.point.sigma,
        sigma_unit=on.point.sigma_unit,
        time_s=on.point.time_s,
        run=mapping_options(on.spec),
        crossbar=on.spec.crossbar,
        window=WindowEntry(unit="level", min=0, max=2**profile.bits_per_cell - 1)
        if window is None
        else WindowEntry(unit=window.unit, min=window.min, max=window.max),
        format=form,
        tensors=tuple(tensors),
        digital=tuple(
            DigitalEntry(name=one.constant.name, reason=one.reason) for one in on.decisions if not one.mapped
        ),
        digital_part=None if chips else DIGITAL_PART,
        plan=plan,
        order=tuple(order),
        chips=chips,
        seed=on.spec.seed if chips else None,
    )
    return manifest.model_copy(update={"sha256": content_digest(manifest)})


def mapping_options(spec: RunSpec) -> dict[str, Any]:
    """The options that say how weights lie on devices, what these do, and which chips there are."""
    names = {*OF_A_MAPPING, *(DataOptions.model_fields if spec.adc_bits is not None else ())}
    kept = {name: value for name, value in spec.model_dump(mode="json").items() if name in names}
    return {name: value for name, value in kept.items() if value != RunSpec.model_fields[name].default}


def numbers_file(index: int, key: str, what: str, beside_chips: bool) -> str:
    """Name the file of numbers of a tensor that are on no crossbar, below the folder.

    Beside chips they lie apart from these: a folder with arrays is a chip.
    """
    return f"{DIGITAL if beside_chips else ARRAYS}/{folder_name(index, key)}/{what}.npy"


def tensor_entry(
    index: int,
    weight: Weight,
    tensor: TensorFile,
    geometry: Geometry,
    crossbars: Sequence[CrossbarEntry],
    *,
    layer: WeightOnCrossbars | None,
    outliers: Outliers | None,
    part: DigitalPart | None,
) -> TensorEntry:
    """Say how one tensor lies on its crossbars.

    Parameters
    ----------
    layer : WeightOnCrossbars or None
        With its converters.
    outliers : Outliers or None
        Weights that no device holds.
    part : DigitalPart or None
        Of the model; None of simulated chips.
    """
    array, matrix, several = tensor.array, weight.matrix, tensor.scale.size > 1

    def file(what: str) -> str:
        return numbers_file(index, tensor.key, what, beside_chips=part is None)

    return TensorEntry(
        name=tensor.key,
        operators=_operators(weight, part),
        shape=weight.shape,
        row_axes=geometry.row_axes,
        column_axes=geometry.column_axes,
        matrices=matrix.groups,
        matrix=(matrix.rows, matrix.cols),
        kernel=matrix.kernel,
        encoding=array.encoding,
        factors=array.code.factors,
        zero=array.code.zero,
        top_level=array.top_level,
        slices=array.code_is_slices,
        scale=None if several else float(tensor.scale.reshape(-1)[0]),
        scales=file("scales") if several else None,
        converters="ideal" if layer is None else converters_of(layer),
        outliers=None
        if outliers is None or not outliers.place.size
        else OutliersEntry(
            weights=outliers.place.size, places=file("outlier_places"), values=file("outlier_values"),
            sha256=outliers.digest,
        ),
        whole=None if part is None else part.whole.get(tensor.key),
        crossbars=tuple(crossbars),
    )  # fmt: skip


def _operators(weight: Weight, part: DigitalPart | None) -> tuple[OperatorEntry, ...]:
    """The operators of a weight, and where the digital part takes their products."""
    cuts = () if part is None else tuple(cut for cut in part.cuts if cut.key == weight.key)
    by_result = {cut.result: cut for cut in cuts}
    entries = []
    for number, use in enumerate(weight.uses):
        taken = layer_inputs(replace(weight, uses=(use,)))
        result = use.node.outputs[0].name or ""
        # An operator on integers is written out on floats, by another name of what it makes.
        cut = by_result.get(result) or (cuts[number] if len(cuts) == len(weight.uses) else None)
        entries.append(
            OperatorEntry(
                node=use.node_name,
                op_type=use.op_type,
                domain=use.domain,
                graph=use.graph_path,
                input=use.input_index,
                activation=None if isinstance(taken, str) else taken[0].value,
                result=result,
                product=None if cut is None else cut.product,
                driver=None if cut is None else cut.driver,
            )
        )
    return tuple(entries)


def converters_of(layer: WeightOnCrossbars) -> Literal["ideal"] | dict[Any, ConverterEntry | None]:
    """The converters of a weight, as the manifest has them."""
    if layer.split.reason is not None:
        return "ideal"
    return {
        name: None if one is None else ConverterEntry(step=one.step, low=one.low, high=one.high)
        for name, one in vars(layer.converters).items()
    }


def crossbar_entry(
    stem: str, place: CrossbarPlace, target: TargetArrays, marked: NDArray[np.bool_] | None
) -> CrossbarEntry:
    """Say what is on one crossbar; ``marked`` are the devices to write-verify, of a plan."""
    return CrossbarEntry(
        file=stem,
        rows=place.rows,
        outputs=runs_of(place.outputs[place.starts].tolist()),
        first_device=int(place.devices[0]),
        columns=len(place.outputs),
        devices=int(np.count_nonzero(target.used)),
        verify=None if marked is None else int(np.count_nonzero(marked)),
        sha256=arrays_digest(target, marked),
    )


def edits_of(manifest: Manifest, expected: Manifest) -> Iterator[str]:
    """Name what a manifest says otherwise than its mapping is; another version may have made it."""
    version = {"nvaudit_version": __version__}
    yield from _differences("", content_of(manifest) | version, content_of(expected))


def _differences(key: str, found: Any, wanted: Any) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        pairs: Iterator[tuple[Any, Any, Any]] = (
            (name, found.get(name), wanted.get(name)) for name in dict.fromkeys((*wanted, *found))
        )
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = ((number, *both) for number, both in enumerate(zip(found, wanted, strict=True)))
    else:
        if found != wanted:
            texts = [text if len(text := str(one)) <= 60 else f"{text[:57]}…" for one in (found, wanted)]
            yield f"{MANIFEST}: {key}: {texts[0]}; it should be {texts[1]}"
        return
    for name, ours, theirs in pairs:
        yield from _differences(f"{key}.{name}" if key else str(name), ours, theirs)
