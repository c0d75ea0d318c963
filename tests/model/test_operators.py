"""The table of operators: every entry is complete, and everybody who asks has an answer."""

import pytest
from onnx import defs, helper
from onnx_cases import make_model, numbers, opened, value

from nvaudit.model.graph import read_network
from nvaudit.model.macs.rules import _RULES as COUNTS
from nvaudit.model.operators import OPERATORS, find_operator
from nvaudit.model.roles import _RULES as ROLES

NAMES = {
    "bias", "quantisation scale", "quantisation zero point",
    "quantisation scales", "quantisation zero points", "sequence lengths",
    "initial state", "initial cell state", "peephole weights",
}  # fmt: skip


@pytest.mark.parametrize(("domain", "name"), OPERATORS)
def test_an_entry_is_complete(domain, name):
    """No input is two things; a weight's scale and zero point are inputs of that name."""
    operator = OPERATORS[domain, name]
    assert not set(operator.weights) & set(operator.named)
    assert set(operator.decode) <= set(operator.weights)
    for scale, zero in operator.decode.values():
        assert scale is None or operator.named[scale] == "quantisation scale"
        assert operator.named[zero] == "quantisation zero point"
    if operator.family == "normalisation":
        assert not operator.mapped
        return
    assert set(operator.named.values()) <= NAMES
    assert operator.family in COUNTS
    assert operator.family in ROLES


@pytest.mark.parametrize("name", [name for domain, name in OPERATORS if domain == "" and defs.has(name)])
def test_inputs_are_onnx_own(name):
    """What onnx's schema calls bias, weight, scale or zero point stands at that position."""
    schema, operator = defs.get_schema(name), find_operator(name)
    for index, words in operator.named.items():
        own = schema.inputs[index].name.lower()
        wanted = {
            "bias": ("b", "c"), "shift": ("b", "bias"), "scale": ("scale",),
            "running mean": ("input_mean", "mean"), "running variance": ("input_var", "var"),
            "sequence lengths": ("sequence_lens",),
            "initial state": ("initial_h",), "initial cell state": ("initial_c",), "peephole weights": ("p",),
        }.get(words)  # fmt: skip
        if words == "quantisation scale":
            assert own.endswith("scale")
        elif words == "quantisation zero point":
            assert own.endswith("zero_point")
        else:
            assert own in wanted
    for index in operator.weights:
        assert schema.inputs[index].name.lower() in ("w", "r", "a", "b")


def test_two_spellings_of_one_domain():
    """ONNX's own domain has a name and an empty name; other domains have other operators."""
    assert find_operator("Conv", "ai.onnx") is find_operator("Conv")
    assert find_operator("Conv", "elsewhere") is None
    assert find_operator("Attention") is None
    assert find_operator("Attention", "com.microsoft").weights == (1,)


def test_the_bias_of_a_fused_product_is_a_bias(tmp_path):
    """Also to training, as that of the plain operator is."""
    node = helper.make_node("FusedGemm", ["x", "w", "b"], ["y"], domain="com.microsoft", activation="Relu")
    model = make_model([node], [value("x", ["N", 4])], [value("y", ["N", 3])],
                       {"w": numbers(4, 3), "b": numbers(3)})  # fmt: skip
    loaded, found = opened(tmp_path, model)
    assert found["b"].reason.startswith("bias of FusedGemm")
    parts = {stored.key: stored.part for stored in read_network(loaded).stored}
    assert parts == {"w": "weight", "b": "bias"}
