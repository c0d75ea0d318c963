"""Remap every model of a folder, and print what the same chips make of it before and after, as Markdown.

Claims backed: `--method remap` works on ordinary models of every kind, calibrates in less than a minute each,
and raises the worst-case accuracy at equal clean accuracy; where it does not help, the table says so.

    python benchmarks/remap_models.py MODELS DATA [--devices rram fefet1] [--sigma 0.1] [--trials 500]
        [--limit 1000] [--only 'mnist_*' …] [--option calibration_chips=8 …] [-o DIR]

MODELS holds NAME.onnx, DATA the evaluation data NAME.npz; a model without data is left out. With ``-o`` the
report of every model and device is kept there as JSON, and what has its report there already is not run
again: a run that was cut off goes on. A model that fails gives a row that says why, and the run goes on.
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

from nvaudit.jobs.remapping import remap
from nvaudit.report.jsontext import to_json
from nvaudit.spec import default_workers

HEAD = (
    "| model | device | clean before | after | KPP 1 % before | after | change [95 %] | mean before | after "
    "| calibration s | kept |"
)


def main() -> None:
    """Print the table."""
    given = arguments()
    print(HEAD)
    print("|" + "---|" * (HEAD.count("|") - 1), flush=True)
    rows: list[dict[str, Any] | None] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.o or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for model in sorted(given.models.glob("*.onnx")):
            data = given.data / f"{model.stem}.npz"
            if not data.is_file() or not any(fnmatch.fnmatch(model.stem, glob) for glob in given.only):
                continue
            for device in given.devices:
                rows.append(one(given, model, data, device, folder))
    print(summary(rows))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--devices", nargs="+", default=["rram", "fefet1"])
    parser.add_argument("--sigma", type=float, help="in the profiles' unit; by default each profile's own")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="GLOB")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME=VALUE", help="of the remapping")
    parser.add_argument("-o", type=Path, metavar="DIR")
    return parser.parse_args()


def one(
    given: argparse.Namespace, model: Path, data: Path, device: str, folder: Path
) -> dict[str, Any] | None:
    """Remap one model for one device, or read the report of an earlier run; print its row."""
    kept = folder / f"{model.stem}-{Path(device).stem}.json"
    begin = time.perf_counter()
    try:
        if not kept.exists() or not same(given, json.loads(kept.read_text(encoding="utf-8"))["run"]):
            report = remap(
                model,
                device,
                data,
                out=folder / f"{model.stem}-{Path(device).stem}.onnx",
                sigma=given.sigma,
                trials=given.trials,
                limit=given.limit,
                workers=given.workers,
                **settings(given.option),
            )
            kept.write_text(to_json(report) + "\n", encoding="utf-8")
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        print(row(model.stem, device, found), flush=True)
    except Exception as error:  # one model that fails must not end a run over many
        why = " ".join(f"{type(error).__name__}: {error}".split()).replace("|", "/")
        print(f"| {model.stem} | {device} | failed after {time.perf_counter() - begin:.0f} s: {why[:300]} |")
        sys.stdout.flush()
        return None
    return found


def same(given: argparse.Namespace, run: dict[str, Any]) -> bool:
    """Whether a kept report was made with the options given now."""
    wanted = {"sigma": given.sigma, "trials": given.trials, "limit": given.limit, **settings(given.option)}
    return all(run.get(name) == value for name, value in wanted.items())


def settings(pairs: list[str]) -> dict[str, Any]:
    """Read NAME=VALUE, the value as JSON where it is."""
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def row(name: str, device: str, report: dict[str, Any]) -> str:
    """One line of the table."""
    step = next(step["name"] for step in report["steps"] if step["kept"])
    seconds = f"{report['timing']['calibration']:.0f}"
    before, after = report["before"], report["after"]
    if before is None:
        return f"| {name} | {device} | not audited | | | | | | | {seconds} | {step} |"
    shown = number if report["unit"] == "fraction" else plain
    change = report["difference"]["kpp"]
    cells = [
        name,
        device,
        *(shown(side["nominal"]) for side in (before, after)),
        *(shown(side["kpp"]) for side in (before, after)),
        f"{shown(change['value'], '+')} [{shown(change['low'])}, {shown(change['high'])}]",
        *(shown(side["mean"]) for side in (before, after)),
        seconds,
        step,
    ]
    return "| " + " | ".join(cells) + " |"


def number(value: float | None, sign: str = "") -> str:
    """A share in percent; a dash where there is none."""
    return "—" if value is None else f"{100 * value:{sign}.1f}"


def plain(value: float | None, sign: str = "") -> str:
    """A metric that is no share."""
    return "—" if value is None else f"{value:{sign}.4g}"


def summary(found: list[dict[str, Any] | None]) -> str:
    """What the whole table says, in one sentence."""
    done = [report for report in found if report is not None and report["difference"] is not None]
    if not done:
        return f"\n{len(found)} runs, none of them audited."
    gains = [_side(report) * report["difference"]["kpp"]["value"] for report in done]
    lost = max(_side(report) * (report["before"]["nominal"] - report["after"]["nominal"]) for report in done)
    longest = max(report["timing"]["calibration"] for report in done)
    return (
        f"\n{len(found)} runs, {found.count(None)} failed: KPP 1 % higher in {sum(g > 0 for g in gains)}, "
        f"lower in {sum(g < 0 for g in gains)}; largest loss of the clean metric {lost:.4f}; longest "
        f"calibration {longest:.0f} s."
    )


def _side(report: dict[str, Any]) -> int:
    return 1 if report["higher_is_better"] else -1


if __name__ == "__main__":
    main()
