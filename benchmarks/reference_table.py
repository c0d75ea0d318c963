"""Audit every reference model that has data, through the public command, and print a Markdown table.

Claim backed: nominal top-1 equals the accuracy published with the models on the same images; quantised at
8 bits; KPP of the 1st percentile for `rram` and `fefet1` at sigma 0.1.

    python benchmarks/reference_table.py DATA_FOLDER [--trials 1000] [--images 1000] [--only GLOB]
        [-o TABLE.md]

DATA_FOLDER holds models.json, models/ and load.py. The nominal accuracy is taken over all images of the
published figure, the chips over the first --images.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--only", default="*")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("load", options.data / "load.py")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    models = json.loads((options.data / "models.json").read_text())
    lines = [
        "| model | images | published | nominal | quantised (8 bits) | KPP1 rram [95 %] | "
        "KPP1 fefet1 [95 %] | batching | s/chip |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for model in models:
            if not model["dataset"] or not fnmatch.fnmatch(model["name"], options.only):
                continue
            row = one_model(model, loader, options, Path(scratch))
            print(row, flush=True)
            lines.append(row)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def one_model(model: dict[str, Any], loader: Any, options: argparse.Namespace, scratch: Path) -> str:
    """Audit one model on both devices."""
    name, dataset = model["name"], model["dataset"]
    published, images = model["clean"][dataset]
    feeds, labels = loader.load(name, images, dataset)
    full = scratch / "full.npz"
    np.savez(full, **feeds, y=labels)
    path = options.data / "models" / f"{name}.onnx"
    whole = run(path, full, "rram", 1, images, scratch)
    cells = []
    for device in ("rram", "fefet1"):
        report = run(path, full, device, options.trials, min(options.images, images), scratch)
        kpp = report["kpp"][0]
        low = "—" if kpp["low"] is None else f"{100 * kpp['low']:.1f}"
        cells.append(f"{100 * kpp['value']:.1f} [{low}, {100 * kpp['high']:.1f}]")
    said = report["model"]["batching"]
    batching = "any" if "any batch" in said else "re-batched" if "re-batched" in said else "batch 1"
    return (
        f"| {name} | {images} | {100 * published:.2f} | {100 * whole['nominal']:.2f} | "
        f"{100 * whole['quantised']:.2f} | {cells[0]} | {cells[1]} | {batching} | "
        f"{report['timing']['chip_median']:.3f} |"
    )


def run(path: Path, data: Path, device: str, trials: int, limit: int, scratch: Path) -> dict[str, Any]:
    """One call of the public command."""
    report = scratch / "report.json"
    command = [sys.executable, "-m", "nvaudit", "audit", path, "--data", data, "--device", device]
    command += ["--sigma", "0.1", "-n", trials, "--limit", limit, "-o", report, "-q"]
    begin = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(
            f"{path.name}: exit {done.returncode} after {time.perf_counter() - begin:.0f} s: {done.stderr}"
        )
    return json.loads(report.read_text())


if __name__ == "__main__":
    main()
