"""What stays digital when weights are on arrays, as a model of its own: products come in from outside.

Every operator that multiplies by a mapped weight goes. Its product W·x is an input, and x, what the array is
driven by, is an output; a bias and the factors of a Gemm stay. Whoever runs it goes from array to array in
their order: an output needs only the products before it, so that any numbers may stand for those after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir

from nvaudit.model.build import Builder, Names, remove_unused
from nvaudit.model.crossbar.kinds import Refused, use_kind
from nvaudit.model.crossbar.split import MIN_OPSET
from nvaudit.model.load import LoadedModel
from nvaudit.model.operators import OPTIONAL_GEMM_BIAS, is_float, is_gemm
from nvaudit.model.template import Slot, Template, build_template
from nvaudit.model.walk import attribute


@dataclass(frozen=True)
class OutsideProduct:
    """One operator whose product comes from an array.

    Attributes
    ----------
    key : str
        Of its weight.
    result : str
        What the operator makes in the model.
    product : str
        The input that takes the product: weights times what drives them, without bias.
    driver : str
        What drives the array: an output, or an input that the model has.
    """

    key: str
    result: str
    product: str
    driver: str


@dataclass(frozen=True)
class DigitalPart:
    """A model without its mapped products.

    Attributes
    ----------
    template : Template
        Without slots.
    computed : Template
        The same graph, but that it computes every product from weights in slots, and returns it by its name.
    cuts : tuple of OutsideProduct
        In the order of the graph.
    whole : dict of str to str
        Weights whose operators stay as they are, each with the reason.
    precision : float
        Relative step of the coarsest numbers that it computes with.
    """

    template: Template
    computed: Template
    cuts: tuple[OutsideProduct, ...]
    whole: dict[str, str]
    precision: float


_STEPS = {ir.DataType.DOUBLE: 2.0**-52, ir.DataType.FLOAT: 2.0**-23, ir.DataType.FLOAT16: 2.0**-10}
_QUANTISED = 2.0**-8
"""Of 8-bit integers; of bfloat16 it is the same."""


def digital_part(loaded: LoadedModel, keys: Sequence[str]) -> DigitalPart:
    """OutsideProduct a model at the products with some weights.

    Raises
    ------
    ModelError
        If a key is not a weight of the model, or the graph cannot be rewritten.
    """
    whole = _not_cut(build_template(loaded, keys), keys)
    template = build_template(loaded, [key for key in keys if key not in whole])
    proto, cuts = _cut(template, computed=False)
    with_products, _ = _cut(template, computed=True)
    return DigitalPart(
        replace(template, proto=proto, slots=()), replace(template, proto=with_products), cuts, whole,
        _precision(template),
    )  # fmt: skip


def _precision(template: Template) -> float:
    model = _read(template)
    if any("QuantizeLinear" in node.op_type for node in model.graph):
        return _QUANTISED
    types = {model.graph.initializers[slot.name].dtype or ir.DataType.FLOAT for slot in template.slots}
    return max((_STEPS.get(one, _QUANTISED) for one in types), default=_STEPS[ir.DataType.FLOAT])


def _read(template: Template) -> ir.Model:
    return ir.serde.deserialize_model(onnx.ModelProto.FromString(template.proto))


def _uses(model: ir.Model, slot: Slot) -> list[tuple[ir.Node, int]]:
    return [(use.node, use.idx) for use in model.graph.initializers[slot.name].uses()]


def _not_cut(template: Template, keys: Sequence[str]) -> dict[str, str]:
    """Weights whose operators cannot go, with the reason: a weight goes wholly or not at all."""
    model = _read(template)
    if model.opset_imports.get("", 1) < MIN_OPSET:
        return dict.fromkeys(keys, f"the model's opset is below {MIN_OPSET}")
    whole: dict[str, str] = {}
    for slot in template.slots:
        for node, index in _uses(model, slot):
            try:
                if is_float(node, "recurrent"):
                    raise Refused(f"its products are inside its {node.op_type}, one for each step")
                kind = use_kind(node, index)
                other = node.inputs[1 if kind.form == "left" else 0]
                if node.graph is not model.graph:
                    raise Refused("its operator is inside another operator")
                if other is None or other.is_initializer():
                    raise Refused("it is multiplied by a constant")
            except Refused as refused:
                whole[slot.weight_key] = str(refused)
    return whole


def _cut(template: Template, *, computed: bool) -> tuple[bytes, tuple[OutsideProduct, ...]]:
    """Replace products by inputs, or return them."""
    model = _read(template)
    names, cuts, opset = Names(model.graph), [], model.opset_imports.get("", 1)
    order = {id(node): at for at, node in enumerate(model.graph)}
    places = [(slot, *use) for slot in template.slots for use in _uses(model, slot)]
    for slot, node, index in sorted(places, key=lambda place: order[id(place[1])]):
        kind = use_kind(node, index)
        weight, driver = node.inputs[index], node.inputs[1 if kind.form == "left" else 0]
        assert weight is not None
        assert driver is not None
        build, result = Builder(node, names), node.outputs[0]
        name = names.fresh(f"{result.name}/product")
        if computed:
            product = _product(build, weight, opset)
            product.name, product.type = name, ir.TensorType(weight.dtype or ir.DataType.FLOAT)
            model.graph.outputs.append(product)
        else:
            product = ir.Value(name=name, type=ir.TensorType(weight.dtype or ir.DataType.FLOAT))
            product.shape = result.shape
            model.graph.inputs.append(product)
        cuts.append(OutsideProduct(slot.weight_key, result.name or "", name, driver.name or ""))
        if not (driver.is_graph_input() or driver.is_graph_output()):
            driver.type = driver.type or ir.TensorType(weight.dtype or ir.DataType.FLOAT)
            model.graph.outputs.append(driver)
        build.replace(_rest(build, product, len(kind.shape)))
    model.graph.sort()
    remove_unused(model.graph)
    return bytes(ir.serde.serialize_model(model).SerializeToString()), tuple(cuts)


def _product(build: Builder, weight: ir.Value, opset: int) -> ir.Value:
    """The operator without what is digital of it."""
    node = build.before
    inputs = [value for value in node.inputs[:2] if value is not None]
    digital: tuple[str, ...] = ()
    if is_gemm(node.op_type, node.domain):
        digital = ("alpha", "beta")
        if opset < OPTIONAL_GEMM_BIAS:
            inputs.append(build.constant(np.zeros(1, (weight.dtype or ir.DataType.FLOAT).numpy())))
    kept = [value for name, value in node.attributes.items() if name not in digital]
    return build.node(node.op_type, *inputs, attributes=kept, domain=node.domain)


def _rest(build: Builder, product: ir.Value, rank: int) -> ir.Value:
    """What an operator does beside its product: ``alpha · product + beta · bias``."""
    node = build.before
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    dtype = (product.dtype or ir.DataType.FLOAT).numpy()

    def times(value: ir.Value, name: str) -> ir.Value:
        factor = attribute(node, name, 1.0)
        return value if factor == 1 else build.node("Mul", value, build.constant(np.array(factor, dtype)))

    if is_gemm(node.op_type, node.domain):
        made = times(product, "alpha")
        bias = None if bias is None else times(bias, "beta")
    else:
        made = product
        if bias is not None:
            shape = np.array([1, -1, *(1 for _ in range(rank - 2))], np.int64)
            bias = build.node("Reshape", bias, build.constant(shape))
    if bias is not None:
        return build.node("Add", made, bias)
    return build.node("Identity", made) if made is product else made
