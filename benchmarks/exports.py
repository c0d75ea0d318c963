"""Small models as today's exporters write them: what reaches the array, and whether everything runs.

    python benchmarks/exports.py OUT [--only NAME ...] [--no-harden]

Needs torch and onnxruntime; onnxscript (for torch's new exporter), skl2onnx with scikit-learn, and keras
where they are installed; what cannot be exported is named with its reason. Prints one Markdown row a model:

- share of the weights of products on the array (of all constants with two or more dimensions that multiply);
- identity: the largest difference between the model and its chip at sigma 0 with 14-bit codes, both run by
  plain ONNX Runtime, over the largest output. Rounding to 14 bits makes about 1e-4 of it, a wrong layout or a
  lost layer of the order of 1;
- whether ``nvaudit harden --epochs 1`` trains it and writes it back.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import nn
from torch.nn import functional

from nvaudit.cli import run as nvaudit

SAMPLES = 48
Made = tuple[Path, dict[str, np.ndarray]]
MODELS: dict[str, Callable[[Path], Made]] = {}


def model(function: Callable[[Path], Made]) -> Callable[[Path], Made]:
    """Add a model to the list under the name of its function."""
    MODELS[function.__name__] = function
    return function


def normal(*shape: int) -> torch.Tensor:
    """Draw inputs."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def export(network: nn.Module, path: Path, *inputs: torch.Tensor, new: bool = False, opset: int = 17) -> Made:
    """Export by torch, by the TorchScript exporter or the new one, with a free batch axis."""
    network.eval()
    names = [f"in{i}" for i in range(len(inputs))]
    if new:
        dims = tuple({0: torch.export.Dim("N", min=2)} for _ in inputs)
        torch.onnx.export(network, inputs, str(path), input_names=names, dynamo=True, dynamic_shapes=dims,
                          external_data=False, verbose=False)  # fmt: skip
    else:
        torch.onnx.export(network, inputs, str(path), input_names=names, opset_version=opset, dynamo=False,
                          dynamic_axes={name: {0: "N"} for name in names})  # fmt: skip
    return path, dict(zip(names, (x.numpy() for x in inputs), strict=True))


@model
def weight_norm_mlp(path: Path) -> Made:
    """Weights computed from a direction and a norm."""
    norm = nn.utils.parametrizations.weight_norm
    return export(nn.Sequential(norm(nn.Linear(20, 32)), nn.ReLU(), norm(nn.Linear(32, 6))), path,
                  normal(SAMPLES, 20))  # fmt: skip


@model
def spectral_norm_conv(path: Path) -> Made:
    """A kernel over its largest singular value."""
    norm = nn.utils.spectral_norm  # that of nn.utils.parametrizations uses vdot, which no exporter knows
    return export(nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                norm(nn.Linear(8, 5))), path, normal(SAMPLES, 3, 9, 9))  # fmt: skip


