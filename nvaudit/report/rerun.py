"""The command that runs an audit again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from pydantic import JsonValue

from nvaudit.declare import fields_of
from nvaudit.options import CodeOptions, DataOptions, DeviceOptions, MappingOptions, MetricOptions
from nvaudit.report.cases import deciding_point
from nvaudit.report.result import AuditReport
from nvaudit.report.wording import clean
from nvaudit.spec import RunSpec
from nvaudit.stats.gate import overall_verdict
from nvaudit.task_options import TaskOptions

_LEFT_OUT = ("model", "workers", "dask")
"""Said first; and what has no influence on results and belongs to one machine."""


def rerun_command(report: AuditReport) -> str:
    """Give the command line that runs an audit again, ready for a shell.

    Returns
    -------
    str
        One line. Every option that has a value is spelt out, so that another version's defaults do not
        matter; only ``--workers`` and ``--dask`` are left to the user.
    """
    model = str(report.run.get("model", report.model.path))
    words = ["nvaudit", "audit", f"./{model}" if model.startswith("-") else model]
    for field, value in report.run.items():
        if field not in _LEFT_OUT:
            words += _words(field, value)
    return " ".join(_quote(word) for word in words)


def audit_command(run: Mapping[str, JsonValue]) -> str:
    """Give the command line of an audit, ready for a shell: what holds without a word is left out.

    Parameters
    ----------
    run : mapping
        The specification of the audit.
    """
    model = str(run["model"])
    words = ["nvaudit", "audit", f"./{model}" if model.startswith("-") else model]
    for name, value in run.items():
        if name not in _LEFT_OUT and (name == "device" or value != fields_of(RunSpec)[name].default):
            words += _words(name, value)
    return " ".join(_quote(word) for word in words)


_SAME = (DeviceOptions, MappingOptions, CodeOptions, DataOptions, MetricOptions, TaskOptions)
"""Options of an audit under which a model is hardened too."""


def remedy_command(report: AuditReport, code: str | None = None) -> str | None:
    """Give the command line that is tried first when a gate fails; None where none does.

    Parameters
    ----------
    code : str, optional
        Of the weights, instead of that of the audit.

    Returns
    -------
    str or None
        One line, ready for a shell: hardening without training at the first operating point that fails.
    """
    point = deciding_point(report)
    if point is None or overall_verdict(point.gate) != "fail":
        return None
    same = {"code": code, "bits": None, "top_slice": None, "offset_zero": None} if code is not None else {}
    model = str(report.run.get("model", report.model.path))
    return remap_command({**report.run, "model": model, "sigmas": [point.sigma], **same})


def remap_command(run: Mapping[str, JsonValue]) -> str:
    """Give the command line that hardens a model without training, ready for a shell.

    Parameters
    ----------
    run : mapping
        The specification of an audit; the model is hardened under its conditions.
    """
    model = str(run["model"])
    words = ["nvaudit", "harden", f"./{model}" if model.startswith("-") else model, "--method", "remap"]
    words += ["-o", remapped_name(model)]
    fields = [name for part in _SAME for name in part.model_fields if name != "sigmas"]
    for name in (*fields, "sigmas"):
        if name in run and (run[name] != fields_of(RunSpec)[name].default or name == "device"):
            words += _words(name, run[name])
    return " ".join(_quote(word) for word in words)


def remapped_name(model: str) -> str:
    """Name the file that a model is remapped to, in the working folder."""
    name = re.sub(r"\.onnx$", "", re.split(r"[/\\]", model)[-1])
    return f"./{name}_remapped.onnx" if name.startswith("-") else f"{name}_remapped.onnx"


def _words(name: str, value: JsonValue) -> list[str]:
    """What is typed for a field of ``run``, also for one that only another version knows."""
    field = fields_of(RunSpec).get(name)
    return [f"--{name.replace('_', '-')}", str(value)] if field is None else field.words(value)


def _quote(word: str) -> str:
    """Quote a word for a shell; one that a terminal would act on is written with escapes."""
    if clean(word) == word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{clean(escaped)}'"
