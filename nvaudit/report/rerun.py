"""The command that runs an audit again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from pydantic import JsonValue

from nvaudit.report.cases import deciding_point
from nvaudit.report.result import AuditReport
from nvaudit.report.wording import clean
from nvaudit.stats.gate import overall_verdict

_OPTION = {
    "percentiles": "--percentile",
    "sigmas": "--sigma",
    "time_s": "--time",
    "ignore_labels": "--ignore-label",
}
"""Fields of ``run`` whose option has another name."""

_SWITCHED_OFF = {"roughness": "--no-roughness"}
"""Fields that are true unless an option says otherwise."""

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
            words += _words(_OPTION.get(field, f"--{field.replace('_', '-')}"), field, value)
    return " ".join(_quote(word) for word in words)


_SAME = (
    *("device", "data", "limit", "bits", "cell_bits", "encoding", "top_slice", "sigma_unit", "time_s"),
    *("stuck_at", "read_noise", "correlated", "write_verify", "drift_compensation"),
    *("enable", "disable", "metric", "class_axis", "ignore_labels", "scale", "layers", "digital"),
)
"""Options of an audit under which a model is hardened too."""


def remedy_command(report: AuditReport) -> str | None:
    """Give the command line that is tried first when a gate fails; None where none does.

    Returns
    -------
    str or None
        One line, ready for a shell: hardening without training at the first operating point that fails.
    """
    point = deciding_point(report)
    if point is None or overall_verdict(point.gate) != "fail":
        return None
    sigma = point.sigma
    model = str(report.run.get("model", report.model.path))
    name = re.sub(r"\.onnx$", "", re.split(r"[/\\]", model)[-1])
    words = ["nvaudit", "harden", f"./{model}" if model.startswith("-") else model, "--method", "remap"]
    words += ["-o", f"./{name}_remapped.onnx" if name.startswith("-") else f"{name}_remapped.onnx"]
    for field in _SAME:
        default = _DEFAULTS.get(field)
        if report.run.get(field) != default:
            words += _words(_OPTION.get(field, f"--{field.replace('_', '-')}"), field, report.run.get(field))
    words += _words("--sigma", "sigma", sigma)
    return " ".join(_quote(word) for word in words)


_DEFAULTS = {"scale": "per_tensor"}


def _words(option: str, field: str, value: JsonValue) -> Iterable[str]:
    if field in _SWITCHED_OFF:
        return [] if value else [_SWITCHED_OFF[field]]
    if value is None or value is False or value == []:
        return []
    if value is True:
        return [option]
    if field == "crossbar" and isinstance(value, list):
        return [option, "x".join(_text(size) for size in value)]
    words: list[str] = []
    for item in value if isinstance(value, list) else [value]:
        text = _text(item)
        words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return words


def _text(value: JsonValue) -> str:
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)


def _quote(word: str) -> str:
    """Quote a word for a shell; one that a terminal would act on is written with escapes."""
    if clean(word) == word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{clean(escaped)}'"
