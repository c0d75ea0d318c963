"""What is compared: names, specifications and data of the models, and the reports of earlier audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvaudit.errors import OptionError
from nvaudit.report.result import AuditReport, from_json
from nvaudit.spec import CompareOptions, Measure, RunSpec, make_spec

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
            plan.reports[name], plan.files[name] = read_report(path), path
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
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"{path}: cannot be read: {error}; give an ONNX model or a report.json of `nvaudit audit`"
        ) from error
    return from_json(text, str(path))


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
