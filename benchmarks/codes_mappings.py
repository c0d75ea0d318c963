"""One model on several mappings, under several conditions: the smaller tables of docs/mapping.md.

Claims backed: where devices are stuck, drift, vary together or are read with noise and few bits, what of the
gain of a code remains.

    python benchmarks/codes_mappings.py MODEL TEST.npz CALIBRATION.npz --results FILE.jsonl [--device fefet1]
        [--sigma 0.1] [--mappings slices 'devices by layers' …] [--conditions plain 'stuck 0.1 %' …]
        [--trials 200] [--limit 500] [--time-budget 60]

Every mapping of a condition sees the same chips and images, every chip every image. What FILE holds is not
run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from codes_models import numbers
from tables import lines

import nvaudit
from nvaudit.jobs.remapping import remap

MAPPINGS: dict[str, dict[str, Any]] = {
    "slices": {},
    "slices, remapped": {"code": "slices"},
    "8,4,2,1": {"code": "8,4,2,1"},
    "auto": {"code": "auto"},
    "sign per device": {"code": "auto", "encoding": "sign_per_device"},
    "whole numbers": {"code": "auto:integers"},
    "whole numbers, sign per device": {"code": "auto:integers", "encoding": "sign_per_device"},
    "devices by layers": {"code": "auto", "allocate": "devices"},
    "code, devices by layers, remapped": {"code": "auto", "allocate": "devices"},
}
CONDITIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stuck 0.1 %": {"stuck_at": "0.0005,0.0005"},
    "0.1 level that a tensor shares": {"correlated": "0.1level:tensor"},
    "read noise of 2 % of the window": {"read_noise": "0.02"},
    "5-bit ADCs": {"adc_bits": 5},
    "8-bit ADCs": {"adc_bits": 8},
    "after a day": {"time_s": 86400.0},
    "after a day, compensated": {"time_s": 86400.0, "drift_compensation": True},
}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--results", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--device", default="fefet1")
    parser.add_argument("--sigma", type=float)
    parser.add_argument("--mappings", nargs="+", choices=MAPPINGS, default=list(MAPPINGS))
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=["plain"])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--time-budget", type=float, default=60.0)
    parser.add_argument("--calibrate", type=int, default=0, help="samples that each chip is corrected by")
    given = parser.parse_args()
    print(
        "| condition | mapping | chips × images | ideal | KPP 1 % | mean | corrected per chip |\n"
        + "|---" * 7
        + "|"
    )
    for condition in given.conditions:
        for mapping in given.mappings:
            row = one(given, condition, mapping)
            corrected = row.get("calibrated")
            shown = "—" if corrected is None else f"{corrected['kpp']:.1f} ({corrected['mean']:.1f})"
            print(f"| {condition} | {mapping} | {row['chips']} × {row['images']} | {row['ideal']:.1f} "
                  f"| {row['kpp']:.1f} | {row['mean']:.1f} | {shown} |", flush=True)  # fmt: skip


def one(given: argparse.Namespace, condition: str, mapping: str) -> dict[str, Any]:
    """Audit one mapping under one condition, or read what the results have."""
    cell = {
        "model": given.model.stem, "device": given.device, "sigma": given.sigma, "condition": condition,
        "mapping": mapping, "chips": given.trials, "images": given.limit, "calibrate": given.calibrate,
    }  # fmt: skip
    for row in lines(given.results):
        if all(row.get(key) == value for key, value in cell.items()):
            return row
    print(f"{time.strftime('%H:%M:%S')} {condition}: {mapping}", file=sys.stderr, flush=True)
    what, options = CONDITIONS[condition], MAPPINGS[mapping]
    row = dict(cell)
    with tempfile.TemporaryDirectory() as scratch:
        path = given.model
        if "remapped" in mapping:
            path = Path(scratch) / "remapped.onnx"
            on_device = {key: value for key, value in what.items() if key != "adc_bits"}
            report = remap(
                given.model, given.device, given.calibration, out=path, sigma=given.sigma, trials=0,
                workers=1, time_budget=given.time_budget, **options, **on_device,
            )  # fmt: skip
            row["kept"] = next(step.name for step in reversed(report.steps) if step.kept)
            row["remap_seconds"] = round(report.timing["calibration"], 1)
            options = {}
        if given.calibrate:
            options = {
                **options, "calibrate_chips": given.calibrate, "calibrate_data": str(given.calibration)
            }  # fmt: skip
        if given.sigma is not None:
            options = {**options, "sigmas": (given.sigma,)}
        audit = nvaudit.audit(
            path, given.device, given.test, trials=given.trials, limit=given.limit, exhaustive=True,
            workers=0, roughness=False, **options, **what,
        )  # fmt: skip
    row |= numbers(audit)
    with given.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    return row


if __name__ == "__main__":
    main()
