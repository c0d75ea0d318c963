"""The use case: which tensor, noise term or class the loss comes from, on the audit's own chips.

Every variant of a chip (only one tensor noisy, all but one, …) draws from the same streams as the chip of the
audit, so differences are paired: what the chips have in common cancels.
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.errors import OptionError
from nvaudit.perturb.engine import QUANTISED
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.montecarlo import VariantRunner
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.stop import DEFAULT_S, Stop
from nvaudit.perturb.variant import WHOLE, Variant, acting_terms, spread_evenly
from nvaudit.perturb.workers import Pool
from nvaudit.report.attribution.result import (
    AttributionDetail,
    Basis,
    ClassAttribution,
    NoiseAttribution,
    VariantScores,
    class_attribution,
    noise_attribution,
)
from nvaudit.report.sections import TimeBox
from nvaudit.report.wording import count_text, duration_estimate, sigma_text
from nvaudit.session import Session

PARTS = ("tensors", "terms", "classes")
CHIPS = 100
"""Chips of each variant without ``--attribution-trials``."""

FEWEST_CHIPS = 20
"""The default is never lower, however large the model is."""

INFERENCES = 1_000_000
"""About how many inferences the default number of images leads to."""

FEWEST_IMAGES = 200
"""The default is never lower: below it a few images decide the order."""

_TIMED_IMAGES = 50
"""Images go down to this in a time of the user's in which not even ``FEWEST_CHIPS`` chips could be done."""


@dataclass(frozen=True)
class Ask:
    """What is asked.

    Attributes
    ----------
    parts : tuple of str
        Some of ``tensors``, ``terms``, ``classes``, or ``all``.
    trials : int, optional
        Chips of each variant: the first of the audit.
    images : int, optional
        Images of each chip, spread evenly over the set.
    """

    parts: tuple[str, ...]
    trials: int | None = None
    images: int | None = None


@dataclass(frozen=True)
class TableVariants:
    """One table to make: what it is of, and per name the variants "only this" and "all but this"."""

    kind: Literal["tensors", "terms"]
    variants: Mapping[str, tuple[Variant, Variant]]
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttributionPlan:
    """What an attribution will run; made before the audit, so that it is refused before hours of work.

    Attributes
    ----------
    point : int
        The operating point: of a sweep the one with the largest sigma.
    images : int
        For tensors and terms.
    class_images : int or None
        None: no table of classes.
    notes : tuple of str
        What will not be attributed, and why.
    """

    point: int
    chips: int
    images: int
    splits: tuple[TableVariants, ...]
    class_images: int | None
    notes: tuple[str, ...] = ()

    @property
    def split_images(self) -> int:
        """Inferences of a chip for the tables of tensors and terms."""
        return len(self.variants) * self.images

    @property
    def images_a_chip(self) -> int:
        """Inferences of a chip, all tables together."""
        return self.split_images + (self.class_images or 0)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Variants to run for the splits, each once, the whole chip first."""
        if not self.splits:
            return ()
        pairs = (pair for split in self.splits for pair in split.variants.values())
        return tuple(dict.fromkeys((WHOLE, *(variant for pair in pairs for variant in pair))))


def attribution_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Read what ``--attribute`` was given.

    Raises
    ------
    OptionError
        If a name is unknown.

    Examples
    --------
    >>> attribution_parts(["terms", "tensors"]), attribution_parts(["all"])
    (('tensors', 'terms'), ('tensors', 'terms', 'classes'))
    """
    for name in names:
        if name not in (*PARTS, "all"):
            near = difflib.get_close_matches(name, (*PARTS, "all"), n=1)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(PARTS)} or all"
            raise OptionError(f"--attribute {name!r}: there is no such attribution; {hint}")
    return PARTS if "all" in names else tuple(part for part in PARTS if part in names)


def plan_attribution(session: Session, ask: Ask) -> AttributionPlan:
    """Settle what an attribution runs.

    Raises
    ------
    OptionError
        If a name is unknown, or classes are asked of data without one class label per sample.
    """
    parts, spec, count = attribution_parts(ask.parts), session.spec, session.dataset.count
    for option, given in (("trials", ask.trials), ("images", ask.images)):
        if given is not None and given < 1:
            raise OptionError(f"--attribution-{option} {given}: use a whole number, 1 or more")
    sigmas = [point.sigma for point in session.points]
    # Where noise is largest, its parts stand out most from the chance of few chips.
    point = sigmas.index(max(sigmas))
    notes: list[str] = []
    splits = [_split_tensors(session, notes)] if "tensors" in parts else []
    splits += [_split_terms(session, point, notes)] if "terms" in parts else []
    made = tuple(split for split in splits if split is not None)
    chips = min(CHIPS, spec.trials) if ask.trials is None else ask.trials
    plan = AttributionPlan(point, chips, count, made, None)
    by_class = "classes" in parts and _has_classes(session, "all" in ask.parts, notes)
    return AttributionPlan(
        point=point,
        chips=chips,
        images=_images(ask.images, session, chips * len(plan.variants)),
        splits=made,
        class_images=_images(ask.images, session, chips) if by_class else None,
        notes=tuple(notes),
    )


