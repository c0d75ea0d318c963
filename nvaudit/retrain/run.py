"""From a model and its data to trained weights: the parts of a training, put together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from nvaudit.errors import OptionError
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.schedule import Progress
from nvaudit.perturb.variant import spread_evenly
from nvaudit.retrain import correctnet
from nvaudit.retrain.attempts import recipes_of, run_attempts
from nvaudit.retrain.checkpoint import CheckpointFolder
from nvaudit.retrain.device_noise import DeviceNoise, device_sigma
from nvaudit.retrain.feed import Feed, check_augment
from nvaudit.retrain.loop import Keep, TrainingPlan, TrainingState, run_epochs
from nvaudit.retrain.noise import Noise, lognormal_noise, no_noise, shaped_noise
from nvaudit.retrain.protocol import TrainableNetwork
from nvaudit.retrain.prune import Pruner
from nvaudit.retrain.quant import quantise_all, settle_ternary
from nvaudit.retrain.score import CleanLossBudget, Scorer
from nvaudit.retrain.spec import HardenSpec
from nvaudit.retrain.subject import TrainingSubject, begin, settle_crossbars, settle_pruner, settle_task
from nvaudit.retrain.train import Recipe, Task, Trainer
from nvaudit.retrain.trice import SigmaInterval
from nvaudit.retrain.vat import Judge, VatSearch

FEWEST_SAMPLES = 100
"""Validation samples that a score is taken over at least, if there are as many."""


def train_network(
    network: TrainableNetwork,
    subject: TrainingSubject,
    spec: HardenSpec,
    progress: Progress,
    checkpoints: CheckpointFolder | None = None,
    judge: Judge | None = None,
    deadline: float = math.inf,
) -> tuple[TrainingState, dict[str, Any]]:
    """Train a network as specified, in place.

    Parameters
    ----------
    network : TrainableNetwork
        With the model's own weights.
    judge : callable, optional
        Measures the roughness of the network; ``stability-vat`` needs it.
    deadline : float
        When training is to end, as ``time.perf_counter`` has it: each training then has fewer epochs, at
        least one.

    Returns
    -------
    state : TrainingState
        Of the training that is kept, with what happened in every epoch.
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
    task, metric = settle_task(network, subject, spec, device)
    task = replace(task, crossbars=settle_crossbars(network, subject, spec, task))
    noise = DeviceNoise(subject.point)
    # σ_t where the user gives none: the spread that the audited device makes of these very weights.
    own = device_sigma(subject.point, task.where, quantise_all(network, task.where))
    scorer = _scorer(task, metric, noise, subject, spec, device)
    scorer.keep_reference()
    held_out = _held_out(scorer, subject, spec, device)  # before `begin`: of the unmodified network
    begin(network, spec, task)
    budget = None if held_out is None else CleanLossBudget(held_out, spec.max_clean_loss, held_out.clean())
    plan = replace(_plan(spec, noise, own), budget=budget)
    if spec.method == "correctnet":
        where = task.where
        task = replace(task, penalty=lambda: correctnet.penalty(network, where, plan.sigma, spec.lipschitz))
        scorer.task = task
    pruner = settle_pruner(network, subject, spec, task)
    if pruner is not None:
        plan = replace(plan, since=pruner.cut)  # a network before the cut is not the compressed one

    first = recipes_of(spec)[0][1]

    def trainer(recipe: Recipe = first) -> Trainer:
        return Trainer(task, recipe, pruner, deadline)

    state, choice = _train(trainer, plan, pruner, scorer, subject, spec, progress, checkpoints, judge)
    settle_ternary(network, task.where)
    facts = _facts(task, plan, state, scorer, spec) | choice
    facts |= {
        "device_sigma": own,
        "sigma": None if plan.interval is not None or facts["candidates"] else plan.sigma,
    }
    network.to("cpu")
    network.eval()
    return state, facts


def _held_out(scorer: Scorer, subject: TrainingSubject, spec: HardenSpec, device: str) -> Scorer | None:
    """Scores of samples that are held out, where it matters what is lost without noise."""
    if spec.max_clean_loss is None and not _compares(spec):
        return None
    held_out = replace(scorer, feed=Feed(subject.val, subject.val_rows, device), _targets={})
    held_out.keep_reference()
    return held_out


