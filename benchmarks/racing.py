"""Races and gates over the exhaustive audit: images, wall time, answers.

Claims backed: with races the KPP of many chips takes at most an eighth of the images and a sixth of the time
of running every chip on every image, and is the same; a gate four points from the KPP takes at most a
twentieth of the images.

    python benchmarks/racing.py MODEL.onnx DATA.npz --sigma 0.4 [--device rram] [--trials 10000]
        [--exhaustive 500] [--points 2 4 8]

In one run: the raced audit, then the first --exhaustive chips on every image (its time is scaled to
--trials), then gates that many points below and above the KPP. Of the chips that both have, the values must
be equal, and every chip that was stopped early must lie above the KPP.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit import AuditReport, audit
from nvaudit.spec import default_workers


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--device", default="rram")
    parser.add_argument("--sigma", type=float, required=True)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--exhaustive", type=int, default=500)
    parser.add_argument("--points", type=float, nargs="*", default=(2.0, 4.0, 8.0))
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    common: dict[str, Any] = {
        "model": options.model,
        "data": options.data,
        "device": options.device,
        "sigmas": (options.sigma,),
        "workers": default_workers(),
        "limit": options.limit,
    }
    raced, wall = clock(trials=options.trials, **common)
    whole, whole_wall = clock(trials=options.exhaustive, exhaustive=True, **common)
    scaled = whole_wall * options.trials / options.exhaustive
    compare(raced, whole)
    kpp = raced.kpp[0]
    print(
        f"{options.model.stem} sigma {options.sigma:g}: nominal {raced.nominal:.4f}, KPP {kpp.value:.4f} "
        f"[{kpp.low}, {kpp.high}] width {kpp.width:.4f} of {options.trials} chips; "
        f"images {share(raced):.4f} of exhaustive; wall {wall:.1f} s of {scaled:.0f} s "
        f"({wall / scaled:.4f}; exhaustive measured on {options.exhaustive} chips)",
        flush=True,
    )
    samples = raced.data.count
    for points in sorted({-p for p in options.points} | set(options.points)):
        threshold = kpp.value + points / 100
        if threshold > 1:
            print(f"  gate {points:+g} points: above 1, no such gate")
            continue
        found, seconds = clock(trials=options.trials, min_kpp=threshold, **common)
        gate = found.gate[0]
        images = found.trials.images_evaluated
        print(
            f"  gate {points:+g} points (T = {threshold:.4f}): {found.verdict}, {gate.failures} of "
            f"{gate.trials} chips fail; images {images / (options.trials * samples):.5f} of {options.trials} "
            f"chips, {images / (gate.trials * samples):.3f} of the {gate.trials}; {seconds:.1f} s",
            flush=True,
        )


def clock(**options: Any) -> tuple[AuditReport, float]:
    """Run an audit and its seconds."""
    begin = time.perf_counter()
    return audit(**options), time.perf_counter() - begin


def share(report: AuditReport) -> float:
    """Images looked at, as a share of every chip on every image."""
    return report.trials.images_evaluated / report.trials.images_exhaustive


def compare(raced: AuditReport, whole: AuditReport) -> None:
    """Check the chips that both runs have, and the KPP of a race over these chips alone."""
    both = min(raced.trials.count, whole.trials.count)
    truth = np.array(whole.trials.values[:both], dtype=float)
    found = np.array(raced.trials.values[:both], dtype=float)
    known = np.isfinite(found)
    assert np.array_equal(found[known], truth[known]), "a chip has another value in a race"
    wrong = int((truth[~known] <= raced.kpp[0].value).sum())
    print(
        f"{both} chips in both runs: {known.sum()} equal bit for bit, {(~known).sum()} stopped, "
        f"{wrong} wrongly"
    )


if __name__ == "__main__":
    main()
