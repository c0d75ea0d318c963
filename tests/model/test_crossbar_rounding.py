"""Converters that round by adding: the codes of those that round with the operator, in any layer."""

import numpy as np
import onnx
import pytest
from crossbar_cases import STEP, Case, codes, mapped, run, save, split
from onnx import helper, numpy_helper

from nvaudit.model import Converter, Converters
from nvaudit.model.crossbar.rounding import ROUNDER, bias_trial
from nvaudit.perturb.crossbar import adds_biases_last

ADC = Converter(8.0, -7, 7)


def _conv(x: list[int], shape: tuple[int, ...], bias: bool = False, opset: int = 17, **attributes) -> Case:
    tensors = {"w": codes(*shape)} | ({"b": codes(shape[0])} if bias else {})
    node = helper.make_node("Conv", ["x", *tensors], ["y"], name="layer", **attributes)
    return [node], tensors, x, opset


CASES = {
    "one row block": lambda: _conv([3, 3, 7, 7], (16, 3, 3, 3), pads=[1, 1, 1, 1], bias=True),
    "two": lambda: _conv([3, 16, 7, 7], (16, 16, 3, 3), pads=[1, 1, 1, 1]),
    "five, strided": lambda: _conv([2, 32, 9, 9], (32, 32, 3, 3), strides=[2, 2], bias=True),
    "of one position": lambda: _conv([3, 80, 5, 5], (48, 80, 1, 1)),
    "kernel beyond a crossbar": lambda: _conv([1, 2, 15, 15], (16, 2, 11, 11)),
}


def _both(path, tensor, x, converters, spread=0.0, rows=80):
    """Outputs with the operator and by adding, on the same devices; and both templates' operators."""
    found = []
    for by_adding in (False, True):
        template, fills = split(path, tensor, rows, converters, by_adding)
        slots = {slot.name: slot for slot in template.slots}
        noise = np.random.Generator(np.random.SFC64(5)).normal(0, spread, (8, *tensor.code.shape))
        for name, array in fills.items():
            levels = noise[: len(tensor.array.code.factors)].astype(np.float32)
            moved = slots[name].transform.apply(levels).reshape(array.shape)
            fills[name] = array + np.float32(slots[name].factor) * moved
        operators = [node.op_type for node in onnx.load_from_string(template.proto).graph.node]
        found.append((run(template, fills, x)[0], operators))
    return found


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_codes_are_those_of_the_operator(tmp_path, name, encoding, spread):
    """Bit for bit, with ties (no spread), with sums far beyond the range, and without."""
    case = CASES[name]()
    path = save(tmp_path, case, np.float32)
    x = np.random.Generator(np.random.SFC64(2)).integers(-9, 30, case[2]).astype(np.float32) / 2
    (wanted, before), (found, after) = _both(
        path, mapped(case[1]["w"], encoding), x, Converters(Converter(1.0, -8, 7), ADC), spread
    )
    assert np.array_equal(found, wanted)
    assert "Round" in before
    # The DAC of an input with few channels keeps the operator.
    assert after.count("Round") == (case[2][1] % 16 != 0)


def test_ties_go_to_the_even_code(tmp_path):
    """Half a code down, one and a half up."""
    nodes, _, x, opset = _conv([1, 16, 1, 3], (16, 16, 1, 1))
    case = (nodes, {"w": np.eye(16, dtype=int)[:, :, None, None]}, x, opset)
    path = save(tmp_path, case, np.float32)
    x = np.zeros((1, 16, 1, 3), np.float32)
    x[0, 0, 0] = 0.5, 1.5, 2.5
    template, fills = split(path, mapped(case[1]["w"]), 64, Converters(None, Converter(1.0, -7, 7)), True)
    assert (run(template, fills, x)[0][0, 0, 0] / STEP).tolist() == [0, 2, 2]


@pytest.mark.parametrize(
    "case",
    [
        _conv([2, 16, 5, 5], (12, 16, 3, 3)),
        _conv([2, 16, 5, 5], (32, 8, 3, 3), group=2),
        _conv([2, 16, 9], (16, 16, 3)),
        _conv([2, 16, 5, 5], (16, 16, 3, 3), opset=9),
    ],
    ids=["12 outputs", "groups", "1-D", "no Round yet"],
)
def test_other_layers_keep_their_converters(tmp_path, case):
    """Where ONNX Runtime would not keep its own layout, the graph is that of before."""
    path = save(tmp_path, case, np.float32)
    x = np.zeros(case[2], np.float32)
    (_, before), (_, after) = _both(path, mapped(case[1]["w"]), x, Converters(None, ADC))
    assert after == before


def test_sums_of_codes_beyond_single_precision_keep_the_operator(tmp_path):
    """Two row blocks of 21-bit ADCs could add up to more than the numbers that are whole beside M."""
    case = CASES["two"]()
    path, x = save(tmp_path, case, np.float32), np.zeros(case[2], np.float32)
    (_, before), (_, after) = _both(path, mapped(case[1]["w"]), x, Converters(None, Converter(1.0, 0, 2**20)))
    assert after == before


def test_this_runtime_adds_biases_last():
    """Else converters would round with the operator, and this file would test nothing that runs."""
    assert adds_biases_last()


def test_a_runtime_that_begins_with_the_bias_is_found_out():
    """Every partial sum is rounded there: what the trial wants is not what comes out."""
    model, feeds, wanted = bias_trial()
    graph = onnx.load_from_string(model).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node, right in zip(graph.node, wanted, strict=True):
        x, w, bias = feeds[node.input[0]], weights[node.input[1]], weights[node.input[2]]
        terms = (w * x).reshape(len(w), -1)
        begun = bias.copy()
        for term in terms.T:
            begun += term
        assert np.array_equal(np.rint(terms.sum(1)) + np.float32(ROUNDER), right.ravel())
        assert not np.array_equal(begun, right.ravel())