class _Standardised(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        std = self.weight.std((1, 2, 3), keepdim=True) + 1e-5
        return functional.conv2d(x, (self.weight - mean) / std, self.bias)


@model
def weight_standardised_conv(path: Path) -> Made:
    """Kernels standardised on the way (BiT)."""
    return export(nn.Sequential(_Standardised(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(),
                                nn.Linear(8 * 36, 5)), path, normal(SAMPLES, 3, 8, 8))  # fmt: skip


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.bias = nn.Linear(24, 8), nn.Parameter(torch.zeros(24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(torch.tanh(self.encode(x)), self.encode.weight.t(), self.bias)


@model
def tied_autoencoder(path: Path) -> Made:
    """One weight, used straight and transposed."""
    return export(_Tied(), path, normal(SAMPLES, 24))


class _Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(12, 4), nn.Parameter(torch.randn(4, 12, 10) / 4)
        self.head = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        best = self.gate(x).argmax(-1)
        return self.head(torch.relu(torch.bmm(x[:, None], self.experts[best])[:, 0]))


@model
def picked_experts(path: Path) -> Made:
    """A stack of matrices, one picked for each sample."""
    return export(_Experts(), path, normal(SAMPLES, 12))


class _SoftExperts(_Experts):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = self.gate(x).softmax(-1)
        return self.head(torch.einsum("ne,ni,eio->no", share, x, self.experts))


@model
def mixed_experts_einsum(path: Path) -> Made:
    """All experts in one Einsum of three operands."""
    return export(_SoftExperts(), path, normal(SAMPLES, 12))


class _Lora(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base, self.a, self.b = (
            nn.Linear(16, 12),
            nn.Parameter(torch.randn(2, 16)),
            nn.Parameter(torch.randn(12, 2)),
        )
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(
            functional.gelu(functional.linear(x, self.base.weight + self.b @ self.a, self.base.bias))
        )


@model
def lora_new_exporter(path: Path) -> Made:
    """A low-rank addition, by the new exporter."""
    return export(_Lora(), path, normal(SAMPLES, 16), new=True)


@model
def conv_bn_new_exporter(path: Path) -> Made:
    """Convolutions by the new exporter, depthwise among them."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
                        nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, 1), nn.Hardswish(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))  # fmt: skip
    return export(net, path, normal(SAMPLES, 3, 10, 10), new=True)


class _Transformer(nn.Module):
    def __init__(self, tokens: int = 6, width: int = 16) -> None:
        super().__init__()
        self.project = nn.Linear(5, width)
        self.place = nn.Parameter(torch.randn(tokens, width) / 5)
        self.layer = nn.TransformerEncoderLayer(width, 2, 32, batch_first=True, dropout=0.0)
        self.head = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.project(x) + self.place).mean(1))


@model
def transformer(path: Path) -> Made:
    """A transformer layer by the TorchScript exporter."""
    return export(_Transformer(), path, normal(SAMPLES, 6, 5))


@model
def transformer_new_exporter(path: Path) -> Made:
    """The same by the new exporter."""
    return export(_Transformer(), path, normal(SAMPLES, 6, 5), new=True)


class _Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells, self.head = kind(6, 10, 2, batch_first=True, bidirectional=True), nn.Linear(20, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x)[0][:, -1])


@model
def gru_two_layers(path: Path) -> Made:
    """A bidirectional GRU of two layers."""
    return export(_Recurrent(nn.GRU), path, normal(SAMPLES, 7, 6))


@model
def lstm_two_layers(path: Path) -> Made:
    """A bidirectional LSTM of two layers."""
    return export(_Recurrent(nn.LSTM), path, normal(SAMPLES, 7, 6))


@model
def conv_1d_dilated(path: Path) -> Made:
    """Causal, dilated convolutions of a series."""
    net = nn.Sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(4, 8, 3, dilation=2), nn.GELU(),
                        nn.ConvTranspose1d(8, 4, 4, stride=2), nn.AdaptiveMaxPool1d(1), nn.Flatten(),
                        nn.Linear(4, 3))  # fmt: skip
    return export(net, path, normal(SAMPLES, 4, 16))


@model
def unet_like(path: Path) -> Made:
    """Down, up by a transposed convolution, and a class for each pixel."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
            self.up, self.out = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.Conv2d(12, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = torch.relu(self.a(x))
            return self.out(torch.cat([first, self.up(torch.relu(self.b(first)))], 1))

    return export(Net(), path, normal(SAMPLES, 3, 8, 8))


@model
def binarised(path: Path) -> Made:
    """The sign of a weight times its mean size."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.head = nn.Parameter(torch.randn(14, 10)), nn.Linear(14, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            w = torch.sign(self.w) * self.w.abs().mean()
            return self.head(torch.relu(functional.linear(x, w)))

    return export(Net(), path, normal(SAMPLES, 10))


@model
def reparametrised_pad(path: Path) -> Made:
    """A 1x1 kernel padded and added to a 3x3 one (RepVGG)."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.three, self.one = (
                nn.Parameter(torch.randn(6, 3, 3, 3) / 5),
                nn.Parameter(torch.randn(6, 3, 1, 1)),
            )
            self.head = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kernel = self.three + functional.pad(self.one, (1, 1, 1, 1))
            return self.head(torch.relu(functional.conv2d(x, kernel)).mean((2, 3)))

    return export(Net(), path, normal(SAMPLES, 3, 8, 8), new=True)


@model
def hypersphere_head(path: Path) -> Made:
    """A cosine head: features and weights normalised."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.w = nn.Linear(10, 16), nn.Parameter(torch.randn(5, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 16 * functional.normalize(self.body(x)) @ functional.normalize(self.w).t()

    return export(Net(), path, normal(SAMPLES, 10))


@model
def deep_float16(path: Path) -> Made:
    """Weights in half precision."""
    net = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 4)).half()
    made, _ = export(net, path, normal(SAMPLES, 12).half())
    return made, {"in0": normal(SAMPLES, 12).half().numpy()}


def _quantised(path: Path, **how: Any) -> Made:
    from onnxruntime import quantization as q

    plain = path.with_name(f"{path.stem}_plain.onnx")
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    _, feeds = export(net, plain, normal(SAMPLES, 3, 8, 8))

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"in0": feeds["in0"]}])

        def get_next(self) -> Any:
            return next(self.left, None)

    q.quantize_static(str(plain), str(path), Reader(), **how)
    plain.unlink()
    return path, feeds


@model
def ort_qdq_per_channel(path: Path) -> Made:
    """QDQ, int8, a scale for each channel."""
    from onnxruntime import quantization as q

    return _quantised(path, quant_format=q.QuantFormat.QDQ, per_channel=True, weight_type=q.QuantType.QInt8)


@model
def ort_qoperator_uint8(path: Path) -> Made:
    """QLinearConv and QGemm, uint8."""
    from onnxruntime import quantization as q

    return _quantised(path, quant_format=q.QuantFormat.QOperator, weight_type=q.QuantType.QUInt8,
                      activation_type=q.QuantType.QUInt8)  # fmt: skip


@model
def ort_int4_blocks(path: Path) -> Made:
    """MatMul weights of 4 bits in blocks."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    plain = path.with_name(f"{path.stem}_plain.onnx")
    net = nn.Sequential(nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 32, bias=False))
    _, feeds = export(net, plain, normal(SAMPLES, 2, 64))
    import onnx

    quantizer = MatMulNBitsQuantizer(onnx.load(plain), block_size=32, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path))
    plain.unlink()
    return path, feeds


@model
def ort_optimised(path: Path) -> Made:
    """Saved after ONNX Runtime's own optimisation, all levels."""
    plain = path.with_name(f"{path.stem}_plain.onnx")
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                        nn.Conv2d(16, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(24, 5))  # fmt: skip
    _, feeds = export(net, plain, normal(SAMPLES, 3, 8, 8))
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
    plain.unlink()
    return path, feeds


def _sklearn(path: Path, estimator: Any, labels: bool = True) -> Made:
    from skl2onnx import to_onnx

    x = normal(SAMPLES, 6).numpy()
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 0.5)
    estimator.fit(x, y if labels else x[:, 0] * 2 - x[:, 3])
    path.write_bytes(to_onnx(estimator, x[:1], target_opset=17).SerializeToString())
    return path, {"X": x}


@model
def sklearn_mlp_classifier(path: Path) -> Made:
    """A label and a dictionary of probabilities."""
    from sklearn.neural_network import MLPClassifier

    return _sklearn(path, MLPClassifier((12,), max_iter=30, random_state=0))


@model
def sklearn_logistic(path: Path) -> Made:
    """Coefficients in attributes."""
    from sklearn.linear_model import LogisticRegression

    return _sklearn(path, LogisticRegression())


@model
def sklearn_mlp_regressor(path: Path) -> Made:
    """A regressor."""
    from sklearn.neural_network import MLPRegressor

    return _sklearn(path, MLPRegressor(hidden_layer_sizes=(12,), max_iter=30, random_state=0), labels=False)


@model
def keras_separable(path: Path) -> Made:
    """Separable convolutions by keras, on torch."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    net = keras.Sequential([keras.layers.Input((10, 10, 3)),
                            keras.layers.SeparableConv2D(8, 3, activation="relu"),
                            keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D(),
                            keras.layers.Dense(4)])  # fmt: skip
    net(np.zeros((2, 10, 10, 3), np.float32))
    net.export(str(path), format="onnx", verbose=False)
    name = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()[0].name
    return path, {name: normal(SAMPLES, 10, 10, 3).numpy()}


def _script(path: Path, network: nn.Module, *inputs: torch.Tensor) -> Made:
    """Export a scripted module: its loops and branches stay in the graph."""
    return export(torch.jit.script(network.eval()), path, *inputs)


class _Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(x.size(0), 8)
        for step in range(x.size(1)):
            h = torch.tanh(self.a(x[:, step]) + self.b(h))
        return self.head(h)


@model
def recurrent_by_hand_loop(path: Path) -> Made:
    """A recurrent network written as a loop: Loop in the graph, weights inside it."""
    return _script(path, _Loop(), normal(SAMPLES, 6, 5))


class _Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        for number, layer in enumerate((self.one, self.two)):
            message = layer(x)
            x = message + torch.zeros_like(message).index_add(0, edges[1], message[edges[0]])
            x = torch.relu(x) if number == 0 else x
        return x


@model
def graph_network(path: Path) -> Made:
    """Messages along edges; axis 0 is the nodes of one graph."""
    generator = torch.Generator().manual_seed(2)
    edges = torch.randint(0, SAMPLES, (2, 150), generator=generator)
    net, x = _Graph().eval(), normal(SAMPLES, 6)
    torch.onnx.export(net, (x, edges), str(path), input_names=["x", "edges"], dynamo=False, opset_version=17,
                      dynamic_axes={"x": {0: "nodes"}, "edges": {1: "count"}})  # fmt: skip
    return path, {"x": x.numpy(), "edges": edges.numpy()}


@model
def grouped_transposed(path: Path) -> Made:
    """Transposed convolutions in groups."""
    net = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.LeakyReLU(),
                        nn.ConvTranspose2d(8, 12, 3, 2, groups=4), nn.Tanh(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))  # fmt: skip
    return export(net, path, normal(SAMPLES, 4, 8, 8))


class _Top(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(12, 6), nn.Linear(10, 5)
        self.up, self.down = (
            nn.Parameter(torch.randn(6, 12, 16) / 4),
            nn.Parameter(torch.randn(6, 16, 10) / 4),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share, best = self.gate(x).topk(2, -1)
        hidden = torch.relu(torch.matmul(x[:, None, None], self.up[best]))
        made = torch.matmul(hidden, self.down[best])[:, :, 0]
        return self.head((share.softmax(-1)[..., None] * made).sum(1))


@model
def top_two_experts(path: Path) -> Made:
    """The two best of six experts, each of two layers."""
    return export(_Top(), path, normal(SAMPLES, 12))


class _Clustered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.book, self.head = nn.Parameter(torch.randn(16)), nn.Linear(12, 4)
        self.register_buffer(
            "codes", torch.randint(0, 16, (12, 10), generator=torch.Generator().manual_seed(3))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(functional.linear(x, self.book[self.codes])))


@model
def clustered_weights(path: Path) -> Made:
    """Weights looked up in a codebook of 16 values."""
    return export(_Clustered(), path, normal(SAMPLES, 10))


@model
def pruned_sparse(path: Path) -> Made:
    """Nine tenths of the weights are zero and stored as a sparse initializer."""
    import onnx

    export(nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 4)), path, normal(SAMPLES, 20))
    proto = onnx.load(path)
    kept = list(proto.graph.initializer)
    del proto.graph.initializer[:]
    for tensor in kept:
        array = onnx.numpy_helper.to_array(tensor)
        if array.shape == (24, 20):
            flat = np.where(np.abs(array) > np.quantile(np.abs(array), 0.9), array, 0).reshape(-1)
            (where,) = flat.nonzero()
            sparse = proto.graph.sparse_initializer.add(dims=array.shape)
            sparse.values.CopyFrom(onnx.numpy_helper.from_array(flat[where], tensor.name))
            sparse.indices.CopyFrom(onnx.numpy_helper.from_array(where.astype(np.int64)))
        else:
            proto.graph.initializer.append(tensor)
    onnx.save(proto, path)
    return path, {"in0": normal(SAMPLES, 20).numpy()}


class _Many(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.table, self.join = nn.Conv2d(1, 4, 3), nn.Linear(7, 8), nn.Linear(4 * 16 + 8, 12)
        self.kind, self.size = nn.Linear(12, 5), nn.Linear(12, 2)

    def forward(self, image: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = torch.cat([torch.relu(self.image(image)).flatten(1), torch.relu(self.table(row))], 1)
        hidden = torch.relu(self.join(both))
        return self.kind(hidden), self.size(hidden)


@model
def two_inputs_two_outputs(path: Path) -> Made:
    """An image and a row of numbers in, a class and a size out."""
    return export(_Many(), path, normal(SAMPLES, 1, 6, 6), normal(SAMPLES, 7), new=True)


@model
def deformable(path: Path) -> Made:
    """DeformConv of operator set 19, as no exporter of torch writes it without torchvision."""
    import onnx
    from onnx import helper as h

    arrays = {"w": normal(6, 3, 3, 3) / 4, "o": normal(18, 3, 3, 3) / 9, "v": normal(6, 4)}
    nodes = [
        h.make_node("Conv", ["in0", "o"], ["offset"], name="offset"),
        h.make_node("DeformConv", ["in0", "w", "offset"], ["d"], kernel_shape=[3, 3], name="deform"),
        h.make_node("GlobalAveragePool", ["d"], ["p"]),
        h.make_node("Flatten", ["p"], ["f"]),
        h.make_node("MatMul", ["f", "v"], ["y"], name="head"),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("in0", kind, ["N", 3, 8, 8])],
                         [h.make_tensor_value_info("y", kind, ["N", 4])],
                         [onnx.numpy_helper.from_array(a.numpy(), n) for n, a in arrays.items()])  # fmt: skip
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 19)], ir_version=9), path)
    return path, {"in0": normal(SAMPLES, 3, 8, 8).numpy()}


@model
def ort_dynamic_lstm(path: Path) -> Made:
    """An LSTM quantised dynamically (DynamicQuantizeLSTM) and its head (MatMulInteger)."""
    from onnxruntime import quantization as q

    plain = path.with_name(f"{path.stem}_plain.onnx")
    _, feeds = export(_Recurrent(nn.LSTM), plain, normal(SAMPLES, 7, 6))
    q.quantize_dynamic(str(plain), str(path), op_types_to_quantize=["LSTM", "MatMul", "Gemm"])
    plain.unlink()
    return path, feeds


@model
def float16_inside(path: Path) -> Made:
    """Half precision inside, float32 at both ends."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 4)).half()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x.half()).float()

    return export(Net(), path, normal(SAMPLES, 12))


@model
def fake_quantised_per_channel(path: Path) -> Made:
    """QAT of torch.ao, by hand: fake quantisation of weights for each channel, of activations for all."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def _weight(self, w: torch.Tensor) -> torch.Tensor:
            scale = w.detach().abs().flatten(1).amax(1) / 127
            zero = torch.zeros(len(w), dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(w, scale, zero, 0, -128, 127)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.fake_quantize_per_tensor_affine(x, 0.03, 0, -128, 127)
            x = torch.relu(functional.conv2d(x, self._weight(self.conv.weight), self.conv.bias)).mean((2, 3))
            return functional.linear(x, self._weight(self.head.weight), self.head.bias)

    return export(Net(), path, normal(SAMPLES, 3, 8, 8))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(16, 16), nn.Linear(16, 8), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, 4, 4).transpose(1, 2)
        k, v = self.kv(x).view(n, t, 2, 1, 4).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(
            q, k.expand(n, 4, t, 4), v.expand(n, 4, t, 4), is_causal=True
        )
        return self.out(found.transpose(1, 2).reshape(n, t, 16)[:, -1])


@model
def causal_grouped_attention(path: Path) -> Made:
    """Causal attention with one head of keys for four of queries, by the new exporter."""
    return export(_Attention(), path, normal(SAMPLES, 5, 16), new=True)


def outputs(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model in plain ONNX Runtime; only tensors of numbers, and columns of dictionaries."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = []
    for value in session.run(None, feeds):
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = np.array([list(row.values()) for row in value])
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            found.append(value)
    return found


def command(*words: object) -> tuple[int, str, str]:
    """Run ``nvaudit`` in this process; the exit code, and what it put on either stream."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = nvaudit(list(map(str, words)))
    return code, *((stream.flush(), stream.buffer.getvalue().decode())[1] for stream in (out, err))


def said(text: str) -> str:
    """Put what a command had to say on one line of a table."""
    return " ".join(text.split())[:300].replace("|", "/")


def identity(path: Path, feeds: dict[str, np.ndarray], data: Path) -> str:
    """Compare the model with its chip at sigma 0; integers have no codes of 14 bits and keep their own."""
    report, chip = path.with_suffix(".json"), path.with_name(f"{path.stem}_chip.onnx")
    words = (
        "audit",
        path,
        "--data",
        data,
        "--sigma",
        0,
        "-n",
        1,
        "--no-roughness",
        "-q",
        "-j",
        0,
        "-o",
        report,
    )
    code, _, err = command(*words, "--bits", 14)
    if code and command(*words)[0]:
        return f"exit {code}: {said(err)}"
    code, _, err = command("replay", report, "--trial", 0, "-o", chip)
    if code:
        return f"replay: exit {code}: {said(err)}"
    differences = [
        float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-9))
        for a, b in zip(outputs(path, feeds), outputs(chip, feeds), strict=True)
    ]
    return f"{max(differences):.1e}"


