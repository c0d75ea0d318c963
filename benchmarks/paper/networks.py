"""Networks of the papers as ONNX files with new weights, to be trained by `nvaudit harden --method none`.

    python benchmarks/paper/networks.py vgg16 --width 0.25 -o vgg16.onnx
    nvaudit harden vgg16.onnx --method none --data train.npz --augment flip+crop --epochs 20 -o trained.onnx

VGG-8 and ResNet-18 are those of the TRICE paper (Fig. 5), VGG-16 that of the stability paper (Table 5).
Inputs are images of 32 by 32; every convolution has a batch normalisation; ``--width`` scales the channels.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

POOL = 0
VGG = {
    "vgg8": [128, 128, POOL, 256, 256, POOL, 512, 512, POOL],
    "vgg16": [64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512, POOL],
}
"""Channels of the convolutions, and where the image is halved."""

HIDDEN = {"vgg8": 1024, "vgg16": 512}
RESNET18 = [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]
"""Channels and stride of the residual blocks."""

OPSET = 17


@dataclass
class Net:
    """A graph that grows at its end.

    Attributes
    ----------
    rng : Generator
        Of the weights (He).
    value, channels : str, int
        Its end.
    """

    rng: np.random.Generator
    value: str = "input"
    channels: int = 3
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node; its output becomes the end."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}_out"], name=name, **attributes))
        self.value = f"{name}_out"
        return self.value

    def tensor(self, name: str, values: np.ndarray) -> str:
        """Add an initializer."""
        self.tensors.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(self, channels: int, kernel: int = 3, stride: int = 1) -> str:
        """Add a convolution and a batch normalisation."""
        shape = (channels, self.channels, kernel, kernel)
        name = f"conv{len(self.nodes)}"
        spread = np.sqrt(2 / (self.channels * kernel**2))
        weight = self.tensor(f"{name}.weight", self.rng.normal(0, spread, shape))
        pads = [kernel // 2] * 4
        self.node("Conv", self.value, weight, strides=[stride] * 2, pads=pads, kernel_shape=[kernel] * 2)
        ones, zeros = np.ones(channels), np.zeros(channels)
        norm = [("scale", ones), ("bias", zeros), ("mean", zeros), ("var", ones)]
        self.channels = channels
        return self.node(
            "BatchNormalization", self.value, *(self.tensor(f"{name}.{part}", v) for part, v in norm)
        )

    def dense(self, outputs: int, inputs: int) -> str:
        """Add a fully connected layer."""
        name = f"fc{len(self.nodes)}"
        weight = self.tensor(f"{name}.weight", self.rng.normal(0, np.sqrt(2 / inputs), (outputs, inputs)))
        self.channels = outputs
        return self.node("Gemm", self.value, weight, self.tensor(f"{name}.bias", np.zeros(outputs)), transB=1)


def vgg(net: Net, name: str, width: float) -> None:
    """VGG: convolutions, and two fully connected layers."""
    side = 32
    for channels in VGG[name]:
        if channels == POOL:
            net.node("MaxPool", net.value, kernel_shape=[2, 2], strides=[2, 2])
            side //= 2
        else:
            net.conv(round(channels * width))
            net.node("Relu", net.value)
    inputs = net.channels * side**2
    net.node("Flatten", net.value)
    net.dense(round(HIDDEN[name] * width), inputs)
    net.node("Relu", net.value)
    net.dense(10, net.channels)


def resnet18(net: Net, width: float) -> None:
    """ResNet-18 for small images: a convolution, eight residual blocks, the mean, one layer."""
    net.conv(round(64 * width))
    net.node("Relu", net.value)
    for channels, stride in RESNET18:
        begin, inputs = net.value, net.channels
        net.conv(round(channels * width), 3, stride)
        net.node("Relu", net.value)
        end = net.conv(round(channels * width))
        if stride != 1:
            net.value, net.channels = begin, inputs
            begin = net.conv(round(channels * width), 1, stride)
        net.node("Add", end, begin)
        net.node("Relu", net.value)
    net.node("GlobalAveragePool", net.value)
    net.node("Flatten", net.value)
    net.dense(10, net.channels)


def network(name: str, width: float, seed: int) -> onnx.ModelProto:
    """Build a network with new weights."""
    net = Net(np.random.default_rng(seed))
    if name in VGG:
        vgg(net, name, width)
    else:
        resnet18(net, width)
    net.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        net.nodes, name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        net.tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Write a network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*VGG, "resnet18"])
    parser.add_argument("-o", required=True, help="the ONNX file")
    parser.add_argument("--width", type=float, default=1.0, help="factor of the channels")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    onnx.save(network(given.name, given.width, given.seed), given.o)


if __name__ == "__main__":
    main()
