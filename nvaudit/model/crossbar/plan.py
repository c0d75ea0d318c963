"""How weights are split over crossbars, and what converts between them: plain data.

A column sum is counted in levels times input codes: the sum over the rows of a crossbar of the code that
the DAC puts on the row (the input itself where the DAC is ideal) times the device's conductance in level
spacings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Converter:
    """A DAC or an ADC: ``code = clip(round(value / step), low, high)``.

    Attributes
    ----------
    step : float
        Value of one code: in the input's unit for a DAC, in levels × input codes for an ADC.
    low, high : int
        Least and greatest code.
    """

    step: float
    low: int
    high: int


@dataclass(frozen=True)
class Converters:
    """The converters of one weight's crossbars; None is ideal."""

    dac: Converter | None = None
    adc: Converter | None = None


@dataclass(frozen=True)
class CellReadout:
    """How one weight lies in devices: ``w = scale · (Σ_d factors[d] · level[d] - offset)``.

    Attributes
    ----------
    factors : tuple of float
        Of each device of a weight, polarity by polarity, least significant slice first.
    offset : int
        What is subtracted digitally, in code units; 0 but for the offset encoding.
    scale : ndarray
        Weight units per code, broadcastable to the weight's primary layout.
    """

    factors: tuple[float, ...]
    offset: int
    scale: NDArray[np.float32]


@dataclass(frozen=True)
class CrossbarPlan:
    """What to split and how.

    Attributes
    ----------
    rows : int
        Rows of one crossbar.
    cells : mapping of str to CellReadout
        The weights to split, by key.
    converters : mapping of str to Converters
        By key; ideal where there are none.
    by_adding : collection of str
        Weights whose converters may round by adding (:mod:`nvaudit.model.crossbar.rounding`).
    """

    rows: int
    cells: Mapping[str, CellReadout]
    converters: Mapping[str, Converters] = field(default_factory=dict)
    by_adding: Collection[str] = ()


@dataclass(frozen=True)
class RowBlock:
    """The rows of a weight matrix that one crossbar holds.

    Attributes
    ----------
    channels : tuple of int
        First input channel and the one after the last, within a group.
    rows : tuple of int
        First row and the one after the last; a row is one position of the kernel in one channel.
    part : int
        Row blocks of one part share the scale of each output; several parts are scaled apart, then added.
    """

    channels: tuple[int, int]
    rows: tuple[int, int]
    part: int = 0

    @property
    def used(self) -> int:
        """Rows in use."""
        return self.rows[1] - self.rows[0]


@dataclass(frozen=True)
class CrossbarSplit:
    """What became of one weight.

    Attributes
    ----------
    reason : str or None
        Why it was not split; None if it was.
    blocks : tuple of RowBlock
        Row blocks of each matrix.
    groups, columns : int
        Matrices, and weight columns of each.
    inputs, sums : tuple of str
        Names of the values that go to the DACs, and of those that go to the ADCs.
    scaling : str
        What the quantisation scale is constant over: ``output``; ``input``: it also differs by input
        channel, and the inputs are multiplied by that before the DACs; ``block``: it differs between the
        parts that the rows are cut into.
    inside : bool
        Whether an operator is in the body of an If, Loop or Scan.
    by_adding : bool
        Whether its converters round by adding.
    """

    key: str
    reason: str | None = None
    blocks: tuple[RowBlock, ...] = ()
    groups: int = 0
    columns: int = 0
    inputs: tuple[str, ...] = ()
    sums: tuple[str, ...] = ()
    scaling: Literal["output", "input", "block"] = "output"
    inside: bool = False
    by_adding: bool = False


def cut_blocks(channels: int, kernel: int, rows: int, cuts: Sequence[int]) -> tuple[RowBlock, ...]:
    """As :func:`row_blocks`; no block reaches over a cut.

    Parameters
    ----------
    cuts : sequence of int
        Channels at which a new part begins, in order; without the first.

    Examples
    --------
    >>> [(block.rows, block.part) for block in cut_blocks(24, 1, 16, (20,))]
    [((0, 16), 0), ((16, 20), 0), ((20, 24), 1)]
    """
    ends = (0, *cuts, channels)
    return tuple(
        RowBlock(
            (block.channels[0] + start, block.channels[1] + start),
            (block.rows[0] + start * kernel, block.rows[1] + start * kernel),
            part,
        )
        for part, (start, stop) in enumerate(pairwise(ends))
        for block in row_blocks(stop - start, kernel, rows)
    )


def row_blocks(channels: int, kernel: int, rows: int) -> tuple[RowBlock, ...]:
    """Spread the rows of a matrix over crossbars.

    A crossbar holds whole channels where a kernel fits it; else every channel takes crossbars of its own.
    As few crossbars are used as this allows, filled evenly.

    Parameters
    ----------
    channels : int
        Input channels of one matrix.
    kernel : int
        Positions of the kernel; 1 for a matrix product.

    Examples
    --------
    >>> [block.used for block in row_blocks(64, 9, 256)]
    [216, 216, 144]
    >>> [block.rows for block in row_blocks(2, 25, 16)]
    [(0, 16), (16, 25), (25, 41), (41, 50)]
    """
    if kernel > rows:
        cuts = _even(kernel, rows)
        return tuple(
            RowBlock((c, c + 1), (c * kernel + start, c * kernel + stop))
            for c in range(channels)
            for start, stop in cuts
        )
    return tuple(
        RowBlock((start, stop), (start * kernel, stop * kernel))
        for start, stop in _even(channels, rows // kernel)
    )


def _even(count: int, most: int) -> list[tuple[int, int]]:
    """Cut a range into as few parts as possible; multiples of 16, 8 or 4 run faster where they fit."""
    size = -(-count // max(1, -(-count // most)))
    for multiple in (16, 8, 4):
        wide = -(-size // multiple) * multiple
        if size < count and wide <= most:
            size = wide
            break
    return [(start, min(start + size, count)) for start in range(0, count, max(size, 1))]
