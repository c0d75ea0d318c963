"""The network on crossbars, in torch: the graph that the audit runs, with straight-through gradients.

Rounding in the converters passes the gradient on, clipping stops it outside a converter's range. From a
weight to its devices every device takes an equal share of the gradient, so that with ideal converters the
gradient is that of the unsplit network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nvaudit.mapping.quantize import dequantize
from nvaudit.model import Slot, Template, filled_model, load_model
from nvaudit.model.layout import UNMOVED, Layout
from nvaudit.perturb.cells import device_factors, place_cells, target_cells
from nvaudit.perturb.chip import Draw, MappedTensor
from nvaudit.perturb.engine import place
from nvaudit.perturb.workload import SlotSpec, Workload
from nvaudit.retrain.executor.module import Executor, build_executor


def crossbar_executor(workload: Workload, folder: Path) -> Executor:
    """Build the executor of a workload's template, with quantised weights in its slots.

    Parameters
    ----------
    workload : Workload
        On crossbars; see :func:`nvaudit.perturb.crossbar.put_on_crossbars`.
    folder : Path
        Takes the file that it is built from.

    Returns
    -------
    Executor
        Its devices are parameters under the names of the template's slots; give others to ``forward`` by
        :func:`crossbar_weights`.
    """
    arrays = {}
    tensors = [tensor.open() for tensor in workload.tensors]
    for slot in workload.slots:
        tensor = tensors[slot.tensor]
        whole = Draw(dequantize(tensor.code, tensor.scale), None)
        arrays[slot.name] = place_cells(target_cells(tensor), slot) if slot.cells else place(whole, slot)
    slots = tuple(
        Slot(s.name, workload.tensors[s.tensor].key, s.dtype, s.shape, UNMOVED, s.offset)
        for s in workload.slots
    )
    digital = {name: file.open() for name, file in workload.template.digital.items()}
    path = folder / "crossbar-executor.onnx"
    filled_model(Template(Path(workload.template.path).read_bytes(), slots, digital, {}), arrays, path)
    return build_executor(load_model(path))


def crossbar_weights(weights: Mapping[str, Tensor], workload: Workload) -> dict[str, Tensor]:
    """Program weights into devices, differentiably.

    Parameters
    ----------
    weights : mapping of str to Tensor
        By key, in the primary layout; those of the workload that are missing keep their devices.
    workload : Workload
        On crossbars. Scales are those of its tensors: a weight beyond them is clipped.

    Returns
    -------
    dict of str to Tensor
        What goes into each slot, for ``Executor.forward``.
    """
    made: dict[str, Tensor] = {}
    for index, file in enumerate(workload.tensors):
        if file.key not in weights:
            continue
        slots = [slot for slot in workload.slots if slot.tensor == index and slot.cells and not slot.variance]
        if slots:
            levels = _levels(weights[file.key], file.open())
            made |= {slot.name: _placed(levels, slot) for slot in slots}
    return made


def _levels(weight: Tensor, tensor: MappedTensor) -> Tensor:
    """Levels of the devices of a weight, (device, *weight)."""
    scale = torch.from_numpy(np.array(tensor.scale)).to(weight)
    step = torch.where(scale > 0, scale, torch.ones_like(scale))
    top = tensor.array.top
    wanted = torch.clamp(weight / step, -top, top)
    code = torch.round(wanted.detach()).cpu().numpy().astype(np.int16)
    held = target_cells(MappedTensor(tensor.key, code, tensor.scale, tensor.array, tensor.peak_code)).levels
    factors = torch.tensor(device_factors(tensor.array)).to(weight).reshape(-1, *[1] * weight.dim())
    share = wanted / (factors * len(factors))
    return torch.from_numpy(held).to(weight) + (share - share.detach())


def _placed(levels: Tensor, slot: SlotSpec) -> Tensor:
    """The same as :func:`nvaudit.perturb.cells.place_cells`, on tensors."""
    return arranged(levels, slot.transform).reshape(slot.shape) * slot.factor


def arranged(levels: Tensor, steps: Layout) -> Tensor:
    """Lay devices out by the moves of a slot; its last reshape is left out."""
    return steps.apply(levels, torch.permute, _only)


def _only(values: Tensor, axis: int, start: int, stop: int) -> Tensor:
    part = values.narrow(axis, start, stop - start)
    return torch.slice_scatter(torch.zeros_like(values), part, axis, start, stop)
