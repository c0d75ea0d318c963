"""What a correction of each chip gives: the table of docs/deploy.md.

    python benchmarks/calibrate.py MODELS TEST CALIBRATION --results FILE.jsonl [--devices rram fefet1 pcm]
        [--samples 50 100 400] [--only cifar_resnet20 …] [--trials 100] [--limit 250]
    python benchmarks/calibrate.py --results FILE.jsonl --table

TEST/NAME.npz is scored; of CALIBRATION/NAME.npz, other samples, labels are not used. Each line of FILE is one
model on one device, its chips corrected by so many samples; the chips as they are and corrected are the same
ones, so that differences are paired (:mod:`nvaudit.stats.paired`). What stands there is not run again, and
chips that a run which was cut off had finished are kept beside FILE. Profiles whose devices drift are taken
after a day.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tables import lines

from nvaudit.device import load_profile
from nvaudit.jobs.auditing import run_audit
from nvaudit.jobs.calibrating import Calibrated, calibrate_chips
from nvaudit.perturb.outcome import Probe
from nvaudit.perturb.schedule import quiet
from nvaudit.perturb.stop import Stop
from nvaudit.session import Session, prepared, run_nominal, run_probe
from nvaudit.spec import RunSpec
from nvaudit.stats.kpp import kpp_index
from nvaudit.stats.paired import Estimate, kpp_difference, mean_difference

DAY = 86400.0
PERCENTILE = 5.0
"""Of 100 chips, the least for whose difference chips give an interval at all."""


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("test", type=Path, nargs="?")
    parser.add_argument("calibration", type=Path, nargs="?")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--devices", nargs="+", default=["rram", "fefet1", "pcm"])
    parser.add_argument("--samples", type=int, nargs="+", default=[50, 100, 400])
    parser.add_argument("--only", nargs="+", default=None, metavar="MODEL")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--limit", type=int, default=250)
    given = parser.parse_args()
    if not given.table and given.calibration is None:
        parser.error("MODELS TEST CALIBRATION, or --table")
    if not given.table:
        names = given.only or [path.stem for path in sorted(given.models.glob("*.onnx"))]
        for name in names:
            for device in given.devices:
                for samples in given.samples:
                    one(given, name, device, samples)
    print(table(lines(given.results)))


def one(given: argparse.Namespace, name: str, device: str, samples: int) -> None:
    """Measure one model on one device, unless the results have it."""
    cell = {"model": name, "device": device, "samples": samples, "chips": given.trials, "images": given.limit}
    if any(all(row[key] == value for key, value in cell.items()) for row in lines(given.results)):
        return
    print(f"{time.strftime('%H:%M:%S')} {name} {device} {samples}", file=sys.stderr, flush=True)
    folder = given.results.parent / f"{given.results.stem}-chips" / f"{name}-{device}-{given.trials}"
    folder.mkdir(parents=True, exist_ok=True)
    drifts = load_profile(device).time is not None
    spec = RunSpec(
        model=str(given.models / f"{name}.onnx"), device=device, data=str(given.test / f"{name}.npz"),
        trials=given.trials, limit=given.limit, exhaustive=True, workers=0, roughness=False,
        **({"time_s": DAY} if drifts else {}),
    )  # fmt: skip
    # The chips as they are serve every number of samples.
    audit = run_audit(spec, resume=folder / "as-they-are")
    more = {"calibrate_chips": samples, "calibrate_data": str(given.calibration / f"{name}.npz")}
    begin = time.perf_counter()
    corrected = prepared(
        RunSpec.validated({**spec.model_dump(), **more}), quiet, lambda session: _corrected(session, folder)
    )
    found = {
        "sigma": audit.operating_point.sigma,
        "ideal": audit.nominal,
        "quantised": audit.quantised,
        "norms": len(corrected.norms),
        "layers": len(corrected.layers),
        "left": len(corrected.left),
        "before": list(audit.trials.values),
        "after": corrected.measurement.chips[0].low.tolist(),
        "seconds": round(time.perf_counter() - begin, 1),
    }
    with given.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell | found) + "\n")


def _corrected(session: Session, folder: Path) -> Calibrated | Probe:
    """The chips of a session, each corrected."""
    with session.pool() as pool:
        metric = run_probe(pool, session)
        if isinstance(metric, Probe):
            return metric
        keep = session.reference_file(metric)
        run_nominal(pool, session, metric)
    samples = session.spec.calibrate_chips
    kept = folder / f"corrected-{samples}"
    kept.mkdir(exist_ok=True)
    return calibrate_chips(session, metric, keep, quiet, kept, Stop(), None)


def table(rows: list[dict[str, Any]]) -> str:
    """All of it as Markdown."""
    out = [
        "| model | device | samples | ideal | KPP 5 % | corrected | change, paired 95 % | mean | corrected "
        "| change, paired 95 % | worst chip |",
        "|---" * 11 + "|",
    ]
    for row in rows:
        before, after = (100 * np.array(row[which], np.float64) for which in ("before", "after"))
        index = kpp_index(PERCENTILE, before.size)
        kpp = kpp_difference(before, after, PERCENTILE, 0.95, True)
        mean = mean_difference(before, after, 0.95)
        out.append(
            f"| `{row['model']}` | `{row['device']}` | {row['samples']} | {100 * row['ideal']:.1f} "
            f"| {np.sort(before)[index]:.1f} | {np.sort(after)[index]:.1f} | {_text(kpp)} "
            f"| {before.mean():.1f} | {after.mean():.1f} | {_text(mean)} "
            f"| {before.min():.1f} → {after.min():.1f} |"
        )
    return "\n".join(out)


def _text(one: Estimate) -> str:
    between = "" if one.low is None or one.high is None else f" ({one.low:+.1f} … {one.high:+.1f})"
    return f"{one.value:+.1f}{between}"


if __name__ == "__main__":
    main()
