"""Weights split over crossbars in the graph: the same function with ideal converters, codes with others."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from crossbar_cases import CASES, STEP, codes, inputs, mapped, run, save, split
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from nvaudit.model import Converter, Converters, CrossbarPlan, build_template, load_model
from nvaudit.model.crossbar.plan import row_blocks
from nvaudit.model.probe import expose

ENCODINGS = ["sign_magnitude", "differential", "offset"]


def _plain(path, x):
    """The outputs of the model as it is."""
    template = build_template(load_model(path), [])
    return run(template, dict(template.digital), x)[0]


def _type_of(name):
    """ONNX Runtime has no convolution in double precision."""
    return np.float32 if name.startswith(("conv", "transposed")) else np.float64


@given(st.integers(1, 300), st.integers(1, 60), st.integers(1, 300))
def test_row_blocks_hold_every_row_once(channels, kernel, rows):
    """No crossbar is overfull, none is empty, and no row is lost or doubled."""
    blocks = row_blocks(channels, kernel, rows)
    assert all(0 < block.used <= rows for block in blocks)
    assert [row for block in blocks for row in range(*block.rows)] == list(range(channels * kernel))
    for block in blocks:
        first, last = block.channels
        assert first * kernel <= block.rows[0] < block.rows[1] <= last * kernel


@given(st.integers(1, 300), st.integers(1, 60), st.integers(60, 300))
def test_a_kernel_that_fits_is_never_cut_and_no_crossbar_is_wasted(channels, kernel, rows):
    """Whole channels, on as few crossbars as hold them."""
    blocks = row_blocks(channels, kernel, rows)
    assert all(block.used % kernel == 0 for block in blocks)
    assert len(blocks) == -(-channels // (rows // kernel))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", CASES)
def test_ideal_converters_change_nothing(tmp_path, name, encoding):
    """On whole numbers, where no sum is rounded, the split model gives exactly the model's outputs."""
    case = CASES[name]()
    dtype = _type_of(name)
    path, x = save(tmp_path, case, dtype), inputs(case, dtype)
    template, fills = split(path, mapped(case[1]["w"], encoding), rows=20)
    assert template.splits[0].reason is None
    assert (
        len(fills) == len(template.splits[0].blocks) > (name not in {"conv depthwise", "transposed grouped"})
    )
    assert np.array_equal(run(template, fills, x)[0], _plain(path, x))


@pytest.mark.parametrize("name", ["conv", "transposed grouped", "gemm transB", "matmul left"])
def test_a_narrow_top_slice_counts_for_a_third_of_a_level(tmp_path, name):
    """The seventh bit of the offset encoding is levels 0 and 3: the same outputs, but for rounding."""
    case = CASES[name]()
    dtype = _type_of(name)
    path, x = save(tmp_path, case, dtype), inputs(case, dtype)
    tensor = mapped(case[1]["w"], "offset", top_slice="window")
    template, fills = split(path, tensor, rows=20)
    assert {level % 3 for level in np.unique(next(iter(fills.values())))} != {0}
    found, wanted = run(template, fills, x)[0], _plain(path, x)
    assert np.allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert tensor.array.significance[-1] == pytest.approx(64 / 3)


