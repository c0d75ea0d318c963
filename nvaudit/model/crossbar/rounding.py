"""Rounding by adding: v + M in single precision, with M = 1.5 · 2²³, is M + round(v).

Numbers from 2²³ to 2²⁴ are whole in single precision, so that the sum is rounded to a whole number, half to
even (M is even). ONNX Runtime adds a constant behind a convolution as its bias, and clips in the same pass,
in its own layout of channels, which ``Round`` leaves: so a column sum comes converted out of the product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from nvaudit.arrays import Array
from nvaudit.model.crossbar.kinds import ProductForm
from nvaudit.model.crossbar.plan import Converter, RowBlock
from nvaudit.rng import stream

ROUNDER = 1.5 * 2.0**23

LANES = 16
"""Channels that lie together in ONNX Runtime's own layout: 16, or 8 on processors with shorter vectors."""

_MIN_OPSET = 11  # half to even; before it, converters round half up
_MOST_CODES = 2**21


def rounds_by_adding(
    kind: ProductForm, blocks: Sequence[RowBlock], adc: Converter, dtype: ir.DataType, opset: int
) -> bool:
    """Whether converters of a product can round so, and it pays: convolutions in ONNX Runtime's own layout.

    Parameters
    ----------
    dtype : onnx_ir.DataType
        In which column sums are computed.
    """
    planar = kind.form == "conv" and len(kind.shape) == 4 and kind.groups == 1
    # M plus the codes of all row blocks must stay between 2²³ and 2²⁴.
    exact = dtype == ir.DataType.FLOAT and len(blocks) * max(adc.high, -adc.low) < _MOST_CODES
    return planar and exact and kind.outputs % LANES == 0 and opset >= _MIN_OPSET


def bias_trial() -> tuple[bytes, dict[str, Array], list[Array]]:
    """Make a model that shows whether a runtime adds biases last: else it rounds every partial sum.

    Returns
    -------
    tuple of bytes, dict and list
        The model, its inputs, and the outputs of a runtime that does.
    """
    draw = stream(0, "bias-trial")
    nodes, tensors, feeds, wanted = [], [], {}, []
    # Few channels, many, and a kernel of one position run in code of their own.
    for number, (channels, kernel) in enumerate([(7, 3), (32, 3), (48, 1)]):
        x = draw.integers(-8, 9, (1, channels, kernel, kernel)).astype(np.float32)
        weights = (draw.integers(-8, 9, (LANES, channels, kernel, kernel)) / 4).astype(np.float32)
        names = [f"{name}{number}" for name in "xwmsy"]
        moved = np.full(LANES, ROUNDER, np.float32)
        feeds[names[0]] = x
        tensors += [numpy_helper.from_array(weights, names[1]), numpy_helper.from_array(moved, names[2])]
        nodes.append(helper.make_node("Conv", names[:3], [names[4]]))
        wanted.append(np.rint((weights * x).sum((1, 2, 3))).reshape(1, LANES, 1, 1) + np.float32(ROUNDER))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in feeds.items()]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes]
    graph = helper.make_graph(nodes, "biases", inputs, outputs, tensors)
    sets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8).SerializeToString(), feeds, wanted
