"""What is trained on what: from a model, its data and the options to a task, and to where training begins."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Rows
from nvaudit.data import Dataset
from nvaudit.device import OperatingPoint
from nvaudit.errors import OptionError
from nvaudit.mapping.select import matching
from nvaudit.model import CrossbarSplit, Weight
from nvaudit.model.graph import Network
from nvaudit.model.layout import Layout
from nvaudit.model.operators import ACTIVATION_FIRST, find_operator
from nvaudit.perturb.choose_codes import ChosenCodes
from nvaudit.perturb.metrics import Metric, Reading, resolve_metric
from nvaudit.retrain.feed import Feed
from nvaudit.retrain.loss import settle_loss
from nvaudit.retrain.protocol import TrainableNetwork
from nvaudit.retrain.prune import Pruner, make_pruner
from nvaudit.retrain.quant import ArrayPlace, places, quantise_activation
from nvaudit.retrain.spec import HardenSpec
from nvaudit.retrain.train import Task, by_sample, evaluating
from nvaudit.rng import stream

if TYPE_CHECKING:
    from nvaudit.retrain.crossbar.hardware import Crossbars
    from nvaudit.retrain.executor.module import Executor
    from nvaudit.retrain.executor.program import ProgramStep


_SAMPLES = 256
"""Samples in one pass."""

BEST_DISTILL = 0.5
"""Share of the given model's outputs in the loss of --method best, with labels."""


@dataclass(frozen=True)
class TrainingSubject:
    """What is trained, on what, for which device.

    Attributes
    ----------
    weights : tuple of Weight
        Those on the array.
    layouts : mapping of str to Layout
        How the stored layout of each is made from its primary one.
    point : OperatingPoint
        Of the device, with its profile.
    train_rows, val_rows : ndarray of int
        Samples of these that are used.
    output : str
        The scored output.
    batch_axis : int
        Of that output.
    vat_points : tuple of OperatingPoint
        What ``stability-vat`` trains at.
    splits : tuple of CrossbarSplit
        How each weight is split over crossbars, where training goes through them.
    codes : ChosenCodes or None
        Codes of the weights; None: slices.
    digital_outliers : float or None
        Share of the weights, the largest, that no device holds.
    read : callable or None
        Says what the graph proves of the scored output, given it batch first. None: the shapes decide.
    """

    weights: tuple[Weight, ...]
    layouts: Mapping[str, Layout]
    point: OperatingPoint
    train: Dataset
    train_rows: Rows
    val: Dataset
    val_rows: Rows
    output: str
    batch_axis: int
    vat_points: tuple[OperatingPoint, ...] = ()
    splits: tuple[CrossbarSplit, ...] = ()
    codes: ChosenCodes | None = None
    digital_outliers: float | None = None
    read: Callable[[NDArray[Any]], Reading] | None = None


def settle_task(
    network: TrainableNetwork, subject: TrainingSubject, spec: HardenSpec, device: str
) -> tuple[Task, Metric]:
    """The task, its loss settled from the given model's first outputs."""
    where = places(
        subject.weights,
        subject.point.profile,
        subject.layouts,
        per_channel=spec.scale == "per_channel",
        ternary=spec.ternary,
        group_rows=None if spec.sparsity is None else spec.crossbar[0],
        codes=subject.codes,
        outliers=subject.digital_outliers,
    )
    if spec.ternary and not any(place.ternary for place in where):
        raise OptionError(
            "--bits ternary: every weight on the array is stored as integers, on a grid of its own; harden "
            "the model that it was quantised from"
        )
    feed = Feed(subject.train, subject.train_rows, device)
    bare = Task(
        network, where, feed, settle_loss(np.zeros((2, 2)), None, "none", None, 1.0), subject.output,
        subject.batch_axis,
    )  # fmt: skip
    # What the outputs are (scores, logits, values, on which axis) is read off the unmodified model, as the
    # audit reads it; afterwards training may have changed what tells them apart.
    first = subject.train_rows[: min(feed.count, 16)]
    with evaluating(network):
        output = bare.scores(network, feed.take(first)).float().cpu().numpy()
    labels = None if subject.train.labels is None else np.asarray(subject.train.labels)[subject.train_rows]
    distill = spec.distill
    if distill is None and spec.method == "best" and subject.train.label_kind == "class":
        distill = BEST_DISTILL
    reading = None if subject.read is None else subject.read(output)
    loss = settle_loss(output, labels, subject.train.label_kind, spec.class_axis, distill, reading)
    metric = resolve_metric(
        spec.metric,
        output,
        None if subject.val.labels is None else np.asarray(subject.val.labels)[subject.val_rows],
        subject.val.label_kind,
        spec.class_axis,
        reading,
    )
    teacher = None
    if loss.distill > 0:
        # Copied before anything is reset, rounded or wrapped: the teacher is the model as it was given.
        teacher = copy.deepcopy(network)
        teacher.eval()
    return replace(bare, loss=loss, teacher=teacher), metric


def settle_crossbars(
    network: TrainableNetwork, subject: TrainingSubject, spec: HardenSpec, task: Task
) -> Crossbars | None:
    """What training goes through, once the given model has been copied as a teacher."""
    how = spec.trained_through
    if how is None:
        return None
    from nvaudit.retrain.crossbar.hardware import put_in_training
    from nvaudit.retrain.executor.module import Executor

    assert isinstance(network, Executor)  # only a graph says what its products are
    return put_in_training(network, task.where, subject.splits, how, task.feed, spec.step_samples)


