"""Time and memory of remapping with a code, devices by layers and rounding for the noise.

Claim backed: it ends within its time budget on a ResNet-56 (at most 90 s) and on a network of 100 million
weights.

    python benchmarks/codes_cost.py cifar_resnet56.onnx cifar10_train.npz
    python benchmarks/codes_cost.py --made          # convolutions and dense layers as VGG has, random weights

Nothing is audited. The peak is that of the process, with the model and its data.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from nvaudit.jobs.remapping import remap

CONVOLUTIONS = [(3, 256), (256, 512), (512, 1024), (1024, 1024), (1024, 1024)]
"""Channels of 3 × 3 kernels; the first three halve the 32 × 32 pixels."""

DENSE = [(16384, 4096), (4096, 2048), (2048, 100)]
PIECE = 2**22
SAMPLES = 256


def main() -> None:
    """Print what was kept, how long it took and how much memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--made", action="store_true")
    parser.add_argument("--device", default="fefet1")
    parser.add_argument("--sigma", type=float, default=0.1)
    parser.add_argument("--time-budget", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, data = made(folder) if given.made else (given.model, given.data)
        before, begin = peak_gib(), time.perf_counter()
        report = remap(
            model, given.device, data, out=folder / "out.onnx", sigma=given.sigma, trials=0, code="auto",
            allocate="devices", workers=given.workers, time_budget=given.time_budget,
        )  # fmt: skip
        seconds = time.perf_counter() - begin
    print(
        f"{model.stem} on {given.device}, σ {given.sigma:g}, budget {given.time_budget:g} s, "
        f"{given.workers} worker(s): {seconds:.1f} s; peak {peak_gib():.2f} GiB ({before:.2f} before)"
    )
    print(f"weights: {sum(layer.weights for layer in report.codes.layers) if report.codes else 0:,} on codes")
    print(f"calibrated on {report.calibration}")
    for step in report.steps:
        number = "" if step.worst_quarter is None else f"worst quarter {step.worst_quarter:.4f}, "
        print(f"  {step.name}: {number}{step.seconds:.1f} s {'kept' if step.kept else step.reason}")
    rounded = [tensor for tensor in report.tensors if tensor.rounded]
    print(f"rounded for the noise: {len(rounded)} of {len(report.tensors)} tensors")
    for text in report.not_tried:
        print(f"  not tried: {text}")


def made(folder: Path) -> tuple[Path, Path]:
    """A network of 100 million random weights in an external file, and unlabelled samples."""
    nodes, tensors, name = [], [], "x"
    with (folder / "made.bin").open("wb") as file:
        for place, (fan_in, fan_out) in enumerate(CONVOLUTIONS):
            tensors.append(_weight(file, f"conv{place}", [fan_out, fan_in, 3, 3], 9 * fan_in))
            stride = 2 if place < 3 else 1
            nodes.append(
                helper.make_node(
                    "Conv", [name, f"conv{place}"], [f"c{place}"], pads=[1] * 4, strides=[stride] * 2
                )
            )
            nodes.append(helper.make_node("Relu", [f"c{place}"], [f"r{place}"]))
            name = f"r{place}"
        nodes.append(helper.make_node("Flatten", [name], ["flat"]))
        name = "flat"
        for place, (fan_in, fan_out) in enumerate(DENSE):
            tensors.append(_weight(file, f"dense{place}", [fan_in, fan_out], fan_in))
            nodes.append(helper.make_node("Gemm", [name, f"dense{place}"], [f"g{place}"]))
            name = f"g{place}"
            if place < len(DENSE) - 1:
                nodes.append(helper.make_node("Relu", [name], [f"s{place}"]))
                name = f"s{place}"
    graph = helper.make_graph(
        nodes, "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", DENSE[-1][1]])],
        tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "made.onnx")
    x = np.random.default_rng(99).standard_normal((SAMPLES, 3, 32, 32), np.float32)
    np.savez(folder / "made.npz", x=x)
    return folder / "made.onnx", folder / "made.npz"


def _weight(file, name: str, shape: list[int], fan_in: int) -> TensorProto:  # type: ignore[no-untyped-def]
    """Append normal weights that keep the variance behind a Relu to the file; where they lie there."""
    begin, size = file.tell(), int(np.prod(shape))
    rng = np.random.default_rng([begin, size])
    for start in range(0, size, PIECE):
        piece = rng.standard_normal(min(PIECE, size - start), np.float32) * np.float32((2 / fan_in) ** 0.5)
        file.write(piece.tobytes())
    tensor = TensorProto(
        name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": "made.bin", "offset": begin, "length": 4 * size}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def peak_gib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
