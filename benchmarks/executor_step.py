"""A training step of the executor over the same step of the same network written by hand in torch.

Claim backed: a step (forward, backward, SGD) costs at most 1.15 of the hand-written network's.

    python benchmarks/executor_step.py MODELS_FOLDER [--batch 64] [--pairs 15] [--threads 1]

MODELS_FOLDER holds mnist_cnn_pt_opset14.onnx and cifar_resnet20.onnx. Both networks start from the same
weights and take the same steps in turn; their outputs and their weights after a step must agree. What is
printed is the median of the ratios of neighbouring steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nvaudit.model import load_model
from nvaudit.retrain.executor.module import Executor, build_executor

RATE = 0.01


def lenet() -> nn.Module:
    """The network of mnist_cnn_pt_opset14: four convolutions, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


class Block(nn.Module):
    """Two convolutions with a shortcut that drops every second pixel and pads channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.more = outputs // 4 if stride == 2 else 0

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
        return F.relu(y + x)


def resnet20() -> nn.Module:
    """The network of cifar_resnet20."""
    blocks = [Block(16, 16, 1) for _ in range(3)]
    blocks += [Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1)]
    blocks += [Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mnist_cnn_pt_opset14": (lenet, (1, 28, 28)),
    "cifar_resnet20": (resnet20, (3, 32, 32)),
}


def take_over(network: nn.Module, executor: Executor) -> None:
    """Give the hand-written network the weights of the executor: both have them in the order of use."""
    order = [name for node in executor.network.graph.nodes for name in node.inputs]
    tensors = {**executor.weights, **executor.statistics}
    given = [tensors[name] for name in order if name in tensors]
    own = [
        tensor
        for module in network.modules()
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        if name != "num_batches_tracked"
    ]
    with torch.no_grad():
        for mine, theirs in zip(own, given, strict=True):
            mine.copy_(theirs)


def measure(
    path: Path, build: Callable[[], nn.Module], shape: tuple[int, ...], batch: int, pairs: int
) -> None:
    """Print the ratio for one network."""
    executor = build_executor(load_model(path))
    network = build()
    take_over(network, executor)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, *shape, generator=generator)
    target = torch.randint(0, 10, (batch,), generator=generator)
    name, output = executor.network.inputs[0].name, executor.network.outputs[0].name

    def stepper(parameters: list[Tensor], run: Callable[[], Tensor]) -> Callable[[], float]:
        optimiser = torch.optim.SGD(parameters, RATE)

        def step() -> float:
            start = time.perf_counter()
            loss = F.cross_entropy(run(), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            return time.perf_counter() - start

        return step

    ours = stepper(list(executor.parameters()), lambda: executor({name: x})[output])
    theirs = stepper(list(network.parameters()), lambda: network(x))
    with torch.no_grad():
        gap = float((executor({name: x})[output] - network(x)).abs().max())
    assert gap < 1e-3, f"{path.stem}: the hand-written network is another one: outputs differ by {gap:g}"
    for _ in range(3):
        ours(), theirs()
    times = [
        (ours(), theirs()) if number % 2 else tuple(reversed((theirs(), ours()))) for number in range(pairs)
    ]
    with torch.no_grad():
        gap = float((executor({name: x})[output] - network(x)).abs().max())
    mine, other = (np.median([pair[i] for pair in times]) * 1e3 for i in (0, 1))
    ratio = statistics.median(a / b for a, b in times)
    print(f"{path.stem}: {mine:.2f} ms / {other:.2f} ms, ratio {ratio:.3f}; outputs then differ by {gap:.1e}")


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, (build, shape) in NETWORKS.items():
        measure(arguments.models / f"{name}.onnx", build, shape, arguments.batch, arguments.pairs)


if __name__ == "__main__":
    main()
