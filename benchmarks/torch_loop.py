"""An audit of a LeNet or a small CNN against a torch loop that perturbs and evaluates, in the same run.

Claim backed: at least 2 × faster than the loop that people write by hand. The loop is given its best batch
size and all cores; its noise is one normal draw per weight, as cheap as it can be.

    python benchmarks/torch_loop.py MODEL.onnx DATA.npz [--chips 20] [--rounds 5]

Needs torch and nvaudit in one environment.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional as F

from nvaudit.perturb.metrics import resolve_metric
from nvaudit.perturb.montecarlo import ChipRunner
from nvaudit.perturb.workers import WorkerPool
from nvaudit.session import prepare
from nvaudit.spec import default_workers, make_spec

Network = Callable[[dict[str, torch.Tensor], torch.Tensor], torch.Tensor]

SIGMA = 0.0258  # of max|W|: what `rram` makes of sigma_d = 0.1 at 8 bits, 2 bits per cell


def lenet(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network of mnist_lenet_keras, by hand."""
    x = F.avg_pool2d(F.relu(F.conv2d(x, w["conv2d/kernel"], w["conv2d/bias"])), 2)
    x = F.avg_pool2d(F.relu(F.conv2d(x, w["conv2d_1/kernel"], w["conv2d_1/bias"])), 2)
    x = x.permute(0, 2, 3, 1).flatten(1)
    x = F.relu(x @ w["dense/kernel"] + w["dense/bias"])
    x = F.relu(x @ w["dense_1/kernel"] + w["dense_1/bias"])
    return x @ w["dense_2/kernel"] + w["dense_2/bias"]


def cnn(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network of mnist_cnn_pt_opset14, by hand."""
    for first, second in (("conv1", "conv2"), ("conv3", "conv4")):
        x = F.relu(F.conv2d(x, w[f"{first}.weight"], w[f"{first}.bias"]))
        x = F.max_pool2d(F.relu(F.conv2d(x, w[f"{second}.weight"], w[f"{second}.bias"])), 2)
    x = F.relu(F.linear(x.flatten(1), w["fc1.weight"], w["fc1.bias"]))
    return F.linear(x, w["fc2.weight"], w["fc2.bias"])


NETWORKS = {"mnist_lenet_keras": lenet, "mnist_cnn_pt_opset14": cnn}


@torch.inference_mode()
def torch_chip(
    network: Network, weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, batch: int
) -> float:
    """Perturb every weight, evaluate every image."""
    noisy = {
        name: w + SIGMA * w.abs().max() * torch.randn_like(w) if w.dim() > 1 else w
        for name, w in weights.items()
    }
    right = 0
    for start in range(0, len(x), batch):
        right += int((network(noisy, x[start : start + batch]).argmax(1) == y[start : start + batch]).sum())
    return right / len(x)


def main() -> None:
    """Print seconds per chip of both and the ratio of medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    network = NETWORKS[options.model.stem]
    weights = {
        i.name: torch.from_numpy(numpy_helper.to_array(i).copy())
        for i in onnx.load(options.model).graph.initializer
        if i.data_type == 1
    }
    with np.load(options.data) as data:
        (name,) = [name for name in data.files if name != "y"]
        x = torch.from_numpy(data[name])
        if x.shape[1] != 1:
            x = x.permute(0, 3, 1, 2).contiguous()
        y = torch.from_numpy(data["y"].astype(np.int64))
    clean = sum(
        int((network(weights, x[i : i + 500]).argmax(1) == y[i : i + 500]).sum())
        for i in range(0, len(x), 500)
    ) / len(x)
    batches = (64, 128, 256, 512, 1024, 2048)
    for batch in batches:
        torch_chip(network, weights, x, y, batch)
    cost = {
        b: statistics.median(clock(lambda b=b: torch_chip(network, weights, x, y, b)) for _ in range(5))
        for b in batches
    }
    best = min(cost, key=cost.__getitem__)
    cores = default_workers()
    spec = make_spec(model=options.model, data=options.data, device="rram")
    with tempfile.TemporaryDirectory() as scratch:
        workload = prepare(spec, Path(scratch)).workload
        with WorkerPool(cores, workload) as pool:
            probe = pool.submit("probe", "probe").result()
            assert workload.labels is not None
            metric = resolve_metric(None, probe.output, workload.labels.open(), "class")

            def audit(chips: int) -> None:
                ChipRunner(pool, metric, None, 1, chips).full(0, range(chips))

            audit(2 * cores)  # workers started, caches warm
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(options.rounds):
                times[0].append(
                    clock(lambda: [torch_chip(network, weights, x, y, best) for _ in range(options.chips)])
                    / options.chips
                )
                times[1].append(clock(lambda: audit(options.chips)) / options.chips)
    loop, ours = (statistics.median(t) for t in times)
    tried = ", ".join(f"{b}: {1e3 * c:.0f} ms" for b, c in cost.items())
    print(f"clean accuracy of the torch network {clean:.4f}; {len(x)} images, "
          f"{torch.get_num_threads()} torch threads, batch {best} (of {tried})")  # fmt: skip
    print(f"torch loop {1e3 * loop:.1f} ms per chip, nvaudit {1e3 * ours:.1f} ms per chip on {cores} cores: "
          f"{loop / ours:.2f} × faster")  # fmt: skip


def clock(run: object) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    run()  # type: ignore[operator]
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
