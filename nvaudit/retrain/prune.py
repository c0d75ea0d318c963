"""Group pruning with the clipped penalty of the stability paper (S-3, S-4).

A group is what one crossbar holds of one output, and a group of zeros needs no devices. While groups are
being chosen ``λ Σ_l Σ_i min(‖W_li‖₂, δ_l)`` with ``δ_l = α_l · mean_i ‖W_li‖₂`` is minimised beside the
loss: it pulls groups below δ to zero and leaves those above it alone. α_l follows from the sparsity: the
groups below δ are those that would be cut, and their share grows to the target epoch by epoch. Then they are
cut, and the rest is trained on.

The penalty's gradient acts beside the optimiser's, as weight decay does in AdamW: Adam would divide it by the
size of the loss's gradient. λ is counted so that with 1 a group as large as the mean goes to zero within the
epochs before the cut, unless the loss holds it.

A group is cut if all its weights are exactly zero. Nothing else remembers it, so networks that are trained
side by side, checkpoints and the written file need no more than the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nvaudit.errors import OptionError
from nvaudit.retrain.protocol import TrainableNetwork
from nvaudit.retrain.quant import ArrayPlace, Groups, Quantised

if TYPE_CHECKING:
    from torch import Tensor

CUT_AT = 0.5
"""Share of the epochs after which groups are cut."""

_ROUNDING = 1e-9


def group_norms(weight: Tensor, groups: Groups) -> Tensor:
    """Norm ‖W_i‖₂ of every group; where it is zero, so is its gradient.

    Parameters
    ----------
    weight : Tensor
        In the layout of ``groups``.

    Returns
    -------
    Tensor, shape (count,)
    """
    import torch

    # The derivative of √s is infinite at 0. Of a group that has been cut the root of 1 is taken instead and
    # multiplied by 0: `where` alone would still send 0 · ∞ = NaN back.
    square = weight.new_zeros(groups.count).index_add(0, _index(weight, groups), weight.reshape(-1).square())
    positive = square > 0
    return torch.where(positive, square, torch.ones_like(square)).sqrt() * positive


def _index(like: Tensor, groups: Groups) -> Tensor:
    import torch

    return torch.from_numpy(groups.number.reshape(-1)).to(like.device)


def with_devices(place: ArrayPlace, weight: Quantised) -> Tensor | None:
    """1 where a weight has devices, 0 in groups of zeros and where it is digital; None where every one has.

    Parameters
    ----------
    weight : Quantised
        On its grid.

    Returns
    -------
    Tensor or None
        In the shape and type of its codes.
    """
    groups, code = place.groups, weight.code
    digital = None if weight.digital is None else (~weight.digital).to(code.dtype)
    if groups is None or code.numel() == 0:
        return digital
    index = _index(code, groups)
    # By codes, not by trained weights: a group whose weights all round to 0 needs no devices either.
    used = code.new_zeros(groups.count).index_add_(0, index, code.reshape(-1).abs()) > 0
    if bool(used.all()):
        return digital
    there = used[index].reshape(code.shape).to(code.dtype)
    return there if digital is None else there * digital


def clipped_penalty(weights: Sequence[tuple[Tensor, Groups]], alphas: Sequence[float]) -> Tensor:
    """``Σ_l Σ_i min(‖W_li‖₂, α_l · mean_i ‖W_li‖₂)`` (S-3, S-4, without λ).

    Parameters
    ----------
    weights : sequence of (Tensor, Groups)
        One for each layer l.
    alphas : sequence of float
        They scale the thresholds, through which no gradient flows: groups above them are left alone.

    Returns
    -------
    Tensor, 0-d
    """
    import torch

    total = weights[0][0].new_zeros(())
    for (weight, groups), alpha in zip(weights, alphas, strict=True):
        norms = group_norms(weight, groups)
        limit = alpha * norms.detach().mean()
        total = total + torch.where(norms < limit, norms, limit).sum()
    return total


@dataclass(frozen=True)
class PrunableLayer:
    """What is known of a layer's groups when some are chosen.

    Attributes
    ----------
    norms : ndarray, float64
        ‖W_i‖₂ of every group.
    sizes : ndarray of int
        Weights of every group.
    """

    norms: NDArray[np.float64]
    sizes: NDArray[np.int64]

    @property
    def stays(self) -> int:
        """The group that is never cut: the largest one."""
        return int(self.norms.argmax())

    @property
    def scores(self) -> NDArray[np.float64]:
        """``‖W_i‖² / Σ_j ‖W_j‖²`` over the groups j that are as large or larger: 1 for the largest.

        So layers of few groups lose few, and none is lost as a whole.

        References
        ----------
        J. Lee et al., *Layer-adaptive sparsity for the magnitude-based pruning*, ICLR 2021 (LAMP).
        """
        order = np.argsort(self.norms, kind="stable")
        square = self.norms[order] ** 2
        rest = np.cumsum(square[::-1])[::-1]
        scores = np.empty(len(order))
        scores[order] = np.divide(square, rest, out=np.zeros(len(order)), where=rest > 0)
        return scores

    def alpha(self, count: int) -> float:
        """α below which, against the mean, ``count`` norms lie; 0 for none."""
        mean = self.norms.mean()
        if count == 0 or mean == 0:
            return 0.0
        # Halfway between the last group that goes and the first that stays, so that no rounding of the mean
        # moves one across δ.
        order = np.sort(self.norms) / mean
        below, above = float(order[count - 1]), float(order[min(count, len(order) - 1)])
        return (below + above) / 2 if above > below else math.nextafter(below, math.inf)


def choose_groups(layers: Sequence[PrunableLayer], wanted: float) -> list[NDArray[np.bool_]]:
    """Choose groups to cut, by ascending score, until enough weights are gone.

    Parameters
    ----------
    wanted : float
        Weights that the chosen groups must hold at least.

    Returns
    -------
    list of ndarray of bool
        Groups of each layer. Of every layer the largest group stays.

    Examples
    --------
    >>> choose_groups([PrunableLayer(np.array([1.0, 3.0, 8.0]), np.array([4, 4, 2]))], 5)
    [array([ True,  True, False])]
    """
    rows = sorted(
        (float(score), number, group)
        for number, layer in enumerate(layers)
        for group, score in enumerate(layer.scores)
        if group != layer.stays
    )
    # The least count whose sizes add up to `wanted`: the first place where the running sum is not below it.
    # The allowance keeps a rounding of share · weights from asking for one group more.
    sizes = [int(layers[number].sizes[group]) for _, number, group in rows]
    count = int(np.searchsorted(np.cumsum(sizes), wanted - _ROUNDING)) + 1 if wanted > _ROUNDING else 0
    chosen = [np.zeros(len(layer.norms), np.bool_) for layer in layers]
    for _, number, group in rows[:count]:
        chosen[number][group] = True
    return chosen


@dataclass
class Pruner:
    """Prunes a network while it is trained.

    Attributes
    ----------
    places : tuple of ArrayPlace
        Weights whose groups may be cut.
    weights : int
        Of all weights on the array: the sparsity is a share of these.
    strength : float
        λ of the penalty.
    cut : int
        The epoch, from 0, at whose beginning groups are cut.
    """

    network: TrainableNetwork
    places: tuple[ArrayPlace, ...]
    weights: int
    sparsity: float
    strength: float
    cut: int
    steps: int
    _alphas: list[float] = field(default_factory=list)
    _rates: list[float] = field(default_factory=list)
    _masks: dict[str, Tensor] = field(default_factory=dict)

    def begin(self, epoch: int) -> None:
        """Prepare an epoch; what this does depends on its number and the weights alone."""
        import torch

        self._masks, self._alphas, self._rates = {}, [], []
        if epoch < self.cut:
            layers = self._layers()
            # δ rises with the share that would be cut by now, so that groups are pulled one after another,
            # and each may still prove itself against the loss before the cut makes it final.
            chosen = choose_groups(layers, self.sparsity * (epoch + 1) / self.cut * self.weights)
            self._alphas = [layer.alpha(int(gone.sum())) for layer, gone in zip(layers, chosen, strict=True)]
            # λ = 1 moves a group by its mean norm within the steps before the cut: rate = mean / steps.
            each = self.strength / (self.cut * self.steps)
            self._rates = [each * float(layer.norms.mean()) for layer in layers]
            return
        if epoch == self.cut:
            self.cut_groups()
        with torch.no_grad():
            for place, weight, groups in self._weights():
                alive = group_norms(weight, groups) > 0
                self._masks[place.key] = alive[_index(weight, groups)].reshape(weight.shape).to(weight.dtype)

    def cut_groups(self) -> None:
        """Set groups to zero, as many as the sparsity asks for."""
        import torch

        # Cutting a network again that has been cut changes nothing: groups of zeros score 0 and are chosen
        # first, and they already hold as many weights as are wanted.
        chosen = choose_groups(self._layers(), self.sparsity * self.weights)
        with torch.no_grad():
            for (_, weight, groups), gone in zip(self._weights(), chosen, strict=True):
                stay = torch.from_numpy(~gone).to(weight.device)[_index(weight, groups)]
                weight.mul_(stay.reshape(weight.shape))

    def after_step(self) -> None:
        """Pull groups to zero by a step along the penalty's gradient, or keep at zero what was cut."""
        import torch

        weights = self.network.weights
        if self._alphas:
            self._pull()
        # After every step, not once at the cut: straight-through gradients still reach weights at 0, and the
        # momentum of the steps before the cut would move them even without.
        with torch.no_grad():
            for key, mask in self._masks.items():
                weights[key].mul_(mask)

    def _pull(self) -> None:
        import torch

        pairs = [(weight, groups) for _, weight, groups in self._weights()]
        parameters = [weight for weight, _ in pairs]
        grads = torch.autograd.grad(clipped_penalty(pairs, self._alphas), parameters)
        with torch.no_grad():
            for (weight, groups), grad, rate in zip(pairs, grads, self._rates, strict=True):
                # The gradient of a norm has length 1: a group shorter than the step ends at zero, not beyond.
                length = group_norms(weight, groups).clamp(min=1e-30)
                step = length.clamp(max=rate)[_index(weight, groups)].reshape(weight.shape)
                weight.sub_(step * grad)

    def most(self) -> int:
        """Weights that can be cut."""
        return sum(int(layer.sizes.sum() - layer.sizes[layer.stays]) for layer in self._layers())

    def _weights(self) -> list[tuple[ArrayPlace, Tensor, Groups]]:
        weights = self.network.weights
        return [
            (place, weights[place.key], place.groups) for place in self.places if place.groups is not None
        ]

    def _layers(self) -> list[PrunableLayer]:
        import torch

        with torch.no_grad():
            return [
                PrunableLayer(
                    group_norms(weight, groups).double().cpu().numpy(),
                    np.bincount(groups.number.reshape(-1), minlength=groups.count),
                )
                for _, weight, groups in self._weights()
            ]


