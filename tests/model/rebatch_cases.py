"""Small graphs that keep the samples of a batch apart, and others that may not; used by test_rebatch.py."""

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from nvaudit.rng import stream

FLOAT = TensorProto.FLOAT


def build(nodes, inputs, constants=None, outputs=("y",), opset=17):
    """A model of nodes ("Op", "in in", "out out", {attributes}) with output shapes left open."""
    made = [
        helper.make_node(op, ins.split(" "), outs.split(" "), name=f"{op}_{i}", **(rest[0] if rest else {}))
        for i, (op, ins, outs, *rest) in enumerate(nodes)
    ]
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return ir.from_proto(proto)


def draw(shape, *address):
    """Seeded normal float32 numbers."""
    return stream(0, "test-rebatch", *address).standard_normal(shape).astype(np.float32)


W = draw((4, 3), "w")
SPACE = {"w": draw((2, 3, 3, 3), "conv"), "b": draw(2, "bias")}

# Nodes, shape of x, constants.
KEPT = {
    "unary": ([("Relu", "x", "a"), ("Sigmoid", "a", "y")], [1, 4], {}),
    "clip with constant bounds": ([("Clip", "x lo", "y")], [1, 4], {"lo": np.float32(0)}),
    "constant of lower rank": ([("Add", "x c", "y")], [1, 4], {"c": draw(4, 1)}),
    "constant of size 1 at the batch": ([("Mul", "c x", "y")], [1, 3, 2, 2], {"c": draw((1, 3, 1, 1), 2)}),
    "constant of higher rank": ([("Add", "x c", "y")], [1, 4], {"c": draw((3, 1, 4), 3)}),
    "two branches added": ([("Relu", "x", "a"), ("Add", "a x", "y")], [1, 4], {}),
    "where": ([("Greater", "x c", "m"), ("Where", "m x c", "y")], [1, 4], {"c": np.float32(0)}),
    "conv, pool, flatten, gemm": (
        [
            ("Conv", "x w b", "a", {"pads": [1, 1, 1, 1]}),
            ("MaxPool", "a", "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("Flatten", "p", "f"),
            ("Gemm", "f g c", "y", {"transB": 1}),
        ],
        [1, 3, 4, 4],
        {**SPACE, "g": draw((5, 8), 4), "c": draw(5, 5)},
    ),
    "gemm with transposed left": ([("Gemm", "x w", "y", {"transA": 1})], None, {"w": W}),
    "matmul, rows": ([("MatMul", "x w", "y")], [1, 4], {"w": W}),
    "matmul, rows, with a stack of matrices": ([("MatMul", "x w", "y")], [1, 4], {"w": draw((2, 4, 3), 6)}),
    "matmul, leading axis": ([("MatMul", "x w", "y")], [1, 2, 4], {"w": W}),
    "matmul, constant on the left": ([("MatMul", "w x", "y")], [1, 3, 2], {"w": W}),
    "matmul by a vector": ([("MatMul", "x w", "y")], [1, 2, 4], {"w": draw(4, 7)}),
    "vector by matmul": ([("MatMul", "w x", "y")], [1, 4, 2], {"w": draw(4, 7)}),
    "attention": (
        [
            ("Transpose", "x", "t", {"perm": [0, 2, 1]}),
            ("MatMul", "x t", "s"),
            ("Softmax", "s", "p", {"axis": -1}),
            ("MatMul", "p x", "y"),
        ],
        [1, 3, 4],
        {},
    ),
    "einsum": ([("Einsum", "x w", "y", {"equation": "nij,jk->ikn"})], [1, 2, 4], {"w": W}),
    "transpose there and back": (
        [("Transpose", "x", "t", {"perm": [2, 0, 1]}), ("Transpose", "t", "y", {"perm": [1, 2, 0]})],
        [1, 3, 4],
        {},
    ),
    "flatten of a batch on axis 1": (
        [("Transpose", "x", "t", {"perm": [1, 0]}), ("Flatten", "t", "y")],
        [1, 3],
        {},
    ),
    "reshape [1, k]": ([("Reshape", "x s", "y")], [1, 2, 4], {"s": np.array([1, 8])}),
    "reshape [1, -1]": ([("Reshape", "x s", "y")], [1, 2, 4], {"s": np.array([1, -1])}),
    "reshape [0, -1]": ([("Reshape", "x s", "y")], [1, 2, 4], {"s": np.array([0, -1])}),
    "reshape [-1, all of a sample]": ([("Reshape", "x s", "y")], [1, 2, 4], {"s": np.array([-1, 8])}),
    "reshape [1, 0, -1]": ([("Reshape", "x s", "y")], [1, 2, 2, 2], {"s": np.array([1, 0, -1])}),
    "reshape behind the batch on axis 1": (
        [("Transpose", "x", "t", {"perm": [1, 0, 2]}), ("Reshape", "t s", "y")],
        [1, 3, 4],
        {"s": np.array([3, -1, 2, 2])},
    ),
    "softmax": ([("Softmax", "x", "y", {"axis": 1})], [1, 4], {}),
    "concat of two branches": (
        [("Relu", "x", "a"), ("Concat", "a x", "y", {"axis": 1})],
        [1, 4],
        {},
    ),
    "slice, split and pad elsewhere": (
        [
            ("Slice", "x from to on", "s"),
            ("Split", "s", "a b", {"axis": -1}),
            ("Add", "a b", "c"),
            ("Pad", "c pads", "y"),
        ],
        [1, 3, 4],
        {
            "from": np.array([1]),
            "to": np.array([3]),
            "on": np.array([1]),
            "pads": np.array([0, 1, 0, 0, 0, 2]),
        },
    ),
    "slice of the whole batch": (
        [("Slice", "x from to", "y")],
        [1, 4],
        {"from": np.array([0, 1]), "to": np.array([2**63 - 1, 3])},
    ),
    "gather of features": ([("Gather", "x i", "y", {"axis": 1})], [1, 4], {"i": np.array([[2, 0, 1]])}),
    "squeeze and unsqueeze": (
        [("Unsqueeze", "x on", "u"), ("Squeeze", "u off", "y")],
        [1, 4, 1],
        {"on": np.array([0, 3]), "off": np.array([0, -1])},
    ),
    "means": (
        [("ReduceMean", "x", "m", {"axes": [-1], "keepdims": 0}), ("ReduceMax", "m", "y", {"axes": [1]})],
        [1, 3, 4],
        {},
    ),
    "sum over axes that are an input": ([("ReduceSum", "x on", "y")], [1, 4], {"on": np.array([1])}),
    "normalisations": (
        [
            ("BatchNormalization", "x s s s v", "n"),
            ("InstanceNormalization", "n s s", "i"),
            ("LRN", "i", "l", {"size": 3}),
            ("LayerNormalization", "l k", "y", {"axis": -1}),
        ],
        [1, 3, 4, 4],
        {"s": draw(3, 8), "v": np.ones(3, np.float32), "k": draw(4, 9)},
    ),
    "quantise and back, per channel": (
        [
            ("QuantizeLinear", "x one zero", "q"),
            ("DequantizeLinear", "q s z", "y", {"axis": 1}),
        ],
        [1, 4],
        {
            "one": np.float32(0.1),
            "zero": np.int8(0),
            "s": np.array([1, 2, 3, 4], np.float32),
            "z": np.zeros(4, np.int8),
        },
    ),
    "integer product": (
        [
            ("QuantizeLinear", "x one z", "q"),
            ("MatMulInteger", "q w z", "i"),
            ("Cast", "i", "y", {"to": FLOAT}),
        ],
        [1, 4],
        {"one": np.float32(0.1), "z": np.uint8(128), "w": np.arange(12, dtype=np.int8).reshape(4, 3)},
    ),
    "quantised product": (
        [
            ("QuantizeLinear", "x one z", "q"),
            ("QLinearMatMul", "q one z w ws wz one z", "i"),
            ("DequantizeLinear", "i one z", "y"),
        ],
        [1, 4],
        {
            "one": np.float32(0.1),
            "z": np.uint8(128),
            "w": np.arange(12, dtype=np.int8).reshape(4, 3),
            "ws": np.array([1, 2, 3], np.float32),
            "wz": np.zeros(3, np.int8),
        },
    ),
    "lstm": (
        [
            ("Transpose", "x", "t", {"perm": [1, 0, 2]}),
            ("LSTM", "t w r", "h hn cn", {"hidden_size": 2}),
            ("Squeeze", "h one", "s"),
            ("Squeeze", "hn zero", "e"),
            ("Add", "s e", "y"),
        ],
        [1, 5, 3],
        {"w": draw((1, 8, 3), 1), "r": draw((1, 8, 2), 2), "one": np.array([1]), "zero": np.array([0])},
    ),
    "resize by scales": (
        [("Resize", "x  scales", "y", {"mode": "nearest"})],
        [1, 2, 3, 3],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "depth to space": ([("DepthToSpace", "x", "y", {"blocksize": 2})], [1, 4, 2, 2], {}),
    "expand and tile elsewhere": (
        [("Expand", "x s", "e"), ("Tile", "e r", "y")],
        [1, 1, 4],
        {"s": np.array([2, 1, 3, 1]), "r": np.array([1, 1, 1, 2])},
    ),
    "largest elements": (
        [("TopK", "x k", "v i", {"axis": -1}), ("Cast", "i", "f", {"to": FLOAT}), ("Add", "v f", "y")],
        [1, 4],
        {"k": np.array([2])},
    ),
    "class and one-hot": (
        [
            ("ArgMax", "x", "i", {"axis": 1, "keepdims": 0}),
            ("OneHot", "i d v", "y", {"axis": 0}),
        ],
        [1, 4],
        {"d": np.array(4), "v": np.array([0, 1], np.float32)},
    ),
    "embedding": (
        [("Cast", "x", "i", {"to": TensorProto.INT64}), ("Gather", "table i", "y", {"axis": 1})],
        [1, 3],
        {"table": draw((2, 9, 3), 1)},
    ),
    "dropout at inference": ([("Dropout", "x", "y")], [1, 4], {}),
    "running sum over features": ([("CumSum", "x on", "y")], [1, 4], {"on": np.array(1)}),
}

# Nodes, shape of x, constants, and whether samples certainly influence each other.
MIXED = {
    "mean over the batch": ([("ReduceMean", "x", "y", {"axes": [0]})], [1, 4], {}, True),
    "sum over everything": ([("ReduceSum", "x", "y")], [1, 4], {}, True),
    "difference to the batch mean": (
        [("ReduceMean", "x", "m", {"axes": [0]}), ("Sub", "x m", "y")],
        [1, 4],
        {},
        True,
    ),
    "class over the batch": (
        [("ArgMax", "x", "i", {"axis": 0}), ("Cast", "i", "y", {"to": FLOAT})],
        [1, 4],
        {},
        True,
    ),
    "softmax over the batch": ([("Softmax", "x", "y", {"axis": 0})], [1, 4], {}, True),
    "mean-variance normalisation by default": (
        [("MeanVarianceNormalization", "x", "y")],
        [1, 2, 3, 3],
        {},
        True,
    ),
    "one range for the batch": (
        [("DynamicQuantizeLinear", "x", "q s z"), ("DequantizeLinear", "q s z", "y")],
        [1, 4],
        {},
        True,
    ),
    "batch statistics": (
        [("BatchNormalization", "x s s s v", "y m n", {"training_mode": 1})],
        [1, 3, 4],
        {"s": draw(3, 8), "v": np.ones(3, np.float32)},
        True,
    ),
    "product that sums over the batch": (
        [("Transpose", "x", "t"), ("MatMul", "t x", "y")],
        [1, 4],
        {},
        True,
    ),
    "similarity between samples": ([("Transpose", "x", "t"), ("MatMul", "x t", "y")], [1, 4], {}, False),
    "join with a constant sample": (
        [("Concat", "x c", "y", {"axis": 1})],
        [1, 4],
        {"c": draw((1, 2), 1)},
        False,
    ),
    "join along the batch": ([("Concat", "x x", "y", {"axis": 0})], [1, 4], {}, False),
    "constant that spans the batch axis": (
        [("Add", "x c", "y")],
        [1, 1, 1],
        {"c": draw((5, 1, 1), 1)},
        False,
    ),
    "constant that spans the batch axis from a lower rank": (
        [("Transpose", "x", "t"), ("Add", "t c", "y")],
        [1, 4],
        {"c": draw(5, 1)},
        False,
    ),
    "rank lost before an addition": (
        [("ReduceMax", "x", "m", {"axes": [1], "keepdims": 0}), ("Add", "x m", "y")],
        [1, 4],
        {},
        False,
    ),
    "reshape that folds the batch": ([("Reshape", "x s", "y")], [1, 2, 4], {"s": np.array([-1, 4])}, False),
    "reshape to [4, k]": ([("Reshape", "x s", "y")], [1, 16], {"s": np.array([4, 4])}, False),
    "reshape to a vector": ([("Reshape", "x s", "y")], [1, 16], {"s": np.array([-1])}, False),
    "transpose, then flatten": (
        [("Transpose", "x", "t", {"perm": [1, 0, 2]}), ("Flatten", "t", "y")],
        [1, 3, 4],
        {},
        False,
    ),
    "transpose, then reshape as if nothing had happened": (
        [("Transpose", "x", "t", {"perm": [1, 0, 2]}), ("Reshape", "t s", "y")],
        [1, 3, 4],
        {"s": np.array([1, 12])},
        False,
    ),
    "flatten from axis 2": ([("Flatten", "x", "y", {"axis": 2})], [1, 3, 4], {}, False),
    "flatten from axis 0": ([("Flatten", "x", "y", {"axis": 0})], [1, 3, 4], {}, False),
    "conv over a moved batch": (
        [("Transpose", "x", "t", {"perm": [1, 0, 2, 3]}), ("Conv", "t w", "y")],
        [1, 2, 3, 3],
        {"w": draw((2, 1, 3, 3), 1)},
        False,
    ),
    "first sample only": ([("Gather", "x i", "y")], [1, 4], {"i": np.array(0)}, False),
    "cut along the batch": (
        [("Slice", "x from to", "y")],
        [1, 4],
        {"from": np.array([0]), "to": np.array([1])},
        False,
    ),
    "pad along the batch": ([("Pad", "x p", "y")], [1, 4], {"p": np.array([1, 0, 0, 0])}, False),
    "repeat the batch": ([("Tile", "x r", "y")], [1, 4], {"r": np.array([2, 1])}, False),
    "expand the batch": ([("Expand", "x s", "y")], [1, 4], {"s": np.array([3, 4])}, False),
    "squeeze without axes": ([("Squeeze", "x", "y")], [1, 4], {}, False),
    "squeeze with an empty list of axes": (
        [("Squeeze", "x a", "y")],
        [1, 4],
        {"a": np.zeros(0, np.int64)},
        False,
    ),
    "squeeze of the batch": ([("Squeeze", "x a", "y")], [1, 4], {"a": np.array([0])}, False),
    "resize to sizes": (
        [("Resize", "x   sizes", "y")],
        [1, 2, 3, 3],
        {"sizes": np.array([1, 2, 6, 6])},
        False,
    ),
    "initial state for one sample": (
        [("Transpose", "x", "t", {"perm": [1, 0, 2]}), ("GRU", "t w r   h", "y", {"hidden_size": 2})],
        [1, 5, 3],
        {"w": draw((1, 6, 3), 1), "r": draw((1, 6, 2), 2), "h": draw((1, 1, 2), 3)},
        False,
    ),
    "indices through the batch": (
        [
            ("MaxPool", "x", "p i", {"kernel_shape": [2, 2]}),
            ("Cast", "i", "f", {"to": FLOAT}),
            ("Add", "p f", "y"),
        ],
        [1, 2, 3, 3],
        {},
        False,
    ),
    "batch size as a number": (
        [
            ("Shape", "x", "s"),
            ("Cast", "s", "f", {"to": FLOAT}),
            ("ReduceMax", "f", "m"),
            ("Mul", "x m", "y"),
        ],
        [1, 4],
        {},
        False,
    ),
    "random numbers": ([("RandomNormalLike", "x", "r"), ("Add", "x r", "y")], [1, 4], {}, False),
    "operator without a rule": ([("Det", "x", "y")], [1, 3, 3], {}, False),
    "list of all non-zeros": ([("NonZero", "x", "i"), ("Cast", "i", "y", {"to": FLOAT})], [1, 4], {}, True),
    "scale per row": (
        [("QuantizeLinear", "x s", "q", {"axis": 0}), ("DequantizeLinear", "q s2", "y", {"axis": 0})],
        [2, 4],
        {"s": np.ones(2, np.float32), "s2": np.ones(2, np.float32)},
        False,
    ),
    "constant output": ([("Relu", "c", "y")], [1, 4], {"c": draw(3, 1)}, False),
}