def _images(asked: int | None, session: Session, runs: int) -> int:
    count = session.dataset.count
    if session.dataset.together:  # a part of such a set gives other outputs
        return count
    if asked is not None:
        return min(asked, count)
    return min(count, max(FEWEST_IMAGES, INFERENCES // max(runs, 1)))


def _split_tensors(session: Session, notes: list[str]) -> TableVariants | None:
    # A tensor of zeros carries no noise.
    tensors = {i: t.key for i, t in enumerate(session.workload.tensors) if t.peak_code}
    if len(tensors) < 2:
        what = f"only {next(iter(tensors.values()))} has noise" if tensors else "no tensor has noise"
        notes.append(f"by tensor: {what}, so there is nothing to tell apart")
        return None
    # "Only this one" and "all but this one": the two differ where tensors' effects do not add up, and the
    # report shows both.
    every = frozenset(tensors)
    return TableVariants(
        "tensors",
        {key: (Variant(frozenset({i})), Variant(every - {i})) for i, key in tensors.items()},
    )


def _split_terms(session: Session, point: int, notes: list[str]) -> TableVariants | None:
    at = session.points[point]
    terms = acting_terms(at, (tensor.array for tensor in session.workload.tensors))
    if len(terms) < 2:
        what = f"only {terms[0]!r} acts" if terms else "no noise term acts"
        where = f"{sigma_text(at.sigma, at.sigma_unit)}, time {at.time_s:g} s"
        notes.append(f"by noise term: at {where} {what}, so there is nothing to tell apart")
        return None
    every = frozenset(terms)
    return TableVariants(
        "terms",
        {name: (Variant(terms=frozenset({name})), Variant(terms=every - {name})) for name in terms},
        kept=tuple(term.name for term in at.terms if term.limits),
    )


def _has_classes(session: Session, optional: bool, notes: list[str]) -> bool:
    dataset = session.dataset
    if dataset.label_kind != "class" or dataset.labels is None:
        reason = "the data have no class labels"
    elif dataset.labels[:1].size != 1:
        reason = (
            f"the labels have {dataset.labels[:1].size} positions per sample, and it needs one class each"
        )
    else:
        return True
    if not optional:
        raise OptionError(f"--attribute classes: {reason}; leave it out, or give labelled --data")
    notes.append(f"by class: {reason}")
    return False


def run_attribution(
    plan: AttributionPlan,
    session: Session,
    pool: Pool,
    metric: Metric,
    progress: Progress = quiet,
    stop: Stop | None = None,
    chip_s: float = 0.0,
) -> AttributionDetail | None:
    """Run the chips of an attribution.

    Parameters
    ----------
    pool : Pool
        Open; the nominal outputs are kept already if the metric needs them.
    progress : callable
        Told (what, done, total); what says how much there is to do.
    stop : Stop, optional
        Ends it early: it is then of the chips of which all variants are done, at least of one.
    chip_s : float
        Seconds of a chip on all samples in one worker; 0: not known.

    Returns
    -------
    AttributionDetail or None
        The same whatever the number of workers; None where there is no time for one chip.
    """
    stop, begin = Stop() if stop is None else stop, time.perf_counter()
    fitting = _within_time(plan, session, chip_s / max(pool.width, 1), stop)
    if fitting is None:
        return None
    plan = fitting
    runner = VariantRunner(pool, metric, session.reference_file(metric), plan.point, progress, stop)
    with session.timed("attribution"):
        left_s, share = stop.left_s, plan.split_images / max(plan.images_a_chip, 1)
        if math.isfinite(left_s):  # the classes have their share
            stop.end_in(share * left_s)
        tables = {table.kind: table for table in _run_splits(plan, session, runner)}
        if math.isfinite(left_s):
            stop.end_in(begin + left_s - time.perf_counter())
        classes = _run_classes(plan, session, runner)
    notes = plan.notes
    made = [table.chips for table in (*tables.values(), classes) if table is not None]
    minutes = session.spec.max_minutes
    if minutes is not None and made and min(made) < plan.chips:
        done, spent = min(made), session.timing["attribution"] / 60
        box = TimeBox(
            minutes=minutes,
            done=done,
            wanted=plan.chips,
            whole_minutes=minutes + spent * (plan.chips / done - 1),
        )
        notes = (*notes, f"attribution: {box.text}")
    if plan.class_images is not None and metric.corpus:
        notes = (*notes, f"by class: {metric.name} has one value for all samples together")
    return AttributionDetail(
        tensors=tables.get("tensors"), terms=tables.get("terms"), classes=classes, notes=notes
    )


def _within_time(
    plan: AttributionPlan, session: Session, chip_s: float, stop: Stop
) -> AttributionPlan | None:
    """Take fewer chips of a large model where the user has said nothing of their number, and say so.

    In a time that the user gives, fewer images where few chips could be done; None where not even one could.
    """
    spec, image_s = session.spec, chip_s / session.dataset.count
    each = image_s * plan.images_a_chip
    if spec.max_minutes is not None:
        return _in_minutes(plan, session, image_s, stop)
    if any(given is not None for given in (spec.attribution_trials, spec.attribution_images)):
        return plan
    chips = max(FEWEST_CHIPS, int(DEFAULT_S / max(each, 1e-9)))
    if plan.chips * each <= DEFAULT_S or chips >= plan.chips:
        return plan
    note = (
        f"{count_text(chips, 'chip')} instead of {plan.chips}, which would take about "
        f"{duration_estimate(plan.chips * each)} (these: {duration_estimate(chips * each)}); "
        f"--attribution-trials {plan.chips} asks for all"
    )
    return replace(plan, chips=chips, notes=(*plan.notes, note))


def _in_minutes(
    plan: AttributionPlan, session: Session, image_s: float, stop: Stop
) -> AttributionPlan | None:
    """Take fewer images of each chip where the time is too short for a few chips."""
    each, images = image_s * plan.images_a_chip, plan.images
    few = min(plan.chips, FEWEST_CHIPS)
    free = session.spec.attribution_images is None and not session.dataset.together
    if few * each > stop.left_s and free and plan.splits:
        fitting = int(images * stop.left_s / (few * each))
        images = min(images, max(_TIMED_IMAGES, fitting))
        note = f"{images} images of each chip instead of {plan.images}, for the time that there was"
        notes = plan.notes if images == plan.images else (*plan.notes, note)
        plan = replace(plan, images=images, notes=notes)
    return None if image_s * plan.images_a_chip > stop.left_s else plan


@dataclass
class _Tally:
    """What is known of a variant: each chip's metric, and the sum of the chips' scores of each image."""

    chips: list[float] = field(default_factory=list)
    images: Floats | float = 0.0

    def add(self, scores: Floats) -> None:
        self.chips.append(float(scores.mean()))
        self.images = self.images + scores

    def measured(self) -> VariantScores:
        return VariantScores(np.array(self.chips), np.asarray(self.images) / len(self.chips))


def _run_splits(plan: AttributionPlan, session: Session, runner: VariantRunner) -> Iterator[NoiseAttribution]:
    """Tables of tensors and terms."""
    images, variants = plan.images, plan.variants
    if not variants:
        return
    calls: list[tuple[int | None, Variant]] = [(QUANTISED, WHOLE)]
    # Chip by chip, so that a run that is ended early has whole chips.
    calls += [(trial, variant) for trial in range(plan.chips) for variant in variants]
    what = f"attribution: {len(variants)} variants × {plan.chips} chips × {images} images"
    results = runner.scores(what, calls, images, least=1 + len(variants), group=len(variants))
    quantised = next(results)
    tallies = {variant: _Tally() for variant in variants}
    # What is left over of a chip that was cut off is dropped: a table compares the same chips.
    while len(chip := tuple(islice(results, len(variants)))) == len(variants):
        for variant, scores in zip(variants, chip, strict=True):
            tallies[variant].add(scores)
    chips = len(tallies[WHOLE].chips)
    measured = {variant: tally.measured() for variant, tally in tallies.items()}
    for split in plan.splits:
        parts = {name: (measured[only], measured[rest]) for name, (only, rest) in split.variants.items()}
        own = {WHOLE, *(variant for pair in split.variants.values() for variant in pair)}
        basis = _basis(plan, session, runner.metric, images, len(own) * chips + 1)
        yield noise_attribution(split.kind, basis, quantised, measured[WHOLE], parts, split.kept)


def _run_classes(plan: AttributionPlan, session: Session, runner: VariantRunner) -> ClassAttribution | None:
    """Table of classes."""
    images, labels = plan.class_images, session.dataset.labels
    if images is None or labels is None:
        return None
    if runner.metric.corpus:
        return None
    chosen = labels[spread_evenly(session.dataset.count, images)].reshape(-1)
    # A score is by the share of labelled samples (see `over_set`), so that the mean is the metric.
    kept = ~np.isin(chosen, session.dataset.ignored)
    share = kept.mean() if runner.metric.ignore else 1.0
    classes, place, counts = np.unique(chosen[kept], return_inverse=True, return_counts=True)
    calls: list[tuple[int | None, Variant]] = [(None, WHOLE), (QUANTISED, WHOLE)]
    calls += [(trial, WHOLE) for trial in range(plan.chips)]
    what = f"attribution by class: {plan.chips} chips × {images} images"
    rows = [
        np.bincount(place, scores[kept] * share, minlength=len(classes)) / counts
        for scores in runner.scores(what, calls, images, least=3)
    ]
    basis = _basis(plan, session, runner.metric, images, len(rows))
    return class_attribution(basis, classes, counts, rows[0], rows[1], np.array(rows[2:]))


def _basis(plan: AttributionPlan, session: Session, metric: Metric, images: int, runs: int) -> Basis:
    at = session.points[plan.point]
    return Basis(
        images=images,
        inferences=images * runs,
        sigma=at.sigma,
        sigma_unit=at.sigma_unit,
        percentiles=session.spec.percentiles,
        confidence=session.spec.confidence,
        higher_is_better=metric.higher_is_better,
    )
