"""Weights that constant operators compute, whatever the operators, and what is not computed."""

import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_cases import (
    FLOAT,
    compare,
    filled_session,
    integers,
    make_model,
    numbers,
    opened,
    session,
    value,
    weights,
)

from nvaudit.model import build_template
from nvaudit.model import evaluate as evaluation
from nvaudit.model.evaluate import MAX_FOLDED
from nvaudit.model.fold import Budget

node = helper.make_node
X = value("x", ["n", 6])
Y = value("y", None)
FEED = {"x": numbers(5, 6, seed=3)}
W = numbers(6, 4)
ONE = np.float32(1)


def product(nodes, stored, **extra):
    """A model that multiplies its input by ``e``, which nodes compute."""
    return make_model([*nodes, node("MatMul", ["x", "e"], ["y"], name="head")], [X], [Y], stored, **extra)


ARITHMETIC = {
    "clip": ([node("Clip", ["w", "lo", "hi"], ["e"])], {"w": W, "lo": np.float32(-1), "hi": ONE}),
    "low rank": (
        [node("MatMul", ["a", "b"], ["ab"]), node("Add", ["w", "ab"], ["e"])],
        {"w": W, "a": numbers(6, 2, seed=1), "b": numbers(2, 4, seed=2)},
    ),
    "low rank by Einsum": (
        [node("Einsum", ["a", "b"], ["ab"], equation="ir,rj->ij"), node("Add", ["w", "ab"], ["e"])],
        {"w": W, "a": numbers(6, 2, seed=1), "b": numbers(2, 4, seed=2)},
    ),
    "spectral norm": (
        [
            node("MatMul", ["w", "v"], ["wv"]),
            node("MatMul", ["u", "wv"], ["s"]),
            node("Div", ["w", "s"], ["e"]),
        ],
        {"w": W, "u": numbers(6), "v": numbers(4)},
    ),
    "unit columns": (
        [
            node("ReduceL2", ["w"], ["n"], axes=[0], keepdims=1),
            node("Clip", ["n", "eps"], ["c"]),
            node("Shape", ["w"], ["s"]),
            node("Expand", ["c", "s"], ["x_"]),
            node("Div", ["w", "x_"], ["e"]),
        ],
        {"w": W, "eps": np.float32(1e-12)},
    ),
    "signs": (
        [node("Greater", ["w", "zero"], ["g"]), node("Where", ["g", "one", "minus"], ["e"])],
        {"w": W, "zero": np.float32(0), "one": ONE, "minus": np.float32(-1)},
    ),
    "masked by a type": (
        [node("Greater", ["w", "zero"], ["g"]), node("Cast", ["g"], ["e"], to=FLOAT)],
        {"w": W, "zero": np.float32(0)},
    ),
    "truncated": (
        [node("Cast", ["w"], ["i"], to=TensorProto.INT32), node("Cast", ["i"], ["e"], to=FLOAT)],
        {"w": 4 * W},
    ),
    "tiled": ([node("Tile", ["w", "r"], ["e"])], {"w": W[:, :1], "r": np.int64([1, 4])}),
    "padded": (
        [node("Pad", ["w", "p"], ["z"]), node("Add", ["z", "k"], ["e"])],
        {"w": W[1:5, 1:3], "p": np.int64([1, 1, 1, 1]), "k": numbers(6, 4, seed=4)},
    ),
    "one of a stack": ([node("Gather", ["w", "i"], ["e"])], {"w": numbers(3, 6, 4), "i": np.int64(1)}),
    "filled": (
        [node("ConstantOfShape", ["s"], ["e"], value=helper.make_tensor("v", FLOAT, [1], [0.25]))],
        {"s": np.int64([6, 4])},
    ),
    "resized": (
        [node("Resize", ["w", "", "f"], ["r"], mode="linear"), node("Reshape", ["r", "s"], ["e"])],
        {"w": numbers(1, 1, 3, 4), "f": np.float32([1, 1, 2, 1]), "s": np.int64([6, 4])},
    ),
    "triangle": ([node("Trilu", ["w"], ["e"])], {"w": W}),
    "out of a sequence": (
        [node("SequenceConstruct", ["w", "v"], ["q"]), node("SequenceAt", ["q", "i"], ["e"])],
        {"w": W, "v": -W, "i": np.int64(1)},
    ),
    "dropout that is off": ([node("Dropout", ["w"], ["e"])], {"w": W}),
}


@pytest.mark.parametrize("kind", ARITHMETIC)
def test_a_computed_weight_is_mapped_with_its_value(tmp_path, kind):
    """The product's operand is one array; with its computed numbers the model gives what it gives itself."""
    nodes, stored = ARITHMETIC[kind]
    found = compare(tmp_path, product(nodes, stored), FEED)
    assert len(weights(found)) == 1
    (weight,) = (constant.weight for constant in found.values() if constant.weight)
    assert weight.shape == (6, 4)
    assert all(
        c.weight or "computed into the weight" in c.reason or "operand" in c.reason for c in found.values()
    )


