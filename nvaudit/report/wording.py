"""Numbers and names in plain words, the same in every renderer."""

from __future__ import annotations

import itertools
import math
import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence

from nvaudit.report.jsontext import HIDDEN
from nvaudit.stats.kpp import KppResult

_NO_BREAK = "\N{NO-BREAK SPACE}"

LABEL_FREE_CHIPS = (
    "Label-free: there were no labels, so each chip is compared with its own unperturbed model only. It says "
    "nothing about accuracy."
)


def capitalised(text: str) -> str:
    """Begin with a capital and leave the rest as it is."""
    return f"{text[:1].upper()}{text[1:]}"


def converters_text(options: Mapping[str, object] | None) -> str:
    """Show options of converters, or that there are none.

    Examples
    --------
    >>> converters_text({"--adc-bits": 5, "--dac-bits": None, "--crossbar": (64, 32)})
    '--adc-bits 5, --crossbar 64×32'
    """
    if options is None:
        return "ideal"
    shown = {
        name: "×".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)
        for name, value in options.items()
        if value is not None
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items())


_PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}


def si_text(value: float, unit: str, digits: int = 3) -> str:
    """Show a number in an SI unit with a prefix.

    Examples
    --------
    >>> si_text(4.564e-6, "J"), si_text(0.0, "s"), si_text(1.23e-20, "Js"), si_text(65.8, "W")
    ('4.56 µJ', '0 s', '1.23e-20 Js', '65.8 W')
    """
    if not value:
        return f"0 {unit}"
    power = 3 * math.floor(math.log10(abs(value) * 1.0005) / 3)
    if power not in _PREFIXES:
        return f"{value:.{digits}g} {unit}"
    return f"{value / 10.0**power:.{digits}g} {_PREFIXES[power]}{unit}"


def si_scale(value: float, unit: str) -> tuple[float, str]:
    """Give the factor and the unit of an axis on which a number is one to three digits before the point.

    Examples
    --------
    >>> si_scale(4.5e-9, "J")
    (1000000000.0, 'nJ')
    """
    power = 3 * math.floor(math.log10(value) / 3) if value > 0 else 0
    power = min(max(power, min(_PREFIXES)), max(_PREFIXES))
    return 10.0**-power, f"{_PREFIXES[power]}{unit}"


def value_text(value: float, unit: str) -> str:
    """Show a metric value: a fraction as a percentage, anything else with five digits.

    Examples
    --------
    >>> value_text(0.97558, "fraction"), value_text(0.123456, "nats")
    ('97.56 %', '0.12346')
    """
    return f"{100 * value:.2f} %" if unit == "fraction" else f"{value:.5g}"


def limit_text(value: float, unit: str) -> str:
    """Show a threshold as the user gave it, unrounded.

    Examples
    --------
    >>> limit_text(0.29, "fraction"), limit_text(0.89955, "fraction")
    ('29 %', '89.955 %')
    """
    return f"{100 * value:.10g} %" if unit == "fraction" else f"{value:.10g}"


def difference_text(value: float, unit: str) -> str:
    """Show the difference of two metric values, with its sign.

    Examples
    --------
    >>> difference_text(-0.0125, "fraction")
    '−1.25 points'
    """
    shown = f"{100 * value:+.2f} points" if unit == "fraction" else f"{value:+.4g}"
    return "no change" if value == 0 else shown.replace("-", "−")


def amount_text(value: float, unit: str) -> str:
    """Show the size of a difference of two metric values.

    Examples
    --------
    >>> amount_text(0.0125, "fraction"), amount_text(0.0, "nats")
    ('1.25 points', '0')
    """
    return f"{100 * value:.2f} points" if unit == "fraction" else f"{value:.4g}"


def interval_text(low: float | None, high: float | None, unit: str) -> str:
    """Show an interval; a missing end is said in words.

    Examples
    --------
    >>> interval_text(None, 0.9, "fraction")
    '[no bound, 90.00 %]'
    """
    ends = ["no bound" if end is None else value_text(end, unit) for end in (low, high)]
    return f"[{ends[0]}, {ends[1]}]"


