"""A percentile beyond the sample, in plain words."""

from __future__ import annotations

from nvaudit.report.tails import TailResult
from nvaudit.report.wording import confidence_text, count_text, interval_text, kpp_name, value_text


def tail_lines(result: TailResult, unit: str) -> list[str]:
    """Say an extrapolated percentile, or why there is none.

    Parameters
    ----------
    result : TailResult
    unit : str
        Of the metric.

    Returns
    -------
    list of str
        One or two sentences, without an indent.
    """
    name = f"{kpp_name(result.percentile)} ({_odds(result.percentile)})"
    if result.refusal is not None:
        return [f"{name}: no estimate: {result.refusal.reason}; {result.refusal.advice}"]
    if result.value is None or result.goodness is None:  # an estimate has both
        return []
    return [
        f"{name}, extrapolated: {value_text(result.value, unit)} "
        f"{interval_text(result.low, result.high, unit)}, {confidence_text(result.confidence)} confidence: "
        f"generalised Pareto law fitted to the worst {result.tail_chips} of "
        f"{count_text(result.trials, 'chip')} (goodness p = {result.goodness:.2f})",
        f"It holds if rarer chips follow the law of these: a fault that strikes less than about 1 chip in "
        f"{result.trials // 3:,} may have left no trace in this run.",
    ]


def _odds(percentile: float) -> str:
    """Say a share of the chips as odds.

    Examples
    --------
    >>> _odds(0.01), _odds(0.3)
    ('1 chip in 10,000', '1 chip in 333')
    """
    return f"1 chip in {100 / percentile:,.0f}"
