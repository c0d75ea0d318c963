"""The race of one chip: its error bound holds whatever the chip is like, and it is short where it can be."""

import numpy as np
import pytest
from scipy import stats

from nvaudit.perturb.difficulty import Difficulty, estimate_difficulty, load_difficulty
from nvaudit.perturb.race import Band, Edge, Race, RaceTask, SampleOrder
from nvaudit.rng import stream

SAMPLES = 400
ERROR = 0.05
REPEATS = 600


def test_records_know_a_race_by_what_it_is():
    """The digest of a race is what records hold: only with other rules of races is it another number."""
    wanted = Band((Edge(0.5, 1e-3), Edge(0.4, 0.1, False)), (Edge(0.6, 0.2),)), Band((), (Edge(0.9, 0.1),))
    assert RaceTask("kpp", "file", 34, wanted, 700).digest == 4375186648360398739


def difficulty() -> Difficulty:
    """Samples from certain to hopeless, as pilots with errors of their own would see them."""
    rng = stream(3, "test difficulty")
    chance = np.clip(np.linspace(-0.3, 1.0, SAMPLES) ** 3, 0.005, 0.9)
    errors = (rng.random((16, SAMPLES)) < chance).astype(float)
    return estimate_difficulty(errors, -chance)


def outcome(chip: np.ndarray, band: Band, seed: int, most: int = SAMPLES) -> tuple[int | None, int]:
    """Gap that a race ends in, and the samples it took."""
    found = difficulty()
    order = SampleOrder(found, most, seed, "test")[:]
    race, gap, seen = Race(found, order, (band,)), None, 0
    while gap is None and seen < len(order):
        chosen = order[seen : seen + 16]
        gap, seen = race.see(chip[chosen]), seen + len(chosen)
    return gap, seen


def chip_with(errors: int, where: str) -> np.ndarray:
    """A chip with so many errors, where pilots expect them, where they do not, anywhere, or in fractions."""
    by_difficulty = np.argsort(difficulty().expected)
    chip = np.zeros(SAMPLES)
    if where == "hard":
        chip[by_difficulty[-errors:]] = 1
    elif where == "easy":
        chip[by_difficulty[:errors]] = 1
    elif where == "anywhere":
        chip[stream(7, "test chip").permutation(SAMPLES)[:errors]] = 1
    else:
        chip[:] = errors / SAMPLES
    return chip


@pytest.mark.parametrize("where", ["hard", "easy", "anywhere", "fractions"])
@pytest.mark.parametrize("side", ["above", "below"])
def test_a_chip_on_the_threshold_is_stopped_at_most_as_often_as_allowed(where, side):
    """The bound needs no model of the chip: also errors only on samples that no pilot gets wrong."""
    chip = chip_with(40, where)
    edge = (Edge(1 - chip.mean(), ERROR),)
    band = Band((), edge) if side == "above" else Band(edge, ())
    wanted = 1 if side == "above" else 0
    wrong = sum(outcome(chip, band, seed)[0] == wanted for seed in range(REPEATS))
    assert stats.binom.sf(wrong - 1, REPEATS, ERROR) > 1e-3


def test_a_threshold_that_follows_the_evidence_does_not_break_the_bound():
    """Wealth grows with the distance: whichever worse threshold is looked at, the bound is the same."""
    chip = chip_with(40, "anywhere")
    accuracy = 1 - chip.mean()
    for seed in range(50):
        at, above = (outcome(chip, Band((), (Edge(t, ERROR),)), seed) for t in (accuracy, accuracy + 0.02))
        assert not (above[0] == 1 and at[0] is None)
        assert above[0] is None or above[1] >= at[1]


def test_a_good_chip_is_stopped_early():
    """Far from the threshold a part of the samples is enough, on either side."""
    band = Band((Edge(0.7, 1e-3),), (Edge(0.7, 1e-3),))
    for errors, gap in ((8, 1), (240, 0)):
        found = [outcome(chip_with(errors, "anywhere"), band, seed) for seed in range(20)]
        assert {result for result, _ in found} == {gap}
        assert np.mean([seen for _, seen in found]) < SAMPLES / 3


def test_weights_and_control_variates_pay():
    """Where pilots tell hard samples, a race takes fewer of them than with a uniform draw."""
    rng = stream(5, "test pay")
    count = 4000
    chance = np.where(np.arange(count) < 400, 0.5, 0.002)
    told = estimate_difficulty((rng.random((16, count)) < chance).astype(float), -chance)
    flat = Difficulty(np.full(count, chance.mean()), np.full(count, 1 / count))
    chip = (rng.random(count) < chance).astype(float)
    band = Band((), (Edge(1 - chip.mean() - 0.02, 1e-3),))
    taken = []
    for each in (told, flat):
        seen = 0
        for seed in range(10):
            order = SampleOrder(each, count, seed, "pay")[:]
            race, at = Race(each, order, (band,)), 0
            while race.see(chip[order[at : at + 16]]) is None:
                at += 16
            seen += at
        taken.append(seen)
    assert taken[0] < 0.6 * taken[1]


