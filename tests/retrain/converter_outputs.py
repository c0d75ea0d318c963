"""What leaves the converters of an audit's graph, for the tests that compare codes."""

import numpy as np
import onnx


def converter_outputs(model: onnx.ModelProto) -> list[str]:
    """Names of the codes, in the order of nodes; where converters round by adding, plus a constant."""
    values = {
        node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant"
    }
    # Bounds of this size are those of codes plus the constant by which converters round.
    large = {name for name, array in values.items() if array.size and np.abs(array).min() > 2**22}
    return [
        node.output[0]
        for node in model.graph.node
        if node.op_type in ("Round", "Floor")  # Floor(x + 0.5) before opset 11
        or (node.op_type == "Clip" and node.input[-1] in large)
    ]
