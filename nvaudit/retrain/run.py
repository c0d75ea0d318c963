"""From a model and its data to trained weights: the parts of a training, put together."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.data import Dataset
from nvaudit.device import OperatingPoint
from nvaudit.errors import OptionError
from nvaudit.model import Split, Weight
from nvaudit.perturb.metrics import Metric, resolve_metric
from nvaudit.perturb.montecarlo import Progress
from nvaudit.perturb.variant import spread_evenly
from nvaudit.retrain import correctnet
from nvaudit.retrain.attempts import Attempt, run_attempts
from nvaudit.retrain.budget import Budget, make_budget
from nvaudit.retrain.device_noise import DeviceNoise, device_sigma
from nvaudit.retrain.feed import Feed, Rows, check_augment
from nvaudit.retrain.loop import Keep, Plan, Shelf, State, run_epochs
from nvaudit.retrain.loss import settle_loss
from nvaudit.retrain.noise import Noise, lognormal_noise, no_noise, shaped_noise
from nvaudit.retrain.protocol import Network
from nvaudit.retrain.prune import Pruner, make_pruner
from nvaudit.retrain.quant import Steps, places, quantise_all, settle_ternary
from nvaudit.retrain.recipes import recipes_of
from nvaudit.retrain.score import Scorer
from nvaudit.retrain.spec import HardenSpec
from nvaudit.retrain.train import Recipe, Task, Trainer, evaluating
from nvaudit.retrain.trice import Interval
from nvaudit.retrain.vat import Candidate, Judge, Search

if TYPE_CHECKING:
    from nvaudit.retrain.crossbar.hardware import Crossbars

FEWEST_IMAGES = 100
"""Validation samples that a score is taken over at least, if there are as many."""

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
    layouts : mapping of str to Steps
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
    """

    weights: tuple[Weight, ...]
    layouts: Mapping[str, Steps]
    point: OperatingPoint
    train: Dataset
    train_rows: Rows
    val: Dataset
    val_rows: Rows
    output: str
    batch_axis: int
    vat_points: tuple[OperatingPoint, ...] = ()
    splits: tuple[Split, ...] = ()


def train_network(
    network: Network,
    subject: Subject,
    spec: HardenSpec,
    progress: Progress,
    shelf: Shelf | None = None,
    judge: Judge | None = None,
) -> tuple[State, dict[str, Any]]:
    """Train a network as specified, in place.

    Parameters
    ----------
    network : Network
        With the model's own weights.
    subject : Subject
    spec : HardenSpec
    progress : callable
        Called with (what, done, total).
    shelf : Shelf, optional
        Where checkpoints are kept.
    judge : callable, optional
        Measures the roughness of the network; ``stability-vat`` needs it.

    Returns
    -------
    state : State
    facts : dict
        What was settled.

    Raises
    ------
    OptionError
        If options do not fit the model or its data, or training diverges.
    """
    device = "cuda" if spec.provider == "cuda" else "cpu"
    check_augment(spec.augment, subject.train)
    network.to(device)
    task, metric = _task(network, subject, spec, device)
    task = replace(task, crossbars=_crossbars(network, subject, spec, task))
    noise = DeviceNoise(subject.point)
    own = device_sigma(subject.point, task.where, quantise_all(network, task.where))
    scorer = _scorer(task, metric, noise, subject, spec, device)
    scorer.keep_reference()
    budget = _budget(scorer, subject, spec, device)
    _begin(network, spec, task)
    plan = replace(_plan(spec, noise, own), budget=budget)
    if spec.method == "correctnet":
        task = replace(
            task,
            penalty=lambda: correctnet.penalty(network, task.where, plan.sigma, spec.lipschitz),
        )
        scorer.task = task
    pruner = None if spec.sparsity is None else _pruner(network, subject, spec, task)
    if pruner is not None:
        plan = replace(plan, since=pruner.cut)
    recipes = recipes_of(spec)

    def trainer(recipe: Recipe = recipes[0][1]) -> Trainer:
        return Trainer(task, recipe, pruner)

    candidates: list[Candidate] = []
    attempts: list[Attempt] = []
    kept = tried = None
    if spec.method == "stability-vat":
        assert judge is not None
        search = Search(trainer, pruner, scorer, judge, spec.compresses, progress, shelf, spec.vat_keep)
        noises = {point.sigma: DeviceNoise(point) for point in subject.vat_points}
        state, candidates, kept = search.run(noises)
    elif _compares(spec):
        assert budget is not None
        state, attempts, tried = run_attempts(trainer, recipes, plan, scorer, budget, progress, shelf)
    else:
        state = run_epochs(trainer(), plan, scorer, progress, shelf)
    settle_ternary(network, task.where)
    facts = _facts(task, plan, state, scorer, spec) | {
        "device_sigma": own,
        "sigma": None if plan.interval is not None or candidates else plan.sigma,
        "candidates": [asdict(candidate) for candidate in candidates],
        "kept_candidate": kept,
        "kept_by": None if kept is None else spec.vat_keep,
        "attempts": [asdict(attempt) for attempt in attempts],
        "kept_attempt": tried,
    }
    network.to("cpu")
    network.eval()
    return state, facts


