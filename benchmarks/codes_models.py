"""What codes give every model of a folder without training: the table of docs/mapping.md.

Claims backed: a code, devices shared out between layers and weights rounded for their noise leave at most
half of the loss that remapping on slices leaves; corrected chip by chip, models survive the greatest spread.

    python benchmarks/codes_models.py MODELS TEST CALIBRATION --results FILE.jsonl [--devices rram fefet1]
        [--sigmas 0.1 0.4] [--columns slices remap code coded] [--trials 100] [--limit 300]
        [--only 'mnist_*' …] [--time-budget 60] [--option devices_per_weight=3 …] [--keep DIR]
    python benchmarks/codes_models.py --results FILE.jsonl --table

TEST/NAME.npz is scored; CALIBRATION/NAME.npz, of other samples, is what remapping sees and what chips are
corrected on. Columns: ``slices``, the model as it is; ``remap``, remapped on slices, rounding to the nearest
values; ``code``, the model as it is on the code that ``auto`` finds; ``coded``, remapped with a code, devices
by layers and rounding for the noise, audited without and with a correction per chip (``--calibrate 100``).
All columns of a model see the same chips and images, every chip every image. Each audit is one line of FILE;
what stands there already is not run again, so a study that was cut off goes on. KPP 1 % is the third worst of
200 chips, the second worst of 100 and the worst of fewer.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nvaudit
from nvaudit.jobs.remapping import remap
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import TrialSummary

COLUMNS: dict[str, dict[str, Any]] = {
    "slices": {},
    "remap": {"code": "slices", "rounding": False},
    "code": {"code": "auto"},
    "coded": {"code": "auto", "allocate": "devices"},
}
"""Options of each column: of the remapping where there is one, else of the audit."""

REMAPPED = ("remap", "coded")
HALF, FEW_POINTS, MANY_POINTS = 0.5, 0.02, 0.03
"""The bars: share of the loss after remapping on slices; loss at the least and at the greatest spread."""


def main() -> None:
    """Run what is missing, then print the table."""
    given = arguments()
    if not given.table:
        for sigma in given.sigmas:
            for model in sorted(given.models.glob("*.onnx")):
                if not any(fnmatch.fnmatch(model.stem, glob) for glob in given.only):
                    continue
                if not (given.test / f"{model.stem}.npz").is_file():
                    continue
                for device in given.devices:
                    for column in given.columns:
                        one(given, model, device, sigma, column)
    rows = lines(given.results)
    for device in given.devices:
        for sigma in given.sigmas:
            print(table([row for row in rows if (row["device"], row["sigma"]) == (device, sigma)]))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("test", type=Path, nargs="?")
    parser.add_argument("calibration", type=Path, nargs="?")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--devices", nargs="+", default=["rram", "fefet1"])
    parser.add_argument("--sigmas", nargs="+", type=float, default=[0.1, 0.4])
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--calibrate", type=int, default=100, help="samples of each chip; 0: no correction")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="GLOB")
    parser.add_argument("--time-budget", type=float, default=60.0)
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME=VALUE", help="of a remapping")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keeps the remapped models, for other audits"
    )
    given = parser.parse_args()
    if not given.table and given.calibration is None:
        parser.error("MODELS TEST CALIBRATION, or --table")
    return given


def lines(path: Path) -> list[dict[str, Any]]:
    """What a results file holds."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def one(given: argparse.Namespace, model: Path, device: str, sigma: float, column: str) -> None:
    """Measure one column of one model, unless the results have it."""
    own = dict(pair.split("=", 1) for pair in given.option) if column in REMAPPED else {}
    options = COLUMNS[column] | {name: _value(text) for name, text in own.items()}
    cell = {
        "model": model.stem, "device": device, "sigma": sigma, "column": column, "chips": given.trials,
        "images": given.limit, "options": options,
    }  # fmt: skip
    if column in REMAPPED:
        cell["budget_s"] = given.time_budget
    there = [row for row in lines(given.results) if "failed" not in row]
    if any(all(row.get(key) == value for key, value in cell.items()) for row in there):
        return
    print(
        f"{time.strftime('%H:%M:%S')} {model.stem} {device} {sigma:g} {column}", file=sys.stderr, flush=True
    )
    try:
        found = measure(given, model, device, sigma, column, options)
    except Exception as error:  # one model that fails must not end a study of many
        found = {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    with given.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell | found) + "\n")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def measure(
    given: argparse.Namespace, model: Path, device: str, sigma: float, column: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Remap, where the column does, and audit."""
    found: dict[str, Any] = {}
    calibration = str(given.calibration / f"{model.stem}.npz")
    with tempfile.TemporaryDirectory() as scratch:
        path, audited = model, options
        if column in REMAPPED:
            path = (given.keep or Path(scratch)) / f"{model.stem}-{device}-{sigma:g}-{column}.onnx"
            for name in given.option:
                path = path.with_stem(f"{path.stem}-{name}")
            found["remap"] = remapped(given, model, device, calibration, sigma, options, path)
            audited = {}
        if column == "coded" and given.calibrate:
            audited = {"calibrate_chips": given.calibrate, "calibrate_data": calibration}
        audit = nvaudit.audit(
            path, device, str(given.test / f"{model.stem}.npz"), sigmas=(sigma,), trials=given.trials,
            limit=given.limit, exhaustive=True, workers=0, roughness=False, **audited,
        )  # fmt: skip
    return found | numbers(audit)


def remapped(
    given: argparse.Namespace, model: Path, device: str, calibration: str, sigma: float,
    options: dict[str, Any], path: Path,
) -> dict[str, Any]:  # fmt: skip
    """Remap a model, or find it remapped; what was kept and how long it took."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept, asked = path.with_suffix(".kept.json"), {"budget_s": given.time_budget, "options": options}
    if kept.exists():
        before = json.loads(kept.read_text(encoding="utf-8"))
        if before["asked"] == asked:
            return dict(before["found"])
    report = remap(
        model, device, calibration, out=path, sigma=sigma, trials=0, workers=1, time_budget=given.time_budget,
        **options,
    )  # fmt: skip
    found = {
        "seconds": round(report.timing["calibration"], 1),
        "kept": next(step.name for step in reversed(report.steps) if step.kept),
        "not_tried": len(report.not_tried),
        "devices_per_weight": None if report.codes is None else report.codes.devices_per_weight,
    }
    kept.write_text(json.dumps({"asked": asked, "found": found}) + "\n", encoding="utf-8")
    return found


def numbers(audit: AuditReport) -> dict[str, Any]:
    """What a line keeps of an audit; figures of a fraction in percent."""
    scale = 100 if audit.metric_info.unit == "fraction" else 1
    found: dict[str, Any] = {
        "ideal": scale * audit.nominal,
        "kpp": scale * audit.kpp[0].value,
        "mean": scale * audit.trials.mean,
        "seconds": round(audit.timing["total"], 1),
    }
    if audit.codes is not None:
        found["codes"] = sorted({code.text for code in audit.codes.codes})
    if audit.calibrated is not None:
        point = audit.calibrated.points[0]
        assert isinstance(point.trials, TrialSummary)
        found["calibrated"] = {"kpp": scale * point.kpp[0].value, "mean": scale * point.trials.mean}
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """One device at one spread as Markdown, a line for each model, and how many meet each bar."""
    if not rows:
        return ""
    out = [
        f"\n`{rows[0]['device']}`, σ {rows[0]['sigma']:g}: KPP 1 % (mean)\n",
        "| model | chips × images | ideal | slices | remapped | code | code, devices by layers, rounding "
        "| corrected per chip | loss left |",
        "|---" * 9 + "|",
    ]
    keys = {(row["model"], row["options"].get("devices_per_weight")) for row in rows if _counted(row)}
    models = sorted(keys, key=str)
    half, few, many = 0, 0, 0
    for name, devices in models:
        of = {
            row["column"]: row
            for row in rows
            if row["model"] == name
            and "kpp" in row
            and row["options"].get("devices_per_weight") in (None, devices)
        }
        if "slices" not in of:
            continue
        ideal, coded, remapped = of["slices"]["ideal"], of.get("coded"), of.get("remap")
        share = "—"
        if coded is not None and remapped is not None:
            left, before = ideal - coded["kpp"], ideal - remapped["kpp"]
            share = f"{left:.1f} of {before:.1f}"
            half += left <= HALF * before
            few += left <= 100 * FEW_POINTS
        corrected = None if coded is None else coded.get("calibrated")
        many += corrected is not None and ideal - corrected["kpp"] <= 100 * MANY_POINTS
        shown = [_cell(of.get(column)) for column in COLUMNS] + [_cell(corrected)]
        size = " / ".join(sorted({f"{row['chips']} × {row['images']}" for row in of.values()}))
        average = "" if devices is None else f" on {devices:g}"
        out.append(f"| {name}{average} | {size} | {ideal:.1f} | {' | '.join(shown)} | {share} |")
    out.append(
        f"\n{len(models)} models: at most half of the loss after remapping on slices in {half}, at most "
        f"{100 * FEW_POINTS:.0f} points in {few}; "
        f"corrected per chip, at most {100 * MANY_POINTS:.0f} points in {many}."
    )
    return "\n".join(out)


def _counted(row: dict[str, Any]) -> bool:
    return row["column"] == "coded" and "kpp" in row


def _cell(row: dict[str, Any] | None) -> str:
    return "—" if row is None else f"{row['kpp']:.1f} ({row['mean']:.1f})"


if __name__ == "__main__":
    main()