def test_the_first_estimate_is_unbiased():
    """Its mean over many orders is the chip's metric, whatever the weights."""
    chip = chip_with(60, "easy")
    estimates = []
    for seed in range(2000):
        order = SampleOrder(difficulty(), 32, seed, "estimate")[:]
        race = Race(difficulty(), order, ())
        race.see(chip[order])
        estimates.append(race.estimate)
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - (1 - chip.mean())) < 4 * error


def test_the_order_draws_by_weight_without_replacement():
    """The first sample follows the weights, none comes twice, and a part is the beginning of the whole."""
    found = Difficulty(np.full(4, 0.5), np.array([0.4, 0.3, 0.2, 0.1]))
    first = [SampleOrder(found, 4, seed, "law")[:][0] for seed in range(4000)]
    assert stats.chisquare(np.bincount(first, minlength=4), 4000 * found.draw).pvalue > 1e-3
    whole = SampleOrder(difficulty(), SAMPLES, 1, "law")[:]
    assert sorted(whole) == list(range(SAMPLES))
    assert np.array_equal(SampleOrder(difficulty(), 50, 1, "law")[:], whole[:50])


def test_a_hopeless_race_is_given_up():
    """A chip on the threshold is given up after a part of the samples; a good one is not."""
    band = Band((), (Edge(0.9, 1e-4),))
    for errors, hopeless in ((40, True), (4, False)):
        chip = chip_with(errors, "anywhere")
        order = SampleOrder(difficulty(), SAMPLES, 0, "hopeless")[:]
        race = Race(difficulty(), order, (band,))
        race.see(chip[order[: SAMPLES // 2]])
        assert race.hopeless(SAMPLES) == hopeless


def test_bands_are_told_apart():
    """With two bands a chip lies below, between or above; each gap needs every edge that bounds it."""
    bands = tuple(
        Band((Edge(low, 1e-2),), (Edge(high, 1e-2), Edge(high - 0.01, 1e-3, decisive=False)))
        for low, high in ((0.3, 0.35), (0.7, 0.75))
    )
    for errors, gap in ((360, 0), (200, 1), (10, 2)):
        chip = chip_with(errors, "anywhere")
        order = SampleOrder(difficulty(), SAMPLES, 0, "bands")[:]
        assert Race(difficulty(), order, bands).see(chip[order]) == gap


def test_difficulty_is_kept_exactly(tmp_path):
    """What workers read is what was estimated; another difficulty has another identity."""
    found = difficulty()
    found.save(tmp_path / "d")
    read = load_difficulty(tmp_path / "d")
    assert read.expected.tobytes() == found.expected.tobytes()
    assert read.draw.tobytes() == found.draw.tobytes()
    assert read.digest == found.digest != Difficulty(found.draw, found.expected).digest


def test_difficulty_knows_hard_from_easy():
    """Few pilots and the margin give the order of the samples; draws sum to one and none is zero."""
    found = difficulty()
    assert np.corrcoef(found.expected, np.linspace(-0.3, 1, SAMPLES) ** 3)[0, 1] > 0.9
    assert found.draw.sum() == pytest.approx(1)
    assert found.draw.min() > 0.5 / SAMPLES
    assert (found.expected > 0).all()
    assert (found.expected < 1).all()


def test_an_order_is_the_same_however_it_is_looked_at():
    """Step by step, as a race reads it, or at once: what comes of drawing again and again, the first time."""
    found = Difficulty(np.full(3000, 0.5), np.linspace(1, 3, 3000) / 6000)
    drawn = np.searchsorted(np.cumsum(found.draw), stream(4, "race", "look").random(1 << 15), side="right")
    order = SampleOrder(found, 2100, 4, "look")
    steps = [order[start : start + 64] for start in range(0, len(order), 64)]
    assert np.array_equal(np.concatenate(steps), list(dict.fromkeys(drawn.tolist()))[:2100])


def test_bets_on_many_edges_are_those_on_each():
    """Evidence of several edges at once is that of each alone to the last bit, whatever the batches."""
    found, chip = difficulty(), chip_with(30, "anywhere")
    edges = [Edge(value, 1e-4) for value in (0.7, 0.8, 0.88, 0.91)]
    order = SampleOrder(found, SAMPLES, 0, "edges")[:]
    together = Race(found, order, (Band(tuple(edges), tuple(edges)),))
    alone = [Race(found, order, (Band((edge,), (edge,)),)) for edge in edges]
    for start in range(0, 320, 64):
        for race in (together, *alone):
            race.see(chip[order[start : start + 64]])
        # Of each edge, those that are above it first.
        each = [race._gamblers.progress for race in alone]
        assert together._gamblers.progress.tolist() == [side[i] for i in (0, 1) for side in each]