def make_pruner(
    network: TrainableNetwork,
    where: Sequence[ArrayPlace],
    dense: Sequence[str],
    *,
    sparsity: float,
    strength: float,
    epochs: int,
    steps: int,
) -> Pruner:
    """Prepare pruning.

    Parameters
    ----------
    where : sequence of ArrayPlace
        All weights on the array, with their groups.
    dense : sequence of str
        Keys of weights that stay whole.
    sparsity : float
        Share of the weights on the array.
    strength : float
        λ.
    epochs, steps : int
        Of the training, and of an epoch.

    Raises
    ------
    OptionError
        If so many weights cannot be cut.
    """
    weights = network.weights
    places = tuple(
        place
        for place in where
        if place.key not in dense
        and place.groups is not None
        and place.groups.count > 1
        and place.key in weights
        and weights[place.key].requires_grad
    )
    clean = network.clean([place.key for place in where])
    total = sum(clean[place.key].numel() for place in where)
    pruner = Pruner(network, places, total, sparsity, strength, math.floor(CUT_AT * epochs), steps)
    most = pruner.most()
    if most < sparsity * total - _ROUNDING:
        raise OptionError(
            f"--sparsity {sparsity:g}: only {math.floor(1000 * most / max(total, 1)) / 1000:g} of the "
            "weights on the array lie in groups that may go (one group of each tensor stays, and all of "
            f"{', '.join(dense) or 'no tensor'}); use less, fewer --dense, or a --crossbar of fewer rows"
        )
    return pruner
