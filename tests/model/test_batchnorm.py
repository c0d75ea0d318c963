"""Batch normalisation by the statistics of the batch at hand."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_cases import make_model, numbers, session, tensor, value

from nvaudit.model.batchnorm import recalibrate_batch_norm

STORED = {
    "scale": np.abs(numbers(3, seed=1)) + 0.5,
    "shift": numbers(3, seed=2),
    "mean": numbers(3, seed=3),
    "var": np.abs(numbers(3, seed=4)) + 0.1,
}
NORM = helper.make_node("BatchNormalization", ["x", *STORED], ["y"], epsilon=1e-3)


def expected(x):
    """Normalised over all axes but the second, then scaled and shifted."""
    axes = (0, *range(2, x.ndim))
    column = (-1,) + (1,) * (x.ndim - 2)
    x = x.astype(np.float64)
    normal = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3)
    return normal * STORED["scale"].reshape(column) + STORED["shift"].reshape(column)


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15, 17, 18, 21])
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 4, 5), (6, 3, 2, 3, 4)])
def test_each_channel_is_normalised_over_the_batch(opset, shape):
    """Mean and variance of the batch replace the stored ones, for any number of positions."""
    model = make_model(
        [NORM], [value("x", ["N", *shape[1:]])], [value("y", None)], STORED, opset=opset, ir_version=8
    )
    proto, changed = recalibrate_batch_norm(model.SerializeToString())
    assert changed == 1
    x = 3 * numbers(*shape, seed=7) + 2
    (y,) = session(proto).run(None, {"x": x})
    assert y == pytest.approx(expected(x), rel=1e-4, abs=1e-5)


def test_at_any_depth():
    """A node in a branch is changed like one outside."""
    branch = helper.make_graph([NORM], "branch", [], [value("y", None)])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "other", [], [value("z", None)])
    nodes = [helper.make_node("If", ["which"], ["out"], then_branch=branch, else_branch=other)]
    inputs = [value("x", ["N", 3, 4]), value("which", [], TensorProto.BOOL)]
    model = make_model(nodes, inputs, [value("out", None)], STORED)
    proto, changed = recalibrate_batch_norm(model.SerializeToString())
    assert changed == 1
    x = numbers(5, 3, 4)
    (y,) = session(proto).run(None, {"x": x, "which": np.array(True)})
    assert y == pytest.approx(expected(x), rel=1e-4, abs=1e-5)


def test_other_models_are_left_alone():
    """Without such a node, with an old operator set, or normalised per position: the same bytes."""
    plain = make_model([helper.make_node("Relu", ["x"], ["y"])], [value("x", [2, 3])], [value("y", None)])
    spatial = helper.make_node("BatchNormalization", ["x", *STORED], ["y"], spatial=0)
    per_position = make_model([spatial], [value("x", [2, 3])], [value("y", None)], STORED, opset=7)
    old = make_model([NORM], [value("x", [2, 3])], [value("y", None)], STORED, opset=6)
    for model in (plain, per_position, old):
        proto = model.SerializeToString()
        assert recalibrate_batch_norm(proto) == (proto, 0)


def test_external_data_stays_external():
    """Open places of a template are not read."""
    model = make_model([NORM], [value("x", ["N", 3])], [value("y", None)], STORED)
    slot = tensor(np.ones(3, np.float32), "scale")
    slot.ClearField("raw_data")
    slot.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "nowhere.bin"), ("offset", "0"), ("length", "12")):
        slot.external_data.add(key=key, value=text)
    model.graph.initializer[0].CopyFrom(slot)
    proto, changed = recalibrate_batch_norm(model.SerializeToString())
    assert changed == 1
    assert b"nowhere.bin" in proto
