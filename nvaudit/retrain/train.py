"""Noise-injection training (T, Algorithm 1): gradients at the noisy weights, updates of the clean ones."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nvaudit.errors import OptionError
from nvaudit.retrain.feed import Augment, Batch, Feed, augmented
from nvaudit.retrain.loss import TrainingLoss
from nvaudit.retrain.noise import Noise, no_noise, noisy_weights, torch_generator
from nvaudit.retrain.protocol import TrainableNetwork
from nvaudit.retrain.prune import Pruner
from nvaudit.retrain.quant import ArrayPlace, find_digital, quantise_all
from nvaudit.rng import stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nvaudit.retrain.crossbar.hardware import Crossbars

Optimiser = Literal["adam", "sgd"]
Schedule = Literal["cosine", "constant"]
Snapshot = dict[str, Any]
"""Weights, statistics and the optimiser's state, copied."""

RECALIBRATION_BATCHES = 50
CALIBRATION_STEPS = 100
"""Converters are calibrated at the first step of an epoch, so that a resumed one does the same, and every so
many steps."""
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Recipe:
    """How to train, apart from the noise; the fields are options of ``nvaudit harden``."""

    epochs: int
    batch_size: int
    optimiser: Optimiser
    lr: float
    weight_decay: float
    schedule: Schedule
    clip_gradient: float | None
    clip_weights: float | None
    augment: Augment
    draws: int
    seed: int


@dataclass(frozen=True)
class Task:
    """What is trained on what.

    Attributes
    ----------
    where : tuple of ArrayPlace
        Weights on the array.
    feed : Feed
        Training samples.
    output : str
        The output that the loss reads.
    batch_axis : int
        Of that output.
    teacher : TrainableNetwork or None
        The given model, for distillation.
    penalty : callable or None
        An addition to the loss.
    crossbars : Crossbars or None
        Training and scores go through them; None: through plain products.
    """

    network: TrainableNetwork
    where: tuple[ArrayPlace, ...]
    feed: Feed
    loss: TrainingLoss
    output: str
    batch_axis: int = 0
    teacher: TrainableNetwork | None = None
    penalty: Callable[[], Tensor] | None = None
    crossbars: Crossbars | None = None

    def scores(
        self, network: TrainableNetwork, batch: Batch, weights: dict[str, Tensor] | None = None
    ) -> Tensor:
        """The output of a network, batch first."""
        # Losses, metrics and the choice of samples index the first axis; a graph may have its batch on
        # another (a sequence model: [time, batch, class]).
        output = network(batch.inputs, weights)[self.output]
        output = output.movedim(self.batch_axis, 0) if self.batch_axis else output
        return by_sample(batch.own(output), batch)

    def noisy_scores(self, batch: Batch, noise: Noise, generator: torch.Generator) -> Tensor:
        """The output of the network on one chip."""
        if self.crossbars is None:
            return self.scores(self.network, batch, noisy_weights(self.network, self.where, noise, generator))
        with self.crossbars.programmed(noise, generator) as weights:
            return self.scores(self.network, batch, weights)


def by_sample(output: Tensor, batch: Batch) -> Tensor:
    """Rows of samples and of positions in one axis, [N·T, C], apart: [N, T, C]."""
    # A model may join samples and positions (a decoder that flattens them before its last product). The rows
    # are then a multiple of the samples, sample by sample; anything else is left as it is.
    count = len(batch.rows)
    rows, rest = divmod(len(output), count)
    return output if rest or rows < 2 else output.reshape(count, rows, *output.shape[1:])


