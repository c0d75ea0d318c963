"""A certain race calls a chip below a value only where it is, and with few of its samples."""

import numpy as np
import pytest

from nvaudit.perturb.difficulty import estimate_difficulty
from nvaudit.perturb.race import CertainRace
from nvaudit.rng import stream

SAMPLES = 400


@pytest.fixture(scope="module")
def hardness() -> np.ndarray:
    """Log odds of an error of each sample: most are hardly ever wrong."""
    return stream(1, "hardness").normal(-5, 2.5, SAMPLES)


def chip(hardness: np.ndarray, shift: float, seed: int) -> np.ndarray:
    """Errors of a chip that makes samples wrong sooner or later than others."""
    chance = 1 / (1 + np.exp(-hardness - shift))
    return (stream(seed, "chip").random(SAMPLES) < chance).astype(float)


def pilots(hardness: np.ndarray):
    errors = np.stack([chip(hardness, 0.0, 1000 + i) for i in range(8)])
    return estimate_difficulty(errors, -hardness)


def raced(race: CertainRace, errors: np.ndarray, *, to_the_end: bool = False) -> tuple[int | None, int]:
    """What was found of a chip, and the samples that it took."""
    gap, seen = None, 0
    while gap is None and seen < SAMPLES:
        chosen = race.order[seen : seen + race.step(SAMPLES)]
        gap, seen = race.see(errors[chosen]), seen + len(chosen)
        if gap is None and not to_the_end and race.hopeless(SAMPLES):
            break
    return gap, seen


@pytest.mark.parametrize("to_the_end", [False, True])
def test_it_is_never_wrong(hardness: np.ndarray, to_the_end: bool) -> None:
    """Whatever the chip and the value, also where both are equal; looked at to the end it is decided."""
    difficulty = pilots(hardness)
    for seed in range(300):
        gen = stream(seed, "cases")
        errors = chip(hardness, gen.normal(0, 2), seed)
        value = float((1 - errors).sum() / SAMPLES)
        bars = (value, float(np.nextafter(value, 2)), value + gen.normal(0, 0.03))
        for bar in bars:
            gap, _ = raced(CertainRace(difficulty, bar), errors, to_the_end=to_the_end)
            if gap is None:
                assert not to_the_end
            else:
                assert (gap == 0) == (value < bar)


def test_a_bad_chip_takes_little_more_than_the_errors_that_it_may_have(hardness: np.ndarray) -> None:
    """Samples that are likely wrong come first: 20 of 400 may be, and some 30 are looked at."""
    errors = chip(hardness, 4.0, 7)
    assert errors.mean() > 0.2
    gap, seen = raced(CertainRace(pilots(hardness), 0.95), errors)
    assert gap == 0
    assert 20 < seen < 40


def test_a_good_chip_is_left_open_soon(hardness: np.ndarray) -> None:
    """A chip with far fewer errors than it may have is left; about what it is, is said."""
    errors = chip(hardness, -1.0, 8)
    race = CertainRace(pilots(hardness), 0.80)
    gap, seen = raced(race, errors)
    assert gap is None
    assert seen < SAMPLES / 3
    assert race.estimate == pytest.approx(1 - errors.mean(), abs=0.03)


def test_fractions_of_errors_are_not_trusted_to_the_last_digit(hardness: np.ndarray) -> None:
    """Where samples have fractions of errors, a chip at the value is not called below it."""
    errors = chip(hardness, 1.0, 9) / 3
    value = float((1 - errors).sum() / SAMPLES)
    assert raced(CertainRace(pilots(hardness), value), errors, to_the_end=True)[0] is None
    assert raced(CertainRace(pilots(hardness), value + 1e-6), errors, to_the_end=True)[0] == 0
