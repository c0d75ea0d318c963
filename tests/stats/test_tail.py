"""Percentiles beyond the sample: estimate, interval, coverage, and when there is none."""

import numpy as np
import pytest
from pydantic import ValidationError
from quick import audit
from scipy import optimize, stats

from nvaudit.errors import DataError, OptionError
from nvaudit.report.audit.rare import tail_lines
from nvaudit.report.tails import TailRefusal, TailResult, tail_result
from nvaudit.rng import stream
from nvaudit.stats.kpp import kpp_index
from nvaudit.stats.tail import FEWEST, REACH, known_worst, metric_steps, tail_chips, tail_kpp

REPEATS = 300


def accuracies(trials: int, images: int, *address: int) -> np.ndarray:
    """Accuracies of chips: normal with a mean of 96 and a spread of 0.7 points, rounded to images."""
    rng = stream(7, "test tail", trials, images, *address)
    return np.rint(np.clip(0.96 + 0.007 * rng.standard_normal(trials), 0, 1) * images) / images


def asked(values, trials, percentile: float, confidence: float = 0.95, higher=True, **options) -> TailResult:
    """The estimate as the report holds it."""
    found = tail_kpp(values, trials, percentile, confidence, higher, **options)
    return tail_result(found, percentile, confidence, trials)


def of_accuracies(values, percentile: float = 0.1, images: int | None = 10_000, **options) -> TailResult:
    trials, confidence = options.pop("trials", len(values)), options.pop("confidence", 0.95)
    return asked(values, trials, percentile, confidence, steps=images, worst_possible=0.0, **options)


def contaminated(share: float, away: float):
    """Normal chips, some of which fail in a way of their own: how to draw, and the quantile."""

    def draw(rng, shape):
        return rng.standard_normal(shape) - away * (rng.random(shape) < share)

    def quantile(prob):
        def excess(x):
            return (1 - share) * stats.norm.cdf(x) + share * stats.norm.cdf(x + away) - prob

        return optimize.brentq(excess, -40, 40)

    return draw, quantile


def scipy_law(law):
    return (lambda rng, shape: law.ppf(rng.random(shape))), law.ppf


# Low values are the worst.
LAWS = {
    "normal": scipy_law(stats.norm()),
    "beta": scipy_law(stats.beta(5, 2)),
    "student": scipy_law(stats.t(4)),
    "gumbel": scipy_law(stats.gumbel_l()),
    "bad chips far": contaminated(0.02, 6),
    "bad chips near": contaminated(0.02, 4),
}


def studied(law: str, trials: int, percentile: float, repeats: int) -> tuple[int, int, int]:
    """Answers, answers whose interval holds the truth, and answers that are too good."""
    draw, quantile = LAWS[law]
    truth = float(quantile(percentile / 100))
    answers = covered = too_good = 0
    for i in range(repeats):
        values = draw(stream(11, f"tail {law}", trials, i), trials)
        result = asked(values, trials, percentile)
        if result.refusal is None:
            answers += 1
            covered += result.low <= truth <= result.high
            too_good += truth < result.low
    return answers, covered, too_good


def test_estimate_of_a_normal_law():
    """The interval holds the true percentile of a normal law, and what is printed describes the fit."""
    result = of_accuracies(accuracies(1000, 10_000), 0.01)
    truth = 0.96 + 0.007 * stats.norm.ppf(1e-4)
    assert result.refusal is None
    assert result.low < truth < result.high
    assert abs(result.value - truth) < 0.004
    assert (result.percentile, result.confidence, result.trials) == (0.01, 0.95, 1000)
    assert 2 * FEWEST <= result.tail_chips < tail_chips(1000)
    assert result.value < result.threshold < 0.96
    assert result.joined[-1] == result.tail_chips
    assert result.joined[0] >= result.tail_chips / 3
    assert result.shape < 0.2
    assert 0 < result.scale < 0.007
    assert 0.05 <= result.goodness <= 1


@pytest.mark.parametrize("images", [500, 1000, 10_000])
def test_an_accuracy_stays_one(images):
    """Value and ends are accuracies over so many images: multiples of 1/images, not below 0."""
    result = of_accuracies(accuracies(1000, images), 0.05, images)
    for part in (result.low, result.value, result.high):
        assert 0 <= part <= 1
        assert part == round(part * images) / images
    assert result.low < result.value < result.high


def test_interval_ends_at_the_worst_possible_value():
    """A heavy tail near zero accuracy is cut at zero."""
    heavy = np.rint(1e4 * np.clip(0.25 - 0.02 * stats.t(2).isf(stream(7, "heavy").random(1000)), 0, 1)) / 1e4
    result = of_accuracies(heavy, 0.01)
    assert result.low == 0.0
    assert of_accuracies(np.maximum(heavy, 0.01), 0.01).low == 0.0


def test_the_same_numbers_every_time():
    """Nothing is random: equal values give equal results, in any order, and are not changed."""
    values = accuracies(500, 597)
    values.flags.writeable = False
    assert of_accuracies(values, images=597) == of_accuracies(values[::-1], images=597)


