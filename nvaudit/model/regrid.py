"""Weights that a model stores as integers, on another grid: new codes, and new scales where these stand.

The value of a code is scale × (integer − zero point). A finer scale with larger codes stands for the same
weights, or for clipped ones; what multiplies by the scale has to follow: the DequantizeLinear, the operand of
an integer operator, or the factor behind a bare integer product. Integer biases count in steps of the scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.analysis import End, Root, analyse
from nvaudit.model.build import Names
from nvaudit.model.chains import Quantize
from nvaudit.model.decode import IntegerGrid, decode_values
from nvaudit.model.fold import fold, stored_array
from nvaudit.model.load import LoadedModel
from nvaudit.model.operators import BIASED_PRODUCTS, operator_of
from nvaudit.model.parameters import grid_of
from nvaudit.model.rewrite import put_constant, set_weights, store_array
from nvaudit.model.walk import operand
from nvaudit.model.weights import choose

_BARE = frozenset({"MatMulInteger", "ConvInteger"})


@dataclass(frozen=True)
class _Site:
    """A constant that follows the scale: multiplied by new/old, or (``steps``) a bias counted in it."""

    node: ir.Node
    index: int
    steps: bool = False


def code_ranges(model: ir.Model, keys: Sequence[str]) -> dict[str, tuple[int, int] | str]:
    """Least and largest code that each weight on a grid may have.

    Parameters
    ----------
    keys : sequence of str
        Weights that are stored as integers.

    Returns
    -------
    dict of str to (int, int), or str
        Codes are integers less zero points. Where no other grid can be written: the reason.
    """
    if not keys:
        return {}
    analysis = analyse(model)
    roots = {root.key: root for root in analysis.roots}
    return {key: _range(roots[key], analysis.opset) for key in keys}


def set_grids(model: ir.Model, grids: Mapping[str, IntegerGrid]) -> None:
    """Replace the codes and scales of weights that are stored as integers.

    Parameters
    ----------
    model : onnx_ir.Model
        The model; it is changed.
    grids : mapping of str to IntegerGrid
        By key, in the primary layout; scales of the shapes that the weights have now.
    """
    analysis = analyse(model)
    roots = {root.key: root for root in analysis.roots}
    names = Names(model.graph)
    for key, new in grids.items():
        root = roots[key]
        sites, grid = _sites(root, analysis.opset), grid_of(root, analysis.opset)
        stored = stored_array(root.value)
        assert not isinstance(sites, str)
        assert grid is not None
        assert stored is not None
        old = _scale(root, analysis.opset).astype(np.float64)
        ratio = np.divide(new.scale, old, out=np.ones(old.shape), where=old != 0)
        codes = choose(root).to_stored.apply(new.codes)
        for site in sites:
            put_constant(site.node, site.index, partial(_followed, ratio=ratio, steps=site.steps), names)
        store_array(root.value, (codes + grid.zero).astype(stored.dtype))


def _scale(root: Root, opset: int) -> Array:
    """The scale of a weight, in a shape that broadcasts against its primary layout."""
    stored, end = stored_array(root.value), choose(root).mapped[0]
    assert stored is not None
    assert end.role is not None
    grid = decode_values(stored, root.state.dtype, end.steps, end.role.decode, opset)[1]
    assert grid is not None
    return grid.scale


def _followed(array: Array, ratio: Array, steps: bool) -> Array:
    """A constant that the scales' factors go to; one per entry, or one for all."""
    factor = ratio.reshape(array.shape) if array.size == ratio.size else ratio.reshape(-1)
    # A bias of codes b has the value step · b: where the step grows by a factor, the codes shrink by it.
    wide = array.astype(np.float64) / factor if steps else array.astype(np.float64) * factor
    return np.asarray(np.rint(wide) if steps else wide, array.dtype)


def _range(root: Root, opset: int) -> tuple[int, int] | str:
    if root.origin not in ("initializer", "constant"):
        return f"is stored as {root.origin}" if root.origin != "folded" else "is computed in the graph"
    if choose(root).digital:
        return "serves a digital use too"
    sites = _sites(root, opset)
    if isinstance(sites, str):
        return sites
    grid = grid_of(root, opset)
    if grid is None:
        return "is rounded to its integer grid inside the graph"
    scales = _scale(root, opset).size
    for site in sites:
        constant = site.node.inputs[site.index]
        array = None if constant is None else fold(constant, opset)
        # One number for each scale, each taking its own factor; or one scale, for a bias of any length.
        if array is None or not (array.size == scales or (site.steps and scales == 1)):
            return "has scales for blocks, shared ones, or some that are not constant"
    low, high = int(np.max(grid.low - grid.zero)), int(np.min(grid.high - grid.zero))
    return (low, high) if low < 0 < high or low == 0 < high else "has a zero point at the end of its range"


