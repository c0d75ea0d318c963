r"""The race of one chip: the samples after which it is sure on which side of a threshold its metric lies.

A chip's error on sample j is x_j, from 0 to 1, and its total E = Σ x_j is fixed: only the order in which
samples are looked at is random. Samples are drawn one after another without replacement, sample j of those
left with probability q_j / Σ_left q. With S the errors seen and c_j any number known beforehand (the expected
error: a control variate), Z = (x_j − c_j) Σ_left q / q_j has, given the past, the mean E − S − Σ_left c. If
E ≥ E₀ ("the chip is no better than the threshold"), that mean is at least m = E₀ − S − Σ_left c, so the
wealth Π (1 + λ (m − Z)) of a gambler who bets on better chips, λ ≥ 0 chosen beforehand at each step and small
enough to keep every factor positive, is a supermartingale: it ever reaches 1/ε with probability at most ε
(Ville). Once it has, the chip is better than the threshold, and no correction is due for looking at it after
every batch. The wealth grows with E₀: the bound holds for all thresholds at once, however they are chosen.
The other side is the same with 1 − x.

Sources: weighted sampling without replacement with bets, Shekhar, Xu, Lipton, Liang and Ramdas,
"Risk-limiting financial audits via weighted sampling without replacement", UAI 2023; betting on means of
bounded variables, Waudby-Smith and Ramdas, J. R. Stat. Soc. B 86 (2024) 1.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.perturb.difficulty import Difficulty
from nvaudit.rng import stream

_STAKES = np.array([0.99, 0.5, 0.25])
"""Shares of the largest bet that keeps every factor positive; the wealth is the mean of the gamblers'."""

RACED_SHARE = 0.7
"""Share of the samples after which a race is given up: the chip is then run on all of them, in order."""

_RULES = 2
"""Counts how samples were drawn and bet on in this and earlier versions, whose outcomes are not recalled."""

_LEAST_STEP = 8
"""Samples that a certain race looks at before it looks whether it is decided."""

_DRAWN_TOGETHER = 512
"""Samples that are drawn at a time, some of them more than once."""

_ROUNDING = 1e-9
_MOST_SHIFT, _HALVINGS = 8.0, 24

_PATIENCE = 0.3
"""Share of the samples at hand after which a race that gets nowhere is given up."""


@dataclass(frozen=True, repr=False)
class Edge:
    """A value of the metric, and the chance that a chip on the wrong side of it is let pass.

    ``decisive``: a wrong stop would falsify a result; else it only makes an interval wider.
    """

    value: float
    error: float
    decisive: bool = True

    def __repr__(self) -> str:
        # Part of a race's digest, by which records of chips know it: this text stays as it is.
        return f"Edge(value={self.value!r}, error={self.error!r}, sure={self.decisive!r})"


@dataclass(frozen=True)
class Band:
    """Values of the metric in which a chip must be known exactly.

    Attributes
    ----------
    below : tuple of Edge
        A chip is below the band if it is below each; none if no chip can be.
    above : tuple of Edge
        A chip is above the band if it is above each.
    """

    below: tuple[Edge, ...]
    above: tuple[Edge, ...]

    @property
    def low(self) -> float:
        """Smallest value in the band."""
        return min((edge.value for edge in self.below), default=-math.inf)

    @property
    def high(self) -> float:
        """Largest value in the band."""
        return max((edge.value for edge in self.above), default=math.inf)


@dataclass(frozen=True)
class RaceTask:
    """What a race must find out of a chip.

    Attributes
    ----------
    kind : str
        ``kpp`` or ``gate``, which names the random stream; ``certain`` for a :class:`CertainRace`.
    difficulty : str
        File of the :class:`Difficulty`.
    identity : int
        Of its contents.
    bands : tuple of Band
        In ascending order, apart from each other.
    most : int
        Samples after which the race is given up.
    """

    kind: str
    difficulty: str
    identity: int
    bands: tuple[Band, ...]
    most: int

    @property
    def digest(self) -> int:
        """63 bits that tell what the outcome depends on, beside the chip; never 0."""
        text = repr((_RULES, self.kind, self.identity, self.bands, self.most))
        content = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return max(1, int.from_bytes(content, "little") >> 1)


class SampleOrder:
    """Samples drawn without replacement, hard ones more often; drawn as far as they are looked at.

    Drawing with replacement and passing over what came before gives the same law as drawing, each time, one
    of those left in proportion to its weight.

    Parameters
    ----------
    most : int
        How many are wanted.
    *address : int or str
        Of the random stream.
    """

    def __init__(self, difficulty: Difficulty, most: int, seed: int, *address: int | str) -> None:
        self._sums = difficulty.sums
        self._numbers = stream(seed, "race", *address)
        self._most = min(most, len(self._sums))
        self._seen = np.zeros(len(self._sums), np.bool_)
        self._first: NDArray[np.intp] = np.empty(0, np.intp)

    def __len__(self) -> int:
        return self._most

    def __getitem__(self, span: slice) -> NDArray[np.intp]:
        start, stop, step = span.indices(self._most)
        while stop > len(self._first):
            self._draw_more()
        return self._first[start:stop:step]

    def _draw_more(self) -> None:
        # Always as many at a time: however far it is looked at, the order begins alike.
        drawn = np.searchsorted(self._sums, self._numbers.random(_DRAWN_TOGETHER), side="right")
        drawn = np.minimum(drawn, len(self._sums) - 1)  # the sums may end a little below 1
        new = drawn[~self._seen[drawn]]
        first = np.sort(np.unique(new, return_index=True)[1])
        self._seen[new] = True
        self._first = np.concatenate([self._first, new[first]])