@pytest.mark.parametrize("images", [10_000, None])
def test_a_loss_is_the_mirror_image(images):
    """For a loss the largest values are the worst."""
    values = accuracies(500, 10_000)
    accuracy = tail_kpp(values, 500, 0.1, 0.95, True, steps=images)
    loss = tail_kpp(-values, 500, 0.1, 0.95, False, steps=images)
    assert (loss.low, loss.value, loss.high) == (-accuracy.high, -accuracy.value, -accuracy.low)


def test_the_unit_of_a_continuous_metric_does_not_matter():
    """Scaled and shifted values give the scaled and shifted estimate."""
    values = stream(7, "loss").standard_gamma(3.0, 800)
    one, other = (tail_kpp(v, 800, 0.1, 0.95, False) for v in (values, 5 + 1e-3 * values))
    for part in ("low", "value", "high", "threshold"):
        assert getattr(other, part) == pytest.approx(5 + 1e-3 * getattr(one, part), rel=1e-4)
    assert other.scale == pytest.approx(1e-3 * one.scale, rel=1e-2)


def test_only_the_worst_chips_are_needed():
    """The worst chips and the number of all give what all chips give."""
    values = np.sort(accuracies(1000, 10_000))
    assert of_accuracies(values[: tail_chips(1000) + 20], trials=1000) == of_accuracies(values)
    fewer = of_accuracies(values[:60], trials=1000)
    assert fewer.refusal is None
    assert fewer.tail_chips < 60


def test_chips_surely_the_worst():
    """Of chips known exactly those count that lie below the lower limit of every other; above, for a loss."""
    low, high = np.array([0.1, 0.2, 0.4, 0.5, 0.6]), np.array([0.1, 0.2, 1.0, 0.5, 0.6])
    assert known_worst(low, high, True).tolist() == [0.1, 0.2]
    assert known_worst(-high, -low, False).tolist() == [-0.1, -0.2]
    assert known_worst(low, low, True).tolist() == low.tolist()
    low[4], high[4] = -np.inf, 0.3
    assert known_worst(low, high, True).size == 0


def test_tails_have_a_size_that_the_trials_allow():
    """A quarter of few chips; of many more, but a smaller share."""
    assert [tail_chips(n) - 1 for n in (100, 320, 700, 1000, 2000, 27_000)] == [25, 80, 80, 100, 159, 900]


def refused(result: TailResult) -> str:
    assert (result.value, result.low, result.high, result.goodness) == (None,) * 4
    assert result.refusal.reason
    assert result.refusal.advice
    return result.refusal.code


@pytest.mark.parametrize(
    ("trials", "percentile", "code", "advice"),
    [
        (1000, 0.5, "inside", "ask for it with --percentile 0.5"),
        (368, 1, "inside", "ask for it with --percentile 1"),
        (999, 0.01, "too_far", "use at least 1,000 trials"),
        (100, 0.1, "few_chips", "use at least 160 trials"),
        (159, 0.1, "few_chips", "use at least 160 trials"),
    ],
)
def test_no_estimate_for_the_number_of_chips(trials, percentile, code, advice):
    """Refused: a percentile that the order statistics bound, one too far out, and too few chips."""
    result = of_accuracies(accuracies(trials, 10_000), percentile)
    assert refused(result) == code
    assert result.refusal.advice == advice


@pytest.mark.parametrize(("trials", "percentile"), [(367, 1), (1000, 0.01), (160, 0.1)])
def test_estimate_just_within_the_limits(trials, percentile):
    """One chip more or fewer decides: these numbers are enough."""
    result = of_accuracies(accuracies(trials, 10_000, 1), percentile)
    assert result.refusal is None or result.refusal.code == "misfit"
    assert trials >= 100 / percentile / REACH


def test_no_estimate_from_too_few_known_chips():
    """Refused where chips were stopped before enough of the worst were known."""
    result = of_accuracies(np.sort(accuracies(1000, 10_000))[:40], trials=1000)
    assert refused(result) == "few_chips"
    assert result.refusal.reason == "only the 40 worst chips are known exactly, and the fit needs 41"
    assert "--exhaustive" in result.refusal.advice


@pytest.mark.parametrize("values", [np.full(1000, 0.5), np.repeat([0.9, 0.91, 0.92], 500)])
def test_no_estimate_from_too_coarse_a_metric(values):
    """Refused: all chips alike, or hardly any different values in the tail."""
    for steps in (100, None):
        result = asked(values, len(values), 0.05, steps=steps)
        assert refused(result) == "too_coarse"


def test_no_estimate_when_the_tail_does_not_fit():
    """Refused: 2 % of the chips fail in a way of their own; the advice gives trials that need no law."""
    draw, _ = LAWS["bad chips far"]
    for i in range(5):
        result = asked(draw(stream(7, "bad", i), 1000), 1000, 0.1)
        assert refused(result) == "misfit"
        assert "do not follow one smooth law" in result.refusal.reason
        assert result.refusal.advice.startswith("use 3,688 trials")