@pytest.mark.parametrize("name", ["conv", "transposed grouped", "gemm transB", "matmul", "matmul left"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_output_may_have_its_own_scale(tmp_path, name, encoding):
    """Scales per output channel are multiplied in after the ADCs."""
    case = CASES[name]()
    code, axis = (
        case[1]["w"],
        {"conv": 0, "transposed grouped": 1, "gemm transB": 0, "matmul": 1}.get(name, 0),
    )
    shape = [size if i == axis else 1 for i, size in enumerate(code.shape)]
    scale = (STEP * 2.0 ** (np.arange(code.shape[axis]) % 3)).astype(np.float32).reshape(shape)
    case[1]["w"] = code * scale / STEP
    path, x = save(tmp_path, case, _type_of(name)), inputs(case, _type_of(name))
    template, fills = split(path, mapped(code, encoding, scale), rows=20)
    assert np.array_equal(run(template, fills, x)[0], _plain(path, x))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_other_types_are_computed_in_single_precision(tmp_path, dtype):
    """Half-precision models keep their outside types."""
    case = CASES["conv"]()
    path, x = save(tmp_path, case, dtype), inputs(case, dtype)
    template, fills = split(path, mapped(case[1]["w"]), rows=20)
    assert {array.dtype for array in fills.values()} == {np.dtype(np.float32)}
    found, wanted = run(template, fills, x)[0], _plain(path, x)
    assert found.dtype == dtype
    assert np.allclose(found, wanted, rtol=2e-3, atol=0.05 if dtype == np.float16 else 1e-4)


def _codes(value, converter):
    return np.clip(np.rint(value / converter.step), converter.low, converter.high)


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_column_sum_of_every_crossbar_goes_through_an_adc(tmp_path, encoding, opset):
    """A product written out in numpy, crossbar by crossbar and slice by slice, gives the same outputs."""
    case = CASES["matmul"]()
    case = (*case[:3], opset)
    code = case[1]["w"]
    path, x = save(tmp_path, case, np.float32), inputs(case, np.float32, low=0) / 7
    dac, adc = Converter(20.3 / 7 / 15, 0, 15), Converter(1 / 0.2137, -15, 15)  # no ties
    tensor = mapped(code, encoding)
    template, fills = split(path, tensor, 16, Converters(dac, adc))
    given = _codes(x.astype(np.float64), dac)
    stored = {
        "sign_magnitude": [(np.sign(code), np.abs(code))],
        "differential": [(1, np.maximum(code, 0)), (-1, np.maximum(-code, 0))],
        "offset": [(1, code + 63)],
    }[encoding]
    total = np.zeros((*x.shape[:-1], 5))
    for block in template.splits[0].blocks:
        rows = slice(*block.rows)
        for sign, number in stored:
            held = sign if encoding == "sign_magnitude" else 1
            outside = sign if encoding == "differential" else 1
            for i in range(tensor.array.slices):
                column = given[..., rows] @ (held * ((number >> 2 * i) & 3))[rows]
                total += outside * 4**i * adc.step * _codes(column, adc)
    if encoding == "offset":
        total -= 63 * given.sum(-1, keepdims=True)
    wanted = total * dac.step * STEP
    assert len(template.splits[0].blocks) == 3
    assert np.allclose(run(template, fills, x)[0], wanted, rtol=1e-5, atol=1e-4)
    assert not np.allclose(wanted, _plain(path, x), atol=0.05)  # the converters do something


def test_adc_codes_of_a_convolution_are_whole_and_in_range(tmp_path):
    """What is added up are codes: every column sum, clipped and rounded, padding included."""
    case = CASES["conv"]()
    path, x = save(tmp_path, case, np.float32), inputs(case, np.float32)
    adc = Converter(8.0, -7, 7)
    template, fills = split(path, mapped(case[1]["w"]), 20, Converters(None, adc))
    rounded = [
        n.output[0] for n in onnx.ModelProto.FromString(template.proto).graph.node if n.op_type == "Round"
    ]
    sums = list(template.splits[0].sums)
    shown = replace(template, proto=expose(template.proto, [*sums, *rounded])[0])
    found = run(shown, fills, x, [*sums, *rounded])
    for column, made in zip(found[: len(sums)], found[len(sums) :], strict=True):
        assert np.array_equal(made, np.clip(np.rint(column), -7, 7))
        assert np.abs(column).max() > 7.5  # so that clipping matters


def _model(tmp_path, nodes, tensors, shape):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array((value * STEP).astype("f"), name) for name, value in tensors.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_weight_of_two_operators_lies_on_crossbars_once(tmp_path):
    """Both operators use the same devices."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="a"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="b"),
    ]
    code = codes(30, 30)
    path = _model(tmp_path, nodes, {"w": code}, [2, 30])
    template, fills = split(path, mapped(code), rows=16)
    assert len(fills) == 2
    assert (len(template.splits[0].inputs), len(template.splits[0].sums)) == (2, 4)
    x = np.ones((2, 30), "f")
    assert np.allclose(run(template, fills, x)[0], _plain(path, x), rtol=1e-5)


UNSPLIT = {
    "Einsum": (
        [helper.make_node("Einsum", ["x", "w"], ["y"], equation="ni,io->no")],
        (6, 5),
        [2, 6],
        "its operator Einsum is not taken apart into column sums",
    ),
    "stack": (
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        (2, 6, 5),
        [2, 3, 6],
        "it is a stack of matrices, one for each item of a batch",
    ),
    "two sides": (
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("MatMul", ["w", "h"], ["y"]),
        ],
        (6, 6),
        [6, 6],
        "its operators lay it out on crossbars in several ways",
    ),
}


@pytest.mark.parametrize("name", UNSPLIT)
def test_what_cannot_be_split_stays_whole_and_says_why(tmp_path, name):
    """The weight keeps its plain slot, and the model its outputs."""
    nodes, shape, x_shape, reason = UNSPLIT[name]
    code = codes(*shape)
    path = _model(tmp_path, nodes, {"w": code}, x_shape)
    template, fills = split(path, mapped(code), rows=4)
    assert fills == {}
    assert [slot.cells for slot in template.slots] == [False]
    assert template.splits[0].reason == reason
    x = np.ones(x_shape, "f")
    whole = {slot.name: slot.fill((code * STEP).astype("f")) for slot in template.slots}
    assert np.array_equal(run(template, whole, x)[0], _plain(path, x))


def test_a_weight_that_is_not_in_the_plan_stays_whole(tmp_path):
    """Only what is asked for is split."""
    case = CASES["gemm"]()
    template = build_template(load_model(save(tmp_path, case)), ["w"], crossbars=CrossbarPlan(16, {}))
    assert template.splits == ()
    assert [slot.cells for slot in template.slots] == [False]