class Race:
    """Follows one chip over its samples.

    Parameters
    ----------
    order : SampleOrder or ndarray of int, shape (step,)
    """

    def __init__(
        self, difficulty: Difficulty, order: SampleOrder | NDArray[np.intp], bands: tuple[Band, ...]
    ) -> None:
        self._count = n = len(difficulty.expected)
        self._difficulty = difficulty
        # "Above" is won by refuting E ≥ E₀ = n (1 − value). "Below" is the same game with 1 − x and 1 − c,
        # of which at least n · value are right at the edge: m and Z change their signs, and the largest Z
        # is c/q, not (1 − c)/q.
        edges = [(i, edge, 1.0) for i, band in enumerate(bands) for edge in band.above]
        edges += [(i, edge, -1.0) for i, band in enumerate(bands) for edge in band.below]
        self._bands = len(bands)
        self._gamblers = _Gamblers(
            np.array([n * (1 - edge.value) for _, edge, _ in edges]),
            np.array([side for _, _, side in edges]),
            np.array([edge.error for _, edge, _ in edges]),
            difficulty,
        )
        self._place = np.array([i if side > 0 else len(bands) + i for i, _, side in edges], np.intp)
        self._no_edge = np.setdiff1d(np.arange(2 * len(bands)), self._place)
        self.order = order
        self._seen = 0
        self._errors = self._drawn = self._foreseen = 0.0
        self.estimate = math.nan
        """Unbiased estimate of the metric from the first batch."""

    def step(self, most: int) -> int:
        """Samples to look at next: more, the longer it goes on, since each look costs about 20 of them."""
        # Of a race of T samples, steps of s cost T/s looks and s/2 samples too many: best is s ~ √T.
        return most * max(1, math.isqrt(self._seen // most))

    def see(self, errors: Floats) -> int | None:
        """Look at the next samples of the order.

        Parameters
        ----------
        errors : ndarray, float64, shape (sample,)

        Returns
        -------
        int or None
            Between which bands the chip surely lies: 0 below the first, i above the i-th; None while that is
            open.
        """
        chosen = self.order[self._seen : self._seen + len(errors)]
        expected, draw = self._difficulty.expected[chosen], self._difficulty.draw[chosen]
        drawn, self._drawn = _before(self._drawn, draw)
        left = np.maximum(1 - drawn, 1e-9)  # Σ_left q before each step; rounding of the last may reach 0
        foreseen, self._foreseen = _before(self._foreseen, expected)
        seen, self._errors = _before(self._errors, errors)
        known = seen + (self._difficulty.total - foreseen)  # S + Σ_left c
        z = (errors - expected) * left / draw
        # Each S + Σ_left c + Z has the mean E. Over a first batch of fixed length their average is
        # unbiased; over all batches it would not be, since the race stops by what it has seen.
        if self._seen == 0:
            self.estimate = float(1 - np.add.reduce(known + z) / (len(z) * self._count))
        self._gamblers.bet(known, z, left)
        self._seen += len(errors)
        progress = self._progress()
        return int(np.argmax(progress)) if progress.max() == np.inf else None

    def hopeless(self, most: int) -> bool:
        """Whether the wealth, if it goes on as so far, decides nothing within ``most`` samples."""
        # Log wealth grows about in proportion to the samples. Giving up needs no share of the error: such a
        # chip is run on every sample.
        return bool(self._seen >= _PATIENCE * most and self._progress().max() * most < self._seen)

    def _progress(self) -> Floats:
        """How much of the wanted evidence there is for each gap between bands; infinite where all is."""
        # Of each side of a band the weakest edge counts.
        weakest = np.full(2 * self._bands, np.inf)
        np.minimum.at(weakest, self._place, self._gamblers.progress)
        weakest[self._no_edge] = 0.0  # nothing can be past a side without an edge
        above, below = weakest[: self._bands], weakest[self._bands :]
        # A chip in gap i is above every band before it and below every band from i on: the least evidence
        # of them all counts, a running minimum from either end.
        above = np.minimum.accumulate(np.append(np.inf, above))
        below = np.minimum.accumulate(np.append(np.inf, below[::-1]))[::-1]
        return np.asarray(np.minimum(above, below))


class CertainRace:
    """Follows one chip, the samples that are likely wrong first, until it is below a value for certain.

    Of n samples those not looked at may all be right: with errors of E so far the metric is at most
    ``1 − E/n``. No statistics are involved, so a chip can be below, or not known to be.

    Parameters
    ----------
    bar : float
        Value of the metric.
    """

    def __init__(self, difficulty: Difficulty, bar: float) -> None:
        self.order: NDArray[np.intp] = np.argsort(-difficulty.expected, kind="stable")
        expected = difficulty.expected[self.order]
        self._logit = np.log(expected / (1 - expected))
        self._count, self._bar = len(expected), bar
        self._errors, self._seen, self._rest = 0.0, 0, float(expected.sum())

    def step(self, most: int) -> int:
        """Samples to look at next: fewer cannot decide it."""
        lacking = math.ceil(self._count * (1 - self._bar) - self._errors)
        return min(most, max(_LEAST_STEP, lacking))

    def see(self, errors: Floats) -> int | None:
        """Look at the next samples; 0 once the chip is below the value, 1 once it is not, None before."""
        self._errors += float(errors.sum())
        self._seen += len(errors)
        # Sums of errors that are no whole numbers are off by rounding.
        slack = 0.0 if self._errors.is_integer() else _ROUNDING
        if (self._count - self._errors) / self._count < self._bar - slack:
            return 0
        if self._seen == self._count and slack == 0.0:
            return 1
        self._rest = self._expected_rest()
        return None

    def hopeless(self, most: int) -> bool:
        """Whether the chip is probably not below the value; then it is left open."""
        likely = self._errors + self._rest + 2 * math.sqrt(self._rest + 1)
        return self._seen >= _LEAST_STEP and likely < self._count * (1 - self._bar)

    @property
    def estimate(self) -> float:
        """About what the metric is."""
        return 1 - (self._errors + self._rest) / self._count

    def _expected_rest(self) -> float:
        """Errors to be expected of the samples not looked at: the log odds of all move by what was seen."""
        low, high = -_MOST_SHIFT, _MOST_SHIFT
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            found = (1 / (1 + np.exp(-self._logit[: self._seen] - middle))).sum()
            low, high = (middle, high) if found < self._errors else (low, middle)
        return float((1 / (1 + np.exp(-self._logit[self._seen :] - low))).sum())


def _before(start: float, values: Floats) -> tuple[Floats, float]:
    """The sum before each value, and after the last, added in order as one long sum would be."""
    sums = np.empty(len(values) + 1)
    sums[0], sums[1:] = start, values
    np.add.accumulate(sums, out=sums)
    return sums[:-1], float(sums[-1])


class _Gamblers:
    """Wealth against "the total is at least this" of each edge, and on the other side "at most".

    Parameters
    ----------
    totals : ndarray, float64, shape (edge,)
        Errors of a chip at the edge.
    side : ndarray of float, shape (edge,)
        1: better chips are bet on; -1: worse ones.
    error : ndarray, float64, shape (edge,)
        Chance of a wrong stop.
    """

    def __init__(self, totals: Floats, side: Floats, error: Floats, difficulty: Difficulty) -> None:
        self._totals, self._side = totals[:, None], side[:, None]
        self._wanted = -np.log(error)
        self._most = np.where(side > 0, difficulty.most_right, difficulty.most_wrong)[:, None]
        self._log = np.zeros((len(totals), len(_STAKES)))
        self.progress = np.zeros(len(totals))
        """Evidence of each edge as a share of what is wanted; infinite once it is there."""

    def bet(self, known: Floats, z: Floats, left: Floats) -> None:
        """Bet on some draws: ``known`` is S + Σ_left c before each, ``left`` is Σ_left q."""
        still = np.flatnonzero(self.progress < np.inf)
        if not len(still):
            return
        side, mean = self._side[still], self._totals[still] - known
        # Z ≤ max((1 − c)/q) · left = most · left, so λ = 1 / (most · left − m) keeps 1 + λ (m − Z) ≥ 0;
        # a stake below 1 keeps it above. Known before the draw: known and left are of the past.
        # The floor of 1 only makes bets smaller, or holds where m > most · left: then no draw could
        # have that mean, E ≥ E₀ is impossible, and the wealth may grow.
        bet = side * (mean - z) / np.maximum(self._most[still] * left - side * mean, 1.0)
        logs = np.log1p(_STAKES[:, None] * bet[:, None])  # [edge, stake, draw]
        logs[:, :, 0] += self._log[still]
        np.add.accumulate(logs, axis=2, out=logs)
        self._log[still] = logs[:, :, -1]
        # The mean of the gamblers' wealths is a supermartingale as each is; once it has reached 1/ε, at
        # any step of the batch, the edge is won for good (Ville). It is no more than the best one's: only
        # where that has it need the mean be worked out.
        wanted, best = self._wanted[still], np.maximum.reduce(logs, axis=(1, 2))
        share = _mean_wealth(logs[:, :, -1]) / wanted
        for edge in np.flatnonzero(best >= wanted - _ROUNDING):
            if _mean_wealth(logs[edge].T).max() >= wanted[edge]:
                share[edge] = np.inf
        self.progress[still] = share


def _mean_wealth(logs: Floats) -> Floats:
    """Logarithm of the mean wealth of the gamblers on the last axis."""
    return np.asarray(np.logaddexp.reduce(logs, axis=-1) - math.log(len(_STAKES)))
