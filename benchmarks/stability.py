"""Claim of the stability paper: models with lower roughness keep more accuracy under device variation.

Audits each model on `rram_65nm` at two spreads and measures its roughness at the default settings; then gives
Spearman's rank correlation of the roughness with KPP, mean and the accuracy that is lost, with its p value.

    python benchmarks/stability.py OUT MODEL.onnx=DATA.npz … [--sigma 0.1 0.3] [--trials 300] [--limit 500]

Reports are kept in OUT, and a model that has one there is not run again. Models of different data sets have
losses of different size, so the correlation is also given for each group of models whose names begin alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import spearmanr

from nvaudit import AuditReport, audit
from nvaudit.report.jsontext import to_json
from nvaudit.report.result import from_json
from nvaudit.spec import default_workers

FEW = 5
"""A rank correlation of fewer models says nothing."""


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+", metavar="MODEL=DATA")
    parser.add_argument("--device", default="rram_65nm")
    parser.add_argument("--sigma", type=float, nargs="+", default=(0.1, 0.3))
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--limit", type=int, default=500)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    marks = " | ".join(f"mean, KPP 1 % at {sigma:g}" for sigma in given.sigma)
    print(f"| model | roughness ×10⁻³ ± standard error | spread | seconds | ideal | {marks} |")
    print("|---|---|---|---|---|" + "---|" * len(given.sigma))
    reports: dict[str, AuditReport] = {}
    for pair in given.models:
        model, _, data = pair.partition("=")
        report = kept(given, Path(model), Path(data))
        reports[Path(model).stem] = report
        print(row(Path(model).stem, report), flush=True)
    groups = {name.partition("_")[0] for name in reports}
    for group in ("all models", *sorted(groups)):
        names = [name for name in reports if group in ("all models", name.partition("_")[0])]
        if len(names) >= FEW:
            print(f"\n{group}: {len(names)}")
            correlate([reports[name] for name in names], given.sigma)


def kept(given: argparse.Namespace, model: Path, data: Path) -> AuditReport:
    """Audit a model, or read its report."""
    path = given.out / f"{model.stem}.json"
    if not path.exists():
        report = audit(
            model,
            given.device,
            data,
            sigmas=tuple(given.sigma),
            trials=given.trials,
            limit=given.limit,
            workers=default_workers(),
        )
        path.write_text(to_json(report) + "\n", encoding="utf-8")
    return from_json(path.read_text(encoding="utf-8"), str(path))


def row(name: str, report: AuditReport) -> str:
    """One line of the table."""
    found = report.roughness
    assert found is not None
    points = " | ".join(
        f"{100 * point.trials.mean:.1f}, {100 * point.kpp[0].value:.1f}" for point in report.sweep
    )
    return (
        f"| {name} | {1e3 * found.value:.3g} ± {1e3 * (found.standard_error or 0):.2g} | "
        f"{1e3 * (found.spread or 0):.3g} | {report.timing['roughness']:.0f} | {100 * report.nominal:.1f} | "
        f"{points} |"
    )


def correlate(reports: Sequence[AuditReport], sigmas: Sequence[float]) -> None:
    """Print the rank correlation with what is left, and with what is lost, at each spread."""
    scores = [report.roughness.value for report in reports if report.roughness is not None]
    for i, sigma in enumerate(sigmas):
        kpp = [report.sweep[i].kpp[0].value for report in reports]
        mean = [report.sweep[i].trials.mean for report in reports]
        lost = [report.nominal - value for report, value in zip(reports, kpp, strict=True)]
        for what, values in (("KPP 1 %", kpp), ("mean", mean), ("ideal − KPP 1 %", lost)):
            found = spearmanr(scores, values)
            print(f"  sigma {sigma:g}: roughness and {what}: {found.statistic:+.2f} (p = {found.pvalue:.3f})")


if __name__ == "__main__":
    main()
