"""Scales that differ within an output: to the inputs where they can go there, else rows are cut."""

import numpy as np
import pytest
from crossbar_cases import CASES, STEP, inputs, mapped, run, save, split
from hypothesis import given
from hypothesis import strategies as st

from nvaudit.model import Converter, Converters, build_template, load_model
from nvaudit.model.crossbar import split as splitting
from nvaudit.model.crossbar.plan import cut_blocks

ENCODINGS = ["sign_magnitude", "differential", "offset"]
INPUT_AXIS = {
    "conv": 1, "conv 1-D": 1, "conv grouped": 1, "conv opset 7": 1, "transposed": 0, "gemm": 0,
    "gemm transB": 1, "gemm transA": 0, "gemm left": 1, "matmul": 0, "matmul of a vector": 0,
    "matmul with a vector": 0, "matmul left": 1, "matmul opset 9": 0,
}  # fmt: skip
"""Where the input channels of each case lie."""


def _plain(path, x):
    template = build_template(load_model(path), [])
    return run(template, dict(template.digital), x)[0]


def _made(tmp_path, name, scale_of):
    """A case with weights code · scale, the scale a power of two; what it is split into, and both outputs."""
    dtype = np.float32 if name.startswith(("conv", "transposed")) else np.float64
    case = CASES[name]()
    code = case[1]["w"]
    scale = (STEP * scale_of(code.shape)).astype(np.float32)
    case[1]["w"] = code * scale / STEP
    return save(tmp_path, case, dtype), code, scale, inputs(case, dtype)


def _along(shape, axis, values):
    return values.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", INPUT_AXIS)
def test_a_scale_for_each_input_channel_goes_to_the_inputs(tmp_path, name, encoding):
    """The inputs are multiplied before the DACs, row blocks keep their rows, the outputs are the same."""
    axis = INPUT_AXIS[name]
    path, code, scale, x = _made(
        tmp_path, name, lambda shape: _along(shape, axis, 2.0 ** (np.arange(shape[axis]) % 4))
    )
    template, fills = split(path, mapped(code, encoding, scale), rows=20)
    (found,) = template.splits
    assert (found.reason, found.scaling) == (None, "output" if code.size == code.shape[0] == 1 else "input")
    assert {block.part for block in found.blocks} == {0}
    assert np.array_equal(run(template, fills, x)[0], _plain(path, x))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_scales_for_inputs_and_outputs_together_are_taken_apart(tmp_path, encoding):
    """A scale that is a product of both: one factor before the DACs, one behind the ADCs."""
    path, code, scale, x = _made(
        tmp_path, "matmul",
        lambda shape: 2.0 ** (np.arange(shape[0]) % 4)[:, None] * 2.0 ** (np.arange(shape[1]) % 3),
    )  # fmt: skip
    template, fills = split(path, mapped(code, encoding, scale), rows=20)
    assert (template.splits[0].scaling, len(template.splits[0].blocks)) == ("input", 2)
    assert np.array_equal(run(template, fills, x)[0], _plain(path, x))


