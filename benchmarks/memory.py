"""Peak memory of an audit, per process, against the size of model and data.

Claim backed: a worker needs at most 2 × model + data (beyond what an idle Python with ONNX Runtime takes).

    python benchmarks/memory.py MODEL.onnx DATA.npz [--workers 2] [--trials 8]
    python benchmarks/memory.py --synthetic 1.0        # GiB of external weights, made on the spot

Peaks are VmHWM of every process of the run, read from /proc while it runs (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def main() -> None:
    """Print peaks and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--synthetic", type=float, metavar="GIB")
    parser.add_argument("--width", type=int, default=8192, help="of the synthetic matrices")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--device", default="rram")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model, data = options.model, options.data
        if options.synthetic:
            model, data = synthetic(Path(scratch), options.synthetic, options.width)
        measure(model, data, options)


def synthetic(folder: Path, gib: float, width: int) -> tuple[Path, Path]:
    """A chain of width × width MatMuls with external weights, and 64 samples."""
    layers = max(1, round(gib * 2**30 / (4 * width**2)))
    nodes, tensors = [], []
    with (folder / "weights.bin").open("wb") as file:
        for i in range(layers):
            rng = np.random.Generator(np.random.SFC64(i))
            for _ in range(16):
                file.write((rng.standard_normal((width // 16, width), np.float32) / width**0.5).tobytes())
            tensor = TensorProto(name=f"w{i}", data_type=1, dims=[width, width], data_location=1)
            place = {"location": "weights.bin", "offset": i * width**2 * 4, "length": width**2 * 4}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"m{i}"]))
            nodes.append(helper.make_node("Relu", [f"m{i}"], [f"x{i + 1}"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", 1, ["N", width])],
        [helper.make_tensor_value_info(f"x{layers}", 1, ["N", width])],
        tensors,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx"
    )
    rng = np.random.Generator(np.random.SFC64(99))
    x = rng.standard_normal((64, width), np.float32)
    np.savez(folder / "m.npz", x0=x, y=rng.integers(0, width, 64))
    return folder / "m.onnx", folder / "m.npz"


def measure(model: Path, data: Path, options: argparse.Namespace) -> None:
    """Run the public command and watch it."""
    size = sum(
        f.stat().st_size
        for f in (model, model.with_suffix(".onnx.data"), model.parent / "weights.bin")
        if f.exists()
    )
    with np.load(data) as arrays:
        data_size = sum(arrays[name].nbytes for name in arrays.files)
    command = [sys.executable, "-m", "nvaudit", "audit", str(model), "--data", str(data), "--device",
               options.device, "-n", str(options.trials), "-j", str(options.workers), "-q"]  # fmt: skip
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks: dict[int, float] = {}
    while process.poll() is None:
        for pid in family(process.pid):
            with contextlib.suppress(OSError, ValueError):
                peaks[pid] = max(peaks.get(pid, 0.0), high_water(pid))
        time.sleep(0.05)
    idle = idle_peak()
    took = f"{time.perf_counter() - begin:.0f} s, exit {process.returncode}"
    print(f"{model.name}: model {mib(size)}, data {mib(data_size)}, {options.trials} chips on "
          f"{options.device}, {took}; an idle worker takes {mib(idle)}")  # fmt: skip
    for pid, peak in peaks.items():
        name = "main process" if pid == process.pid else "worker"
        print(f"  {name}: peak {mib(peak)} = idle + data + {(peak - idle - data_size) / size:.2f} × model")


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [pid]
    with contextlib.suppress(OSError):
        for child in children.read_text().split():
            found += family(int(child))
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(c) for c in thread.read_text().split()]
    return list(dict.fromkeys(found))


def high_water(pid: int) -> float:
    """VmHWM in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return float(line.split()[1]) * 1024
    return 0.0


def idle_peak() -> float:
    """Peak of a Python that has only imported what a worker imports."""
    code = (
        "import nvaudit.perturb.engine, onnxruntime, resource; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    return float(subprocess.check_output([sys.executable, "-c", code], env=os.environ)) * 1024


def mib(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
