"""Chips that are reached by moves have the law of chips, and numbers that follow from their address."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from nvaudit.rng import MovedChip, stream

MOVED = MovedChip("a").moved(0.9, "b").moved(0.6, "c")


def test_normals_stay_normal() -> None:
    """After moves the numbers are standard normal (KS), in both precisions, as near as they should be."""
    start = stream(0, "program", "a", "w").standard_normal(50_000)
    moved = stream(0, "program", MOVED, "w").standard_normal(50_000)
    assert kstest(moved, "norm").pvalue > 0.01
    assert np.corrcoef(start, moved)[0, 1] == pytest.approx(0.9 * 0.6, abs=0.02)
    assert stream(0, "program", MOVED, "w").standard_normal(3, dtype=np.float32).dtype == np.float32


def test_uniforms_stay_uniform() -> None:
    """After moves the numbers are uniform (KS) and lie near those before."""
    start = stream(0, "program", "a", "w").random(50_000)
    moved = stream(0, "program", MOVED, "w").random(50_000)
    assert kstest(moved, "uniform").pvalue > 0.01
    assert np.corrcoef(start, moved)[0, 1] > 0.4


def test_a_chip_that_did_not_move_is_itself() -> None:
    """Without moves the numbers are those of the address, bit for bit."""
    for draw in ("standard_normal", "random"):
        one = getattr(stream(3, "program", MovedChip("x"), "w"), draw)(7)
        np.testing.assert_array_equal(one, getattr(stream(3, "program", "x", "w"), draw)(7))


def test_numbers_go_on_as_of_one_stream() -> None:
    """Drawn in pieces, or into an array, the numbers are those drawn at once."""
    whole = stream(1, "program", MOVED, "w").standard_normal(10, dtype=np.float32)
    gen, into = stream(1, "program", MOVED, "w"), np.empty(6, np.float32)
    first = gen.standard_normal(4, dtype=np.float32)
    gen.standard_normal(out=into, dtype=np.float32)
    np.testing.assert_array_equal(whole, np.concatenate([first, into]))


def test_other_draws_are_refused() -> None:
    """A draw that would ignore the moves is an error."""
    with pytest.raises(TypeError, match="integers"):
        stream(0, "program", MOVED, "w").integers(3)
