"""For test suites: :func:`assert_kpp` demands a worst-case accuracy of a model, as any other property."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvaudit.errors import OptionError

if TYPE_CHECKING:
    from nvaudit.report.result import AuditReport

REPORTS = "NVAUDIT_TEST_REPORTS"
"""Environment variable that names a folder: every audit of a test leaves its report.json there."""

_CURRENT_TEST = "PYTEST_CURRENT_TEST"
_LONGEST_NAME = 80


def assert_kpp(
    model: str | Path,
    *,
    device: str | Path = "rram",
    data: str | Path | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    percentile: float | Iterable[float] = 1.0,
    sigma: float | Iterable[float] | None = None,
    time: str | float | None = None,
    require_mapped: float | None = None,
    **options: Any,
) -> AuditReport:
    """Assert that the worst chips still reach a threshold: that at most k % of all chips miss it.

    Parameters
    ----------
    model : str or Path
        An ONNX file.
    device : str or Path
        Name of a bundled profile, or a profile file.
    data : str or Path, optional
        Evaluation data; without it ``MODEL.npz`` beside the model.
    at_least, at_most : float, optional
        Threshold of a metric where higher is better (accuracies are 0 to 1), or of a loss. Give one.
    percentile : float or iterable of float
        k; every one of them must hold.
    sigma : float or iterable of float, optional
        Device variation in the profile's unit, or several: it must hold at each. Default: the profile's.
    time : str or float, optional
        Since programming, such as ``"1d"``, or seconds.
    require_mapped : float, optional
        Least share of the products (multiply-accumulates with a weight) that must be on the array, 0 to 1:
        what is off the array has no noise. Default: none is demanded.
    **options
        Further fields of :class:`nvaudit.spec.RunSpec`, such as ``confidence=0.99``, ``trials=5000`` (chips
        that may be drawn until it is decided), ``limit=1000`` samples, ``seed=1``, ``workers=2``. Unlike on
        the command line the roughness of the loss is left out; ``roughness=True`` measures it.

    Raises
    ------
    AssertionError
        If it does not hold, or cannot be decided with these chips; says the numbers and what would decide it.
    NvauditError
        If anything about the input is wrong, also if there are no labels and ``metric`` does not ask for
        agreement with the unperturbed model.

    Notes
    -----
    Chips are drawn only until it is decided, and the verdict is wrong with at most 1 - confidence. The same
    seed gives the same chips: a test that passes goes on passing until model, data or device change.
    """
    __tracebackhide__ = True
    from nvaudit.jobs.auditing import audit

    report = audit(
        model,
        device,
        data,
        min_kpp=_threshold(at_least, at_most, options),
        percentiles=_several(percentile),
        sigmas=() if sigma is None else _several(sigma),
        time_s=_seconds(time),
        require_mapped=require_mapped,
        **{"roughness": False, **options},
    )
    _check_meaning(report, at_least is not None, options)
    kept = _keep(report)
    if report.verdict != "pass":
        raise AssertionError(failure_text(report, kept))
    return report


def failure_text(report: AuditReport, kept: Path | None = None) -> str:
    """Say why an audit did not pass, for a person who reads the output of a test run.

    Parameters
    ----------
    kept : Path, optional
        Where its report.json is.

    Returns
    -------
    str
        The gates that do not hold, each with its numbers and with what would decide it; how to run it alone.
    """
    from nvaudit.report.cases import answer_lines, case_name, cases_of, remedy_lines
    from nvaudit.report.mapped import gate_lines
    from nvaudit.report.rerun import rerun_command
    from nvaudit.report.wording import clean

    lines = [f"{report.model.path} on {report.device.get('name', 'the device')}"]
    for case in cases_of(report):
        if case.gate is not None and case.gate.verdict != "pass":
            said = [*answer_lines(case, report), *remedy_lines(report, case.point)]
            lines += [case_name(case, report), *(f"  {line}" for line in said)]
    if report.mapped_gate is not None and report.mapped_gate.verdict != "pass":
        lines += gate_lines(report.mapped_gate, report.mapped)
    if kept is not None:
        lines.append(f"report: {kept}")
    lines.append(f"run it alone: {rerun_command(report)}")
    return "\n".join(clean(line) for line in lines)


def _threshold(at_least: float | None, at_most: float | None, options: dict[str, Any]) -> float:
    if (at_least is None) == (at_most is None):
        raise OptionError("assert_kpp: give a threshold, either at_least= or, for a loss, at_most=")
    renamed = {"min_kpp": "at_least", "percentiles": "percentile", "sigmas": "sigma", "time_s": "time"}
    for name, right in renamed.items():
        if name in options:
            raise OptionError(f"assert_kpp: {name}= is called {right}= here")
    if at_most is not None:
        return at_most
    assert at_least is not None
    metric = options.get("metric")
    accuracy = metric is None or metric == "agreement" or re.fullmatch(r"top\d+", str(metric))
    if accuracy and not 0 <= at_least <= 1:
        hint = f"; for {at_least:g} % write {at_least / 100:g}" if 1 < at_least <= 100 else ""
        raise OptionError(f"assert_kpp: at_least={at_least:g}: accuracies are 0 to 1{hint}")
    return at_least


def _several(values: float | Iterable[float]) -> tuple[float, ...]:
    return tuple(values) if isinstance(values, Iterable) else (values,)


def _seconds(time: str | float | None) -> float | None:
    if not isinstance(time, str):
        return time
    from nvaudit.option_texts import parse_time

    return parse_time(time)


def _check_meaning(report: AuditReport, at_least: bool, options: dict[str, Any]) -> None:
    """Refuse a verdict about something else than what was asked."""
    higher = report.metric_info.higher_is_better
    if higher != at_least:
        right = "at_least" if higher else "at_most"
        better = "higher" if higher else "lower"
        raise OptionError(
            f"assert_kpp: of {report.metric} {better} is better; give the threshold as {right}="
        )
    if report.label_free and options.get("metric") is None:
        raise OptionError(
            f"assert_kpp: data: {report.data.source}, no labels: nothing is known about accuracy; give data= "
            f'with labels, or metric="{report.metric}" to compare with the unperturbed model'
        )


def _keep(report: AuditReport) -> Path | None:
    """Leave the report where the environment wants it; one file for each test and specification."""
    folder = os.environ.get(REPORTS)
    if not folder:
        return None
    from nvaudit.files import write_text_atomic
    from nvaudit.report.jsontext import to_json

    test = os.environ.get(_CURRENT_TEST, "").rpartition(" ")[0] or Path(report.model.path).stem
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", test).strip("_.")[-_LONGEST_NAME:]
    run = {key: value for key, value in report.run.items() if key not in ("workers", "dask")}
    digest = hashlib.sha256(json.dumps([test, run], sort_keys=True).encode()).hexdigest()[:8]
    path = Path(folder) / f"{name}-{digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, to_json(report) + "\n")
    return path
