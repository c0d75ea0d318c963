"""A metric: how a batch of outputs becomes a score for each sample.

How outputs are read is settled beforehand, in :mod:`nvaudit.perturb.metrics`; scores are averaged over
positions (pixels, time steps).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Array
from nvaudit.data.ragged import rows_of
from nvaudit.data.spec import LabelPlaces
from nvaudit.data.store import row_slices
from nvaudit.errors import DataError, ModelError, OptionError
from nvaudit.perturb.own_metric import as_scores, load_metric, run_own
from nvaudit.perturb.text import distances, greedy_ctc, lengths

Scores = NDArray[np.float64]

GATHER_BYTES = 1 << 20
"""Outputs are scored in pieces of about this size."""

SMALLEST = float(np.finfo(np.float32).tiny)
"""Least probability in a logarithm."""


@dataclass(frozen=True)
class Reading:
    """What is known of the scored output and of the labels beside their shapes.

    Attributes
    ----------
    output : str
        Name of the output.
    decisions : bool
        The output holds class numbers.
    ranked_axis : int or None
        Of decisions: the axis along which classes are ranked, the best first.
    class_axis : int or None
        Axis of class scores or channels that the graph proves, in a batch-first output.
    scores : bool
        What lies there are class scores.
    ranked : bool
        The output holds the largest scores in order, without saying whose they are.
    ignore : tuple of int
        Labels that stand for "not labelled".
    sorted_names : int or None
        Labels are so many class names, numbered in sorted order.
    one_hot_axis : int or None
        Of decisions: the axis along which the class that was decided has the largest number.
    alphabet : tuple of str
        What each class of a text stands for, as it was given; empty: it is not known.
    alphabet_of : str
        Where it is from.
    boxes : bool
        The output holds boxes that were read from a detector's outputs.
    places : LabelPlaces or None
        Where the labels stand, for messages.
    """

    output: str = ""
    decisions: bool = False
    ranked_axis: int | None = None
    class_axis: int | None = None
    scores: bool = False
    ranked: bool = False
    ignore: tuple[int, ...] = ()
    sorted_names: int | None = None
    one_hot_axis: int | None = None
    alphabet: tuple[str, ...] = ()
    alphabet_of: str = ""
    boxes: bool = False
    places: LabelPlaces | None = None

    @property
    def labels_in(self) -> LabelPlaces:
        """Where the labels stand; for labels without a file the name alone."""
        return self.places or LabelPlaces("")


@dataclass(frozen=True)
class Metric:
    """How outputs become scores; small enough to travel with every task.

    Attributes
    ----------
    name : str
        As the user named it: ``top1``, ``top5``, ``cross_entropy``, ``mse``, ``agreement``, ``multilabel``,
        ``cer``, ``map``, …, or a ``module:function``.
    kind : str
        Which rule scores a batch.
    k : int
        Of top-k.
    class_axis : int or None
        Axis of the class scores in a batch-first output; None for a single score column or no classes.
    scale : str
        ``logit`` or ``probability``: how scores are read by cross-entropy and by a single column.
    unit : str
        ``fraction``, ``nats``, ``squared error`` or ``score``.
    against : str
        ``labels`` or ``nominal`` (the unmodified model's outputs).
    assumed : tuple of str
        What was read into the shapes, in plain words.
    decided : bool
        The output holds class numbers; ``class_axis`` is then the axis along which they are ranked.
    ignore : tuple of int
        Labels whose positions are not scored.
    positions : float or None
        With ``ignore``: scored positions of a sample, mean over the set (:func:`over_set`).
    uneven : bool
        Samples have different numbers of scored positions, so a score may exceed 1.
    row : tuple of int or None
        Shape of a sample's output; another one cannot be scored.
    caution : str
        What a reader must know before the numbers; stands in the headline.
    corpus : bool
        It has one value for a whole set and none for a sample (:mod:`nvaudit.perturb.corpus`).
    several : bool
        Labels are 0 or 1 for each output.
    alphabet : tuple of str
        What each class stands for, where outputs are texts.
    label_kind : str
        Of the labels, as in a dataset.
    """

    name: str
    kind: Literal[
        "top_k", "cross_entropy", "mse", "agreement", "multilabel", "function",
        "error_rate", "confusion", "perplexity", "boxes",
    ]  # fmt: skip
    k: int = 1
    class_axis: int | None = None
    scale: Literal["logit", "probability"] = "logit"
    higher_is_better: bool = True
    unit: str = "fraction"
    against: Literal["labels", "nominal"] = "labels"
    assumed: tuple[str, ...] = ()
    decided: bool = False
    ignore: tuple[int, ...] = ()
    positions: float | None = None
    uneven: bool = False
    row: tuple[int, ...] | None = None
    caution: str = ""
    corpus: bool = False
    several: bool = False
    alphabet: tuple[str, ...] = ()
    label_kind: str = "class"

    @property
    def by_length(self) -> bool:
        """Whether a score depends on what the other samples are: by their numbers of positions."""
        return bool(self.ignore) or self.kind == "error_rate"


def labelled(metric: Metric, labels: Array) -> NDArray[np.bool_]:
    """Which labels are scored: not those that stand for "not labelled"."""
    return np.asarray(~np.isin(labels, metric.ignore))


def over_set(metric: Metric, labels: Array | None, called: str = "labels y") -> Metric:
    """Scale a metric for the set that it is averaged over.

    A score is the sum over a sample's labelled positions by their mean number in the set, so that the mean
    over samples is the mean over all labelled positions.

    Parameters
    ----------
    labels : ndarray or None, sample first
        Of the set, or of the part of it that is used.
    called : str
        What messages call them.

    Returns
    -------
    Metric
        The same one where no positions are left out.

    Raises
    ------
    DataError
        If nothing in the set is labelled.
    """
    if not metric.by_length or labels is None:
        return metric
    if metric.kind == "error_rate":
        total = float(lengths(labels, words=metric.name == "wer").sum())
        if total == 0:
            raise DataError(
                f"{called}: all of the {len(labels)} texts are empty, so there is nothing to read"
            )
        return replace(metric, positions=total / len(labels))
    kept = sum(int(labelled(metric, np.asarray(labels[part])).sum()) for part in row_slices(labels))
    if kept == 0:
        raise DataError(
            f"{called}: all of the {len(labels)} samples used are labelled "
            f"{' or '.join(map(str, metric.ignore))}, which stands for no label; give samples with labels"
        )
    return replace(metric, positions=kept / len(labels))


def reference_of(metric: Metric, output: Array) -> Array:
    """What must be kept of the nominal outputs for a metric ``against="nominal"``."""
    return decision_of(metric, output) if metric.kind == "agreement" else output


def score(metric: Metric, output: Array, target: Array | None) -> Scores:
    """Score a batch.

    Parameters
    ----------
    target : ndarray or None, batch first
        Labels, targets, or what :func:`reference_of` kept.

    Returns
    -------
    ndarray, float64, shape (batch,)
        A sample whose scores are not numbers counts as wrong.

    Raises
    ------
    OptionError
        If the user's own metric fails.
    """
    if metric.kind == "function":
        return _call(metric, output, target)
    assert target is not None
    assert metric.kind not in ("confusion", "boxes")  # which have no score of a sample
    if metric.kind == "error_rate":
        assert metric.positions is not None
        read = greedy_ctc(decision_of(metric, output), metric.alphabet)
        return distances(read, target, words=metric.name == "wer") / metric.positions
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no finite number, and refused
        return _score(metric, output, target)


def _score(metric: Metric, output: Array, target: Array) -> Scores:
    kept = None
    if metric.ignore:
        kept = labelled(metric, target)
        target = np.where(kept, target, 0)
    per_position: Array
    if metric.kind == "mse":
        per_position = np.square(output.astype(np.float64) - target.reshape(output.shape))
    elif metric.kind in ("cross_entropy", "perplexity"):
        per_position = _cross_entropy(metric, output, target)
    elif metric.kind == "agreement" and metric.against == "labels":  # with stored outputs
        per_position = _right(metric, output, decision_of(metric, target))
    else:
        per_position = _right(metric, output, target)
    flat = per_position.reshape(len(output), -1)
    if kept is None:
        return np.asarray(flat.mean(axis=1, dtype=np.float64))
    assert metric.positions is not None
    total = np.where(kept.reshape(flat.shape), flat, 0).sum(axis=1, dtype=np.float64)
    return np.asarray(total / metric.positions)


def check_row(metric: Metric, output: Array) -> None:
    """Refuse outputs of another shape than those that a metric was settled on.

    Raises
    ------
    ModelError
    """
    if metric.row is not None and output.shape[1:] != metric.row:
        raise ModelError(
            f"the output has shape {list(output.shape[1:])} for some samples or chips and "
            f"{list(metric.row)} for others, so they cannot be compared"
        )


def not_numbers(output: Array) -> int:
    """How many samples of a batch have an output that is not a number."""
    if output.dtype.kind not in "fcV" or not output.size or not np.isnan(output.min()):
        return 0
    return int(np.isnan(output).reshape(len(output), -1).any(axis=1).sum())


def given_outputs(metric: Metric, output: Any) -> Any:
    """Outputs as a user's metric takes them: texts where an alphabet says what they stand for."""
    return greedy_ctc(decision_of(metric, output), metric.alphabet) if metric.alphabet else output


def given_target(metric: Metric, target: Any) -> Any:
    """Labels as a user's metric takes them: a list of texts, or of the rows of each sample."""
    if target is None or metric.label_kind not in ("text", "boxes", "ragged"):
        return target
    return target.tolist() if metric.label_kind == "text" else rows_of(target)


def try_function(metric: Metric, output: Array, target: Array | None) -> Array:
    """What a user's function gives for a batch: one number, or one for each sample.

    Raises
    ------
    OptionError
        If it fails, or gives something else.
    """
    function = load_metric(metric.name)
    given = given_outputs(metric, output), given_target(metric, target)
    what = f" on {len(output)} samples"
    return as_scores(metric.name, run_own(metric.name, what, function, *given), len(output))


def _call(metric: Metric, output: Array, target: Array | None) -> Scores:
    values = try_function(metric, output, target)
    if values.shape != (len(output),):
        raise OptionError(
            f"--metric {metric.name} returned one number for {len(output)} samples, and one for each before; "
            "it must do the same for every batch"
        )
    return values


def class_last(metric: Metric, output: Array) -> Array:
    """Outputs with the class scores on the last axis."""
    return np.moveaxis(output, metric.class_axis or 0, -1)


def decision_of(metric: Metric, output: Array) -> Array:
    """The classes that are decided for, from scores or as the graph says them."""
    if metric.decided:
        return output if metric.class_axis is None else np.take(output, 0, axis=metric.class_axis)
    if metric.class_axis is None:
        return np.asarray(output > (0.5 if metric.scale == "probability" else 0), np.int64)
    return np.asarray(np.argmax(output, axis=metric.class_axis))


def _right(metric: Metric, output: Array, target: Array) -> NDArray[np.bool_]:
    if metric.decided:
        best = output[..., None] if metric.class_axis is None else class_last(metric, output)[..., : metric.k]
        return np.asarray((best == target.reshape(best.shape[:-1])[..., None]).any(axis=-1))
    if metric.class_axis is None:
        decision = decision_of(metric, output)
        return np.asarray((decision == target.reshape(decision.shape)) & ~np.isnan(output))
    if metric.k == 1:
        decision = np.argmax(output, axis=metric.class_axis)
        right = decision == target.reshape(decision.shape)
        # argmax of a row with a NaN is the NaN's index: never a right answer.
        best = output.max(axis=metric.class_axis)
        return np.asarray(right & ~np.isnan(best))
    scores = class_last(metric, output)
    wanted = target.reshape(scores.shape[:-1])[..., None].astype(np.int64)
    own = np.take_along_axis(scores, wanted, -1)
    index = np.arange(scores.shape[-1])
    ahead = (scores > own) | ((scores == own) & (index < wanted))
    return np.asarray((ahead.sum(axis=-1) < metric.k) & ~np.isnan(scores).any(axis=-1))


def _cross_entropy(metric: Metric, output: Array, target: Array) -> Scores:
    if metric.class_axis is None:
        p = output.astype(np.float64)
        y = target.reshape(p.shape).astype(np.float64)
        if metric.scale == "logit":
            return np.asarray(np.logaddexp(0, p) - y * p)
        cost = y * np.log(np.maximum(p, SMALLEST)) + (1 - y) * np.log(np.maximum(1 - p, SMALLEST))
        return np.asarray(-cost)
    scores = class_last(metric, output).astype(np.float64)
    wanted = target.reshape(scores.shape[:-1])[..., None].astype(np.int64)
    own = np.take_along_axis(scores, wanted, -1)[..., 0]
    if metric.scale == "probability":
        return np.asarray(-np.log(np.maximum(own, SMALLEST)))
    peak = scores.max(axis=-1)
    return np.asarray(np.log(np.exp(scores - peak[..., None]).sum(axis=-1)) + peak - own)


def total_score(parts: Iterable[Scores]) -> float:
    """Sum of all scores; one beyond floating point is infinite, and refused where it is looked at."""
    with np.errstate(over="ignore", invalid="ignore"):
        return sum(float(part.sum()) for part in parts)


def gather_outputs(outputs: Iterator[tuple[int, int, Array]]) -> Iterator[tuple[int, int, Array]]:
    """Join small outputs of consecutive batches: scored one by one they cost as much as a small model."""
    parts: list[Array] = []
    begin = end = size = 0
    for _, stop, output in outputs:
        parts.append(output)
        end, size = stop, size + output.nbytes
        if size >= GATHER_BYTES:
            yield begin, end, np.concatenate(parts)
            parts, begin, size = [], end, 0
    if parts:
        yield begin, end, np.concatenate(parts)


def in_pieces(scores: Scores, nbytes: int, batch: int) -> Iterator[Scores]:
    """Cut the scores of all samples as :func:`gather_outputs` joins outputs of ``nbytes`` each."""
    size = batch * -(-GATHER_BYTES // max(1, batch * nbytes))
    return (scores[start : start + size] for start in range(0, len(scores), size))