def _facts(task: Task, plan: Plan, state: State, scorer: Scorer, spec: HardenSpec) -> dict[str, Any]:
    """What a training settled, for its report."""
    return {
        "interval": None if state.interval is None else [state.interval.start, state.interval.end],
        "loss": task.loss.said,
        "score_images": scorer.feed.count,
        "stacked": scorer.stacked,
        "keep": plan.keep,
        "kept_epoch": _kept_epoch(plan, state, spec),
        "compared": state.compared,
        "max_clean_loss": spec.max_clean_loss,
        "clean_loss": state.clean_loss,
        "score_seconds": scorer.seconds,
        "crossbars": None if task.crossbars is None else task.crossbars.facts(),
    }


def _kept_epoch(plan: Plan, state: State, spec: HardenSpec) -> int | None:
    """The epoch that the result is of; 0: the given network."""
    if plan.keep == "best" or state.best_epoch is not None:
        return state.best_epoch
    return spec.run_epochs


def _pruner(network: Network, subject: Subject, spec: HardenSpec, task: Task) -> Pruner:
    assert spec.sparsity is not None
    return make_pruner(
        network, task.where, _dense(network, subject, spec), sparsity=spec.sparsity,
        strength=spec.prune_lambda, epochs=spec.run_epochs, steps=task.feed.steps(spec.batch_size),
    )  # fmt: skip


def _task(network: Network, subject: Subject, spec: HardenSpec, device: str) -> tuple[Task, Metric]:
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
    loss = settle_loss(output, labels, subject.train.label_kind, spec.class_axis, distill)
    metric = resolve_metric(
        spec.metric,
        output,
        None if subject.val.labels is None else np.asarray(subject.val.labels)[subject.val_rows],
        subject.val.label_kind,
        spec.class_axis,
    )
    teacher = None
    if loss.distill > 0:
        teacher = copy.deepcopy(network)
        teacher.eval()
    return replace(bare, loss=loss, teacher=teacher), metric


def _crossbars(network: Network, subject: Subject, spec: HardenSpec, task: Task) -> Crossbars | None:
    """What training goes through, once the given model has been copied as a teacher."""
    how = spec.trained_through
    if how is None:
        return None
    from nvaudit.retrain.crossbar.hardware import put_in_training
    from nvaudit.retrain.executor.module import Executor

    assert isinstance(network, Executor)  # only a graph says what its products are
    return put_in_training(network, task.where, subject.splits, how, task.feed, spec.batch_size)


def _begin(network: Network, spec: HardenSpec, task: Task) -> None:
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


