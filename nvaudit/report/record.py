"""What every report says of how it was made: times, hashes, the options of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping

from nvaudit.report.sections import InputHashes, RuntimeInfo, runtime_text


def time_text(timing: Mapping[str, float]) -> list[tuple[str, str]]:
    """Name the seconds of each step; no row where none was measured."""
    times = (f"{key.removesuffix('_s').replace('_', ' ')} {value:.4g} s" for key, value in timing.items())
    return [("Time", ", ".join(times))] if timing else []


def runtime_rows(runtime: RuntimeInfo | None) -> list[tuple[str, str]]:
    """Say what the samples ran on; no row where the report does not know."""
    return [("Run on", line.removeprefix("Run on: ")) for line in runtime_text(runtime)]


def hash_rows(hashes: InputHashes) -> list[tuple[str, str]]:
    """Give the SHA-256 of what went in."""
    given = hashes.model_dump().items()
    return [(f"SHA-256 of the {what.replace('_', ' ')}", value) for what, value in given if value is not None]


def options_text(run: Mapping[str, object]) -> str:
    """Write the full specification in a line."""
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in run.items())
