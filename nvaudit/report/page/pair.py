"""What stands at the top of a page about one model before and after."""

from __future__ import annotations

from nvaudit.report.document import KeyFigure
from nvaudit.report.wording import difference_text, value_text


def change_title(name: str, change: float, unit: str) -> str:
    """Say in a line what became of a number.

    Examples
    --------
    >>> change_title("KPP 1 %", 0.125, "fraction")
    'KPP 1 % raised by 12.50 points'
    >>> change_title("KPP 1 %", 0.0, "fraction")
    'KPP 1 % is what it was'
    """
    if change == 0:
        return f"{name} is what it was"
    return (
        f"{name} {'raised' if change > 0 else 'lowered'} by {difference_text(abs(change), unit).lstrip('+')}"
    )


def before_after(name: str, before: float, after: float, unit: str, *, main: bool = False) -> KeyFigure:
    """Show a number as it is now, and what it was.

    Parameters
    ----------
    name : str
    before, after : float
    unit : str
        Of the metric.
    main : bool
        Whether it is the largest.
    """
    change = difference_text(after - before, unit)
    return KeyFigure(name, value_text(after, unit), f"before: {value_text(before, unit)}; {change}", main)
