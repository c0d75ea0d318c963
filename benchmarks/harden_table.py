"""Before and after of training methods, over device spreads: clean accuracy, KPP, seconds.

Claims backed: noise-injection training raises the worst-case accuracy; what TRICE, censored noise and clipped
weights each add; and the share of the time that TRICE's scores take.

    python benchmarks/harden_table.py MODEL.onnx TRAIN.npz TEST.npz --sigmas 0.1 0.2
        [--methods gaussian trice best] [--sigma-unit weight_max] [--device rram] [--bits 4]
        [--seeds 0 1 2] [--epochs 100] [--reset] [--limit 10000] [--audit-images 1000]
        [--trials 1000] [--option weight_decay=0.0001 …] [-o DIR]

Both .npz hold arrays named as the graph's inputs, and labels ``y``. The test images take no part in any
choice. One Markdown row per method and spread: means over seeds, with the standard error of the mean for
several. A method may be spelt with options of its own: ``best:clip_weights=2,train_sigma=0.3``. With ``-o``
the hardened models and reports are kept there, and what has its report there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from nvaudit.jobs.hardening import harden
from nvaudit.report.jsontext import to_json
from nvaudit.spec import default_workers


def main() -> None:
    """Print the table."""
    options = arguments()
    print(
        "| method | sigma | clean before | clean after | KPP before | KPP after | mean after | training s |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.o or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for sigma in options.sigmas:
            for method in options.methods:
                reports = [run(options, method, sigma, seed, folder) for seed in options.seeds]
                print(row(method, sigma, reports), flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument(
        "--methods", nargs="+", default=["none", "correctnet", "gaussian", "rc", "trice", "best"]
    )
    parser.add_argument("--sigmas", nargs="+", type=float, required=True)
    parser.add_argument("--sigma-unit", choices=["level", "full_scale", "weight_max"])
    parser.add_argument("--device", default="rram")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--reset", action="store_true")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--audit-images", type=int, default=1000)
    parser.add_argument("--train-trials", type=int, default=300)
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME=VALUE", help="for every method")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("-o", type=Path, metavar="DIR")
    return parser.parse_args()


def run(options: argparse.Namespace, method: str, sigma: float, seed: int, folder: Path) -> dict[str, Any]:
    """Harden once, or read the report of an earlier run."""
    name = f"{method}-{sigma:g}-{seed}".replace(":", "_").replace(",", "_").replace("=", "")
    kept = folder / f"{name}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    kind, _, own = method.partition(":")
    chosen = {
        name: getattr(options, name)
        for name in ("sigma_unit", "bits", "epochs", "batch_size", "lr", "reset", "limit", "trials",
                     "audit_images", "train_trials", "provider")
    }  # fmt: skip
    chosen.update(settings([*options.option, *(own.split(",") if own else [])]))
    report = harden(
        options.model,
        options.device,
        options.train,
        out=folder / f"{name}.onnx",
        progress=lambda what, done, total: tell(name, what, done, total),
        method=kind,
        sigma=sigma,
        seed=seed,
        test_data=options.test,
        roughness=False,
        workers=default_workers(),
        **chosen,
    )
    text = to_json(report)
    kept.write_text(text + "\n", encoding="utf-8")
    read: dict[str, Any] = json.loads(text)
    return read


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


def tell(name: str, what: str, done: int, total: int) -> None:
    """Say where the run is."""
    if what.startswith("training"):
        print(f"{name}: {what} {done}/{total}", file=sys.stderr)


def row(method: str, sigma: float, reports: list[dict[str, Any]]) -> str:
    """One line of the table."""
    cells = [
        points([one["before"]["nominal"] for one in reports]),
        points([one["after"]["nominal"] for one in reports]),
        points([one["before"]["kpp"]["value"] for one in reports]),
        points([one["after"]["kpp"]["value"] for one in reports]),
        points([one["after"]["mean"] for one in reports]),
        f"{statistics.mean(one['timing']['training'] for one in reports):.0f}",
    ]
    return f"| {method} | {sigma:g} | " + " | ".join(cells) + " |"


def points(values: list[float]) -> str:
    """Mean in percent, with the standard error of the mean of several."""
    mean = f"{100 * statistics.mean(values):.2f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {100 * statistics.stdev(values) / math.sqrt(len(values)):.2f}"


if __name__ == "__main__":
    main()