def _train(
    trainer: Callable[..., Trainer],
    plan: TrainingPlan,
    pruner: Pruner | None,
    scorer: Scorer,
    subject: TrainingSubject,
    spec: HardenSpec,
    progress: Progress,
    checkpoints: CheckpointFolder | None,
    judge: Judge | None,
) -> tuple[TrainingState, dict[str, Any]]:
    """Train once, or as often as the method chooses its result from; also what it was chosen from."""
    if spec.method == "stability-vat":
        assert judge is not None
        search = VatSearch(
            trainer,
            pruner,
            scorer,
            judge,
            spec.compresses,
            progress,
            checkpoints,
            spec.vat_keep,
            trainer().deadline,
        )
        noises = {point.sigma: DeviceNoise(point) for point in subject.vat_points}
        state, candidates, kept, stages = search.run(noises)
        rows = [asdict(candidate) for candidate in candidates]
        return state, {
            "candidates": rows, "kept_candidate": kept, "kept_by": spec.vat_keep,
            "stages": [asdict(stage) for stage in stages],
        }  # fmt: skip
    if _compares(spec):
        assert plan.budget is not None
        state, attempts, tried = run_attempts(
            trainer, recipes_of(spec), plan, scorer, plan.budget, progress, checkpoints
        )
        return state, {"attempts": [asdict(attempt) for attempt in attempts], "kept_attempt": tried}
    return run_epochs(trainer(), plan, scorer, progress, checkpoints), {}


def _facts(
    task: Task, plan: TrainingPlan, state: TrainingState, scorer: Scorer, spec: HardenSpec
) -> dict[str, Any]:
    """What a training settled, for its report."""
    kept_epoch: int | None = min(spec.run_epochs, state.epoch)  # 0: the given network
    if plan.keep == "best" or state.best_epoch is not None:
        kept_epoch = state.best_epoch
    return {
        "interval": None if state.interval is None else [state.interval.start, state.interval.end],
        "loss": task.loss.description,
        "score_images": scorer.feed.count,
        "stacked": scorer.stacked,
        "keep": plan.keep,
        "kept_epoch": kept_epoch,
        "compared": state.compared,
        "max_clean_loss": spec.max_clean_loss,
        "clean_loss": state.clean_loss,
        "score_seconds": scorer.seconds,
        "crossbars": None if task.crossbars is None else task.crossbars.facts(),
        "candidates": [],
        "kept_candidate": None,
        "kept_by": None,
        "stages": [],
        "attempts": [],
        "kept_attempt": None,
    }


def _scorer(
    task: Task, metric: Metric, noise: DeviceNoise, subject: TrainingSubject, spec: HardenSpec, device: str
) -> Scorer:
    count = len(subject.val_rows)
    # One score of a candidate then costs as many inferences as one pass over the training data, so about a
    # quarter of the time of an epoch (forward, backward and score).
    wanted = spec.score_images or max(FEWEST_SAMPLES, task.feed.count // spec.train_trials)
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


def _compares(spec: HardenSpec) -> bool:
    """Whether the result is the better of the given and a trained network, at the end."""
    return spec.keeps == "better" and _begins_given(spec) and spec.run_epochs > 0


def _begins_given(spec: HardenSpec) -> bool:
    """Whether the given network could be the result."""
    return not spec.reset and not spec.compresses


def _plan(spec: HardenSpec, device_noise: DeviceNoise, own: float) -> TrainingPlan:
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
        interval = SigmaInterval(spec.trice_start, end)
        return TrainingPlan(lambda s: shaped_noise("rc", s, spec.th), sigma, interval, spec.warm, keep, given)
    return TrainingPlan(lambda s: _noise(spec, s, device_noise), sigma, None, spec.warm, keep, given)


def _noise(spec: HardenSpec, sigma: float, device_noise: DeviceNoise) -> Noise:
    method = spec.method
    if method in ("gaussian", "rc", "lc", "rt", "lt"):
        return shaped_noise(method, sigma, spec.th)
    if method == "lognormal":
        return lognormal_noise(sigma)
    if method == "best":
        return device_noise if spec.train_sigma is None else shaped_noise("gaussian", sigma, spec.th)
    return device_noise if method == "device" else no_noise
