"""How a weight lies on crossbars: one count, whoever asks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nvaudit.device import load_profile
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.groups import saved
from nvaudit.mapping.tiling import Crossbar, tiling_of, tiling_of_split, weight_lines
from nvaudit.model import CellReadout, CrossbarPlan, build_template, constants, load_model
from nvaudit.model.roles import CrossbarMatrix

RRAM = load_profile("rram")
ENCODINGS = ["sign_magnitude", "differential", "offset"]
sizes = st.integers(1, 40)


@given(
    st.integers(1, 3), st.integers(1, 12), sizes, st.integers(1, 8), st.sampled_from(ENCODINGS), sizes, sizes,
    st.integers(1, 12),
)  # fmt: skip
def test_crossbars_are_those_that_hold_a_device(
    groups, channels, cols, cell_bits, encoding, high, wide, kernel
):
    """The count equals that of marking the crossbar of every single device, channel after channel."""
    array = layout(RRAM, bits=8, cell_bits=cell_bits, encoding=encoding)
    tiling = tiling_of(CrossbarMatrix(groups, channels * kernel, cols, kernel), array, Crossbar(high, wide))
    assert sum(tiling.rows) == channels * kernel
    assert max(tiling.rows) <= high
    marked = set()
    for group in range(groups):
        row = 0
        for number, used in enumerate(tiling.rows):
            for _ in range(used):
                places = range(cols * array.slices * array.polarities)
                marked |= {(group, number, column // wide) for column in places}
                row += 1
            assert kernel > high or row % kernel == 0  # a kernel that fits is never cut
    assert tiling.crossbars == len(marked)
    if kernel <= high:  # no fewer hold whole channels
        assert len(tiling.rows) == -(-channels // (high // kernel))
    devices = groups * channels * kernel * cols * array.slices * array.polarities
    assert tiling.utilisation == pytest.approx(devices / (tiling.crossbars * high * wide))


def _conv(tmp_path, outputs, inputs, kernel, groups):
    weight = np.ones((outputs, inputs // groups, kernel, kernel), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=groups)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", inputs, 9, 9])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "conv.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return load_model(path)


@pytest.mark.parametrize(
    ("inputs", "kernel", "groups", "crossbars"),
    [(256, 3, 1, 10), (64, 3, 1, 3), (40, 3, 2, 2), (3, 17, 1, 6), (64, 1, 1, 1)],
)
def test_with_and_without_converters_and_groups_of_zeros_the_count_is_one(
    tmp_path, inputs, kernel, groups, crossbars
):
    """What is counted is what is simulated: 256 channels of 3 × 3 are 10 blocks of whole channels, not 9."""
    loaded, size = _conv(tmp_path, 8, inputs, kernel, groups), Crossbar(256, 256)
    (weight,) = [constant.weight for constant in constants(loaded) if constant.weight is not None]
    array = layout(RRAM, bits=8)
    counted = tiling_of(weight.matrix, array, size)
    plan = CrossbarPlan(size.rows, {"w": CellReadout((1.0,), 0, np.ones(1, np.float32))})
    (split,) = build_template(loaded, ["w"], crossbars=plan).splits
    assert split.reason is None
    assert tiling_of_split(split, array, size) == counted
    assert counted.crossbars == crossbars
    code = np.ones(weight.shape, np.int16)
    assert saved(code, weight_lines(weight), array, size).crossbars == crossbars