def begin(network: TrainableNetwork, spec: HardenSpec, task: Task) -> None:
    """What is done to a network before it is trained, once the given model's outputs have been kept."""
    if not spec.reset and spec.activation_bits is None:
        return
    from nvaudit.retrain.executor.module import Executor

    assert isinstance(network, Executor)  # only a graph says what its tensors are
    if spec.reset:
        network.load_values(initial_values(network.network, task.where, spec.seed))
    if spec.activation_bits is not None:
        round_activations(network, spec.activation_bits)


def settle_pruner(
    network: TrainableNetwork, subject: TrainingSubject, spec: HardenSpec, task: Task
) -> Pruner | None:
    """What prunes while training, if anything is to be pruned."""
    if spec.sparsity is None:
        return None
    return make_pruner(
        network, task.where, _dense(network, subject, spec), sparsity=spec.sparsity,
        strength=spec.prune_lambda, epochs=spec.run_epochs, steps=task.feed.steps(spec.step_samples),
    )  # fmt: skip


def _dense(network: TrainableNetwork, subject: TrainingSubject, spec: HardenSpec) -> tuple[str, ...]:
    """Which weights are not pruned: the last one, whose groups may be whole classes, and --dense."""
    from nvaudit.retrain.executor.module import Executor

    keys = [weight.key for weight in subject.weights]
    dense = []
    for glob in spec.dense:
        named = matching(glob, keys)
        if not named:
            raise OptionError(
                f"--dense {glob!r} matches no weight on the array; `nvaudit inspect` lists them, e.g. "
                + ", ".join(keys[:5])
            )
        dense += named
    last = network.last_weight(keys) if isinstance(network, Executor) else None
    return tuple(dict.fromkeys([*dense, *([] if last is None else [last])]))


def outputs_of(network: TrainableNetwork, feed: Feed, output: str, batch_axis: int) -> NDArray[Any]:
    """One output of a network on all samples, batch first."""
    outputs = []
    with evaluating(network):
        for batch in feed.in_order(_SAMPLES):
            own = batch.own(network(batch.inputs)[output].movedim(batch_axis, 0))
            outputs.append(by_sample(own, batch).cpu().numpy())
    return np.concatenate(outputs)


_OF_BATCH_NORM = (0.0, 1.0, 0.0, 0.0, 1.0)
"""Initial values of the inputs of a BatchNormalization: scale, shift, mean, variance."""


def initial_values(
    network: Network, where: Sequence[ArrayPlace], seed: int
) -> dict[str, NDArray[np.float32]]:
    """Draw new weights.

    Weights on the array are normal with variance 2 / fan-in (He et al., ICCV 2015), biases are zero, batch
    normalisations do nothing. Other tensors, such as tables, keep their values.

    Parameters
    ----------
    network : Network
        Of the model package: its nodes and stored tensors.
    where : sequence of ArrayPlace
        Weights on the array.

    Returns
    -------
    dict of str to ndarray, float32
        By key; what is not in it stays.
    """
    stored = {one.key: one for one in network.stored}
    values = {}
    for place in where:
        if place.key in stored and place.grid is None:
            rng = stream(seed, "reset", place.key)
            spread = np.float32(math.sqrt(2 / max(1, place.fan_in)))
            values[place.key] = rng.standard_normal(stored[place.key].shape, dtype=np.float32) * spread
    for key, constant in _constants(network).items():
        values[key] = np.full(stored[key].shape, constant, np.float32)
    return values


def _constants(network: Network) -> dict[str, float]:
    """Initial value of each tensor that begins as a constant."""
    key_of = {one.name: one.key for one in network.stored}
    values = {one.key: 0.0 for one in network.stored if one.part == "bias"}
    for node in network.graph.nodes:
        if node.op_type == "BatchNormalization":
            for name, value in zip(node.inputs, _OF_BATCH_NORM, strict=False):
                if name in key_of and name != node.inputs[0]:
                    values[key_of[name]] = value
    return values


def round_activations(executor: Executor, bits: int) -> int:
    """Make an executor round the activations that enter products, in place; how many operators do so.

    An ONNX file has no place for a converter's resolution, so the audit of the result does not round
    activations; training with it makes room for the converters that will.
    """
    weights, count = executor.weight_slots(), 0

    def rounding(step: ProgramStep) -> Callable[..., Any]:
        nonlocal count
        function, inputs, *_, node = step
        operator = None if node is None or node.domain else find_operator(node.op_type)
        family = "" if operator is None or operator.decode else operator.family
        which = [0] if family in ACTIVATION_FIRST else []
        if family == "matrix product":  # either operand may be the weight
            which = [i for i, slot in enumerate(inputs) if slot not in weights]
        count += bool(which)

        def run(*given: Any) -> Any:
            rounded = list(given)
            for i in which:
                if given[i].is_floating_point():
                    rounded[i] = quantise_activation(given[i], bits)
            return function(*rounded)

        return run if which else function

    executor.replace_functions(rounding)
    return count
