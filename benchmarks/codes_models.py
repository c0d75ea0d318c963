"""What codes give every model of a folder without training: the tables of docs/mapping-models.md.

Claims backed: a code, devices shared out between layers and weights rounded for their noise leave at most
half of the loss that remapping on slices leaves; corrected chip by chip, models survive the greatest spread.

    python benchmarks/codes_models.py MODELS TEST CALIBRATION --results FILE.jsonl [--devices rram fefet1]
        [--sigmas 0.1 0.4] [--columns slices remap code coded] [--trials 100] [--limit 300]
        [--only 'mnist_*' …] [--time-budget 60] [--calibrate 100] [--option devices_per_weight=3 …]
        [--keep DIR]

TEST/NAME.npz is scored; CALIBRATION/NAME.npz, of other samples, is what remapping sees and what chips are
corrected on. Columns: ``slices``, the model as it is; ``remap``, remapped on slices, rounding to the nearest
values; ``code``, the model as it is on the code that ``auto`` finds; ``coded``, remapped with a code, devices
by layers and rounding for the noise, audited without and with a correction per chip (``--calibrate 100``).
The other columns are ways for models that lose too much: as ``coded`` with other options (``COLUMNS``).
All columns of a model see the same chips and images, every chip every image. Each audit is one line of FILE;
what stands there already is not run again, so a study that was cut off goes on; ``codes_tables.py`` writes
the tables. KPP 1 % is the third worst of
200 chips, the second worst of 100 and the worst of fewer.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tables import lines

import nvaudit
from nvaudit.jobs.remapping import remap
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import TrialSummary
from nvaudit.stats.kpp import KppResult

CODED: dict[str, Any] = {"code": "auto", "allocate": "devices"}
DIGITAL: dict[str, Any] = CODED | {"clip": False, "rounding": False}
COLUMNS: dict[str, dict[str, Any]] = {
    "slices": {},
    "remap": {"code": "slices", "rounding": False},
    "code": {"code": "auto"},
    "coded": CODED,
    "signed": CODED | {"encoding": "sign_per_device"},
    "integers": CODED | {"encoding": "sign_per_device", "code": "auto:integers"},
    "scales": CODED | {"digital_scale": "insert-both"},
    "longer": CODED | {"time_budget": 60},
    "gentle": CODED | {"max_clean_loss": 0.005},
    "outliers": DIGITAL,
    "scales, outliers": DIGITAL | {"digital_scale": "insert-both"},
    "8 devices": CODED | {"devices_per_weight": 8},
}
"""Options of each column: of the remapping where there is one, else of the audit."""

ALWAYS, NOT_REMAPPED = ("slices", "remap", "code", "coded"), ("slices", "code")
AUDITED: dict[str, dict[str, Any]] = {
    name: {"digital_outliers": 0.01} for name in ("outliers", "scales, outliers")
}
"""Options that the audit of a remapped model has besides."""

SAMPLES = 100
"""What a chip is corrected by unless said otherwise."""


def main() -> None:
    """Run what is missing."""
    given = arguments()
    for sigma in given.sigmas:
        for model in sorted(given.models.glob("*.onnx")):
            if not any(fnmatch.fnmatch(model.stem, glob) for glob in given.only):
                continue
            if not (given.test / f"{model.stem}.npz").is_file():
                continue
            for device in given.devices:
                for column in given.columns:
                    one(given, model, device, sigma, column)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--results", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--devices", nargs="+", default=["rram", "fefet1"])
    parser.add_argument("--sigmas", nargs="+", type=float, default=[0.1, 0.4])
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(ALWAYS))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument(
        "--calibrate", type=int, default=SAMPLES, help="samples of each chip; 0: no correction"
    )
    parser.add_argument("--only", nargs="+", default=["*"], metavar="GLOB")
    parser.add_argument("--time-budget", type=float, default=60.0)
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME=VALUE", help="of a remapping")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keeps the remapped models, for other audits"
    )
    return parser.parse_args()


def one(given: argparse.Namespace, model: Path, device: str, sigma: float, column: str) -> None:
    """Measure one column of one model, unless the results have it."""
    own = dict(pair.split("=", 1) for pair in given.option) if column not in NOT_REMAPPED else {}
    options = COLUMNS[column] | {name: _value(text) for name, text in own.items()}
    cell = {
        "model": model.stem, "device": device, "sigma": sigma, "column": column, "chips": given.trials,
        "images": given.limit, "options": options,
    }  # fmt: skip
    if column not in NOT_REMAPPED:
        cell["budget_s"] = options.get("time_budget", given.time_budget)
        if given.calibrate != SAMPLES:
            cell["calibrate"] = given.calibrate
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
        if column not in NOT_REMAPPED:
            name = "-".join([model.stem, device, f"{sigma:g}", re.sub(r"\W+", "_", column), *given.option])
            path = (given.keep or Path(scratch)) / f"{name}.onnx"
            found["remap"] = remapped(given, model, device, calibration, sigma, options, path)
            audited = dict(AUDITED.get(column, {}))
            if column != "remap" and given.calibrate:
                audited |= {"calibrate_chips": given.calibrate, "calibrate_data": calibration}
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
        model, device, calibration, out=path, sigma=sigma, trials=0, workers=1,
        **{"time_budget": given.time_budget} | options,
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
        "seconds": round(audit.timing["total"], 1),
        **_figures(audit.kpp[0], audit.trials, scale),
    }
    if audit.codes is not None:
        found["codes"] = sorted({code.text for code in audit.codes.codes})
    if audit.calibrated is not None:
        point = audit.calibrated.points[0]
        assert isinstance(point.trials, TrialSummary)
        found["calibrated"] = _figures(point.kpp[0], point.trials, scale)
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}


def _figures(kpp: KppResult, trials: TrialSummary, scale: float) -> dict[str, Any]:
    """KPP with its interval (None: the chips give no bound there), and the mean of the chips."""
    ends = {"low": kpp.low, "high": kpp.high}
    return {
        "kpp": round(scale * kpp.value, 3),
        **{name: None if end is None else round(scale * end, 3) for name, end in ends.items()},
        "mean": round(scale * trials.mean, 3),
        "std": round(scale * trials.std, 3),
    }


if __name__ == "__main__":
    main()
