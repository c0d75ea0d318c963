"""What is compared: names, specifications and data of the models, and the reports of earlier audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvaudit.errors import OptionError
from nvaudit.report.gates import GateResult, decide, gate_result
from nvaudit.report.kinds import report_text
from nvaudit.report.mapped import joint_verdict, judge_share
from nvaudit.report.result import AuditReport, from_json
from nvaudit.spec import CompareOptions, Measure, RunSpec, make_spec
from nvaudit.stats.gate import decide_count, overall_verdict

Named = str | Path


@dataclass(frozen=True)
class ComparisonPlan:
    """What is compared, by name: models to be run and reports to be read.

    Attributes
    ----------
    files : dict of str to str
        Of the reports.
    order : tuple of str
        As given.
    """

    specs: dict[str, RunSpec]
    reports: dict[str, AuditReport]
    files: dict[str, str]
    order: tuple[str, ...]
    rank_by: Measure = "kpp"
    baseline: str | None = None


def plan_comparison(
    models: Sequence[Named],
    *,
    device: Named = "rram",
    data: Named | None = None,
    data_for: Mapping[str, Named] | None = None,
    rank_by: str = "kpp",
    baseline: Named | None = None,
    options: Mapping[str, Any],
) -> ComparisonPlan:
    """Settle names and options, and read the reports.

    Parameters
    ----------
    models : sequence of str or Path
        ONNX files, and reports (``.json``).
    data : str or Path, optional
        Of all models.
    data_for : mapping of str to str or Path, optional
        Of single models, by their path or name.
    rank_by : str
        A measure.
    options : mapping
        Fields of ``RunSpec``, the same for all models.

    Raises
    ------
    NvauditError
        If an option, a name or a report is wrong.
    """
    names = name_files([Path(model) for model in models])
    paths = dict(zip(names, map(str, models), strict=True))
    own = {find_model(key, paths, "--data-for"): source for key, source in (data_for or {}).items()}
    plan = ComparisonPlan(
        specs={},
        reports={},
        files={},
        order=names,
        rank_by=CompareOptions.validated({"rank_by": rank_by}).rank_by,
        baseline=None if baseline is None else find_model(baseline, paths, "--baseline"),
    )
    # A gate that stops early would give each model another number of chips.
    more = {"all_trials": True, "suggest": False} if options.get("min_kpp") is not None else {}
    for name, path in paths.items():
        if path.lower().endswith(".json"):
            if name in own:
                raise OptionError(f"--data-for {name}: it is the report of an audit, which is not run again")
            plan.reports[name] = with_gates(
                read_report(path), path, options.get("min_kpp"), options.get("require_mapped")
            )
            plan.files[name] = path
        else:
            plan.specs[name] = make_spec(
                **{**options, **more}, model=path, device=device, data=own.get(name, data)
            )
    _check_options(plan)
    return plan


def name_files(paths: Sequence[Path]) -> tuple[str, ...]:
    """Name each file: by its stem where these differ, else as it was given.

    Raises
    ------
    OptionError
        If there are fewer than two, or one is given twice.
    """
    if len(paths) < 2:
        raise OptionError(f"a comparison needs two models or more, got {len(paths)}")
    seen: set[Path] = set()
    for path in paths:
        real = Path(path).resolve()
        if real in seen:
            raise OptionError(f"{path}: given twice; give each model once")
        seen.add(real)
    stems = [path.stem for path in paths]
    return tuple(
        stem if stem and stems.count(stem) == 1 else str(path)
        for stem, path in zip(stems, paths, strict=True)
    )


def read_report(path: Named) -> AuditReport:
    """Read a report of an earlier audit.

    Raises
    ------
    DataError, OptionError
        If it cannot be read, or is no report.
    """
    return from_json(report_text(path, "an ONNX model or a report.json of `nvaudit audit`"), str(path))


def with_gates(
    report: AuditReport, path: str, min_kpp: float | None, require_mapped: float | None
) -> AuditReport:
    """Ask the chips of a report whether they pass other gates than it had; without one it is as it was.

    Raises
    ------
    OptionError
        If its chips do not say.
    """
    gates, shares = report.gate, report.mapped_gate
    if min_kpp is not None and {gate.threshold for gate in gates} != {min_kpp}:
        if report.metric_info.unit == "fraction" and not 0 <= min_kpp <= 1:
            raise OptionError(f"--min-kpp {min_kpp:g}: {report.metric} is a fraction from 0 to 1")
        gates = tuple(_gate(report, path, min_kpp, kpp.percentile) for kpp in report.kpp)
    if require_mapped is not None:
        if report.mapped is None:
            raise OptionError(f"{path}: it is older than --require-mapped; audit again")
        shares = judge_share(report.mapped, require_mapped)
    if (gates, shares) == (report.gate, report.mapped_gate):
        return report
    verdict = joint_verdict(overall_verdict(gates), shares)
    return report.model_copy(update={"gate": gates, "mapped_gate": shares, "verdict": verdict})


def _gate(report: AuditReport, path: str, min_kpp: float, percentile: float) -> GateResult:
    """Decide a gate by the chips of a report, or by its yield where they were stopped early."""
    better, confidence = report.metric_info.higher_is_better, report.kpp[0].confidence
    known = [value for value in report.trials.values if value is not None]
    if len(known) == report.trials.count:
        return decide(known, min_kpp, percentile, confidence, better)
    reached = next((item for item in report.yields if item.threshold == min_kpp), None)
    if reached is None:
        raise OptionError(
            f"{path}: its chips were stopped early and do not say how many miss {min_kpp:g}; audit it with "
            f"--min-kpp {min_kpp:g}, --yield-at {min_kpp:g} or --exhaustive"
        )
    count = decide_count(reached.trials - reached.passing, reached.trials, min_kpp, percentile, confidence)
    return gate_result(count, better)


def find_model(wanted: Named, paths: Mapping[str, str], option: str) -> str:
    """Find a model by its name or its path.

    Raises
    ------
    OptionError
        If it is none of them.
    """
    for name, path in paths.items():
        if str(wanted) in (name, path, Path(path).name):
            return name
    raise OptionError(f"{option}: {str(wanted)!r} is none of the models; use one of {', '.join(paths)}")


def _check_options(plan: ComparisonPlan) -> None:
    """Refuse what cannot be compared, before anything is read."""
    for spec in plan.specs.values():
        if len(spec.sigmas) > 1:
            raise OptionError(
                f"--sigma: got {len(spec.sigmas)} values; models are compared at one operating point"
            )
        if plan.rank_by == "yield" and not spec.yield_at and spec.min_kpp is None:
            raise OptionError("--rank yield: there is no threshold; give one with --yield-at or --min-kpp")
        if plan.rank_by == "roughness" and not spec.roughness:
            raise OptionError("--rank roughness and --no-roughness: choose one")
