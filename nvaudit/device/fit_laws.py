"""Which law describes programmed against measured conductances: likelihoods, and cross-validation.

What a level's devices say of a normal law is in three sums: how many, Σ d and Σ d² of the deviations d, in
level spacings. So a law is fitted and judged on the sums of crossbars, whatever their number of devices::

    log L = Σ_levels −n/2 · ln 2πσ² − (Σ d² − 2 μ Σ d + n μ²) / 2σ²

A log-normal law is the same on ln(g / target), with the density's Jacobian, −Σ ln g.

Laws are judged on crossbars that they were not fitted to. Within a family, whose laws are special cases of
the largest, the fewest parameters within one standard error of the best are taken (Breiman et al.,
Classification and Regression Trees, 1984, section 3.4.3); of the families, which are no special cases of
each other, the one with the highest likelihood, whatever its number of parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

FOLDS = 5
_STEPS, _HALVINGS = 50, 20
_GAIN = 1e-10
"""Gain of log-likelihood per device at which a fit has converged."""
LEAST = 1e-3
"""Spread, in level spacings, below which laws are not told apart: no reading resolves it."""


@dataclass(frozen=True)
class Sums:
    """Of every part of a crossbar, and level.

    Attributes
    ----------
    count, first, second : ndarray, float64, shape (part, level)
        Devices, Σ d, Σ d² of what a law is about.
    jacobian : ndarray, float64, shape (part, level)
        What is subtracted from the log-likelihood; 0 of a normal law.
    """

    count: Doubles
    first: Doubles
    second: Doubles
    jacobian: Doubles

    def added(self, parts: NDArray[np.bool_]) -> Sums:
        """Those of some parts, added up: shape (1, level)."""
        return Sums(*(one[parts].sum(axis=0, keepdims=True) for one in vars(self).values()))

    def of(self, parts: NDArray[np.bool_]) -> Sums:
        """Those of some parts."""
        return Sums(*(one[parts] for one in vars(self).values()))

    def log_likelihood(self, mean: Doubles, spread: Doubles) -> Doubles:
        """Of each part."""
        spread = np.maximum(spread, LEAST)
        square = self.second - 2 * mean * self.first + self.count * mean**2
        each = -self.count * np.log(np.sqrt(2 * np.pi) * spread) - square / (2 * spread**2) - self.jacobian
        return np.asarray(each.sum(axis=-1))


@dataclass(frozen=True)
class LawFamily:
    """A family of laws of one number of a device.

    Attributes
    ----------
    size : int
        Its parameters: of several that do equally well the one with the fewest is taken.
    at : callable
        Of the parameters and of x = level / top level: the number.
    slope : callable
        Of the same: its derivatives by the parameters, shape (level, parameter).
    start : callable
        Parameters to begin with, from x, the numbers level by level, and their weights.
    """

    name: str
    size: int
    at: Callable[[Doubles, Doubles], Doubles]
    slope: Callable[[Doubles, Doubles], Doubles]
    start: Callable[[Doubles, Doubles, Doubles], Doubles]


def _polynomial(degree: int) -> LawFamily:
    def start(x: Doubles, y: Doubles, weight: Doubles) -> Doubles:
        few = min(degree, max(int((weight > 0).sum()) - 1, 0))
        fitted = np.polynomial.polynomial.polyfit(x, y, few, w=np.sqrt(weight))
        return np.pad(fitted, (0, degree - few))

    def at(parameters: Doubles, x: Doubles) -> Doubles:
        return np.asarray(np.polynomial.polynomial.polyval(x, parameters))

    def slope(parameters: Doubles, x: Doubles) -> Doubles:
        return np.vander(x, degree + 1, increasing=True)

    name = "constant" if degree == 0 else f"polynomial of degree {degree}"
    return LawFamily(name, degree + 1, at, slope, start)


def _levels(count: int) -> LawFamily:
    return LawFamily(
        "a number for each level", count, lambda p, x: p, lambda p, x: np.eye(len(x)),
        lambda x, y, weight: y.copy(),
    )  # fmt: skip


def _saturating() -> LawFamily:
    def at(parameters: Doubles, x: Doubles) -> Doubles:
        return np.asarray(parameters[0] * -np.expm1(-x / max(parameters[1], 1e-3)))

    def slope(parameters: Doubles, x: Doubles) -> Doubles:
        amplitude, decay = parameters[0], max(parameters[1], 1e-3)
        return np.stack([-np.expm1(-x / decay), -amplitude * x / decay**2 * np.exp(-x / decay)], axis=1)

    def start(x: Doubles, y: Doubles, weight: Doubles) -> Doubles:
        # For each decay the amplitude is a regression through the origin.
        best = (np.inf, np.array([max(y.max(initial=0), LEAST), 0.5]))
        for decay in np.geomspace(0.02, 3.0, 40):
            shape = -np.expm1(-x / decay)
            amplitude = (weight * shape * y).sum() / max((weight * shape**2).sum(), 1e-30)
            left = (weight * (y - amplitude * shape) ** 2).sum()
            if left < best[0]:
                best = (left, np.array([amplitude, decay]))
        return best[1]

    return LawFamily("saturating", 2, at, slope, start)


def spread_families(levels: int | None) -> list[LawFamily]:
    """Of spreads; with a number for each level where cells have levels."""
    own = [] if levels is None else [_levels(levels)]
    degrees = [degree for degree in range(5) if levels is None or degree + 1 < levels]
    return [*(_polynomial(degree) for degree in degrees), _saturating(), *own]


def shift_families(levels: int | None) -> list[LawFamily]:
    """Of mean shifts."""
    none = LawFamily(
        "none", 0, lambda p, x: np.zeros_like(x), lambda p, x: np.zeros((len(x), 0)),
        lambda x, y, weight: np.zeros(0),
    )  # fmt: skip
    if levels is not None:
        return [none, _polynomial(0), _levels(levels)]
    return [none, *(_polynomial(degree) for degree in (0, 1, 2, 3, 5, 10))]


@dataclass(frozen=True)
class FittedLaw:
    """A law of a mean shift and one of a spread, in level spacings.

    Attributes
    ----------
    kind : str
        ``normal``, or ``lognormal`` with what it preserves.
    score, error : float
        Held-out log-likelihood per device, and the standard error of its difference to the best law's.
    """

    kind: str
    shift: LawFamily
    spread: LawFamily
    shift_parameters: Doubles
    spread_parameters: Doubles
    score: float
    error: float

    @property
    def name(self) -> str:
        """In words."""
        shift = "" if self.shift.name == "none" or self.kind != "normal" else f", shift {self.shift.name}"
        return f"{self.kind}, spread {self.spread.name}{shift}"

    @property
    def size(self) -> int:
        """Parameters."""
        return self.shift.size + self.spread.size


def _fit_spread(sums: Sums, mean: Doubles, family: LawFamily, x: Doubles) -> Doubles:
    """The parameters of the largest likelihood."""
    count = sums.count[0]
    square = sums.second[0] - 2 * mean * sums.first[0] + count * mean**2
    there = count > 1
    spread = np.sqrt(np.maximum(square / np.maximum(count, 1), LEAST**2))
    if family.name.startswith("a number"):
        return np.where(count > 0, spread, spread[there].mean() if there.any() else 1.0)
    kept, n, ss = x[there], count[there], square[there]
    return _scored(family, family.start(kept, spread[there], n), kept, n, ss)


def _scored(family: LawFamily, start: Doubles, x: Doubles, n: Doubles, ss: Doubles) -> Doubles:
    """Maximise −Σ n ln σ + ss / 2σ² over a family's parameters by Fisher scoring.

    With J the derivatives of σ, a step solves (Jᵀ diag(2n / σ²) J) δ = Jᵀ (ss / σ³ − n / σ); it is halved
    until the likelihood rises.
    """

    def loss(parameters: Doubles) -> float:
        sigma = np.maximum(family.at(parameters, x), LEAST)
        return float((n * np.log(sigma) + ss / (2 * sigma**2)).sum() / n.sum())

    parameters, best = start, loss(start)
    for _ in range(_STEPS):
        sigma = family.at(parameters, x)
        free = sigma > LEAST
        if not free.any():
            break
        s, j = sigma[free], family.slope(parameters, x)[free]
        root = np.sqrt(2 * n[free]) / s
        score = (ss[free] / s**2 - n[free]) / s
        # As least squares: the normal equations would square the condition of a polynomial's derivatives.
        step = np.linalg.lstsq(root[:, None] * j, score / root, rcond=None)[0]
        for _ in range(_HALVINGS):
            value = loss(parameters + step)
            if value < best:
                break
            step = step / 2
        else:
            break
        parameters, gained, best = parameters + step, best - value, value
        if gained < _GAIN:
            break
    return np.asarray(parameters)


def _fit_shift(sums: Sums, family: LawFamily, x: Doubles) -> Doubles:
    """Weighted least squares: the weights are those of the levels' own spreads."""
    count, mean, spread = _by_level(sums)
    there = count > 1
    if family.name.startswith("a number"):
        return np.where(count > 0, mean, 0.0)
    weight = count[there] / np.maximum(spread[there], LEAST) ** 2
    return np.asarray(family.start(x[there], mean[there], weight))


