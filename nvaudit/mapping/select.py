"""Which tensors go on the array: every constant is mapped, or stays digital with a reason."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from nvaudit.errors import OptionError
from nvaudit.mapping.quantize import keeps_grid
from nvaudit.model import Constant, Weight


@dataclass(frozen=True)
class Decision:
    """What happens to one constant, and why."""

    constant: Constant
    mapped: bool
    reason: str


def select(
    constants: Sequence[Constant], layers: Sequence[str] = (), digital: Sequence[str] = ()
) -> tuple[Decision, ...]:
    """Decide for every constant.

    Parameters
    ----------
    constants : sequence of Constant
        All initializers and constants of a model.
    layers : sequence of str
        If given, only weights whose name matches one of these globs are mapped.
    digital : sequence of str
        Weights whose name matches one of these globs stay digital.

    Returns
    -------
    tuple of Decision
        In the order of ``constants``.

    Raises
    ------
    OptionError
        If a glob matches no weight.
    """
    names = [c.weight.key for c in constants if c.weight is not None]
    for option, globs in (("--layers", layers), ("--digital", digital)):
        for glob in globs:
            if not fnmatch.filter(names, glob):
                raise OptionError(
                    f"{option} {glob!r} matches no weight; `nvaudit inspect` lists them, e.g. "
                    + ", ".join(names[:5])
                )
    return tuple(_decide(constant, layers, digital) for constant in constants)


def _decide(constant: Constant, layers: Sequence[str], digital: Sequence[str]) -> Decision:
    weight = constant.weight
    if weight is None:
        return Decision(constant, False, constant.reason)
    if layers and not any(fnmatch.fnmatchcase(weight.key, glob) for glob in layers):
        return Decision(constant, False, "not selected by --layers")
    for glob in digital:
        if fnmatch.fnmatchcase(weight.key, glob):
            return Decision(constant, False, f"kept digital by --digital {glob}")
    return Decision(constant, True, constant.reason or f"weight of {weight.product}{_wide(weight)}")


def _wide(weight: Weight) -> str:
    if weight.grid_bits is None or keeps_grid(weight.grid_bits):
        return ""
    return f"; its own {weight.grid_bits} bits are more than devices hold: quantised like a float weight"