def test_a_kernel_that_is_expanded_and_one_that_is_put_together(tmp_path):
    """A blur filter for every channel, and a 3×3 kernel with a padded 1×1 one on top."""
    nodes = [
        node("Expand", ["k", "s"], ["blur"]),
        node("Conv", ["x", "blur"], ["h"], group=3),
        node("Pad", ["one", "p"], ["padded"]),
        node("Add", ["three", "padded"], ["merged"]),
        node("Conv", ["h", "merged"], ["y"], pads=[1, 1, 1, 1]),
    ]
    stored = {
        "k": numbers(1, 1, 3, 3),
        "s": np.int64([3, 1, 3, 3]),
        "one": numbers(4, 3, 1, 1),
        "p": np.int64([0, 0, 1, 1, 0, 0, 1, 1]),
        "three": numbers(4, 3, 3, 3),
    }
    model = make_model(nodes, [value("x", ["n", 3, 8, 8])], [Y], stored)
    found = compare(tmp_path, model, {"x": numbers(2, 3, 8, 8)})
    assert weights(found) == ["blur", "merged"]
    assert found["blur"].weight.matrix.groups == 3


def branch(name, nodes, output, stored=()):
    return helper.make_graph(nodes, name, [], [value(output, None)], list(stored))


def test_computed_weights_inside_bodies_and_captured_ones(tmp_path):
    """One branch clips a weight of the graph around it, the other tiles one of its own."""
    own = [
        helper.make_tensor("v", FLOAT, [6, 1], numbers(6, 1)),
        helper.make_tensor("r", TensorProto.INT64, [2], [1, 4]),
    ]
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node(
            "If",
            ["c"],
            ["y"],
            then_branch=branch(
                "a", [node("Clip", ["w", "lo", "hi"], ["e"]), node("MatMul", ["x", "e"], ["p"])], "p"
            ),
            else_branch=branch(
                "b", [node("Tile", ["v", "r"], ["t"]), node("MatMul", ["x", "t"], ["q"])], "q", own
            ),
        ),
    ]
    stored = {"w": W, "lo": np.float32(-1), "hi": ONE, "zero": np.float32(0)}
    model = make_model(nodes, [X], [Y], stored)
    for sign in (1, -1):
        loaded, found = opened(tmp_path, model)
        assert sorted(weights(found)) == ["e", "t"]
        template = build_template(loaded, ["e", "t"])
        arrays = {key: found[key].weight.load().values for key in ("e", "t")}
        runner, kept = filled_session(template, arrays)
        feed = {"x": sign * np.abs(FEED["x"])}
        want = session(model.SerializeToString(), literal=True).run(None, feed)[0]
        np.testing.assert_array_equal(runner.run(None, feed)[0], want)
        del kept


def test_a_weight_that_an_if_or_a_loop_of_constants_computes(tmp_path):
    """Control flow whose condition and captures are constant is computed as a whole."""
    body = helper.make_graph(
        [node("MatMul", ["m", "a"], ["n_"]), node("Identity", ["c"], ["d"])],
        "body",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("m", [4, 4])],
        [value("d", [], TensorProto.BOOL), value("n_", [4, 4])],
    )
    nodes = [
        node(
            "If",
            ["yes"],
            ["e"],
            then_branch=branch("a_", [node("Neg", ["w"], ["p"])], "p"),
            else_branch=branch("b_", [node("Abs", ["w"], ["q"])], "q"),
        ),
        node("MatMul", ["x", "e"], ["h"]),
        node("Loop", ["times", "", "a"], ["power"], body=body),
        node("MatMul", ["h", "power"], ["y"]),
    ]
    stored = {"w": W, "yes": np.array(True), "a": numbers(4, 4, seed=5) / 4, "times": np.int64(3)}
    found = compare(tmp_path, make_model(nodes, [X], [Y], stored), FEED)
    assert weights(found) == ["e", "power"]
    np.testing.assert_array_equal(found["e"].weight.load().values, -W)


