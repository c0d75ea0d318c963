"""Directions in weight space: normal numbers, filter by filter as long as the weights."""

import numpy as np
import pytest
from onnx import helper
from scipy import stats

from nvaudit.model import constants, load_model
from nvaudit.perturb.landscape.directions import (
    Filters,
    draw_direction,
    filters_of,
    is_moved,
    normalise_filters,
)
from nvaudit.rng import stream


def numbers(*shape, seed=0):
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)


def lengths(array, axes):
    """Length of each filter, numbered by the given axes."""
    within = tuple(axis for axis in range(array.ndim) if axis not in axes)
    return np.sqrt(np.square(array.astype(np.float64)).sum(axis=within))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((8, 3, 3, 3), (0,)),  # Conv
        ((5, 7), (0,)),  # Gemm, transposed
        ((7, 5), (1,)),  # Gemm, MatMul
        ((2, 12, 4), (0, 1)),  # LSTM: a gate row of a direction
        ((3, 6, 4), (0, 2)),  # MatMul with a batch axis
        ((4, 9), ()),  # a single output
    ],
)
def test_filters_are_as_long_as_the_weights(shape, axes):
    """Each filter of a direction has the length of the weights' filter."""
    weights = numbers(*shape) * np.linspace(0.1, 9, shape[-1], dtype=np.float32)
    direction = draw_direction(weights, Filters(shape, axes), 0, 0, 0, "w")
    assert direction.dtype == np.float32
    assert direction.shape == shape
    assert lengths(direction, axes) == pytest.approx(lengths(weights, axes), rel=1e-6)


def test_an_empty_filter_does_not_move():
    """Where the weights of a filter are all 0, so is the direction; nothing is divided by 0."""
    weights = numbers(4, 3)
    weights[1] = 0
    direction = draw_direction(weights, Filters((4, 3), (0,)), 0, 0, 0, "w")
    assert not direction[1].any()
    assert direction[[0, 2, 3]].all()
    assert not normalise_filters(np.zeros((4, 3), np.float32), weights, Filters((4, 3), (0,))).any()


def test_directions_are_normal_before_they_are_scaled():
    """With one filter of the length √n the numbers are standard normal: mean, spread, Kolmogorov-Smirnov.

    False alarm: below 10⁻³ for the test of the law; fixed seed.
    """
    weights = np.ones((200, 500), np.float32)
    drawn = draw_direction(weights, Filters(weights.shape, ()), 0, 0, 0, "w").ravel().astype(np.float64)
    assert abs(drawn.mean()) < 4 / np.sqrt(drawn.size)
    assert np.square(drawn).mean() == pytest.approx(1, abs=1e-6)  # by the scaling
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    assert np.array_equal(
        np.sign(drawn), np.sign(stream(0, "landscape", 0, 0, "w").standard_normal(drawn.size, np.float32))
    )


def test_every_address_has_its_own_numbers():
    """Seeds, pairs, axes and tensors differ, without correlation; the same address gives the same bits."""
    weights = numbers(40, 50)
    addresses = [(0, 0, 0, "a"), (1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, 0, "b")]
    drawn = [draw_direction(weights, Filters((40, 50), (0,)), *address) for address in addresses]
    again = draw_direction(weights, Filters((40, 50), (0,)), *addresses[0])
    assert again.tobytes() == drawn[0].tobytes()
    correlation = np.corrcoef([d.ravel() for d in drawn]) - np.eye(len(drawn))
    assert np.abs(correlation).max() < 5 / np.sqrt(weights.size)


def test_nothing_is_written_to():
    """Weights and directions of the caller stay as they are."""
    weights, direction = numbers(4, 3), numbers(4, 3, seed=1)
    weights.flags.writeable = direction.flags.writeable = False
    assert normalise_filters(direction, weights, Filters((4, 3), (0,))).any()


def weight_of(tmp_path, node, shape, inputs):
    """The weight that one node makes of an initializer ``w``."""
    from onnx import TensorProto, numpy_helper

    stored = [numpy_helper.from_array(numbers(*shape), "w")]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "g", infos, [out], stored),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return next(c.weight for c in constants(load_model(path)) if c.name == "w")


def test_filters_of_a_grouped_transposed_convolution(tmp_path):
    """Its inputs come first, all groups after each other: a filter is one output of one group."""
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=2)
    weight = weight_of(tmp_path, node, (6, 5, 3, 3), {"x": ["N", 6, 8, 8]})
    filters = filters_of(weight)
    values = numbers(6, 5, 3, 3)
    direction = draw_direction(values, filters, 0, 0, 0, "w")
    for group in range(2):
        part = slice(3 * group, 3 * group + 3)
        assert lengths(direction[part], (1,)) == pytest.approx(lengths(values[part], (1,)), rel=1e-6)


def test_filters_of_an_lstm_are_gate_rows(tmp_path):
    """W [direction, 4 × hidden, input]: each row of each gate and direction is a filter."""
    from onnx import TensorProto, numpy_helper

    nodes = [helper.make_node("LSTM", ["x", "W", "R", "B"], ["", "y"], hidden_size=3)]
    stored = {"W": numbers(1, 12, 5), "R": numbers(1, 12, 3), "B": numbers(1, 24)}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [7, "N", 5])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in stored.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    found = {c.name: c.weight for c in constants(load_model(path))}
    assert filters_of(found["W"]) == Filters((1, 12, 5), (0, 1))
    assert filters_of(found["R"]) == Filters((1, 12, 3), (0, 1))
    assert found["B"] is None


def test_a_vector_is_not_moved(tmp_path):
    """A weight with one dimension stays where it is, one with two moves."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert not is_moved(weight_of(tmp_path, node, (6,), {"x": ["N", 6]}))
    assert is_moved(weight_of(tmp_path, node, (6, 1), {"x": ["N", 6]}))
