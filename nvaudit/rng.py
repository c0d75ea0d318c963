"""The only maker of random generators.

Streams are addressed, not sequenced: the same (seed, purpose, address) gives the same numbers whatever
was drawn before, so a simulated chip is the same bit for bit whatever the batch size, the number of
workers, the order of the trials, or a resume after a crash.
"""

from __future__ import annotations

import hashlib

import numpy as np


def _words(part: int | str) -> tuple[int, int]:
    """Two 32-bit words that identify one part of an address."""
    if isinstance(part, int):
        if not 0 <= part < 2**63:
            raise ValueError(f"an address number must be in 0 … 2**63 - 1, got {part}")
        return part & 0xFFFFFFFF, part >> 32
    digest = hashlib.blake2b(part.encode(), digest_size=8).digest()
    # The top bit tells names from numbers: a number is below 2**63.
    value = int.from_bytes(digest, "little") | 1 << 63
    return value & 0xFFFFFFFF, value >> 32


def stream(seed: int, purpose: str, *address: int | str) -> np.random.Generator:
    """Make the generator of one address.

    Parameters
    ----------
    seed : int
        The user's seed, ≥ 0.
    purpose : str
        What the numbers are for, e.g. ``"program"``; different purposes never share numbers.
    *address : int or str
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
    key = tuple(word for part in (purpose, *address) for word in _words(part))
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))
