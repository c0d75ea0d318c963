"""The only maker of random generators.

Streams are addressed, not sequenced: the same (seed, purpose, address) gives the same numbers whatever
was drawn before, so a simulated chip is the same bit for bit whatever the batch size, the number of
workers, the order of the trials, or a resume after a crash.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
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


def chip_name(chip: ChipAddress) -> str:
    """Name a chip in a message."""
    return (
        f"a chip {len(chip.moves)} moves from {chip.start}"
        if isinstance(chip, MovedChip)
        else f"trial {chip}"
    )


def read_address(chip: ChipAddress) -> int:
    """Give the number that read noise inside a graph is seeded by."""
    # After a move it is drawn anew: read noise is then part of the state, and a draw that does not look at
    # the one before keeps its law as the other moves do.
    return chip.digest if isinstance(chip, MovedChip) else chip


def _normal(u: Any) -> Any:
    """Φ⁻¹ of uniform numbers, which may be 0 exactly."""
    return ndtri(np.maximum(np.asarray(u, np.float64), 2.0**-55))


_Address: TypeAlias = "tuple[int | str | MovedChip, ...]"


class _Recent:
    """Arrays that were made last, up to ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()

    def get(self, key: Hashable) -> NDArray[Any] | None:
        """Give an array, None if it is not there any more."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Hashable, array: NDArray[Any]) -> None:
        """Keep an array, which nobody may write to."""
        if key in self._kept or 4 * array.nbytes > self._limit:
            return
        self._kept[key] = array
        self._bytes += array.nbytes
        while self._bytes > self._limit:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


_RECENT = _Recent(64 << 20)
"""Normals of moved chips. A chip is mostly one move from one that was drawn just before, and would else draw
the numbers of its whole history again."""


class _Moved(np.random.Generator):
    """Numbers of a chip that has moved; only what a chip is drawn with."""

    def __init__(self, chip: MovedChip, seed: int, purpose: str, around: tuple[_Address, _Address]) -> None:
        super().__init__(np.random.SFC64(0))
        self._chip, self._where = chip, (seed, purpose, *around)
        self._calls: list[tuple[str, tuple[int, ...] | None, str]] = []
        self._streams: dict[int, tuple[np.random.Generator, int]] = {}

    def __getattribute__(self, name: str) -> Any:
        # Any other kind of draw would silently ignore the moves.
        if not name.startswith("_") and name not in ("standard_normal", "random", "bit_generator"):
            raise TypeError(f"a moved chip is made of normals and uniforms, not of Generator.{name}")
        return super().__getattribute__(name)

    def _next(self, kind: str, size: Any, dtype: Any) -> NDArray[Any]:
        """Standard normals of one call; for ``random`` those that the uniforms are Φ of."""
        shape = (size,) if isinstance(size, int) else None if size is None else tuple(size)
        self._calls.append((kind, shape, np.dtype(dtype).name))
        calls, moves = tuple(self._calls), self._chip.moves
        for known in range(len(moves), -1, -1):
            key = (self._where, self._chip.start, moves[:known], calls)
            z = _RECENT.get(key)
            if z is not None:
                break
        else:
            known, z = 0, self._own(0, self._chip.start)
        for place, (keep, name) in enumerate(moves[known:], known + 1):
            z = np.asarray(keep * z + (1 - keep**2) ** 0.5 * self._own(place, name), z.dtype)
        _RECENT.put((self._where, self._chip.start, moves, calls), z)
        return z

    def _own(self, place: int, name: str) -> NDArray[Any]:
        """Numbers that one move mixes in, or (place 0) the chip began with."""
        gen, at = self._streams.get(place, (None, 0))
        if gen is None:
            seed, purpose, before, after = self._where
            gen = stream(seed, purpose, *before, name, *after)
        for kind, shape, dtype in self._calls[at:-1]:
            getattr(gen, kind)(shape, dtype=dtype)  # what was known already
        self._streams[place] = gen, len(self._calls)
        kind, shape, dtype = self._calls[-1]
        drawn = getattr(gen, kind)(shape, dtype=dtype)
        return _normal(drawn) if kind == "random" else np.asarray(drawn)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        z = self._next("standard_normal", size if out is None else out.shape, dtype)
        if out is None:
            return z.copy() if size is not None else np.dtype(dtype).type(z)
        out[...] = z
        return out

    def random(self, size: Any = None, dtype: Any = np.float64) -> Any:  # type: ignore[override]
        z = self._next("random", size, dtype)
        return np.asarray(ndtr(z), dtype) if size is not None else float(ndtr(z))


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
            around = address[:place], address[place + 1 :]
            return (
                _Moved(part, seed, purpose, around)
                if part.moves
                else stream(seed, purpose, *around[0], part.start, *around[1])
            )
    key = tuple(word for part in (purpose, *address) for word in _words(part))  # type: ignore[arg-type]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))