def _by_level(sums: Sums) -> tuple[Doubles, Doubles, Doubles]:
    """Count, mean and spread of each level, of the first row."""
    count = sums.count[0]
    n = np.maximum(count, 1)
    mean = sums.first[0] / n
    return count, mean, np.sqrt(np.maximum(sums.second[0] / n - mean**2, LEAST**2))


def _scores(
    sums: Sums, fit: Callable[[Sums], tuple[Doubles, Doubles]], folds: Sequence[NDArray[np.bool_]]
) -> Doubles:
    """Held-out log-likelihood, part by part."""
    scores = np.zeros(len(sums.count))
    for held in folds:
        scores[held] = sums.of(held).log_likelihood(*fit(sums.added(held if held.all() else ~held)))
    return scores


def _simplest(sizes: Sequence[int], scores: Sequence[Doubles], devices: Doubles) -> int:
    """The candidate with the fewest parameters within one standard error of the best."""
    totals, errors = [one.sum() for one in scores], _errors(scores, devices)
    best = int(np.argmax(totals))
    near = [index for index in range(len(sizes)) if totals[index] >= totals[best] - errors[index]]
    return min(near, key=lambda index: (sizes[index], -totals[index]))


def _errors(scores: Sequence[Doubles], devices: Doubles) -> list[float]:
    """Standard errors of differences to the best, of parts of so many devices.

    A part of n devices has n times the mean difference, d, by expectation: √(B / (B − 1) · Σ (dᵢ − nᵢ d)²) of
    the sum over B parts (Cochran, Sampling Techniques, 1977, section 6.3).
    """
    best, count = max(scores, key=lambda one: one.sum()), len(devices)
    errors = []
    for one in scores:
        d = one - best
        off = d - devices * (d.sum() / devices.sum())
        errors.append(float(np.sqrt(count / max(count - 1, 1) * np.square(off).sum())))
    return errors


