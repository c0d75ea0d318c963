"""Second moments of what layers take, H = E[x xᵀ]: what an error of the weights does to their results.

For y = Wᵀ x and an error Δ of one column of W, E[(Δᵀ x)²] = Δᵀ H Δ. Matrices with more rows than ``LARGEST``
are cut into blocks whose cross terms are left out, so that memory is bounded by rows × ``BLOCK`` numbers for
each matrix; weights are watched a few at a time, ``TOGETHER`` numbers at most.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.data import Dataset
from nvaudit.model import LoadedModel, constants
from nvaudit.model.layer_input import LayerInput, layer_inputs, with_named_states
from nvaudit.perturb.probe import probe_model
from nvaudit.rng import stream

LARGEST = 4608
"""Rows of a matrix up to which all cross terms are kept: 512 channels of a 3 × 3 kernel; 170 MB."""

BLOCK = 2048
"""Rows of a block of a larger matrix."""

TOGETHER = 1 << 27
"""Numbers that the moments watched in one pass over the samples hold together: 1 GiB."""

_POSITIONS = 1 << 14
"""Positions of a matrix that are summed up, at least; more where it has many rows."""


@dataclass(frozen=True)
class InputMoments:
    """Second moments of what the matrices of a weight take.

    Attributes
    ----------
    starts : tuple of int
        First row of each block; one block where all cross terms are kept.
    blocks : tuple of ndarray, float64, shape (matrix, row, row)
        Of each block. One matrix stands for all where these take the same.
    chance : tuple of ndarray, float64, shape (matrix,)
        Of each block: the share of its cross terms that few x would show by chance.
    positions : int
        How many x were averaged.
    """

    starts: tuple[int, ...]
    blocks: tuple[Floats, ...]
    chance: tuple[Floats, ...]
    positions: int

    def shrunk(self, matrix: int) -> list[Floats]:
        """Blocks of a matrix with cross terms smaller by what is chance, as an inverse needs them.

        Errors are pushed into directions that no x has; of few x that many rows have, most such directions
        are only not seen yet.
        """
        blocks = []
        for block, chance in zip(self.blocks, self.chance, strict=True):
            place = matrix if len(block) > 1 else 0
            power = (1 - chance[place]) * block[place]
            np.fill_diagonal(power, np.diag(block[place]))
            blocks.append(power)
        return blocks


@dataclass
class _Sums:
    """Moments while they are being added up."""

    sources: tuple[LayerInput, ...]
    starts: tuple[int, ...]
    rows: int
    total: tuple[Floats, ...] | None = None
    squares: tuple[Floats, ...] | None = None
    positions: int = 0

    def add(self, x: NDArray[np.floating], most: int, gen: np.random.Generator) -> None:
        """Add positions, shape (matrix, part, position, row); of each part ``most`` at random."""
        if x.shape[2] > most:
            x = x[:, :, np.sort(gen.choice(x.shape[2], most, replace=False))]
        # One piece in single precision, the sum of pieces in double: several times as fast, and the rounding
        # of a piece, 1e-6 of its diagonal, is far below the damping of 1e-2.
        x = np.ascontiguousarray(x.reshape(len(x), -1, self.rows), np.float32)
        ends = (*self.starts[1:], self.rows)
        parts = [x[:, :, a:b] for a, b in zip(self.starts, ends, strict=True)]
        products = tuple((part.transpose(0, 2, 1) @ part).astype(np.float64) for part in parts)
        squares = tuple(_squares_of_products(part) for part in parts)
        if self.total is None or self.squares is None:
            self.total, self.squares = products, squares
        else:
            for total, more in zip((*self.total, *self.squares), (*products, *squares), strict=True):
                total += more
        self.positions += x.shape[1]

    def moments(self) -> InputMoments | None:
        if self.total is None or self.squares is None or not self.positions:
            return None
        if not all(np.isfinite(total).all() for total in (*self.total, *self.squares)):
            return None
        blocks = tuple(total / self.positions for total in self.total)
        chance = tuple(
            _by_chance(block, squares, self.positions)
            for block, squares in zip(blocks, self.squares, strict=True)
        )
        return InputMoments(self.starts, blocks, chance, self.positions)


def _squares_of_products(x: NDArray[np.float32]) -> Floats:
    """Σ_k Σ_{i≠j} (x_ki x_kj)² of each matrix; x has the shape (matrix, position, row)."""
    squares = np.square(x, dtype=np.float64)
    return np.asarray(np.square(squares.sum(axis=2)).sum(axis=1) - np.square(squares).sum(axis=(1, 2)))


def _by_chance(block: Floats, squares: Floats, positions: int) -> Floats:
    """The λ with which (1 − λ) H_ij, i ≠ j, has the least expected squared error, of each matrix.

    λ = Σ_{i≠j} Var(H_ij) / Σ_{i≠j} H_ij² with Var(H_ij) = (mean of (x_i x_j)² − H_ij²) / n: J. Schäfer and
    K. Strimmer, *A Shrinkage Approach to Large-Scale Covariance Matrix Estimation*, Stat. Appl. Genet. Mol.
    Biol. 4 (2005), doi 10.2202/1544-6115.1175, target D.
    """
    own = np.einsum("mii->mi", block)
    cross = np.square(block).sum(axis=(1, 2)) - np.square(own).sum(axis=1)
    variance = (squares / positions - cross) / positions
    share = np.divide(variance, cross, out=np.zeros_like(cross), where=cross > 0)
    return np.asarray(np.clip(share, 0.0, 1.0), np.float64)


def input_moments(
    loaded: LoadedModel, keys: Collection[str], dataset: Dataset, images: int, seed: int, provider: str
) -> tuple[dict[str, InputMoments], dict[str, str]]:
    """Take the moments of what weights are multiplied by, on the first samples.

    Parameters
    ----------
    loaded : LoadedModel
        The model; without noise.
    keys : collection of str
        Weights.
    images : int
        Samples, at most.
    seed : int
        Decides which positions of large activations are summed up.

    Returns
    -------
    dict of str to InputMoments
    dict of str to str
        The other weights, each with the reason.
    """
    loaded = with_named_states(loaded)
    weights = {c.weight.key: c.weight for c in constants(loaded) if c.weight is not None}
    measured, refused = dict[str, InputMoments](), dict[str, str]()
    batches, held = [dict[str, _Sums]()], 0
    for key in keys:
        weight, sources = weights[key], layer_inputs(weights[key])
        if isinstance(sources, str):
            refused[key] = sources
            continue
        rows = weight.matrix.rows
        starts = (0,) if rows <= LARGEST else tuple(range(0, rows, BLOCK))
        size = weight.matrix.groups * rows * (rows if len(starts) == 1 else BLOCK)
        # A weight that is too large for the limit by itself still gets a pass of its own.
        if batches[-1] and held + size > TOGETHER:
            batches.append({})
            held = 0
        batches[-1][key] = _Sums(sources, starts, rows)
        held += size
    samples = np.arange(min(images, dataset.count))
    for sums in batches:
        _watch(loaded, sums, dataset, samples, seed, provider)
        for key, one in sums.items():
            moments = one.moments()
            if moments is None:
                refused[key] = "what it takes cannot be watched, or is not finite"
            else:
                measured[key] = moments
    return measured, refused


def _watch(
    loaded: LoadedModel,
    sums: Mapping[str, _Sums],
    dataset: Dataset,
    samples: NDArray[np.intp],
    seed: int,
    provider: str,
) -> None:
    """One pass over the samples for some weights."""
    names = {source.value for one in sums.values() for source in one.sources}
    if not names:
        return
    probe = probe_model(loaded, dataset, names, provider=provider)
    for number, (part, values) in enumerate(probe.batches(samples)):
        for key, one in sums.items():
            each = -(-max(_POSITIONS, 4 * one.rows) // len(samples))
            # A stream of its own for each batch and weight: the positions taken do not depend on which other
            # weights are watched in the same pass.
            gen = stream(seed, "positions", number, key)
            for source in one.sources:
                value = values.get(source.value)
                if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
                    most = each if source.by_sample else each * len(part)
                    for x in source.unfold(value):
                        one.add(x, most, gen)