def hardening(path: Path, data: Path) -> str:
    """Train for an epoch."""
    out = path.with_name(f"{path.stem}_hardened.onnx")
    code, _, err = command("harden", path, "--data", data, "--epochs", 1, "--trials", 3, "-m", "gaussian",
                           "--no-roughness", "-q", "-j", 0, "-o", out)  # fmt: skip
    return "yes" if code == 0 else f"exit {code}: {said(err)}"


def share(path: Path) -> str:
    """Count what is on the array."""
    code, out, err = command("inspect", path, "--json")
    if code:
        return f"exit {code}: {said(err)}"
    found = json.loads(out)
    rows = found if isinstance(found, list) else found["tensors"]
    mapped = [row for row in rows if row["decision"] == "mapped"]
    left = [row for row in rows if row["decision"] != "mapped" and len(row["shape"]) > 1]
    size = sum(int(np.prod(row["shape"])) for row in mapped)
    rest = "; ".join(f"{row['name']}: {row['reason']}" for row in left if np.prod(row["shape"]) > 8)
    return f"{len(mapped)} tensors, {size:,} weights" + (f"; left: {rest}" if rest else "")


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(MODELS))
    parser.add_argument("--no-harden", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print("| model | on the array | identity | harden | s |\n|---|---|---|---|---|")
    for name in arguments.only or MODELS:
        started, path = time.monotonic(), arguments.out / f"{name}.onnx"
        torch.manual_seed(0)
        try:
            _, feeds = MODELS[name](path)
        except Exception as error:  # an exporter that is missing or fails is no fault of the model
            print(
                f"| {name} | not exported: {type(error).__name__}: {str(error)[:200]!r} | | | |", flush=True
            )
            continue
        data = path.with_name(f"{name}_data.npz")
        first = outputs(path, feeds)[0]
        labels = first.reshape(len(first), -1).argmax(1) if first.ndim == 2 and first.shape[1] > 1 else first
        np.savez(data, **feeds, y=labels)
        trained = "not tried" if arguments.no_harden else hardening(path, data)
        print(f"| {name} | {share(path)} | {identity(path, feeds, data)} | {trained} | "
              f"{time.monotonic() - started:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
