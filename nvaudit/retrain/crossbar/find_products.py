"""Which operators of a network are taken apart into column sums while training, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from nvaudit.errors import ModelError
from nvaudit.model import Split
from nvaudit.model.crossbar.kinds import Kind
from nvaudit.model.crossbar.plan import row_blocks
from nvaudit.model.graph import Node
from nvaudit.perturb.cells import device_factors, device_offset
from nvaudit.retrain.crossbar.products import Product, Tile
from nvaudit.retrain.executor.module import Executor
from nvaudit.retrain.executor.ops.recurrent import Part, Recurrent
from nvaudit.retrain.executor.program import Step, run_steps
from nvaudit.retrain.quant import Place

_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def find_product(
    step: Step, network: Executor, splits: Mapping[str, Split], places: Mapping[str, Place], rows: int
) -> Product | None:
    """Find the product of an operator.

    Parameters
    ----------
    step : Step
        The operator.
    network : Executor
    splits : mapping of str to Split
        The weights that the audit splits, by key.
    places : mapping of str to Place
    rows : int
        Of a crossbar.

    Returns
    -------
    Product or None
        None if it takes no such weight, or takes it in a way of its own.
    """
    function, inputs, _, _, node = step
    if node is None or node.op_type not in _OPERATORS or node.domain not in ("", "ai.onnx"):
        return None
    for index, slot in enumerate(inputs[:2]):
        keys = [key for key in _sources(network, slot) if key in splits]
        if len(keys) != 1:
            continue
        if why_whole(splits[keys[0]]) is not None:
            return None
        positions = _positions(network, keys[0], slot)
        if positions is None:
            return None
        kind = _kind(node.op_type, node.attributes, index, tuple(positions.shape))
        if kind is None or row_blocks(kind.channels, kind.kernel, rows) != splits[keys[0]].blocks:
            return None
        return _product(places[keys[0]], splits[keys[0]], kind, positions, function, node)
    return None


def why_whole(split: Split) -> str | None:
    """Say why a weight that the audit splits is trained with ideal converters; None if it is not."""
    if split.inside:
        return "its operator is in the body of another one, which is trained whole"
    if split.scaling != "output":
        return "its quantisation scale differs within an output: it is split in the audits only"
    return None


def find_recurrent(
    step: Step, network: Executor, splits: Mapping[str, Split], places: Mapping[str, Place], rows: int
) -> dict[Part, Product]:
    """Find the products of an LSTM or GRU; none if the audit does not split both of its matrices.

    Parameters are those of :func:`find_product`.
    """
    function, inputs, _, _, node = step
    if not isinstance(function, Recurrent) or node is None:
        return {}
    found = {}
    wholes = {}
    for operand in (1, 2):
        keys = [key for key in _sources(network, inputs[operand]) if key in splits]
        if len(keys) != 1 or why_whole(splits[keys[0]]) is not None:
            return {}
        positions = _positions(network, keys[0], inputs[operand])
        if positions is None or row_blocks(positions.shape[-1], 1, rows) != splits[keys[0]].blocks:
            return {}
        wholes[operand] = keys[0], positions
    for part, (start, stop) in function.parts().items():
        operand, direction, _ = part
        key, positions = wholes[operand]
        own = positions[direction, start:stop]
        kind = Kind("right", tuple(own.shape), transposed=True)
        found[part] = _product(places[key], splits[key], kind, own, _times, node)
    return found


def _times(values: Tensor, matrix: Tensor) -> Tensor:
    return values @ matrix.t()


def _product(
    place: Place, split: Split, kind: Kind, positions: Tensor, function: Callable[..., Tensor], node: Node
) -> Product:
    factors = device_factors(place.array)
    tiles = []
    for block in split.blocks:
        steps, shape = kind.arrangement(block, len(factors), len(split.blocks))
        tiles.append(Tile(block.channels, steps, shape))
    offset = device_offset(place.array)
    return Product(place.key, kind, tuple(tiles), positions, factors, offset, function, node)


def _sources(network: Executor, slot: int) -> frozenset[str]:
    """The parameters that a value is computed from, if from parameters alone."""
    refs = network._program.names.values()
    return next((ref.keys for ref in refs if ref.slot == slot and ref.kind == "weight"), frozenset())


def _positions(network: Executor, key: str, slot: int) -> Tensor | None:
    """Where an operator finds each element of a weight in the trained layout; None if it finds others.

    A weight of whole numbers is sent the way of the weight; what arrives are these numbers in another order.
    """
    with torch.no_grad():
        weight = network.clean([key])[key]
        number = torch.arange(1, weight.numel() + 1, dtype=torch.float64, device=weight.device)
        given = {key: number.reshape(weight.shape)}
        network._begin(given)
        values = network._filled(given)
        try:
            run_steps(network._program.weight_steps, values)
        except (ModelError, RuntimeError):  # something that is computed from it wants another type
            return None
        found = torch.round(values[slot].double()).long().cpu()
    if not torch.equal(found.reshape(-1).sort().values, torch.arange(1, weight.numel() + 1)):
        return None
    return found - 1


def _kind(op_type: str, attributes: Mapping[str, Any], index: int, shape: tuple[int, ...]) -> Kind | None:
    """How an operator takes a weight; None where the audit takes it otherwise."""
    if op_type in ("Conv", "ConvTranspose"):
        form: Literal["conv", "deconv"] = "conv" if op_type == "Conv" else "deconv"
        return Kind(form, shape, attributes.get("group", 1)) if index == 1 else None
    if index == 0:
        return Kind("left", shape)
    return Kind("right", shape, transposed=op_type == "Gemm" and bool(attributes.get("transB", 0)))
