"""Which tensors go on the array: every constant is mapped, or stays digital with a reason."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
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
        If given, only weights whose name matches one of these globs are mapped; see :func:`matching`.
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
            if not matching(glob, names):
                raise OptionError(
                    f"{option} {glob!r} matches no weight; `nvaudit inspect` lists them, e.g. "
                    + ", ".join(names[:5])
                )
    chosen = {name for glob in layers for name in matching(glob, names)} if layers else set(names)
    # Reversed, so that the first glob that means a weight is the one that the reason names.
    kept = {name: glob for glob in reversed(digital) for name in matching(glob, names)}
    return tuple(_decide(constant, chosen, kept) for constant in constants)


def matching(glob: str, names: Sequence[str]) -> list[str]:
    """Names that a glob means.

    A name itself means that one alone, whatever characters it has. Exporters put brackets into names; where a
    glob with brackets read as sets of characters matches nothing, they are taken literally.

    Returns
    -------
    list of str
        In their order; empty if there are none.

    Examples
    --------
    >>> matching("w[1]", ["w1", "w[1]"]), matching("w[12]", ["w1", "w[1]"]), matching("w[1*", ["w[1].a", "w"])
    (['w[1]'], ['w1'], ['w[1].a'])
    """
    if glob in names:
        return [glob]
    matches = [name for name in names if fnmatch.fnmatchcase(name, glob)]
    literal = glob.replace("[", "[[]")
    return matches or [name for name in names if fnmatch.fnmatchcase(name, literal)]


def _decide(constant: Constant, chosen: Collection[str], kept: Mapping[str, str]) -> Decision:
    weight = constant.weight
    if weight is None:
        return Decision(constant, False, constant.reason)
    if weight.key not in chosen:
        return Decision(constant, False, "not selected by --layers")
    if weight.key in kept:
        return Decision(constant, False, f"kept digital by --digital {kept[weight.key]}")
    return Decision(constant, True, constant.reason or f"weight of {weight.product}{_wide(weight)}")


def _wide(weight: Weight) -> str:
    if weight.grid_bits is None or keeps_grid(weight.grid_bits):
        return ""
    return f"; its own {weight.grid_bits} bits are more than devices hold: quantised like a float weight"