def _blocked(shape, axis, size):
    """Scales of blocks along an axis, other ones for every output: not a product of two factors."""
    rng = np.random.Generator(np.random.SFC64(3))
    small = [-(-n // size) if i == axis else n for i, n in enumerate(shape[:2])] + [1] * (len(shape) - 2)
    return np.repeat(2.0 ** rng.integers(0, 5, small), size, axis)[tuple(map(slice, shape[:2]))]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("rows", [4, 20, 64])
@pytest.mark.parametrize(
    "name", ["conv", "conv grouped", "conv opset 7", "transposed", "gemm transB", "matmul", "matmul left"]
)
def test_rows_are_cut_where_the_scale_changes(tmp_path, name, rows, encoding):
    """Every quantisation block has column sums of its own; with ideal converters nothing changes."""
    axis = INPUT_AXIS[name]
    if name == "transposed" and rows == 4:
        rows = 9
    path, code, scale, x = _made(tmp_path, name, lambda shape: _blocked(shape, axis, 2))
    template, fills = split(path, mapped(code, encoding, scale), rows)
    (found,) = template.splits
    assert (found.reason, found.scaling) == (None, "block")
    assert max(block.used for block in found.blocks) <= rows
    for block in found.blocks:  # within a block every output has one scale
        inner = np.moveaxis(np.broadcast_to(scale, code.shape), axis, 0)[slice(*block.channels)]
        assert (inner == inner[:1]).all()
    assert np.array_equal(run(template, fills, x)[0], _plain(path, x))


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 40), st.sets(st.integers(1, 59)))
def test_cut_blocks_hold_every_row_once_and_none_reaches_over_a_cut(channels, kernel, rows, cuts):
    """Parts are counted through in the order of their rows."""
    inside = sorted(cut for cut in cuts if cut < channels)
    blocks = cut_blocks(channels, kernel, rows, inside)
    assert [row for block in blocks for row in range(*block.rows)] == list(range(channels * kernel))
    for block in blocks:
        assert block.part == sum(cut <= block.channels[0] for cut in inside)
        assert not any(block.channels[0] < cut < block.channels[1] for cut in inside)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_column_sums_of_every_quantisation_block_go_through_an_adc(tmp_path, encoding):
    """A product written out in numpy, block by block and slice by slice, gives the same outputs."""
    path, code, scale, x = _made(tmp_path, "matmul", lambda shape: _blocked(shape, 0, 8))
    x = x / 7
    dac, adc = Converter(20.3 / 7 / 15, -15, 15), Converter(1 / 0.2137, -15, 15)  # no ties
    tensor = mapped(code, encoding, scale)
    template, fills = split(path, tensor, 6, Converters(dac, adc))

    def codes(value, converter):
        return np.clip(np.rint(value / converter.step), converter.low, converter.high)

    driven = codes(x, dac)
    stored = {
        "sign_magnitude": [(np.sign(code), np.abs(code), 1)],
        "differential": [(1, np.maximum(code, 0), 1), (1, np.maximum(-code, 0), -1)],
        "offset": [(1, code + 63, 1)],
    }[encoding]
    total = np.zeros((*x.shape[:-1], 5))
    for start in range(0, 40, 8):
        for first, last in ((start, start + 4), (start + 4, start + 8)):  # two crossbars of 6 rows each
            part = np.zeros_like(total)
            for sign, number, outside in stored:
                for i in range(tensor.array.slices):
                    column = driven[..., first:last] @ (sign * ((number >> 2 * i) & 3))[first:last]
                    part += outside * 4**i * adc.step * codes(column, adc)
            if encoding == "offset":
                part -= 63 * driven[..., first:last].sum(-1, keepdims=True)
            total += part * scale[start]
    assert len(template.splits[0].blocks) == 10
    assert np.allclose(run(template, fills, x)[0], total * dac.step, rtol=1e-5, atol=1e-4)
    assert not np.allclose(total * dac.step, _plain(path, x), atol=0.05)  # the converters do something


def test_a_scale_that_differs_within_a_kernel_stays_whole(tmp_path):
    """Rows of one input channel cannot be scaled apart by an operator that slides."""
    path, code, scale, _ = _made(tmp_path, "conv", lambda shape: 2.0 ** (np.arange(3) % 2) * np.ones(shape))
    template, fills = split(path, mapped(code, "differential", scale), 20)
    assert fills == {}
    assert template.splits[0].reason == "its quantisation scale differs within the kernel of an input channel"


def test_rows_are_not_cut_into_more_parts_than_a_graph_can_hold(tmp_path, monkeypatch):
    """The reason has both numbers."""
    monkeypatch.setattr(splitting, "MOST_PARTS", 4)
    path, code, scale, _ = _made(tmp_path, "matmul", lambda shape: _blocked(shape, 0, 8))
    template, _ = split(path, mapped(code, "differential", scale), 20)
    assert template.splits[0].reason == (
        "its quantisation scale differs within an output: the rows would be cut into 5 parts, at most 4 are"
    )
