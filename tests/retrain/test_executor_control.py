"""Control flow: branches, loops and scans agree with ONNX Runtime and train what they read from outside."""

import numpy as np
import pytest
import torch
from executor_cases import (
    FLOAT,
    INT64,
    assert_same,
    built,
    make_model,
    node,
    numbers,
    run_ort,
    run_torch,
    tensors,
    value,
)
from onnx import TensorProto, helper, numpy_helper

BOOL = TensorProto.BOOL


def _branch(name, weight, stored=None):
    initializers = [numpy_helper.from_array(array, key) for key, array in (stored or {}).items()]
    return helper.make_graph(
        [node("MatMul", ["h", weight], [f"{name}_y"])], name, [], [value(f"{name}_y", None)], initializers
    )


def _if_model():
    """Weights of the outer graph and of a branch; the condition is fed."""
    return make_model(
        [
            node("MatMul", ["x", "w"], ["h"]),
            node(
                "If",
                ["flag"],
                ["y"],
                then_branch=_branch("then", "w_outer"),
                else_branch=_branch("else", "w_inner", {"w_inner": numbers(4, 2, seed=3)}),
            ),
        ],
        [value("x", ["n", 3]), value("flag", [], BOOL)],
        [value("y", None)],
        {"w": numbers(3, 4, seed=1), "w_outer": numbers(4, 2, seed=2)},
    )


@pytest.mark.parametrize("flag", [True, False])
def test_branch_agrees_and_trains(flag, tmp_path):
    """The taken branch gives the output, and only the weights that it reads get a gradient."""
    model = _if_model()
    executor = built(tmp_path, model)
    feeds = {"x": numbers(5, 3), "flag": np.array(flag)}
    assert_same(run_torch(executor, feeds), run_ort(model.SerializeToString(), feeds))
    executor(tensors(feeds))["y"].sum().backward()
    taken, other = ("w_outer", "w_inner") if flag else ("w_inner", "w_outer")
    assert executor.weights["w"].grad.abs().sum() > 0
    assert executor.weights[taken].grad.abs().sum() > 0
    assert executor.weights[other].grad is None


def test_weight_in_a_branch_can_be_overridden(tmp_path):
    """Noise reaches a weight that a branch reads from outside."""
    executor = built(tmp_path, _if_model())
    feeds = tensors({"x": numbers(5, 3), "flag": np.array(True)})
    assert torch.equal(executor(feeds, {"w_outer": torch.zeros(4, 2)})["y"], torch.zeros(5, 2))


def test_branch_that_is_known_need_not_be_supported_elsewhere(tmp_path):
    """With a constant condition the other branch is not even built."""
    other = helper.make_graph([node("Bernoulli", ["h"], ["o"])], "other", [], [value("o", None)])
    model = make_model(
        [
            node("MatMul", ["x", "w"], ["h"]),
            node("If", ["flag"], ["y"], then_branch=_branch("then", "w2"), else_branch=other),
        ],
        [value("x", ["n", 3])],
        [value("y", None)],
        {"w": numbers(3, 4), "w2": numbers(4, 2), "flag": np.array(True)},
    )
    found = run_torch(built(tmp_path, model), {"x": numbers(5, 3)})
    assert_same(found, {"y": numbers(5, 3) @ numbers(3, 4) @ numbers(4, 2)})


@pytest.mark.parametrize("limit", [0, 1, 4])
def test_loop_agrees_and_trains(limit, tmp_path):
    """A loop with a carried state, a condition and a scan output, for as many turns as it is told."""
    body = helper.make_graph(
        [
            node("MatMul", ["state", "w"], ["m"]),
            node("Tanh", ["m"], ["next"]),
            node("Identity", ["next"], ["row"]),
            node("Less", ["turn", "last"], ["go"]),
        ],
        "body",
        [value("turn", [], INT64), value("going", [], BOOL), value("state", None)],
        [value("go", [], BOOL), value("next", ["n", 3]), value("row", ["n", 3])],
        [numpy_helper.from_array(np.int64(2), "last")],
    )
    model = make_model(
        [node("Loop", ["limit", "start", "x"], ["y", "rows"], body=body)],
        [value("x", ["n", 3]), value("limit", [], INT64)],
        [value("y", ["n", 3]), value("rows", None)] if limit else [value("y", ["n", 3])],
        {"w": numbers(3, 3), "start": np.array(True)},
    )
    feeds = {"x": numbers(2, 3), "limit": np.array(limit, np.int64)}
    executor = built(tmp_path, model)
    assert_same(run_torch(executor, feeds), run_ort(model.SerializeToString(), feeds))
    if limit:
        executor(tensors(feeds))["y"].sum().backward()
        assert executor.weights["w"].grad.abs().min() > 0


@pytest.mark.parametrize("backward", [0, 1])
def test_scan_agrees_and_trains(backward, tmp_path):
    """A recurrent network written as a scan, over time forwards or backwards."""
    body = helper.make_graph(
        [
            node("MatMul", ["now", "w"], ["a"]),
            node("MatMul", ["state", "r"], ["b"]),
            node("Add", ["a", "b"], ["c"]),
            node("Tanh", ["c"], ["next"]),
            node("Identity", ["next"], ["row"]),
        ],
        "body",
        [value("state", [2, 4]), value("now", [2, 3])],
        [value("next", [2, 4]), value("row", [2, 4])],
    )
    scan = node(
        "Scan",
        ["first", "x"],
        ["y", "rows"],
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_output_axes=[1],
        scan_input_directions=[backward],
    )
    model = make_model(
        [scan],
        [value("x", [2, 5, 3])],
        [value("y", [2, 4], FLOAT), value("rows", [2, 5, 4])],
        {"w": numbers(3, 4, seed=1), "r": numbers(4, 4, seed=2), "first": numbers(2, 4, seed=3)},
    )
    feeds = {"x": numbers(2, 5, 3)}
    executor = built(tmp_path, model)
    assert_same(run_torch(executor, feeds), run_ort(model.SerializeToString(), feeds))
    executor(tensors(feeds))["rows"].sum().backward()
    assert all(executor.weights[key].grad.abs().min() > 0 for key in ("w", "r"))