class Trainer:
    """Trains a network in place, an epoch at a time; what an epoch does depends on its number alone."""

    def __init__(
        self, task: Task, recipe: Recipe, pruner: Pruner | None = None, deadline: float = math.inf
    ) -> None:
        self.task, self.recipe, self.pruner = task, recipe, pruner
        self.deadline = deadline
        """When the epochs are to end, as ``time.perf_counter`` has it."""
        self.was_cut = False
        """Whether the last epoch ended before all its steps, for want of time."""
        self._optimiser = _optimiser(task, recipe)
        self._steps = task.feed.steps(recipe.batch_size)
        self._edges = weight_edges(task, recipe.clip_weights)

    def epoch(
        self,
        number: int,
        noise: Noise,
        on_step: Callable[[int, int], None] | None = None,
        until: float = math.inf,
    ) -> float:
        """Train one epoch.

        Parameters
        ----------
        number : int
            Of the epoch, from 0: order, augmentation, noise and learning rate follow from it.
        on_step : callable, optional
            Called with (batches done, batches of the epoch).
        until : float
            When it is to end, as ``time.perf_counter`` has it: it has then fewer steps, at least one.

        Returns
        -------
        float
            Mean loss.

        Raises
        ------
        OptionError
            If training diverges.
        """
        # All that is random in an epoch comes from its number, not from the epochs before: a training that
        # was cut off and goes on at epoch n draws what it would have drawn, and ends with the same bits.
        recipe, task = self.recipe, self.task
        if self.pruner is not None:
            self.pruner.begin(number)
        generator = torch_generator(task.feed.device, recipe.seed, "train-noise", number)
        rng = stream(recipe.seed, "augment", number)
        task.network.seed(int(stream(recipe.seed, "dropout", number).integers(2**62)))
        task.network.train()
        total, seen, self.was_cut = 0.0, 0, False
        for step, batch in enumerate(task.feed.shuffled(recipe.batch_size, recipe.seed, number)):
            self._set_rate(number * self._steps + step)
            # Weights move, and with them the column sums that the ranges of converters were set by.
            if task.crossbars is not None and step % CALIBRATION_STEPS == 0:
                task.crossbars.calibrate()
            value = self._step(augmented(batch, recipe.augment, task.feed.dataset, rng), noise, generator)
            if not math.isfinite(value):
                raise OptionError(
                    f"training diverged: the loss is {value} at step {step + 1} of epoch {number + 1}; use "
                    f"a lower --lr (now {recipe.lr:g}) or less noise"
                )
            total, seen = total + value * len(batch.rows), seen + len(batch.rows)
            if on_step is not None:
                on_step(step + 1, self._steps)
            if time.perf_counter() > until and step + 1 < self._steps:
                self.was_cut = True
                break
        return total / max(seen, 1)

    def _step(self, batch: Batch, noise: Noise, generator: torch.Generator) -> float:
        import torch

        task, draws = self.task, self.recipe.draws
        self._optimiser.zero_grad(set_to_none=True)
        teacher = None
        if task.teacher is not None:
            with torch.no_grad():
                teacher = task.scores(task.teacher, batch)
        value = 0.0
        # Gradients of several draws add up: of the mean loss over chips, at one update of the clean weights.
        for _ in range(draws):
            output = task.noisy_scores(batch, noise, generator)
            loss = task.loss(output, batch.labels, teacher) / draws
            loss.backward()  # type: ignore[no-untyped-call]
            value += float(loss.detach())
        # A penalty is of the clean weights, which no draw changes: once a step, not once a draw.
        if task.penalty is not None:
            extra = task.penalty()
            extra.backward()  # type: ignore[no-untyped-call]
            value += float(extra.detach())
        if self.recipe.clip_gradient is not None:
            torch.nn.utils.clip_grad_norm_(list(task.network.parameters()), self.recipe.clip_gradient)
        if math.isfinite(value):  # an infinite loss ends the training; the weights stay what they were
            self._optimiser.step()
        clip_weights(task, self._edges)
        if self.pruner is not None:
            self.pruner.after_step()
        return value

    def _set_rate(self, step: int) -> None:
        rate = self.recipe.lr
        if self.recipe.schedule == "cosine":
            # Half a cosine from the rate to 0 over all steps of the training; by the number of the step, so
            # that a resumed one goes on with the same rate.
            rate *= 0.5 * (1 + math.cos(math.pi * step / (self._steps * self.recipe.epochs)))
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def snapshot(self) -> Snapshot:
        """Copy weights, statistics and the optimiser's state."""
        return {
            "network": {key: value.detach().clone() for key, value in self.task.network.state_dict().items()},
            "optimiser": copy.deepcopy(self._optimiser.state_dict()),
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a copy; it can be used again."""
        # The optimiser keeps the tensors that it is given and changes them in place: so it gets a copy.
        self.task.network.load_state_dict(snapshot["network"])
        self._optimiser.load_state_dict(copy.deepcopy(snapshot["optimiser"]))


def _optimiser(task: Task, recipe: Recipe) -> torch.optim.Optimizer:
    import torch

    mapped = {place.key for place in task.where}
    weights = task.network.weights
    trained = {key: weight for key, weight in weights.items() if weight.requires_grad}
    # Decay makes sense for weights whose range sets the noise; biases and normalisations have none.
    groups = [
        {"params": [p for key, p in trained.items() if key in mapped], "weight_decay": recipe.weight_decay},
        {"params": [p for key, p in trained.items() if key not in mapped], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.lr)


def weight_edges(task: Task, limit: float | None) -> dict[str, float]:
    """Where weights are clipped: ``limit`` standard deviations of what each tensor is when training begins.

    Noise scales with max|W|, so a tensor without outliers has less of it. The edges stay: taken anew after
    every step they would follow the spread that they narrow, and at 1.5 deviations shrink a tensor to nothing
    (a uniform one reaches to 1.73). A grid of its own is left as it is.
    """
    if limit is None:
        return {}
    weights = task.network.weights
    edges = {}
    for place in task.where:
        weight = weights.get(place.key)  # a weight that is computed from others has none
        if weight is not None and weight.requires_grad and place.grid is None and weight.numel() > 1:
            edges[place.key] = limit * float(weight.detach().std())
    return edges


def clip_weights(task: Task, edges: Mapping[str, float]) -> None:
    """Clip weights at their edges, in place; those that are digital have no part in the range."""
    import torch

    with torch.no_grad():
        for place in task.where:
            edge = edges.get(place.key)
            if edge is None:
                continue
            weight = task.network.weights[place.key]
            digital = find_digital(weight, place)
            if digital is None:
                weight.clamp_(-edge, edge)
            else:
                weight.copy_(torch.where(digital, weight, weight.clamp(-edge, edge)))


def recalibrate(task: Task, recipe: Recipe, epoch: int) -> None:
    """Learn batch statistics anew with the quantised weights and no noise; weights stay.

    While training, a normalisation sees one chip a step, and its running mean is over the noise too: it is
    that of wider activations than any clean network has. What is scored and written has to run on averages
    that belong to it: plain means over :data:`RECALIBRATION_BATCHES` batches, of which the oldest counts as
    much as the newest.

    Parameters
    ----------
    epoch : int
        Chooses the samples.
    """
    if not any(True for _ in task.network.buffers()):
        return
    batches = itertools.islice(
        task.feed.shuffled(recipe.batch_size, recipe.seed, epoch), RECALIBRATION_BATCHES
    )
    # Samples as they are, not augmented ones: the file is run on such.
    inputs = (batch.inputs for batch in batches)
    if task.crossbars is not None:
        generator = torch_generator(task.feed.device, recipe.seed, "recalibration", epoch)
        with task.crossbars.programmed(no_noise, generator) as weights:
            task.network.recalibrate(inputs, weights)
        return
    grids = quantise_all(task.network, task.where)
    task.network.recalibrate(inputs, {key: grid.values for key, grid in grids.items()})


@contextlib.contextmanager
def evaluating(network: TrainableNetwork) -> Iterator[None]:
    """Stored statistics, no gradients."""
    import torch

    network.eval()
    with torch.no_grad():
        yield
