"""Laws: each kind gives its formula, stays finite at the ends, and leaves its inputs alone."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from nvaudit.device import Law, LogDecay, OneOverF, evaluate, log_decay_at, one_over_f_factor

ADAPTER: TypeAdapter[Law] = TypeAdapter(Law)
G = np.array([0.0, 5.0, 10.0, 20.0])
LEVEL = np.array([0, 1, 2, 3])
G.flags.writeable = LEVEL.flags.writeable = False


def law_at(**spec: object) -> np.ndarray:
    with np.errstate(all="raise"):
        return evaluate(ADAPTER.validate_python(spec), level=LEVEL, g=G, g_max=20.0)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"kind": "constant", "value": 2.5}, [2.5, 2.5, 2.5, 2.5]),
        ({"kind": "levels", "values": [1, 4, 4, 1]}, [1, 4, 4, 1]),
        ({"kind": "polynomial", "coefficients": [1, 2, 4], "of": "rel"}, [1, 1.75, 3, 7]),
        ({"kind": "polynomial", "coefficients": [1, 2], "of": "g"}, [1, 11, 21, 41]),
        ({"kind": "log", "slope": 2, "intercept": 1, "of": "rel"}, 1 + 2 * np.log([1e-7, 0.25, 0.5, 1])),
        ({"kind": "power", "scale": 3, "exponent": -0.5, "of": "rel"}, [3 / 1e-7**0.5, 6, 3 * 2**0.5, 3]),
        (
            {"kind": "saturating", "amplitude": 4, "decay": 5, "of": "g"},
            4 - 4 * np.exp([0, -1.0, -2.0, -4.0]),
        ),
        (
            {
                "kind": "piecewise",
                "split": 0.5,
                "of": "rel",
                "below": {"kind": "constant", "value": -1},
                "above": {"kind": "polynomial", "coefficients": [0, 1], "of": "g"},
            },
            [-1, -1, 10, 20],
        ),
    ],
)
def test_each_law_gives_its_formula(spec: dict[str, object], expected: object) -> None:
    """Each kind of law gives the values of its formula, on read-only arrays, without a float warning."""
    np.testing.assert_allclose(law_at(**spec), expected, rtol=1e-13)


def test_the_result_is_clipped_not_the_argument() -> None:
    """`min` and `max` bound the result of the law."""
    values = law_at(kind="polynomial", coefficients=[0, 10], of="rel", min=3, max=8)
    np.testing.assert_array_equal(values, [3, 3, 5, 8])


def test_a_nested_law_is_clipped_on_its_own() -> None:
    """A bound inside a piecewise law holds for that piece only."""
    below = {"kind": "log", "slope": -1, "intercept": 0, "of": "rel", "max": 2}
    above = {"kind": "constant", "value": 9}
    np.testing.assert_allclose(
        law_at(kind="piecewise", split=0.5, of="rel", below=below, above=above)[[0, 2]], [2, 9]
    )


def test_a_steep_saturation_reaches_its_amplitude() -> None:
    """A decay far below the conductance gives the amplitude, without underflow."""
    np.testing.assert_array_equal(law_at(kind="saturating", amplitude=2, decay=1e-9, of="g"), [0, 2, 2, 2])


def test_read_growth_follows_the_published_formula() -> None:
    """The 1/f factor is sqrt(ln((t + t0 + t_r)/(2 t_r))), and 1 without 1/f noise."""
    noise = OneOverF(t0_s=20.0, t_read_s=250e-9)
    assert one_over_f_factor(noise, 3600.0) == pytest.approx(
        np.sqrt(np.log((3620 + 250e-9) / 500e-9)), rel=1e-14
    )
    assert one_over_f_factor(noise, 0.0) == pytest.approx(np.sqrt(np.log((20 + 250e-9) / 500e-9)), rel=1e-14)
    assert one_over_f_factor(None, 3600.0) == 1.0


def test_read_growth_before_the_first_read_is_nothing() -> None:
    """Where the logarithm would be negative (t = 0 and t0 = 0) there is no accumulated noise, and no NaN."""
    assert one_over_f_factor(OneOverF(t0_s=0.0, t_read_s=1e-6), 0.0) == 0.0


def test_log_decay_starts_at_one_second() -> None:
    """Nothing at t = 0; at 1 s only the constant spread; never a negative spread."""
    decay = LogDecay(kind="log_decay", mean_per_ln_s=-0.1, std_const=0.4, std_per_ln_s=0.04, unit="us")
    assert log_decay_at(decay, 0.0) == (0.0, 0.0)
    assert log_decay_at(decay, 1.0) == (0.0, 0.4)
    mean, std = log_decay_at(decay, float(np.exp(2)))
    assert (mean, std) == (pytest.approx(-0.2), pytest.approx(0.48))
    assert log_decay_at(decay, 1e-9)[1] == 0.0
