"""Chips that are reached by moves have the law of chips, and numbers that follow from their address."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

import nvaudit.rng
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


def drawn(chip: MovedChip, pieces: tuple[int, ...], kind: str = "standard_normal") -> list[np.ndarray]:
    gen = stream(4, "program", chip, "w")
    return [getattr(gen, kind)(size) for size in pieces]


@pytest.mark.parametrize("kind", ["standard_normal", "random"])
@pytest.mark.parametrize("limit", [0, 200, 1 << 20])
def test_what_is_kept_of_chips_before_changes_no_number(
    kind: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers depend on the address alone, whatever was drawn before, in pieces of whatever size."""
    chips = [MovedChip("a")]
    for number in range(6):
        chips.append(chips[-1].moved(0.5 + number / 20, f"b{number}"))
    monkeypatch.setattr(nvaudit.rng, "_RECENT", nvaudit.rng._Recent(0))
    wanted = [np.concatenate(drawn(chip, (12,), kind)) for chip in chips]
    assert len({array.tobytes() for array in wanted}) == len(chips)
    monkeypatch.setattr(nvaudit.rng, "_RECENT", nvaudit.rng._Recent(limit))
    order = [0, 1, 2, 3, 2, 6, 5, 6, 1, 4]
    for at, pieces in zip(order, [(12,), (4, 8), (4, 4, 4), (12,), (5, 7)] * 2, strict=True):
        got = np.concatenate(drawn(chips[at], pieces, kind))
        np.testing.assert_array_equal(got, wanted[at])


def test_what_is_kept_is_bounded() -> None:
    """The oldest arrays go when there are too many bytes, and one too large is not kept."""
    kept = nvaudit.rng._Recent(100 * 8)
    for number in range(10):
        kept.put(number, np.zeros(20))
    assert [number for number in range(10) if kept.get(number) is not None] == [5, 6, 7, 8, 9]
    kept.put("large", np.zeros(60))
    assert kept.get("large") is None


def test_drawn_numbers_may_be_written_to() -> None:
    """Whoever scales what was drawn does not change what the next chip is moved from."""
    first = stream(4, "program", MOVED, "w").standard_normal(5)
    kept = first.copy()
    first *= 0
    np.testing.assert_array_equal(stream(4, "program", MOVED, "w").standard_normal(5), kept)
