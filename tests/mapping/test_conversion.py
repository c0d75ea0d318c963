"""What ADCs cost on a code: the equation against simulated column sums, and what a search makes of it."""

import numpy as np
import pytest

from nvaudit.mapping import code_search
from nvaudit.mapping.code_search import CodeSearch, Conversion, WeightDistribution, code_error
from nvaudit.mapping.codes import least_noisy_code, rounding
from nvaudit.rng import stream

ENCODINGS = ("sign_magnitude", "sign_per_device", "differential", "offset")
FEFET1 = np.array([1.0, 16.0, 16.0, 1.0]) * 0.01


def bell() -> WeightDistribution:
    """Weights as a trained layer has them: Laplace, cut at its largest."""
    at = np.linspace(-1, 1, 1025)
    share = np.exp(-np.abs(at) / 0.12)
    return WeightDistribution(at, share / share.sum())


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bits", [5, 8])
def test_the_equation_is_what_rounding_column_sums_costs(encoding, bits, monkeypatch) -> None:
    """Inputs behind a Relu, two blocks of rows, steps worked out here: errors of results by columns."""
    monkeypatch.setattr(code_search, "WIDEST", 1.0)
    rows, blocks, columns, samples, weights = 64, 2, 400, 300, bell()
    code = least_noisy_code([8, 4, 2, 1], FEFET1, encoding)
    rng = stream(5, "conversion", ENCODINGS.index(encoding), bits)
    w = rng.choice(weights.at, (blocks, rows, columns), p=weights.share)
    value = rounding(code, FEFET1)(w * code.top)
    x = np.maximum(rng.standard_normal((samples, blocks, rows)), 0)
    half = len(code.significances)
    exact, converted, sums = 0.0, 0.0, []
    for d in range(code.devices):
        # Levels by the definition of each encoding, not by the function under test.
        place = value + code.zero if encoding == "offset" else np.abs(value)
        other = (d + half) % code.devices if encoding == "differential" else d
        level = np.where(value < 0, code.table[other][place], code.table[d][place]).astype(float)
        if encoding in ("sign_magnitude", "sign_per_device"):
            level *= np.where(value < 0, -1, 1)
        sums.append(np.einsum("sbr,brc->sbc", x, level))
    mean, std = [one.mean() for one in sums], [one.std() for one in sums]
    reach = max(abs(m) + code_search.REACH * s for m, s in zip(mean, std, strict=True))
    both = encoding in ("sign_magnitude", "sign_per_device")
    step = reach / (2 ** (bits - 1) - 1 if both else 2**bits - 1)
    for factor, one in zip(code.factors, sums, strict=True):
        exact = exact + factor * one.sum(1)
        converted = converted + factor * step * np.rint(one / step).sum(1)
    # An error e of every weight, over max|W| = T, errs by T e √(rows · E[x²]).
    measured = np.sqrt(np.mean((converted - exact) ** 2)) / code.top
    measured /= np.sqrt(blocks * rows * np.mean(x**2))
    assert Conversion(bits, rows).error(code, weights, FEFET1) == pytest.approx(measured, rel=0.08)


def test_more_bits_cost_less_and_narrower_ranges_too() -> None:
    """Half the step for every bit; a percentile is narrower than what was seen, the full scale is wider."""
    code = least_noisy_code([8, 4, 2, 1], FEFET1, "sign_magnitude")

    def error(bits, rows=128, method="max"):
        return Conversion(bits, rows, method).error(code, bell(), FEFET1)

    assert error(10) / error(11) == pytest.approx(1023 / 511)
    assert error(5) < 1023 / 511 * error(4)  # a sum below half a step is lost, and no more than that
    assert error(8, method="percentile:99") < error(8) < error(8, method="full_scale")
    assert error(9, 256) == pytest.approx(error(9, 512), rel=0.05)  # columns of both signs have hardly a mean
    assert error(9, 8) < error(9, 64)  # sums that are 0 are converted exactly


def test_a_search_counts_what_converters_cost() -> None:
    """Few bits make it choose closer significances, which use less of a range; many bits change nothing."""
    weights = bell()
    ideal = CodeSearch(FEFET1, "sign_magnitude", weights).best(4)
    fine = CodeSearch(FEFET1, "sign_magnitude", weights, conversion=Conversion(12, 128)).best(4)
    coarse = CodeSearch(FEFET1, "sign_magnitude", weights, conversion=Conversion(5, 128)).best(4)
    assert fine.code == ideal.code
    assert coarse.code.top < ideal.code.top
    error = coarse.error
    assert error.total == pytest.approx(np.sqrt(error.rounding**2 + error.noise**2 + error.converters**2))
    before = code_error(ideal.code, FEFET1, weights, rounded_by=FEFET1, conversion=Conversion(5, 128))
    assert error.total < before.total
    assert before.rounding == pytest.approx(ideal.error.rounding)
    assert ideal.error.converters == 0