RANDOM = {
    "noise": ([node("RandomNormalLike", ["w"], ["r"]), node("Add", ["w", "r"], ["e"])], {"w": W}),
    "dropout in training": (
        [node("Dropout", ["w", "p", "t"], ["e"])],
        {"w": W, "p": np.float32(0.5), "t": np.array(True)},
    ),
    "draws": ([node("Bernoulli", ["w"], ["e"])], {"w": np.abs(W) % 1}),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_what_is_drawn_at_random_is_never_computed_once(tmp_path, kind):
    """Such a weight is another at each run, so no array holds it."""
    nodes, stored = RANDOM[kind]
    _, found = opened(tmp_path, product(nodes, stored))
    assert weights(found) == []


def test_what_depends_on_the_input_is_not_computed(tmp_path):
    """A weight scaled by the data is no constant."""
    nodes = [node("ReduceMean", ["x"], ["s"], keepdims=0), node("Mul", ["w", "s"], ["e"])]
    _, found = opened(tmp_path, product(nodes, {"w": W}))
    assert weights(found) == []
    assert found["w"].reason == "element-wise operand of Mul 'Mul_1'"


def test_a_result_beyond_the_limit_stays_digital_with_the_reason(tmp_path):
    """A file of a few bytes cannot make an array of any size; nothing that large is allocated."""
    rows, columns = MAX_FOLDED // 1024, 2048
    nodes = [node("MatMul", ["u", "v"], ["big"], name="outer"), node("Clip", ["big"], ["e"], name="limit")]
    stored = {"u": np.ones((rows, 1), np.float32), "v": np.ones((1, columns), np.float32)}
    model = make_model([*nodes, node("MatMul", ["x", "e"], ["y"])], [value("x", ["n", rows])], [Y], stored)
    _, found = opened(tmp_path, model)
    assert weights(found) == []
    assert found["u"].reason.startswith(
        f"would be computed into 'e', but MatMul 'outer' makes {2 * MAX_FOLDED:,} elements"
    )
    assert "stays digital" in found["u"].reason


def test_the_limit_holds_for_all_computed_weights_together(tmp_path, monkeypatch):
    """What exceeds the stored tensors adds up; the weights that still fit are mapped, the others say why."""
    nodes, stored = [], {}
    for number in range(4):
        stored[f"s{number}"] = np.int64([6, 6])
        nodes += [
            node(
                "ConstantOfShape",
                [f"s{number}"],
                [f"e{number}"],
                value=helper.make_tensor("v", FLOAT, [1], [0.5]),
            ),
            node("MatMul", ["x" if not number else f"h{number - 1}", f"e{number}"], [f"h{number}"]),
        ]
    monkeypatch.setattr("nvaudit.model.analysis.Budget", lambda: Budget(elements=80))
    model = make_model(nodes, [X], [value("h3", None)], stored)
    _, found = opened(tmp_path, model)
    assert weights(found) == ["e0", "e1"]
    assert "together" in found["s3"].reason


def test_equal_computed_weights_of_different_layers_are_arrays_of_their_own(tmp_path):
    """Two layers filled with the same number are not one array, unlike one weight computed twice."""
    fill = helper.make_tensor("v", FLOAT, [1], [0.5])
    nodes = [
        node("ConstantOfShape", ["s"], ["a"], value=fill),
        node("ConstantOfShape", ["s"], ["b"], value=fill),
        node("MatMul", ["x", "a"], ["h"]),
        node("MatMul", ["h", "b"], ["y"]),
    ]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], {"s": np.int64([6, 6])}))
    assert weights(found) == ["a", "b"]
    nodes = [
        node("Clip", ["w"], ["a"]),
        node("Clip", ["w"], ["b"]),
        node("MatMul", ["x", "a"], ["h"]),
        node("MatMul", ["h", "b"], ["y"]),
    ]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], {"w": numbers(6, 6)}))
    assert weights(found) == ["a"]


def test_an_endless_loop_of_constants_is_stopped(tmp_path, monkeypatch):
    """After its time, a loop without end is given up, and the weight behind it says so."""
    monkeypatch.setattr(evaluation, "MAX_SECONDS", 0.5)
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("Neg", ["m"], ["n_"])],
        "body",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("m", [6, 4])],
        [value("d", [], TensorProto.BOOL), value("n_", [6, 4])],
    )
    model = product(
        [node("Loop", ["", "yes", "w"], ["e"], body=body, name="on")], {"w": W, "yes": np.array(True)}
    )
    begin = time.monotonic()
    _, found = opened(tmp_path, model)
    assert time.monotonic() - begin < 10
    assert "Loop 'on' was not done after" in found["w"].reason
    assert threading.active_count() < 50


def test_a_loop_that_grows_without_bound_is_stopped_by_its_memory(tmp_path, monkeypatch):
    """Each step doubles the tensor: the allocator of the loop has an end."""
    monkeypatch.setattr(evaluation, "_ARENA_BYTES", 2**24)
    evaluation._bounded_arena.cache_clear()
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("Concat", ["m", "m"], ["n_"], axis=0)],
        "body",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("m", ["a", "b"])],
        [value("d", [], TensorProto.BOOL), value("n_", ["a2", "b"])],
    )
    nodes = [
        node("Loop", ["", "yes", "w"], ["grown"], body=body, name="on"),
        node("Slice", ["grown", "zero", "six"], ["e"]),
    ]
    stored = {"w": W, "yes": np.array(True), "zero": np.int64([0]), "six": np.int64([6])}
    _, found = opened(tmp_path, product(nodes, stored))
    evaluation._bounded_arena.cache_clear()
    assert weights(found) == []
    assert "Loop 'on'" in found["w"].reason