@dataclass(frozen=True)
class _Candidate:
    """A law that may be chosen, and what it is about."""

    kind: str
    shift: LawFamily
    spread: LawFamily
    sums: Sums

    @property
    def family(self) -> str:
        """Of those laws that are special cases of one: polynomials are, of a number for each level."""
        return f"{self.kind} saturating" if self.spread.name == "saturating" else self.kind

    @property
    def size(self) -> int:
        """Parameters."""
        return self.shift.size + self.spread.size

    def fit(self, part: Sums, x: Doubles) -> tuple[Doubles, Doubles]:
        """Parameters of the shift and of the spread."""
        moved = _fit_shift(part, self.shift, x)
        mean = self.shift.at(moved, x)
        for _ in range(3 if self.kind in _MOVED else 1):
            parameters = _fit_spread(part, mean, self.spread, x)
            mean = self._mean(mean, self.spread.at(parameters, x))
        return moved, parameters

    def _mean(self, shift: Doubles, sigma: Doubles) -> Doubles:
        # Preserving the mean moves the exponent by −σ²/2 of its own quantity.
        return _MOVED[self.kind] * sigma**2 / 2 if self.kind in _MOVED else shift

    def mean_and_spread(self, part: Sums, x: Doubles) -> tuple[Doubles, Doubles]:
        """Of each level, as fitted to some parts."""
        moved, parameters = self.fit(part, x)
        sigma = self.spread.at(parameters, x)
        return self._mean(self.shift.at(moved, x), sigma), sigma