def _sites(root: Root, opset: int) -> list[_Site] | str:
    """Find every constant that follows the scale of a weight; or say why they cannot be found."""
    sites: list[_Site] = []
    for end in choose(root).mapped:
        of_end = _sites_of(root, end, opset)
        if isinstance(of_end, str):
            return of_end
        sites += [site for site in of_end if site not in sites]
    return sites


def _sites_of(root: Root, end: End, opset: int) -> list[_Site] | str:
    assert end.role is not None
    assert end.place is not None
    decode, node = end.role.decode, end.place.node
    scaled = [step for step in end.steps if isinstance(step, Quantize)]
    if decode is None:
        if len(scaled) != 1 or not scaled[0].back or not root.state.dtype.is_integer():
            return "is rounded to its integer grid inside the graph"
        scale = scaled[0].scale
        own = [
            _Site(use.node, 1)
            for use in scale.uses()
            if use.idx == 1 and use.node.op_type == "DequantizeLinear" and _comes_from(use.node, root.value)
        ]
        return own + _quantised_bias(node, opset)
    if scaled:
        return "is rounded to another integer grid inside the graph"
    if decode.scale is not None:
        sites = [_Site(node, index) for index, value in enumerate(node.inputs) if value is decode.scale]
        operator = operator_of(node)
        bias = None if operator is None else operator.bias
        if bias is not None and operand(node, bias) is not None:  # int32, in steps of both scales
            sites.append(_Site(node, bias, steps=True))
        return sites if len(sites) == len({s.steps for s in sites}) else "shares its scale with its operand"
    return _factor_behind(node, opset) if node.op_type in _BARE else "has no scale that can be changed"


def _quantised_bias(node: ir.Node, opset: int) -> list[_Site]:
    """Find the codes and scale of an int32 bias.

    Runtimes take it for granted that its step is the product of the operands' steps, so it has to stay so.
    """
    operator = operator_of(node)
    takes_bias = operator is not None and operator.family in BIASED_PRODUCTS
    bias = operand(node, operator.bias) if takes_bias and operator and operator.bias is not None else None
    maker = None if bias is None else bias.producer()
    if maker is None or maker.op_type != "DequantizeLinear" or maker.inputs[0] is None:
        return []
    codes = fold(maker.inputs[0], opset)
    if codes is None or codes.dtype != np.int32:
        return []
    return [_Site(maker, 0, steps=True), _Site(maker, 1)]


def _comes_from(node: ir.Node, value: ir.Value) -> bool:
    """Whether what a node dequantises is a stored tensor, moved at most."""
    at = node.inputs[0]
    while at is not None and at is not value:
        maker = at.producer()
        at = maker.inputs[0] if maker is not None and maker.op_type in _MOVES and maker.inputs else None
    return at is value


_MOVES = frozenset({"Clip", "Identity", "Cast", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"})


def _factor_behind(node: ir.Node, opset: int) -> list[_Site] | str:
    """Find the constant factor behind a bare integer product: Cast, and Mul by it or a product with it."""
    reason = "counts in bare integers, and no constant factor follows that nothing else uses"
    value = node.outputs[0]
    for _ in range(2):
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return reason
        behind = uses[0].node
        if behind.op_type == "Cast":
            value = behind.outputs[0]
            continue
        if behind.op_type != "Mul" or behind.domain:
            return reason
        return _constant_operand(behind, 1 - uses[0].idx, opset) or reason
    return reason


def _constant_operand(node: ir.Node, index: int, opset: int) -> list[_Site] | None:
    value = node.inputs[index]
    if value is None:
        return None
    if fold(value, opset) is not None:
        return [_Site(node, index)]
    maker = value.producer()
    if maker is None or maker.op_type != "Mul" or len(list(value.uses())) != 1 or value.is_graph_output():
        return None
    for at in (0, 1):
        given = maker.inputs[at]
        if given is not None and fold(given, opset) is not None:
            return [_Site(maker, at)]
    return None


def with_numbers(loaded: LoadedModel, numbers: Mapping[str, Array | IntegerGrid]) -> LoadedModel:
    """Make a model with other numbers in some weights, floats or codes on another grid."""
    model = loaded.model.clone()
    set_weights(model, {key: new for key, new in numbers.items() if not isinstance(new, IntegerGrid)})
    set_grids(model, {key: new for key, new in numbers.items() if isinstance(new, IntegerGrid)})
    return replace(loaded, model=model)