def test_nonsense_is_refused():
    """Bad values, number of trials, percentile, confidence or steps raise an error of ours."""
    values = accuracies(500, 10_000)
    for worst, options, error in (
        ([], {"trials": 10}, DataError),
        ([np.nan] * 500, {}, DataError),
        (values, {"trials": 499}, OptionError),
        (values, {"percentile": 0}, OptionError),
        (values, {"confidence": 1.0}, OptionError),
        (values + 1e-5, {}, OptionError),
    ):
        with pytest.raises(error):
            of_accuracies(worst, **options)


def test_steps_of_a_metric():
    """An accuracy moves in steps of one image; another metric in none."""
    assert metric_steps(accuracies(50, 597), 597) == 597
    assert metric_steps(accuracies(50, 597), 596) is None


@pytest.mark.parametrize(("law", "trials", "percentile"), [("normal", 400, 0.1)])
def test_coverage(law, trials, percentile):
    """The interval holds the true percentile nearly as often as stated, and few true laws are refused."""
    answers, covered, _ = studied(law, trials, percentile, 20)
    assert answers >= 15
    assert covered >= 0.8 * answers


@pytest.mark.slow
@pytest.mark.parametrize(("trials", "percentile"), [(1000, 0.05), (2000, 0.01)])
@pytest.mark.parametrize("law", list(LAWS))
def test_coverage_over_many_repeats(law, trials, percentile):
    """Of 300 samples the answers hold the truth as often as stated, and few of true laws are refused.

    Bad chips far off are refused. Near ones may be taken for a heavy tail: the answers are then too bad, and
    too good as rarely as one end of the interval states.
    """
    answers, covered, too_good = studied(law, trials, percentile, REPEATS)
    if law == "bad chips far":
        assert answers <= 0.02 * REPEATS
        return
    near = law == "bad chips near"
    assert answers >= (0.05 if near else 0.85) * REPEATS
    assert covered >= (0.8 if near else 0.95 - 3.5 * (0.95 * 0.05 / answers) ** 0.5) * answers
    # One end of a 95 % interval is missed by 2.5 % of exact answers, give or take the binomial spread.
    one_sided = 0.025 + 3.5 * (0.025 * 0.975 / answers) ** 0.5
    assert too_good <= (one_sided if near else 0.08) * answers


@pytest.mark.slow
def test_against_an_exhaustive_run(example):
    """Fits to a sixth of the chips agree with the percentiles of all chips of a real network."""
    report = audit(example, device="fefet1", trials=6000, exhaustive=True)
    values = np.array(report.trials.values, dtype=np.float64)
    ordered = np.sort(values)
    for percentile in (0.1, 0.05):
        truth = ordered[kpp_index(percentile, values.size)]
        results = [of_accuracies(part, percentile, report.data.count) for part in values.reshape(6, 1000)]
        answers = [r for r in results if r.refusal is None]
        assert len(answers) >= 4
        assert sum(r.low <= truth <= r.high for r in answers) >= len(answers) - 1
        assert abs(np.median([r.value for r in answers]) - truth) <= 0.005


def test_json_round_trip():
    """Estimates and refusals come back from JSON as they were."""
    for percentile in (0.01, 0.5):
        result = of_accuracies(accuracies(1000, 10_000), percentile)
        assert TailResult.model_validate_json(result.model_dump_json(), strict=True) == result


@pytest.mark.parametrize(
    "change",
    [{"value": None}, {"low": None}, {"goodness": None}, {"value": float("nan")}, {"other": 1},
     {"refusal": TailRefusal(code="misfit", reason="a", advice="b")}],
)  # fmt: skip
def test_half_an_estimate_is_refused(change):
    """A result is an estimate with all its numbers, or a refusal."""
    fields = of_accuracies(accuracies(1000, 10_000), 0.01).model_dump()
    assert TailResult(**fields)
    with pytest.raises(ValidationError):
        TailResult(**(fields | change))
    with pytest.raises(ValidationError):
        TailResult(percentile=0.1, confidence=0.95, trials=10)


def test_lines_of_an_estimate():
    """The text gives value, interval, what it is fitted to, and what it cannot know."""
    result = TailResult(
        percentile=0.01, confidence=0.95, trials=1000, value=0.9342, low=0.91, high=0.94, tail_chips=99,
        threshold=0.95005, shape=-0.1, scale=0.004, goodness=0.4321, joined=(50, 70, 99),
    )  # fmt: skip
    assert tail_lines(result, "fraction") == [
        "KPP 0.01 % (1 chip in 10,000), extrapolated: 93.42 % [91.00 %, 94.00 %], 95 % confidence: "
        "generalised Pareto law fitted to the worst 99 of 1,000 chips (goodness p = 0.43)",
        "It holds if rarer chips follow the law of these: a fault that strikes less than about 1 chip in 333 "
        "may have left no trace in this run.",
    ]
    assert "[0.91, 0.94]" in tail_lines(result, "nats")[0]


def test_lines_of_a_refusal():
    """The text says why there is no estimate, and what to do."""
    assert tail_lines(of_accuracies(accuracies(368, 10_000), 1), "fraction") == [
        "KPP 1 % (1 chip in 100): no estimate: 368 chips bound this percentile without assuming any law; "
        "ask for it with --percentile 1"
    ]
