"""What every report says of how it was made: times, hashes, the options of the run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from nvaudit.report.document import Block, Bullets, Facts, Section, short
from nvaudit.report.header import Header
from nvaudit.report.sections import InputHashes, ModelInfo, runtime_text


def record_section(
    report: Header,
    rows: Iterable[tuple[str, str]] = (),
    *,
    before: tuple[Block, ...] = (),
    after: tuple[Block, ...] = (),
    hashes: InputHashes | None = None,
) -> Section:
    """How a report was made: its own rows between the version and what it ran on, times and hashes.

    ``hashes``: where the report keeps them elsewhere than in its header.
    """
    facts = (
        ("nvaudit", report.nvaudit_version),
        *rows,
        *(("Run on", line.removeprefix("Run on: ")) for line in runtime_text(report.runtime)),
        *_time_rows(report.timing),
        *_hash_rows(hashes or report.hashes),
    )
    return Section("record", "How it was run", (*before, Facts(facts), *after), folded=True)


def notes_section(lines: Iterable[str]) -> Section:
    """What a reader should know; no section where there is nothing."""
    notes = tuple(lines)
    return Section("notes", "Notes", (Bullets(notes),) if notes else ())


def model_row(model: ModelInfo) -> tuple[str, str]:
    """The file of a model, and what of it decides how it runs."""
    return "Model", f"{short(model.path)} (opset {model.opset}; {model.batching})"


def _time_rows(timing: Mapping[str, float]) -> list[tuple[str, str]]:
    """Name the seconds of each step; no row where none was measured."""
    times = (f"{key.removesuffix('_s').replace('_', ' ')} {value:.4g} s" for key, value in timing.items())
    return [("Time", ", ".join(times))] if timing else []


def _hash_rows(hashes: InputHashes | None) -> list[tuple[str, str]]:
    """Give the SHA-256 of what went in."""
    given = {} if hashes is None else hashes.model_dump()
    return [
        (f"SHA-256 of the {what.replace('_', ' ')}", value)
        for what, value in given.items()
        if value is not None
    ]


def options_text(run: Mapping[str, object]) -> str:
    """Write the full specification in a line."""
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in run.items())
