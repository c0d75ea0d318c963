"""Codes chosen for what the devices make of them: rounding that counts noise (OBQ/GPTQ with Var(q)).

The results of a matrix, y = Wᵀ x, are off by, summed over columns,

    E[(y − y*)²] = (q − w)ᵀ H (q − w) + Σ_i H_ii Var(q_i),    H = E[x xᵀ].

The errors of codes are known when the next code is chosen, and can cancel; the noise of devices is
independent and adds up. So the codes of one input after another are chosen, that of input i as

    argmin_q (q − w_i)² / U_ii² + H_ii Var(q),    H⁻¹ = Uᵀ U, U upper triangular,

and what is left of its error goes to the inputs that remain, w_j −= U_ij (w_i − q) / U_ii. Sweeps of
coordinate descent on the exact objective follow, each of which can only lower it.

The scale of a tensor is its largest weight's: that weight keeps the largest code, so that no scale moves.

References: Frantar and Alistarh, OBC (NeurIPS 2022); Frantar et al., GPTQ (ICLR 2023). The noise term is
ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.linalg

from nvaudit.arrays import Floats, Ids

DAMPING = 0.01
"""Share of the mean power that is added to every input: few samples say little of rare inputs."""

SWEEPS = 2
"""Of coordinate descent, after the first choice."""

_BLOCK = 64
"""Inputs whose errors are handed on at once."""

_STEPS = 16
"""Weights of the noise term are rounded to so many steps to the factor 2, 2 % at most: tables serve again."""


@dataclass(frozen=True)
class Levels:
    """What a weight can be programmed to, in units of its scale.

    Attributes
    ----------
    code : ndarray, int64, shape (level,)
    value : ndarray, float64, shape (level,)
        Mean of what devices hold; ascending.
    variance : ndarray, float64, shape (level,)
    """

    code: Ids
    value: Floats
    variance: Floats
    _tables: dict[int, tuple[Floats, Ids]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, code: Ids, value: Floats, variance: Floats) -> Levels:
        """Sort levels by what they hold."""
        order = np.argsort(value, kind="stable")
        return cls(code[order], value[order], variance[order])

    def choose(self, wanted: Floats, noise: float) -> Ids:
        """Index of the level that minimises (value − wanted)² + noise · variance, for each weight.

        (v − w)² + n V = w² + [v² + n V − 2 v w]: which of the lines in w is the lowest? Their lower envelope
        is the lower convex hull of the points (v, v² + n V), and its corners are where the choice changes.
        """
        step = None if noise <= 0 else round(_STEPS * math.log2(noise))
        key = -(1 << 30) if step is None else step
        if key not in self._tables:
            rounded = 0.0 if step is None else 2.0 ** (step / _STEPS)
            self._tables[key] = _lower_hull(self.value, self.value**2 + rounded * self.variance)
        corners, kept = self._tables[key]
        return kept[np.searchsorted(corners, wanted)]


def _lower_hull(x: Floats, y: Floats) -> tuple[Floats, Ids]:
    """Slopes between the corners of the lower convex hull, halved, and the corners' indices."""
    hull: list[int] = []
    for i in range(len(x)):
        # Andrew's monotone chain, over values that ascend already.
        if hull and x[i] == x[hull[-1]]:  # two codes that hold the same: the quieter one
            if y[i] >= y[hull[-1]]:
                continue
            hull.pop()
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[b]) < (y[i] - y[b]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    # Neighbouring corners cost the same, y_a − 2 v_a w = y_b − 2 v_b w, at w = (y_b − y_a) / (2 (v_b − v_a)).
    kept = np.array(hull, np.int64)
    return np.diff(y[kept]) / (2 * np.diff(x[kept])), kept


@dataclass(frozen=True)
class MatrixToRound:
    """One matrix to be rounded.

    Attributes
    ----------
    target : ndarray, float64, shape (row, column)
        Weights in units of their scale.
    held : ndarray, int64, shape (row, column)
        Index of the level that a weight keeps; −1 where it is free.
    """

    target: Floats
    held: Ids


def rounded(
    matrix: MatrixToRound,
    blocks: Sequence[Floats],
    starts: Sequence[int],
    levels: Levels,
    sweeps: int = SWEEPS,
) -> Ids:
    """Choose the levels of a matrix.

    Parameters
    ----------
    blocks : sequence of ndarray, float64, shape (row, row)
        H of each block of rows; errors stay within a block.
    starts : sequence of int
        First row of each block.
    sweeps : int
        Of coordinate descent.

    Returns
    -------
    ndarray, int64, shape (row, column)
        Indices into the levels.
    """
    ends = (*starts[1:], len(matrix.target))
    parts = []
    for power, start, end in zip(blocks, starts, ends, strict=True):
        part = MatrixToRound(matrix.target[start:end], matrix.held[start:end])
        parts.append(_block(part, damped(power), levels, sweeps))
    return np.concatenate(parts) if parts else np.empty(matrix.target.shape, np.int64)


def damped(power: Floats) -> Floats:
    """H with a share of its mean power added to the diagonal; 1 on it where nothing is ever put in."""
    mean = float(np.diag(power).mean()) if len(power) else 0.0
    return power + (DAMPING * mean if mean > 0 else 1.0) * np.eye(len(power))


def objective(matrix: MatrixToRound, chosen: Ids, power: Floats, levels: Levels) -> float:
    """Σ (q − w)ᵀ H (q − w) + Σ H_ii Var(q_i), over all columns."""
    gap = levels.value[chosen] - matrix.target
    noise = np.diag(power) @ levels.variance[chosen].sum(axis=1)
    return float(np.einsum("io,io->", gap, power @ gap) + noise)


def _block(matrix: MatrixToRound, power: Floats, levels: Levels, sweeps: int) -> Ids:
    # The inputs with most power first: their errors find the most inputs to go to.
    order = np.argsort(-np.diag(power), kind="stable")
    turned = MatrixToRound(matrix.target[order], matrix.held[order])
    power = power[np.ix_(order, order)]
    chosen = _one_by_one(turned, power, levels)
    for _ in range(sweeps):
        _sweep(turned, power, levels, chosen)
    restored = np.empty_like(chosen)
    restored[order] = chosen
    return restored


def _inverse_root(power: Floats) -> Floats:
    """U with H⁻¹ = Uᵀ U, upper triangular, without inverting H.

    H = R Rᵀ with R upper triangular, by the Cholesky factor of H with both axes reversed; then U = R⁻¹.
    """
    # J H J = L Lᵀ with J the reversal of axes; R = J L J is upper triangular, and R Rᵀ = J L Lᵀ J = H.
    lower = scipy.linalg.cholesky(power[::-1, ::-1], lower=True, check_finite=False)
    upper = np.ascontiguousarray(lower[::-1, ::-1])
    inverse, info = scipy.linalg.lapack.dtrtri(upper, lower=0)
    if info:
        raise np.linalg.LinAlgError("a triangular factor is singular")
    return np.asarray(inverse)


def _one_by_one(matrix: MatrixToRound, power: Floats, levels: Levels) -> Ids:
    """Choose the levels of one input after another, the error handed on."""
    upper, rows = _inverse_root(power), len(power)
    left = matrix.target.copy()
    chosen = np.empty(left.shape, np.int64)
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        errors = np.empty((stop - start, left.shape[1]))
        for i in range(start, stop):
            # 1/U_ii² ≤ H_ii is what an error of input i costs once later inputs make up for it. Noise cannot
            # be made up for and costs H_ii: relative to the error it weighs H_ii U_ii² ≥ 1.
            own = upper[i, i]
            chosen[i] = _settled(levels.choose(left[i], power[i, i] * own**2), matrix.held[i])
            errors[i - start] = (left[i] - levels.value[chosen[i]]) / own
            left[i + 1 : stop] -= upper[i, i + 1 : stop, None] * errors[i - start]
        # Rows beyond the block are read only once it is done: its errors reach them in one matrix product,
        # the same sums as one by one (GPTQ's lazy batch updates).
        left[stop:] -= upper[start:stop, stop:].T @ errors
    return chosen


def _settled(chosen: Ids, held: Ids) -> Ids:
    return np.where(held >= 0, held, chosen)


def _sweep(matrix: MatrixToRound, power: Floats, levels: Levels, chosen: Ids) -> None:
    """Choose every level anew, the others given: (q_i − w_i + Σ_{j≠i} H_ij Δ_j / H_ii)² + Var(q_i)."""
    rows = len(power)
    gap = levels.value[chosen] - matrix.target
    pull = power @ gap
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        own, before = pull[start:stop].copy(), gap[start:stop].copy()
        for i in range(start, stop):
            here = levels.value[chosen[i]]
            # own is (H Δ)_i with i's own share in it, so i alone would best move by −(H Δ)_i / H_ii. The
            # objective over H_ii leaves weight 1 to Var(q).
            wanted = here - own[i - start] / power[i, i]
            chosen[i] = _settled(levels.choose(wanted, 1.0), matrix.held[i])
            move = levels.value[chosen[i]] - here
            gap[i] += move
            own[i + 1 - start :] += power[i, i + 1 : stop, None] * move
        # Inside the block each move was seen at once by the rows after it; here H Δ of all rows catches up.
        pull += power[:, start:stop] @ (gap[start:stop] - before)
