"""Streams of random numbers are addressed: the address alone decides the numbers."""

import itertools

import numpy as np
import pytest

from nvaudit.rng import stream


def first(*address, count=64):
    return stream(*address).integers(0, 2**63, size=count)


ADDRESSES = [
    (0, "program", 0, "w"),
    (1, "program", 0, "w"),
    (2**40, "program", 0, "w"),
    (0, "read", 0, "w"),
    (0, "program", 1, "w"),
    (0, "program", 2**32, "w"),
    (0, "program", 0, "v"),
    (0, "program", "0", "w"),
    (0, "program", 0),
    (0, "program"),
    (0, "program", "w", 0),
    (0, "program", 0, "w", 0),
    (0, "program", 0, "w", ""),
    (0, "program", "w"),
    (0, "programw", 0),
    (0, "program:w", 0),
    (0, "", 0, "w"),
]


def test_different_addresses_share_no_number():
    """Seed, purpose, trial, tensor, their types, order and count all make a stream of its own.

    64 numbers of 63 bits each: a chance collision has probability below 1e-13.
    """
    drawn = {address: set(first(*address).tolist()) for address in ADDRESSES}
    for one, other in itertools.combinations(ADDRESSES, 2):
        assert not drawn[one] & drawn[other], (one, other)


def test_the_same_address_gives_the_same_numbers():
    """Bit for bit, whatever was drawn before and in whatever order."""
    forward = {address: first(*address) for address in ADDRESSES}
    backward = {address: first(*address) for address in reversed(ADDRESSES)}
    for address in ADDRESSES:
        assert (forward[address] == backward[address]).all()


def test_numbers_and_names_never_meet():
    """A number and the text of that number, and the hash of a text as a number, are different addresses."""
    for number in (0, 1, 7, 2**31, 2**62):
        assert not set(first(0, "p", number)) & set(first(0, "p", str(number)))


def test_global_state_is_neither_read_nor_changed():
    """numpy's global generator plays no part."""
    before = np.random.get_state()  # noqa: NPY002 - the global state is what this is about
    one = first(3, "program", 5)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))
    np.random.standard_normal(5)  # noqa: NPY002
    assert (first(3, "program", 5) == one).all()


def test_values_are_pinned():
    """The numbers behind an address never change between versions: a published seed stays valid."""
    assert stream(0, "program", 7, "conv1.weight").integers(0, 2**32, 4).tolist() == PINNED


PINNED = [1392677619, 2588376007, 2904310849, 2045817524]


def test_streams_of_neighbouring_trials_are_independent():
    """Neighbouring trials correlate no more than chance: |r| < 5/sqrt(n), false alarm 6e-7 a pair."""
    drawn = np.stack([stream(0, "program", trial, "w").standard_normal(10_000) for trial in range(8)])
    r = np.corrcoef(drawn)[np.triu_indices(8, 1)]
    assert np.abs(r).max() < 5 / np.sqrt(10_000)


@pytest.mark.parametrize("seed", [-1, -(2**40)])
def test_a_negative_seed_is_refused(seed):
    """The message has the value."""
    with pytest.raises(ValueError, match=f"a seed must be 0 or more, got {seed}"):
        stream(seed, "program")


@pytest.mark.parametrize("number", [-1, 2**63])
def test_an_address_number_out_of_range_is_refused(number):
    """A trial number that would wrap round is refused, not folded."""
    with pytest.raises(ValueError, match=f"got {number}"):
        stream(0, "program", number)
