"""Random small graphs for the tests of rescaling, and their outputs."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 4
SIZE = 8


@dataclass
class Net:
    """A graph that grows node by node; ``at`` is the value that the next node takes."""

    rng: np.random.Generator
    nodes: list = field(default_factory=list)
    stored: dict = field(default_factory=dict)
    at: str = "x"
    channels: int = 3
    count: int = 0

    def constant(self, array) -> str:
        self.count += 1
        name = f"c{self.count}"
        self.stored[name] = np.asarray(array, np.float32)
        return name

    def add(self, op, *inputs, **attributes) -> str:
        self.count += 1
        out = f"v{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=f"{op}_{self.count}", **attributes))
        self.at = out
        return out

    def numbers(self, *shape):
        # Channels of very different size: what equalisation is for.
        spread = np.exp(self.rng.normal(0, 1, (shape[0],) + (1,) * (len(shape) - 1)))
        return self.rng.normal(0, 0.5, shape) * spread

    def conv(self, groups=1, bias=True, out=CHANNELS) -> str:
        weight = self.constant(self.numbers(out, self.channels // groups, 3, 3))
        inputs = [self.at, weight] + ([self.constant(self.numbers(out))] if bias else [])
        self.channels = out
        return self.add("Conv", *inputs, pads=[1, 1, 1, 1], group=groups)

    def norm(self) -> str:
        c = self.channels
        arrays = (self.numbers(c), self.numbers(c), self.numbers(c), np.abs(self.numbers(c)) + 0.1)
        return self.add("BatchNormalization", self.at, *(self.constant(a) for a in arrays), epsilon=1e-3)


def residual(net: Net) -> None:
    start = net.at
    net.conv()
    net.add("Relu", net.at)
    end = net.conv(bias=False)
    net.add("Add", start, end)


def concat(net: Net) -> None:
    start = net.at
    left = net.conv(out=2)
    net.at, net.channels = start, CHANNELS
    right = net.conv(out=2)
    net.add("Concat", left, right, axis=1)
    net.channels = CHANNELS


def gate(net: Net) -> None:
    start = net.at
    net.add("Sigmoid", net.conv())
    net.add("Mul", start, net.at)


def unpadded(net: Net) -> None:
    net.add("MaxPool", net.at, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


BLOCKS = {
    "conv": lambda net: net.conv(),
    "bare conv": lambda net: net.conv(bias=False),
    "depthwise": lambda net: net.conv(groups=CHANNELS),
    "grouped": lambda net: net.conv(groups=2),
    "norm": lambda net: net.norm(),
    "relu": lambda net: net.add("Relu", net.at),
    "leaky": lambda net: net.add("LeakyRelu", net.at, alpha=0.1),
    "prelu": lambda net: net.add("PRelu", net.at, net.constant(np.abs(net.numbers(CHANNELS, 1, 1)))),
    "max pool": unpadded,
    "average pool": lambda net: net.add("AveragePool", net.at, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "sigmoid": lambda net: net.add("Sigmoid", net.at),
    "factor": lambda net: net.add("Mul", net.at, net.constant(net.numbers(CHANNELS, 1, 1))),
    "scalar": lambda net: net.add("Div", net.at, net.constant(1.7)),
    "shift": lambda net: net.add("Add", net.at, net.constant(net.numbers(CHANNELS, 1, 1))),
    "residual": residual,
    "concat": concat,
    "gate": gate,
}

HEADS = ("flatten", "pool", "dense")


def random_model(blocks, head, opset, seed=0):
    """A model of some blocks in order, after a first convolution, with one of the heads."""
    net = Net(np.random.Generator(np.random.PCG64(seed)))
    net.conv()
    for block in blocks:
        BLOCKS[block](net)
    if head == "pool":
        net.add("GlobalAveragePool", net.at)
    else:
        net.add("MaxPool", net.at, kernel_shape=[4, 4], strides=[4, 4])
    size = CHANNELS if head == "pool" else CHANNELS * 4
    net.add("Flatten", net.at)
    if head == "dense":
        net.add("MatMul", net.at, net.constant(net.numbers(size, 6)))
        net.add("Add", net.at, net.constant(net.numbers(6)))
        net.add("Relu", net.at)
        size = 6
    net.add("Gemm", net.at, net.constant(net.numbers(5, size)), net.constant(net.numbers(5)), transB=1)
    return finish(net, opset, ["N", 5])


def finish(net, opset, shape, name="x"):
    graph = helper.make_graph(
        net.nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(net.at, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, key) for key, array in net.stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def samples(count=3):
    return np.random.Generator(np.random.PCG64(1)).normal(0, 1, (count, 3, SIZE, SIZE)).astype(np.float32)


def outputs(model, x, feed="x"):
    """Every output of a model, given as a message or a path."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run(None, {feed: x})