@pytest.mark.parametrize("stored_as", ["float", "int8"])
@pytest.mark.parametrize(
    ("low", "high", "bits"), [(-8, 7, 4), (-7, 7, 4), (-4, 3, 3), (-2, 1, 2), (0, 15, 4)]
)
def test_weights_of_few_bits_keep_their_grid(tmp_path, stored_as, low, high, bits):
    """Between QuantizeLinear and DequantizeLinear, Clip says how many integers there are."""
    kind = np.uint8 if low == 0 else np.int8
    zero = 8 if low == 0 else 0
    stored = {"s": np.float32(0.2), "z": kind(zero), "lo": kind(low), "hi": kind(high)}
    if stored_as == "float":
        nodes = [node("QuantizeLinear", ["w", "s", "z"], ["q"])]
        stored["w"] = W
    else:
        nodes = [node("Identity", ["w"], ["q"])]
        stored["w"] = integers(low, high + 1, 6, 4, dtype=kind)
    nodes += [node("Clip", ["q", "lo", "hi"], ["c"]), node("DequantizeLinear", ["c", "s", "z"], ["e"])]
    found = compare(tmp_path, product(nodes, stored), FEED)
    weight = found["w"].weight
    grid = weight.load().grid
    assert weight.grid_bits == grid.storage_bits == bits
    assert low - zero <= grid.codes.min() <= grid.codes.max() <= high - zero
    assert grid.codes.min() < 0 < grid.codes.max()


def test_zero_points_of_four_bits_leave_the_grid(tmp_path):
    """int4 has a type of its own in files, for zero points too; the weight keeps its stored integers."""
    codes = np.array([[-5, 3, 7], [0, 1, -8]])
    model = make_model(
        [node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1), node("MatMul", ["x", "d"], ["y"])],
        [value("x", ["n", 2])], [Y], {"s": np.float32([0.1, 0.2, 0.5])}, opset=21, ir_version=10,
    )  # fmt: skip
    model.graph.initializer.extend(
        [
            helper.make_tensor("w", TensorProto.INT4, [2, 3], codes.reshape(-1).tolist()),
            helper.make_tensor("z", TensorProto.INT4, [3], [0, 1, -1]),
        ]
    )
    found = compare(tmp_path, model, {"x": numbers(3, 2)})
    assert weights(found) == ["w"]
    assert found["w"].weight.grid_bits == 4
    np.testing.assert_array_equal(found["w"].weight.load().grid.codes, codes - [0, 1, -1])


def test_two_readings_of_one_tensor_with_other_limits_are_not_one_array(tmp_path):
    """The first is mapped; the second reads other numbers and says so."""
    nodes = []
    for name, low in (("a", "l4"), ("b", "l3")):
        nodes += [
            node("Clip", ["w", low], [f"c{name}"]),
            node("DequantizeLinear", [f"c{name}", "s"], [f"e{name}"]),
        ]
    nodes += [node("MatMul", ["x", "ea"], ["h"]), node("MatMul", ["h", "eb"], ["y"])]
    stored = {"w": integers(-8, 8, 6, 6), "s": np.float32(0.1), "l4": np.int8(-8), "l3": np.int8(-4)}
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], stored))
    assert len(found["w"].weight.uses) == 1
    assert "second quantisation" in found["w"].reason


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_weights_of_sixteen_bits_are_mapped_with_their_values(tmp_path, kind):
    """Their grid is wider than any devices', which ``keeps_grid`` says; the values are exact."""
    zero = 0 if kind is np.int16 else 32768
    stored = {"w": (zero + np.rint(9000 * W)).astype(kind), "s": np.float32(1e-4), "z": kind(zero)}
    model = product([node("DequantizeLinear", ["w", "s", "z"], ["e"])], stored, opset=21, ir_version=10)
    found = compare(tmp_path, model, FEED)
    assert found["w"].weight.grid_bits == 16


def test_integers_that_are_computed_keep_their_grid(tmp_path):
    """Codes that a constant Cast makes, behind DequantizeLinear."""
    nodes = [node("Cast", ["w"], ["q"], to=TensorProto.INT8), node("DequantizeLinear", ["q", "s"], ["e"])]
    found = compare(tmp_path, product(nodes, {"w": 20 * W, "s": np.float32(0.01)}), FEED)
    assert weights(found) == ["q"]
    assert found["q"].weight.load().grid.storage_bits == 8
