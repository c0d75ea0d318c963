"""Pictures made of characters: a histogram with markers below its axis, and marks on a common scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.report.wording import value_text, wrap

_BLOCKS = " ▁▂▃▄▅▆▇█"
_MAX_ROWS = 5
_SCALE_COLUMNS = 60


@dataclass(frozen=True)
class Marker:
    """A value to point at below the axis."""

    value: float
    label: str


@dataclass(frozen=True)
class Bins:
    """Counts of equal bins; bin i covers [start + i·width, start + (i + 1)·width)."""

    start: float
    width: float
    counts: NDArray[np.float64]

    def column(self, value: float) -> int:
        """Bin of a value, clamped to the axis."""
        return int(min(max(math.floor((value - self.start) / self.width), 0), len(self.counts) - 1))


def bin_values(
    values: NDArray[np.float64],
    columns: int,
    step: float = 0.0,
    include: Sequence[float] = (),
    weights: NDArray[np.float64] | None = None,
) -> Bins:
    """Count values in at most ``columns`` equal bins.

    Parameters
    ----------
    values : ndarray, float64, shape (trial,)
        At least two different values.
    step : float
        Resolution of the metric (1 / images for an accuracy), 0 if it has none. A bin then holds a whole
        number of steps; otherwise some bins would hold one possible value more than their neighbours.
    include : sequence of float
        Further values that the axis shall reach.
    weights : ndarray, float64, shape (trial,), optional
        How many chips each value stands for.
    """
    weights = np.ones(len(values)) if weights is None else weights
    reach = [float(values.min()), float(values.max()), *include]
    low, high = min(reach), max(reach)
    if step > 0 and (high - low) / step < 1e9:
        first, last = round(low / step), round(high / step)
        per_bin = max(1, math.ceil((last - first + 1) / columns))
        count = math.ceil((last - first + 1) / per_bin)
        places = (np.rint(values / step).astype(np.int64) - first) // per_bin
        # Half a step aside: a possible value is in the middle of its share of the bin.
        return Bins((first - 0.5) * step, per_bin * step, _counts(places, weights, count))
    # Halves first: the span of two large numbers may not overflow.
    width = (high / columns - low / columns) or math.ulp(high)
    places = np.clip(np.floor(values / width - low / width), 0, columns - 1).astype(np.int64)
    return Bins(low, width, _counts(places, weights, columns))


def _counts(places: NDArray[np.int64], weights: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    return np.asarray(np.bincount(places, weights, minlength=columns), dtype=np.float64)


def histogram_lines(
    bins: Bins, markers: Sequence[Marker], ends: tuple[str, str], width: int | None = None
) -> list[str]:
    """Draw bins as rows of blocks above an axis, and markers below it.

    Parameters
    ----------
    markers : sequence of Marker
        Each on a line of its own, in this order.
    ends : tuple of str
        Text below the two ends of the axis.
    width : int, optional
        Columns of the axis; each bin is drawn as wide as fits.

    Returns
    -------
    list of str
        Without trailing spaces.
    """
    size = len(bins.counts)
    each = max(1, (width or size) // size)
    columns = each * size
    tallest = float(bins.counts.max())
    rows = min(_MAX_ROWS, math.ceil(tallest))
    # Eighths of a row; a bin that holds anything shows.
    eighths = np.ceil(bins.counts / tallest * rows * 8).astype(int)
    lines = []
    for row in range(rows - 1, -1, -1):
        blocks = (_BLOCKS[level] * each for level in np.clip(eighths - 8 * row, 0, 8))
        lines.append("".join(blocks).rstrip())
    lines.append("─" * columns)
    lines.append(ends[0] + ends[1].rjust(max(columns - len(ends[0]), len(ends[1]) + 1)))
    lines += [_marker_line(marker, bins, each) for marker in markers]
    return lines


def _marker_line(marker: Marker, bins: Bins, each: int) -> str:
    if marker.value < bins.start:
        return f"(left of the axis: {marker.label})"
    if marker.value > bins.start + bins.width * len(bins.counts) * (1 + 1e-12):
        return f"(right of the axis: {marker.label})"
    position, columns = bins.column(marker.value) * each + each // 2, each * len(bins.counts)
    right = " " * position + f"▲ {marker.label}"
    if len(right) <= columns or position < len(marker.label) + 1:
        return right
    return f"{marker.label} ▲".rjust(position + 1)


def scale_lines(
    rows: Sequence[tuple[str, Sequence[tuple[float, float, str]]]], unit: str, legend: str, width: int
) -> list[str]:
    """Draw rows of marks on a scale that all have in common.

    Parameters
    ----------
    rows : sequence of (str, marks)
        Names of one length, each with its marks: from where to where, and the character. Later ones stand
        before earlier ones.
    legend : str
        What the characters are.
    width : int
        Columns at hand; the scale takes at least 10.

    Returns
    -------
    list of str
        A line for each row, then the ends of the scale and the legend.
    """
    columns = max(min(_SCALE_COLUMNS, width - len(rows[0][0]) - 2), 10)
    ends = [end for _, marks in rows for first, last, _ in marks for end in (first, last)]
    low, high = min(ends), max(ends)
    # What differs by rounding alone is one point; it would be stretched over the whole scale.
    span = high - low if high - low > 1e-12 * max(abs(low), abs(high)) else math.inf
    lines = []
    for name, marks in rows:
        cells = [" "] * columns
        for *places, character in marks:
            first, last = sorted(round((place - low) / span * (columns - 1)) for place in places)
            cells[first : last + 1] = character * (last + 1 - first)
        lines.append(f"{name}  {''.join(cells)}".rstrip())
    return [*lines, *wrap(f"from {value_text(low, unit)} to {value_text(high, unit)}: {legend}", width)]