def change_interval_text(low: float | None, high: float | None, unit: str) -> str:
    """Show the interval of a difference of two metric values; a missing end is said in words.

    Examples
    --------
    >>> change_interval_text(-0.001, 0.0279, "fraction"), change_interval_text(None, None, "nats")
    ('[−0.10, +2.79] points', '[no bound, no bound]')
    """
    ends = [
        "no bound" if end is None else f"{100 * end:+.2f}" if unit == "fraction" else f"{end:+.4g}"
        for end in (low, high)
    ]
    points = " points" if unit == "fraction" and (low, high) != (None, None) else ""
    return f"[{ends[0]}, {ends[1]}]{points}".replace("-", "−")


def share_text(share: float, digits: int = 2) -> str:
    """Show a share in percent; one that is not quite 0 or all never reads as such.

    Examples
    --------
    >>> share_text(0.987), share_text(1.0), share_text(0.99999)
    ('98.70 %', '100 %', 'above 99.99 %')
    >>> share_text(0.992, 1), share_text(0.9999, 1), share_text(0.0001, 1)
    ('99.2 %', 'above 99.9 %', 'below 0.1 %')
    """
    least = 10.0 ** -(digits + 2)
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    if share > 1 - least:
        return f"above {100 - 100 * least:.{digits}f} %"
    return f"below {100 * least:.{digits}f} %" if share < least else f"{100 * share:.{digits}f} %"


def share_of_weights_text(share: float | None) -> str:
    """Say on which share of the weights converters act; empty where that is all, or not known.

    Examples
    --------
    >>> share_of_weights_text(0.5), share_of_weights_text(1.0)
    (' on 50.00 % of the mapped weights', '')
    """
    return "" if share is None or share >= 1 else f" on {share_text(share)} of the mapped weights"


SIGMA_UNITS = {
    "level": "level spacings",
    "full_scale": "of the window",
    "weight_max": "of max|W|",
    "multiplier": "times the profile's",
}
"""Units of a spread, in words that stand behind a number."""


def sigma_text(sigma: float, unit: str, level_of: str | None = None) -> str:
    """Show a sigma with its unit, and whose level spacings these are where that is not plain.

    Examples
    --------
    >>> sigma_text(0.1, "level"), sigma_text(0.1, "level", "of 2-bit cells")
    ('sigma 0.1 level spacings', 'sigma 0.1 level spacings of 2-bit cells')
    """
    return f"sigma {sigma:.10g} {SIGMA_UNITS.get(unit, unit)}" + ("" if level_of is None else f" {level_of}")


def confidence_text(confidence: float) -> str:
    """Show a confidence, unrounded."""
    return f"{100 * confidence:.10g} %"


