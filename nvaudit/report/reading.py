"""Reading a report that was written as JSON, by this version or by one that wrote no ``kind``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from nvaudit.errors import DataError, first_fault
from nvaudit.report.jsontext import read_json, short_repr

Report = TypeVar("Report", bound=BaseModel)
RawReport: TypeAlias = dict[str, Any]

_MOST_KEYS = 5
_OLD_KEYS = {
    "trials": "audit",
    "models": "compare",
    "levels": "roofline",
    "surface": "landscape",
    "hardened": "harden",
    "steps": "remap",
    "curve": "verify-plan",
}
"""What a file without ``kind`` is, by a key that no other kind has (an audit's ``trials`` is an object)."""

_OLD_POINT = re.compile(r"sigma (\S+) \((\w+)(?: (.+))?\), time (\S+) s")


def parsed(text: str, where: str, wanted: str = "a report.json of nvaudit audit") -> RawReport:
    """Read the JSON of a report of whatever kind; one of an earlier version is given as today's.

    Parameters
    ----------
    where : str
        File name, for messages.
    wanted : str
        What should be given instead, for messages.

    Raises
    ------
    DataError
        If it is no report; says where and what was found.
    """
    try:
        raw = read_json(text)
    except json.JSONDecodeError as error:
        place = f" at line {error.lineno}, column {error.colno}" if text[: error.pos].strip() else ""
        raise DataError(f"{where}: is no JSON{place}; give {wanted}") from error
    except ValueError as error:
        raise DataError(f"{where}: not a report: {error}; give {wanted}") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or version != 1 or isinstance(version, bool):
        got = "missing" if version is None else f"got {short_repr(version)}"
        raise DataError(f"{where}: schema_version: {got}: this nvaudit reads version 1; give {wanted}")
    return _as_today(raw)


def validated(model: type[Report], raw: RawReport, where: str, command: str) -> Report:
    """Validate the JSON of a report that a command has written.

    Raises
    ------
    DataError
        Naming the first field that is wrong.
    """
    try:
        # From text, for only there a list is a tuple and a number no string.
        return model.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        fault = first_fault(error, "the report as a whole")
        raise DataError(f"{where}: {fault}; give a report.json of {command}") from error


def keys_text(raw: RawReport) -> str:
    """Name some of the keys of a JSON object, for a message."""
    keys = [short_repr(key) for key in list(raw)[:_MOST_KEYS] if key not in ("schema_version", "kind")]
    return f"{', '.join(keys) or 'no keys'}{', …' if len(raw) > _MOST_KEYS else ''}"


def _as_today(raw: RawReport) -> RawReport:
    """Give a report of an earlier version the header of today, as far as it can be known."""
    old = "kind" not in raw or (raw["kind"] == "plan" and "nvaudit_version" not in raw)
    if not old:
        return raw
    kind = raw.get("kind") or next((_OLD_KEYS[key] for key in raw if key in _OLD_KEYS), None)
    if kind is None:
        return raw
    raw = {"kind": kind, "libraries": {}, **raw}
    if isinstance(raw.get("device"), str):
        raw["device"] = {"name": raw["device"]}
    change = _CHANGES.get(kind)
    return raw if change is None else change(raw)


def _harden(raw: RawReport) -> RawReport:
    model, point, plan = raw.get("model"), raw.get("operating_point"), raw.get("verify_plan")
    if isinstance(model, str):
        raw["model"] = {"path": model}
    match = _OLD_POINT.fullmatch(point) if isinstance(point, str) else None
    if match is not None:
        sigma, unit, level_of, time_s = match.groups()
        raw["operating_point"] = {
            "sigma": _number(sigma), "sigma_unit": unit, "level_of": level_of, "time_s": _number(time_s),
            "terms": [],
        }  # fmt: skip
    if isinstance(plan, dict):
        raw["verify_plan"] = _as_today(plan)
    return raw


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the validation says what is wrong


def _remap(raw: RawReport) -> RawReport:
    run = raw.get("run")
    given: RawReport = run if isinstance(run, dict) else {}
    raw["model"], raw["device"] = {"path": given.get("model")}, {"name": given.get("device")}
    raw["metric_info"] = {"higher_is_better": raw.get("higher_is_better"), "unit": raw.get("unit")}
    return raw


def _verify(raw: RawReport) -> RawReport:
    run = raw.get("run")
    raw["model"] = {"path": run.get("model") if isinstance(run, dict) else None}
    known = {key: raw[key] for key in ("sigma", "sigma_unit", "time_s") if key in raw}
    terms = [*_list(raw.get("reduced")), *_list(raw.get("left"))]
    raw["operating_point"] = {**known, "terms": terms}
    return raw


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _plan(raw: RawReport) -> RawReport:
    return {"nvaudit_version": "unknown", "headline": "", **raw}


_CHANGES: dict[str, Callable[[RawReport], RawReport]] = {
    "harden": _harden,
    "remap": _remap,
    "verify-plan": _verify,
    "plan": _plan,
}