def _dense(network: Network, subject: Subject, spec: HardenSpec) -> tuple[str, ...]:
    """Which weights are not pruned: the last one, whose groups may be whole classes, and --dense."""
    from nvaudit.retrain.executor.module import Executor
    from nvaudit.retrain.executor.order import last_weight

    keys = [weight.key for weight in subject.weights]
    found = []
    for glob in spec.dense:
        matching = fnmatch.filter(keys, glob)
        if not matching:
            raise OptionError(
                f"--dense {glob!r} matches no weight on the array; `nvaudit inspect` lists them, e.g. "
                + ", ".join(keys[:5])
            )
        found += matching
    last = last_weight(network, keys) if isinstance(network, Executor) else None
    return tuple(dict.fromkeys([*found, *([] if last is None else [last])]))


def outputs_of(network: Network, feed: Feed, output: str, batch_axis: int) -> NDArray[Any]:
    """One output of a network on all samples, batch first."""
    found = []
    with evaluating(network):
        for batch in feed.in_order(_IMAGES):
            found.append(np.moveaxis(network(batch.inputs)[output].cpu().numpy(), batch_axis, 0))
    return np.concatenate(found)


def _scorer(
    task: Task, metric: Metric, noise: DeviceNoise, subject: Subject, spec: HardenSpec, device: str
) -> Scorer:
    count = len(subject.val_rows)
    # One score of a candidate then costs as many inferences as one pass over the training data, so about a
    # quarter of the time of an epoch (forward, backward and score).
    wanted = spec.score_images or max(FEWEST_IMAGES, task.feed.count // spec.train_trials)
    chosen = subject.val_rows[spread_evenly(count, min(count, wanted))]
    return Scorer(
        task,
        Feed(subject.val, chosen, device),
        metric,
        noise,
        spec.train_trials,
        spec.percentile,
        spec.seed,
        stacked=None if device == "cuda" else False,
    )


def _budget(scorer: Scorer, subject: Subject, spec: HardenSpec, device: str) -> Budget | None:
    """What may be lost without noise, while the network is still the given one."""
    if spec.max_clean_loss is None and not _compares(spec):
        return None
    return make_budget(scorer, Feed(subject.val, subject.val_rows, device), spec.max_clean_loss)


def _compares(spec: HardenSpec) -> bool:
    """Whether the result is the better of the given and a trained network, at the end."""
    return spec.keeps == "better" and _begins_given(spec) and spec.run_epochs > 0


def _begins_given(spec: HardenSpec) -> bool:
    """Whether the given network could be the result."""
    return not spec.reset and not spec.compresses


def _plan(spec: HardenSpec, device_noise: DeviceNoise, own: float) -> Plan:
    """What noise is injected, and how its σ is found."""
    sigma = own if spec.train_sigma is None else spec.train_sigma
    keep: Keep = spec.keeps
    given = _begins_given(spec)
    if spec.method == "trice":
        end = 2 * own if spec.trice_end is None else spec.trice_end
        if end <= spec.trice_start:
            raise OptionError(
                f"--trice-start {spec.trice_start:g} is not below the end of the search, {end:g} (twice the "
                "spread that the device makes, in max|W|); give --trice-end or a larger --sigma"
            )
        interval = Interval(spec.trice_start, end)
        return Plan(lambda s: shaped_noise("rc", s, spec.th), sigma, interval, spec.warm, keep, given)
    return Plan(lambda s: _noise(spec, s, device_noise), sigma, None, spec.warm, keep, given)


def _noise(spec: HardenSpec, sigma: float, device_noise: DeviceNoise) -> Noise:
    method = spec.method
    if method in ("gaussian", "rc", "lc", "rt", "lt"):
        return shaped_noise(method, sigma, spec.th)
    if method == "lognormal":
        return lognormal_noise(sigma)
    if method == "best":
        return device_noise if spec.train_sigma is None else shaped_noise("gaussian", sigma, spec.th)
    return device_noise if method == "device" else no_noise