def kpp_name(percentile: float) -> str:
    """Name a percentile, e.g. ``KPP 1 %``."""
    return f"KPP {percentile:.10g} %"


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """Show a count with its noun.

    Examples
    --------
    >>> count_text(1, "chip"), count_text(12345, "chip")
    ('1 chip', '12,345 chips')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shape_text(shape: Sequence[int]) -> str:
    """Show a shape, e.g. ``64×3×3×3``."""
    return "×".join(str(size) for size in shape) or "scalar"


def reach_text(direction: str) -> str:
    """Say what chips do that are counted by a yield, in the direction of its metric.

    Examples
    --------
    >>> reach_text("at_least"), reach_text("at_most")
    ('reach', 'stay at or below')
    """
    return "reach" if direction == "at_least" else "stay at or below"


def missing_bound_text(result: KppResult, higher_is_better: bool) -> str | None:
    """Say that an end of the interval is missing, and how many trials would give it.

    Returns
    -------
    str or None
        None if both ends are there.
    """
    worst, best = ("lower", "upper") if higher_is_better else ("upper", "lower")
    name, confidence = kpp_name(result.percentile), confidence_text(result.confidence)
    if result.worst_bound_missing:
        return (
            f"{name}: no {worst} bound: needs {count_text(result.trials_for_worst_bound, 'trial')} "
            f"(two-sided {confidence}), this run has {result.trials:,}"
        )
    if result.low is None or result.high is None:
        return (
            f"{name}: no {best} bound (two-sided {confidence}) from {count_text(result.trials, 'trial')}; "
            "use more trials"
        )
    return None


def duration_text(seconds: float) -> str:
    """Show a time on the device.

    Examples
    --------
    >>> duration_text(0.0), duration_text(86400.0), duration_text(90.0), duration_text(31557600.0)
    ('0 s', '1 d', '90 s', '1 y')
    """
    for unit, size in (("y", 31_557_600), ("y", 31_536_000), ("d", 86_400), ("h", 3600)):
        if seconds >= size and math.isclose(seconds % size, 0, abs_tol=1e-9):
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def duration_estimate(seconds: float) -> str:
    """Show an estimated time, rounded up to the two units that matter.

    Examples
    --------
    >>> [duration_estimate(seconds) for seconds in (0.2, 75, 7260, 200_000)]
    ['1 s', '1 min 15 s', '2 h 1 min', '2 d 8 h']
    """
    for (unit, size), (minor, step) in itertools.pairwise(_UNITS):
        steps = math.ceil(seconds / step)
        if steps >= size // step:
            count, rest = divmod(steps, size // step)
            return f"{count} {unit} {rest} {minor}" if rest else f"{count} {unit}"
    return f"{math.ceil(seconds)} s"


def clean(text: str) -> str:
    r"""Make text from a file safe for a terminal: one line, nothing that a terminal would act on.

    Examples
    --------
    >>> clean("conv" + chr(27) + "[2J")
    'conv\\x1b[2J'
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in HIDDEN else char
        for char in text
    )


def wrap(text: str, width: int, indent: str = "", hanging: str = "", narrowest: int = 20) -> list[str]:
    """Break a sentence into lines; a number is never parted from its ``%``.

    Parameters
    ----------
    width : int
        Columns, of whole lines.
    indent, hanging : str
        What the first and the other lines begin with.
    narrowest : int
        Lines are at least this long, however small the terminal is.
    """
    joined = re.sub(r"(?<=[\d.]) (?=%|points)", _NO_BREAK, text)
    lines = textwrap.wrap(
        joined,
        max(width, narrowest),
        initial_indent=indent,
        subsequent_indent=hanging,
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]


def roughness_text(value: float, error: float | None = None) -> str:
    """Show a roughness as the paper does, in units of 10⁻³, with its standard error if there is one.

    Examples
    --------
    >>> roughness_text(0.1724, 0.0312), roughness_text(0.1724)
    ('172.4 ± 31 ×10⁻³', '172.4 ×10⁻³')
    """
    error_text = "" if error is None else f" ± {1e3 * error:.2g}"
    return f"{1e3 * value:.4g}{error_text} ×10⁻³"


def listed_text(names: Sequence[str]) -> str:
    """Name several things in one phrase.

    Examples
    --------
    >>> listed_text(["a"]), listed_text(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def images_text(done: int, exhaustive: int) -> str:
    """Say how many images were run, of those that every chip on every image takes.

    More than these where races leave chips open, which are then run on every image, and where a run ends
    with chips that its result does not count.

    Examples
    --------
    >>> images_text(250, 1000)
    '250 of 1,000 images evaluated (25 %)'
    >>> images_text(1030, 1000)
    '1,030 images evaluated, 3 % more than every chip on every image'
    """
    if done <= exhaustive:
        return f"{done:,} of {exhaustive:,} images evaluated ({100 * done / exhaustive:.3g} %)"
    more = 100 * (done / exhaustive - 1)
    return f"{done:,} images evaluated, {more:.2g} % more than every chip on every image"


def odds(share: float) -> str:
    """Say a share of the chips as odds.

    Examples
    --------
    >>> odds(0.0001), odds(0.003)
    ('1 chip in 10,000', '1 chip in 333')
    """
    return f"1 chip in {1 / share:,.0f}"
