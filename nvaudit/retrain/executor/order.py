"""In which order a graph uses its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvaudit.retrain.executor.module import Executor


def last_weight(executor: Executor, keys: Sequence[str]) -> str | None:
    """Find the weight that is used last.

    Parameters
    ----------
    executor : Executor
    keys : sequence of str
        Weights that are meant.

    Returns
    -------
    str or None
        Its key; None where only the bodies of control flow use them.
    """
    program = executor._program
    known = {executor._slots[key]: key for key in keys if key in executor._slots}
    for _, inputs, outputs, _, _ in program.weight_steps:
        of = [known[slot] for slot in inputs if slot in known]
        for slot in (outputs,) if isinstance(outputs, int) else outputs:
            if of:
                known.setdefault(slot, of[0])
    for _, inputs, _, _, _ in reversed(program.data_steps):
        for slot in inputs:
            if slot in known:
                return known[slot]
    return None
