"""The only maker of random generators.

Streams are addressed, not sequenced: the same (seed, purpose, address) gives the same numbers whatever
was drawn before, so a simulated chip is the same bit for bit whatever the batch size, the number of
workers, the order of the trials, or a resume after a crash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from scipy.special import ndtr, ndtri

from nvaudit.errors import OptionError


@dataclass(frozen=True)
class MovedChip:
    """A chip that was reached by moves: an address like a trial number, for numbers that lie near others.

    With z_0 the standard normals of the chip ``start`` and ξ_i those of the i-th move's own chip,
    z_i = keep_i z_{i−1} + (1 − keep_i²)^½ ξ_i: the preconditioned Crank-Nicolson move (Cotter, Roberts,
    Stuart and White, Stat. Sci. 28, 2013), which leaves the law of a chip as it is, whatever the number of
    normals. Uniform numbers u move as Φ⁻¹(u).

    Attributes
    ----------
    start : str
        Name of the chip that it began at.
    moves : tuple of (float, str)
        What each move keeps, 0 to 1, and the name of the chip that it mixes in.
    """

    start: str
    moves: tuple[tuple[float, str], ...] = ()

    def moved(self, keep: float, towards: str) -> MovedChip:
        """Make one more move."""
        return MovedChip(self.start, (*self.moves, (keep, towards)))

    @property
    def digest(self) -> int:
        """63 bits that tell it from other chips."""
        content = hashlib.blake2b(repr((self.start, self.moves)).encode(), digest_size=8).digest()
        return int.from_bytes(content, "little") >> 1


ChipAddress: TypeAlias = int | MovedChip
"""Which chip: a trial number, or one that was reached by moves."""


def trial_number(chip: ChipAddress) -> int:
    """Give the trial number of a chip that was read back.

    Raises
    ------
    OptionError
        If it was reached by moves.
    """
    if isinstance(chip, MovedChip):
        raise OptionError("a chip that was reached by moves cannot have been read back")
    return chip


def read_address(chip: ChipAddress) -> int:
    """Give the number that read noise inside a graph is seeded by."""
    # After a move it is drawn anew: read noise is then part of the state, and a draw that does not look at
    # the one before keeps its law as the other moves do.
    return chip.digest if isinstance(chip, MovedChip) else chip


class _Moved(np.random.Generator):
    """Numbers of a moved chip; only what a chip is drawn with."""

    def __init__(self, start: np.random.Generator, moves: list[tuple[float, np.random.Generator]]) -> None:
        super().__init__(start.bit_generator)
        self._start, self._moves = start, moves

    def __getattribute__(self, name: str) -> Any:
        # Any other kind of draw would come from the start alone and silently ignore the moves.
        if not name.startswith("_") and name not in ("standard_normal", "random", "bit_generator"):
            raise TypeError(f"a moved chip is made of normals and uniforms, not of Generator.{name}")
        return super().__getattribute__(name)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        z = self._start.standard_normal(size if out is None else out.shape, dtype=dtype)
        for keep, towards in self._moves:
            part = towards.standard_normal(np.shape(z), dtype=dtype)
            z = np.asarray(keep * z + (1 - keep**2) ** 0.5 * part, dtype)
        if out is None:
            return z if size is not None else np.dtype(dtype).type(z)
        out[...] = z
        return out

    def random(self, size: Any = None, dtype: Any = np.float64) -> Any:  # type: ignore[override]
        u = self._start.random(size, dtype=dtype)
        if not self._moves:
            return u
        z = _normal(u)
        for keep, towards in self._moves:
            z = keep * z + (1 - keep**2) ** 0.5 * _normal(towards.random(size, dtype=dtype))
        return np.asarray(ndtr(z), dtype) if size is not None else float(ndtr(z))


def _normal(u: Any) -> Any:
    """Φ⁻¹ of uniform numbers, which may be 0 exactly."""
    return ndtri(np.maximum(np.asarray(u, np.float64), 2.0**-55))


def _words(part: int | str) -> tuple[int, int]:
    """Two 32-bit words that identify one part of an address."""
    if isinstance(part, int):
        if not 0 <= part < 2**63:
            raise ValueError(f"an address number must be in 0 … 2**63 - 1, got {part}")
        return part & 0xFFFFFFFF, part >> 32
    return _words_of_name(part)


@lru_cache(maxsize=4096)
def _words_of_name(name: str) -> tuple[int, int]:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    # The top bit tells names from numbers: a number is below 2**63.
    value = int.from_bytes(digest, "little") | 1 << 63
    return value & 0xFFFFFFFF, value >> 32


def stream(seed: int, purpose: str, *address: int | str | MovedChip) -> np.random.Generator:
    """Make the generator of one address.

    Parameters
    ----------
    seed : int
        The user's seed, ≥ 0.
    purpose : str
        What the numbers are for, e.g. ``"program"``; different purposes never share numbers.
    *address : int, str or MovedChip
        Where in the run they are used, e.g. trial number, then tensor name.

    Returns
    -------
    numpy.random.Generator
        SFC64, seeded through ``SeedSequence`` by a spawn key that encodes the address.

    Raises
    ------
    ValueError
        If the seed or an address number is negative or too large.

    Examples
    --------
    >>> a = stream(0, "program", 7, "conv1.weight").standard_normal()
    >>> b = stream(0, "program", 7, "conv1.weight").standard_normal()
    >>> a == b
    True
    """
    if seed < 0:
        raise ValueError(f"a seed must be 0 or more, got {seed}")
    for place, part in enumerate(address):
        if isinstance(part, MovedChip):
            before, after = address[:place], address[place + 1 :]
            start = stream(seed, purpose, *before, part.start, *after)
            moves = [(keep, stream(seed, purpose, *before, name, *after)) for keep, name in part.moves]
            return _Moved(start, moves)
    key = tuple(word for part in (purpose, *address) for word in _words(part))  # type: ignore[arg-type]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))
