"""How long a cost takes: every reference model, and one of a hundred million weights.

Backs the claim that a design point costs milliseconds: after the calibration pass the first point of a
ResNet-56 takes less than a second, and every further one a fraction of that.

    python benchmarks/cost.py MODELS_FOLDER [--data FOLDER_OF_NPZ] [--large]

Prints, for each model: layers, weights, seconds of the calibration pass, of the first point and of a further
one (another crossbar, another cell), energy and latency.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from nvaudit.cost.design import DesignPoint
from nvaudit.cost.estimate import cost_of
from nvaudit.cost.workload import measure_workload
from nvaudit.data import load_dataset
from nvaudit.device import load_profile, override_profile
from nvaudit.errors import NvauditError
from nvaudit.mapping.select import select
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import analyse_batch, constants, load_model
from nvaudit.session import input_specs
from nvaudit.technology import load_technology


def main() -> None:
    """Cost all models."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    print(f"{'model':28} {'layers':>6} {'weights':>11} {'measure s':>9} {'first s':>8} {'next s':>7}  energy")
    for path in sorted(options.models.glob("*.onnx")):
        data = None if options.data is None else options.data / f"{path.stem}.npz"
        report(path, data if data is not None and data.is_file() else None)
    if options.large:
        with tempfile.TemporaryDirectory() as folder:
            report(large_model(Path(folder)), None)


def report(path: Path, data: Path | None) -> None:
    """Cost one model, and say how long that took."""
    try:
        loaded = load_model(path)
        rebatch = analyse_batch(loaded.model)
        decisions = select(constants(loaded))
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            specs = input_specs(loaded, rebatch)
            dataset = None
            if data is not None:
                dataset = load_dataset(data, specs, model_path=path, scratch=Path(scratch))
            workload = measure_workload(loaded, rebatch, decisions, dataset)
    except NvauditError as error:
        print(f"{path.stem:28} {error}")
        return
    measured = time.perf_counter() - begin
    technology, device = load_technology("cmos_65nm_siam"), load_profile("rram_65nm")
    seconds = []
    for cells, size in ((4, 256), (2, 128)):
        begin = time.perf_counter()
        point = DesignPoint(override_profile(device, cell_bits=cells), Crossbar(size, size), 5)
        cost = cost_of(workload, technology, point)
        seconds.append(time.perf_counter() - begin)
    weights = sum(int(np.prod(layer.weight.shape)) for layer in workload.layers)
    print(
        f"{path.stem:28} {len(workload.layers):6} {weights:11,} {measured:9.2f} {seconds[0]:8.3f} "
        f"{seconds[1]:7.3f}  {cost.energy_j * 1e6:.4g} µJ, {cost.latency_s * 1e3:.4g} ms, "
        f"{cost.crossbars} crossbars, {len(cost.not_modelled)} not modelled"
    )


def large_model(folder: Path) -> Path:
    """24 products of 2,048 × 2,048: a hundred million weights."""
    width, depth = 2048, 24
    rng = np.random.Generator(np.random.PCG64(0))
    nodes, tensors = [], []
    for number in range(depth):
        name = f"w{number}"
        values = rng.standard_normal((width, width), np.float32)
        tensors.append(
            helper.make_tensor(name, TensorProto.FLOAT, (width, width), values.tobytes(), raw=True)
        )
        nodes.append(helper.make_node("MatMul", [f"x{number}", name], [f"y{number}"]))
        nodes.append(helper.make_node("Relu", [f"y{number}"], [f"x{number + 1}"]))
    graph = helper.make_graph(
        nodes, "large",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info(f"x{depth}", TensorProto.FLOAT, ["N", width])],
        tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "large.onnx"
    onnx.save(model, path)
    return path


if __name__ == "__main__":
    main()