def choose_laws(
    normal: Sums,
    lognormal: Sums | None,
    x: Doubles,
    levels: int | None,
    crossbar: NDArray[np.intp],
) -> list[FittedLaw]:
    """Fit every law that profiles may hold, and order them: the chosen one first, then by score.

    Parameters
    ----------
    normal : Sums
        Of g − target, in level spacings; every part with some device.
    lognormal : Sums or None
        Of ln(g / target); None where a conductance is not positive.
    x : ndarray, float64, shape (level,)
        Level over the top level.
    levels : int or None
        Of a cell; None: analog.
    crossbar : ndarray of int, shape (part,)
        Numbers of the crossbars; parts of a lone one are judged by its others.
    """
    number = np.unique(crossbar, return_inverse=True)[1]
    number = (number if number.any() else np.arange(len(number))) % FOLDS
    # A lone part is judged on itself.
    folds = [number == fold for fold in np.unique(number)] if number.any() else [np.ones(1, np.bool_)]
    shifts = shift_families(levels)
    tried = [
        _scores(normal, lambda part, f=f: (f.at(_fit_shift(part, f, x), x), _by_level(part)[2]), folds)  # type: ignore[misc]
        for f in shifts
    ]
    devices = normal.count.sum(axis=1)
    shift = shifts[_simplest([family.size for family in shifts], tried, devices)]
    candidates = [_Candidate("normal", shift, family, normal) for family in spread_families(levels)]
    if lognormal is not None:
        candidates += [
            _Candidate(kind, shifts[0], family, lognormal)
            for kind in LOGNORMAL
            for family in spread_families(levels)
            if family.name in ("constant", "polynomial of degree 1", "a number for each level")
        ]
    scores = [
        _scores(one.sums, lambda part, one=one: one.mean_and_spread(part, x), folds)  # type: ignore[misc]
        for one in candidates
    ]
    every, total = np.ones(len(normal.count), np.bool_), float(devices.sum())
    laws = []
    for one, score, error in zip(candidates, scores, _errors(scores, devices), strict=True):
        parameters = one.fit(one.sums.added(every), x)
        per_device = float(score.sum()) / total, error / total
        laws.append(FittedLaw(one.kind, one.shift, one.spread, *parameters, *per_device))
    first = laws[_chosen(candidates, scores, devices)]
    return [first, *sorted((law for law in laws if law is not first), key=lambda law: -law.score)]


def _chosen(candidates: Sequence[_Candidate], scores: Sequence[Doubles], devices: Doubles) -> int:
    """The best of the families, each with the simplest of its laws that will do."""
    best = []
    for family in dict.fromkeys(one.family for one in candidates):
        mine = [index for index, one in enumerate(candidates) if one.family == family]
        sizes, theirs = [candidates[index].size for index in mine], [scores[index] for index in mine]
        best.append(mine[_simplest(sizes, theirs, devices)])
    return max(best, key=lambda index: float(scores[index].sum()))


_MOVED = {"lognormal, mean resistance kept": 1.0, "lognormal, mean conductance kept": -1.0}
LOGNORMAL = ("lognormal", *_MOVED)
"""Laws of ln(g / target): centred, or moved so that the mean of r or of g is the target's."""
