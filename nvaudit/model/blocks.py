"""How many channels ONNX Runtime puts side by side in its blocked layout, NCHWc."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nvaudit.errors import EngineError
from nvaudit.model.runtime import runtime

_KNOWN = (16, 8, 4)


def block_size(shape: tuple[int, ...]) -> int:
    """Channels of a block, for a filter [O, I, *kernel] of a file in the blocked layout.

    The file does not say it: the layout is that of the processor, and a file runs right on the kind of
    processor that it was saved on. So ONNX Runtime is asked what it does here; where it uses no blocks, the
    largest size that the channels allow is taken.
    """
    here = _here()
    sizes = (here, *_KNOWN) if here else _KNOWN
    return next((size for size in sizes if shape and shape[0] % size == 0), 0)


@cache
def _here() -> int:
    """Output channels to which ONNX Runtime fills up a convolution with one; 0 where it does not."""
    kernel = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    try:
        ort = runtime()
        with tempfile.TemporaryDirectory() as folder:
            options = ort.SessionOptions()
            options.log_severity_level = 4
            options.optimized_model_filepath = str(Path(folder) / "probe.onnx")
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            saved = onnx.load(options.optimized_model_filepath)
    except (EngineError, RuntimeError, OSError):
        return 0
    blocked = [node for node in saved.graph.node if node.domain == "com.microsoft.nchwc"]
    sizes = {tensor.name: tensor.dims[0] for tensor in saved.graph.initializer}
    return next((int(sizes.get(node.input[1], 0)) for node in blocked if node.op_type == "Conv"), 0)
