"""What is trained on what: from a model, its data and the options to a task."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.data import Dataset
from nvaudit.device import OperatingPoint
from nvaudit.errors import OptionError
from nvaudit.mapping.select import matching
from nvaudit.model import Split, Weight
from nvaudit.model.layout import Layout
from nvaudit.perturb.metrics import Metric, Reading, resolve_metric
from nvaudit.retrain.feed import Feed, Rows
from nvaudit.retrain.loss import settle_loss
from nvaudit.retrain.protocol import Network
from nvaudit.retrain.prune import Pruner, make_pruner
from nvaudit.retrain.quant import places
from nvaudit.retrain.spec import HardenSpec
from nvaudit.retrain.train import Task, by_sample, evaluating

if TYPE_CHECKING:
    from nvaudit.retrain.crossbar.hardware import Crossbars

_IMAGES = 256
"""Samples in one pass."""

BEST_DISTILL = 0.5
"""Share of the given model's outputs in the loss of --method best, with labels."""


@dataclass(frozen=True)
class Subject:
    """What is trained, on what, for which device.

    Attributes
    ----------
    weights : tuple of Weight
        Those on the array.
    layouts : mapping of str to Layout
        How the stored layout of each is made from its primary one.
    point : OperatingPoint
        Of the device, with its profile.
    train, val : Dataset
    train_rows, val_rows : ndarray of int
        Samples of these that are used.
    output : str
        The scored output.
    batch_axis : int
        Of that output.
    vat_points : tuple of OperatingPoint
        What ``stability-vat`` trains at.
    splits : tuple of Split
        How each weight is split over crossbars, where training goes through them.
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
    splits: tuple[Split, ...] = ()
    read: Callable[[NDArray[Any]], Reading] | None = None


def settle_task(network: Network, subject: Subject, spec: HardenSpec, device: str) -> tuple[Task, Metric]:
    """The task, its loss settled from the given model's first outputs."""
    where = places(
        subject.weights,
        subject.point.profile,
        subject.layouts,
        per_channel=spec.scale == "per_channel",
        ternary=spec.ternary,
        group_rows=None if spec.sparsity is None else spec.crossbar[0],
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
        teacher = copy.deepcopy(network)
        teacher.eval()
    return replace(bare, loss=loss, teacher=teacher), metric


def settle_crossbars(network: Network, subject: Subject, spec: HardenSpec, task: Task) -> Crossbars | None:
    """What training goes through, once the given model has been copied as a teacher."""
    how = spec.trained_through
    if how is None:
        return None
    from nvaudit.retrain.crossbar.hardware import put_in_training
    from nvaudit.retrain.executor.module import Executor

    assert isinstance(network, Executor)  # only a graph says what its products are
    return put_in_training(network, task.where, subject.splits, how, task.feed, spec.step_samples)


def begin(network: Network, spec: HardenSpec, task: Task) -> None:
    """What is done to a network before it is trained, once the given model's outputs have been kept."""
    if not spec.reset and spec.activation_bits is None:
        return
    from nvaudit.retrain.activations import round_activations
    from nvaudit.retrain.executor.module import Executor
    from nvaudit.retrain.reset import initial_values

    assert isinstance(network, Executor)  # only a graph says what its tensors are
    if spec.reset:
        network.load_values(initial_values(network.network, task.where, spec.seed))
    if spec.activation_bits is not None:
        round_activations(network, spec.activation_bits)


def settle_pruner(network: Network, subject: Subject, spec: HardenSpec, task: Task) -> Pruner | None:
    """What prunes while training, if anything is to be pruned."""
    if spec.sparsity is None:
        return None
    return make_pruner(
        network, task.where, _dense(network, subject, spec), sparsity=spec.sparsity,
        strength=spec.prune_lambda, epochs=spec.run_epochs, steps=task.feed.steps(spec.step_samples),
    )  # fmt: skip


def _dense(network: Network, subject: Subject, spec: HardenSpec) -> tuple[str, ...]:
    """Which weights are not pruned: the last one, whose groups may be whole classes, and --dense."""
    from nvaudit.retrain.executor.module import Executor
    from nvaudit.retrain.executor.order import last_weight

    keys = [weight.key for weight in subject.weights]
    found = []
    for glob in spec.dense:
        named = matching(glob, keys)
        if not named:
            raise OptionError(
                f"--dense {glob!r} matches no weight on the array; `nvaudit inspect` lists them, e.g. "
                + ", ".join(keys[:5])
            )
        found += named
    last = last_weight(network, keys) if isinstance(network, Executor) else None
    return tuple(dict.fromkeys([*found, *([] if last is None else [last])]))


def outputs_of(network: Network, feed: Feed, output: str, batch_axis: int) -> NDArray[Any]:
    """One output of a network on all samples, batch first."""
    found = []
    with evaluating(network):
        for batch in feed.in_order(_IMAGES):
            own = batch.own(network(batch.inputs)[output].movedim(batch_axis, 0))
            found.append(by_sample(own, batch).cpu().numpy())
    return np.concatenate(found)
