"""The share that is on the array, on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from nvaudit.report.mapped import MappedGate, MappedShare, gate_lines, off_columns, off_rows, share_warning
from nvaudit.report.terminal import Kind, sentence, table

_STYLE = {"pass": "bold green", "fail": "bold red"}


def share_warning_lines(found: MappedShare | None, width: int) -> Iterable[Text]:
    """Warn where more than a few percent is off the array; nothing otherwise."""
    text = share_warning(found)
    if text is not None:
        yield sentence(f"WARNING: {text}", width, hanging="  ", style="bold yellow")


def share_gate_lines(gate: MappedGate | None, found: MappedShare | None, width: int) -> Iterable[Text]:
    """Say what became of the gate of the share; nothing without one."""
    for index, text in enumerate(gate_lines(gate, found)):
        line = sentence(text, width, "  " if index else "", "  ")
        if gate is not None and not index:
            yield Text()
            line.stylize(_STYLE[gate.verdict], 0, len(gate.verdict))
        yield line


def off_table(found: MappedShare | None, width: int) -> Iterable[Text]:
    """List what is off the array; nothing where all is on it."""
    rows = off_rows(found)
    if rows:
        kinds: tuple[Kind, ...] = ("fold", "right", "right", "fold")
        yield table(list(zip(off_columns(), kinds, strict=True)), rows, width, "  ")
