"""Claim: remapping raises the worst-case accuracy in seconds, without training and at equal clean accuracy.

For a model on a device: every step that was tried, with the nominal accuracy, KPP and mean on the calibration
chips and the seconds it took; then the paired audit of the same chips before and after.

    python benchmarks/remap.py lenet.onnx --data mnist_test.npz --sigma 0.2 --sigma-unit weight_max
    python benchmarks/remap.py cifar_resnet20.onnx --data cifar10_test.npz --sigma 0.05 \
        --sigma-unit weight_max --digital-scale insert --trials 500 --limit 1000
"""

import argparse
import tempfile
from pathlib import Path

from nvaudit.jobs.remapping import remap
from nvaudit.report.remap.result import RemapReport

OPTIONS = ("sigma", "sigma_unit", "digital_scale", "trials", "limit", "workers", "percentile", "seed")


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="rram")
    parser.add_argument("--sigma", type=float)
    parser.add_argument("--sigma-unit")
    parser.add_argument("--digital-scale", default="absorb")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--percentile", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = remap(
            given.model,
            given.device,
            given.data,
            out=Path(folder) / "remapped.onnx",
            **{name: getattr(given, name) for name in OPTIONS},
        )
    print(f"{given.model.stem}: {report.headline}\n")
    steps(report)
    pair(report)


def steps(report: RemapReport) -> None:
    """Print what was tried."""
    print("| step | nominal | quantised | KPP | worst quarter | mean | seconds | |")
    print("|---|---|---|---|---|---|---|---|")
    for step in report.steps:
        numbers = (step.nominal, step.quantised, step.kpp, step.worst_quarter, step.mean)
        shown = " | ".join("" if number is None else f"{100 * number:.2f}" for number in numbers)
        why = "kept" if step.kept else step.reason
        print(f"| {step.name} | {shown} | {step.seconds:.1f} | {why} |")


def pair(report: RemapReport) -> None:
    """Print the audit of the same chips before and after."""
    timing = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in report.timing.items())
    if report.before is None or report.after is None or report.difference is None:
        print(f"\n{timing}")
        return
    print(f"\n{report.difference.chips} chips; {timing}\n")
    print("| | nominal | quantised | KPP | mean | worst chip |")
    print("|---|---|---|---|---|---|")
    for name, side in (("before", report.before), ("after", report.after)):
        numbers = (side.nominal, side.quantised, side.kpp, side.mean, side.min)
        print(f"| {name} | " + " | ".join(f"{100 * number:.2f}" for number in numbers) + " |")
    for name, change in (("KPP", report.difference.kpp), ("mean", report.difference.mean)):
        print(f"\nchange of the {name}: {change.value:+.4f} [{change.low}, {change.high}]")


if __name__ == "__main__":
    main()
