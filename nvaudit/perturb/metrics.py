"""Metrics: a score per sample from a batch of outputs, and what is read into the outputs' shape.

Outputs are class scores, or class numbers where the graph decides itself. The axis of the classes is told
by the labels' shape, by the graph, or by ``--class-axis``; scores are averaged over positions (pixels, time
steps). A single score column is a probability of the positive class if all nominal outputs lie in [0, 1],
else a logit. What was assumed stands in ``Metric.assumed``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from nvaudit.arrays import Array
from nvaudit.data.store import row_slices
from nvaudit.errors import DataError, OptionError
from nvaudit.perturb.scores import (
    SMALLEST,
    Metric,
    Reading,
    check_row,
    class_last,
    labelled,
    not_numbers,
    over_set,
    reference_of,
    score,
    try_function,
)
from nvaudit.perturb.task_metrics import TAKES, called, per_sample, settle_task

__all__ = [
    "Metric",
    "Reading",
    "check_row",
    "class_last",
    "not_numbers",
    "over_set",
    "reference_of",
    "resolve_metric",
    "score",
]

_SUM_TOLERANCE = 1e-3
_COLOURS = 4
_NAMES = (
    "top1, topK (e.g. top5), cross_entropy, mse, agreement, multilabel, f1, f1_micro, miou, perplexity, cer, "
    "wer, map, map50, or module:function"
)


def resolve_metric(
    name: str | None,
    output: Array,
    labels: Array | None,
    label_kind: str,
    class_axis: int | None = None,
    reading: Reading | None = None,
    trying: Callable[[Metric, Array, Array | None], Array] = try_function,
) -> Metric:
    """Settle a metric from its name and the unmodified model's output on a first batch.

    Parameters
    ----------
    name : str or None
        None chooses ``top1`` with class labels, ``mse`` with reference outputs or targets, ``multilabel``
        with several labels a sample, and without labels ``agreement`` where the outputs are class scores or
        decisions, else ``mse`` against the nominal outputs.
    output : ndarray, batch first
        Nominal outputs of the first samples.
    labels : ndarray or None, sample first
        All labels.
    label_kind : str
        As in a dataset.
    class_axis : int, optional
        Overrides the reading of the shape.
    reading : Reading, optional
        What the graph proves. None: no graph is known, and of several axes that could hold the classes the
        usual one is taken (the last of three, else axis 1).
    trying : callable
        Calls a user's own metric on a first batch, where a crash of it does no harm.

    Raises
    ------
    OptionError
        If the name is unknown, the metric does not fit the outputs, or nothing tells the class axis.
    DataError
        If labels do not fit the outputs.
    """
    if output.ndim == 0:
        raise OptionError(
            "the output is a single number for the whole batch; choose another with --output-name"
        )
    known, caution = reading or Reading(), ""
    if name is None:
        name, caution = _default_name(output, label_kind, class_axis, reading)
    base = replace(_named(name), row=output.shape[1:], caution=caution)
    base = replace(base, label_kind=label_kind)
    settled = settle_task(base, output, labels, class_axis, reading, trying)
    if settled is not None:
        return settled
    if label_kind == "none" or base.kind == "agreement":
        if base.kind not in ("agreement", "mse"):
            raise OptionError(f"--metric {name} needs labels; without them use agreement or mse")
        base = replace(base, against="nominal" if label_kind != "reference" else "labels")
    if base.against == "labels" and labels is not None and label_kind != "reference":
        base = _leave_out(base, labels, known)
    if base.kind == "mse":
        return _settle_mse(base, output, labels, known)
    if base.kind == "multilabel" or (base.kind == "confusion" and label_kind == "multilabel"):
        assert labels is not None
        return _settle_multilabel(replace(base, several=True), output, labels, known)
    if labels is not None and base.kind != "agreement":
        _check_whole(name, labels, known)
    return _settle_decided(base, output, labels if label_kind == "class" else None, class_axis, reading)


def _settle_decided(
    base: Metric, output: Array, labels: Array | None, class_axis: int | None, reading: Reading | None
) -> Metric:
    """Settle a metric that compares decisions: made by the graph, or the largest of class scores."""
    known = reading or Reading()
    wanted = None if base.kind == "agreement" else labels
    if known.decisions and class_axis is None:
        return _settle_decisions(base, output, wanted, known)
    if known.ranked and class_axis is None:
        raise OptionError(
            f"--metric {base.name}: {called(known)} holds the largest scores in order and does not say "
            "whose they are; choose the output with their classes, or the scores before the TopK, with "
            "--output-name, or use --metric mse"
        )
    settled = _settle_classes(base, output, labels, class_axis, reading)
    if wanted is not None:
        _check_labels(settled, output, wanted, known)
    return settled


def _default_name(
    output: Array, label_kind: str, axis: int | None, reading: Reading | None
) -> tuple[str, str]:
    """The metric that fits, and what its choice rests on where that is not obvious."""
    fixed = {"class": "top1", "reference": "mse", "multilabel": "multilabel"}
    if label_kind in TAKES:
        raise OptionError(
            f"labels are of kind {label_kind}, and no --metric says what is measured; use {TAKES[label_kind]}"
        )
    if label_kind in fixed:
        return fixed[label_kind], ""
    single = output.ndim == 1 or output.shape[-1] == 1
    scores = output.ndim <= 3 and (not single or bool(((output >= 0) & (output <= 1)).all()))
    small = output[0].size <= 100_000
    if reading is None:
        return ("agreement" if scores and small else "mse"), ""
    if reading.decisions or (axis is not None and small):
        return "agreement", ""
    several = sum(size != 1 for size in output.shape[1:]) > 1
    if not reading.ranked and not (several and not reading.scores):
        return ("agreement" if scores and small else "mse"), ""
    assumed = f"nothing proves which axis of {called(reading)} {per_sample(output)} holds class scores"
    if reading.ranked:
        assumed = f"{called(reading)} holds the largest scores in order, not whose they are"
    elif output.ndim == 4 and min(output.shape[1], output.shape[3]) <= _COLOURS:
        return "mse", ""  # an image: nobody would take it for classes
    elif reading.class_axis is not None:
        # The channels of a convolution: of an image as likely as of classes.
        if output.ndim > 3:
            return "mse", ""
        assumed = f"nothing proves that the channels of {called(reading)} {per_sample(output)} are classes"
    return "mse", f"{assumed}, so outputs are compared as numbers; --class-axis makes it agreement"


_LOSS: dict[str, Any] = {"higher_is_better": False}
_READY: dict[str, dict[str, Any]] = {
    "cross_entropy": {"kind": "cross_entropy", "unit": "nats", **_LOSS},
    "mse": {"kind": "mse", "unit": "squared error", **_LOSS},
    "agreement": {"kind": "agreement"},
    "multilabel": {"kind": "multilabel"},
    "cer": {"kind": "error_rate", **_LOSS},
    "wer": {"kind": "error_rate", **_LOSS},
    "map": {"kind": "boxes", "corpus": True},
    "map50": {"kind": "boxes", "corpus": True},
    "miou": {"kind": "confusion", "corpus": True},
    "f1": {"kind": "confusion", "corpus": True},
    "f1_micro": {"kind": "confusion", "corpus": True},
    "perplexity": {"kind": "perplexity", "unit": "perplexity", "corpus": True, **_LOSS},
}


def _named(name: str) -> Metric:
    if match := re.fullmatch(r"top(\d+)", name):
        k = int(match[1])
        if k < 1:
            raise OptionError("--metric top0: k must be at least 1")
        return Metric(name, "top_k", k=k)
    named = {"cross-entropy": "cross_entropy", "loss": "cross_entropy", "f1_macro": "f1"}.get(name, name)
    if named in _READY:
        return Metric(named, **_READY[named])
    if ":" in name:
        return Metric(name, "function", unit="score")
    raise OptionError(f"--metric {name!r} is unknown; use {_NAMES}")


def _leave_out(metric: Metric, labels: Array, known: Reading) -> Metric:
    """Leave out positions without a label; see whether all samples have as many of the others."""
    ignore = known.ignore
    if not ignore:
        return metric
    metric = over_set(replace(metric, ignore=ignore), labels, str(known.labels_in))
    low, high = labels.size, 0
    for part in row_slices(labels):
        counts = labelled(metric, np.asarray(labels[part])).reshape(len(labels[part]), -1).sum(axis=1)
        low, high = min(low, int(counts.min())), max(high, int(counts.max()))
    assumed = f"positions labelled {', '.join(map(str, ignore))} are not scored"
    return replace(metric, uneven=bool(low < high), assumed=(assumed,))


def _settle_mse(metric: Metric, output: Array, labels: Array | None, known: Reading) -> Metric:
    if metric.against == "labels" and labels is not None and labels[0].size != output[0].size:
        raise DataError(
            f"--metric mse: {known.labels_in}: targets have shape {list(labels.shape[1:])} per sample, the "
            f"output {list(output.shape[1:])}; they must have the same number of elements"
        )
    what = "targets" if metric.against == "labels" else "the unmodified model's outputs"
    return replace(metric, assumed=(f"squared error against {what}, mean over all elements", *metric.assumed))


def _settle_multilabel(metric: Metric, output: Array, labels: Array, known: Reading) -> Metric:
    if labels[0].size != output[0].size:
        raise DataError(
            f"--metric multilabel: {known.labels_in}: shape {list(labels.shape[1:])} per sample, the output "
            f"{list(output.shape[1:])}; it takes one 0 or 1 for each output"
        )
    for part in row_slices(labels):
        block = np.asarray(labels[part])
        wrong = (block != 0) & (block != 1) & labelled(metric, block)
        if wrong.any():
            row = int(np.argmax(wrong.reshape(len(block), -1).any(axis=1)))
            raise DataError(
                f"--metric multilabel: {known.labels_in}: {known.labels_in.of(part.start + row)}: labels are "
                f"0 or 1 for each output, found {block[wrong][0]}"
            )
    scale = _scale(output)
    decides = f"above {0.5 if scale == 'probability' else 0} in a {scale} is a yes"
    if known.decisions:
        decides = "the output holds the decisions"
    assumed = (
        f"each output is a label of its own, and {decides}; the score is the share of labels that are right"
    )
    return replace(
        metric, class_axis=None, scale=scale, decided=known.decisions, assumed=(assumed, *metric.assumed)
    )


def _scale(output: Array) -> Literal["logit", "probability"]:
    """How a single score is read: a probability if all nominal outputs are within [0, 1]."""
    return "probability" if bool(((output >= 0) & (output <= 1)).all()) else "logit"


def _settle_decisions(metric: Metric, output: Array, labels: Array | None, known: Reading) -> Metric:
    """Compare class numbers: the graph decides itself, and there are no scores."""
    ranked = None if known.ranked_axis is None else known.ranked_axis % output.ndim
    if metric.kind in ("cross_entropy", "perplexity") or (metric.k > 1 and ranked is None):
        raise OptionError(
            f"--metric {metric.name} needs class scores, and {called(known)} holds decisions (class "
            "numbers); choose the scores with --output-name, or use top1"
        )
    if ranked is not None and metric.k >= output.shape[ranked] > 1:
        raise OptionError(
            f"--metric {metric.name}: {called(known)} has only the best {output.shape[ranked]} classes"
        )
    axis = ranked if known.one_hot_axis is None else known.one_hot_axis
    rest = [n for i, n in enumerate(output.shape) if i not in (0, axis) and n != 1]
    if labels is not None and [n for n in labels.shape[1:] if n != 1] != rest:
        each = "decision" if axis is None else f"sample and position, without axis {axis} (the classes)"
        raise DataError(
            f"{known.labels_in}: shape {list(labels.shape)}, and {called(known)} {list(output.shape)} holds "
            f"decisions (class numbers): there must be one label for each {each}; choose another "
            "--output-name"
        )
    other = "the labels" if metric.against == "labels" else "those of the unmodified model"
    assumed = f"{called(known)} holds decisions (class numbers), compared with {other}"
    if known.one_hot_axis is not None:
        assumed = f"{called(known)} holds decisions (one-hot on axis {axis}), compared with {other}"
        if labels is not None:
            _check_labels(replace(metric, class_axis=axis), output, labels, known)
    return replace(
        metric, class_axis=axis, decided=known.one_hot_axis is None, assumed=(assumed, *metric.assumed),
        caution=assumed,
    )  # fmt: skip


def _settle_classes(
    metric: Metric, output: Array, labels: Array | None, axis: int | None, reading: Reading | None
) -> Metric:
    given = axis
    single = output.ndim == 1 or (axis is None and output.ndim == 2 and output.shape[1] == 1)
    axis = 1 if single else _class_axis(metric, output, labels, axis, reading)
    if single or (output.shape[axis] == 1 and reading is not None):
        scale = _scale(output)
        assumed = f"the single score column is a {scale} of the positive class"
        if metric.k > 1:
            raise OptionError(f"--metric {metric.name}: the output has a single score column")
        return replace(metric, class_axis=None, scale=scale, assumed=(assumed, *metric.assumed))
    classes = output.shape[axis]
    if metric.k >= classes:
        raise OptionError(f"--metric {metric.name}: the output has only {classes} classes on axis {axis}")
    axis_assumed = f"class scores on axis {axis} ({classes} classes)"
    if output[0].size > classes:
        axis_assumed += ", averaged over positions"
    if metric.kind not in ("cross_entropy", "perplexity"):
        caution = metric.caution or _unproved(output, labels, given, reading)
        return replace(metric, class_axis=axis, assumed=(axis_assumed, *metric.assumed), caution=caution)
    total = output.astype(np.float64).sum(axis=axis)
    # Logits add up to 1 at every position by chance only; a softmax does it everywhere.
    is_probability = bool((output >= 0).all() and (np.abs(total - 1) < _SUM_TOLERANCE).all())
    assumed = (
        f"the scores are probabilities (they sum to 1), floored at {SMALLEST:.2g} in the logarithm"
        if is_probability
        else "the scores are logits"
    )
    return replace(
        metric,
        class_axis=axis,
        scale="probability" if is_probability else "logit",
        assumed=(axis_assumed, assumed, *metric.assumed),
    )


def _unproved(output: Array, labels: Array | None, axis: int | None, reading: Reading | None) -> str:
    """What the headline says where channels are taken as classes because classes were asked for."""
    several = sum(size != 1 for size in output.shape[1:]) > 1
    if labels is not None or axis is not None or reading is None or reading.scores or not several:
        return ""
    return (
        f"the channels of {called(reading)} {per_sample(output)} are taken as classes, which nothing proves"
    )


def _class_axis(
    metric: Metric, output: Array, labels: Array | None, axis: int | None, reading: Reading | None
) -> int:
    """Axis of the class scores: given, or told by the labels, by the graph, by what axes there are."""
    if axis is not None:
        if not -output.ndim <= axis < output.ndim or axis % output.ndim == 0:
            raise OptionError(
                f"--class-axis {axis}: the output has shape {list(output.shape)} (axis 0 is the batch)"
            )
        return axis % output.ndim
    long = [a for a in range(1, output.ndim) if output.shape[a] != 1] or [1]
    if labels is not None:
        long = _fitting(metric, output, labels, reading)
    if reading is None:
        usual = output.ndim - 1 if output.ndim == 3 else 1
        return long[0] if labels is not None else usual
    proved = None if reading.class_axis is None else reading.class_axis % output.ndim
    if len(long) == 1:
        return long[0]
    if proved in long:
        return int(proved or 0)
    which = " or ".join(f"axis {a} ({output.shape[a]})" for a in long)
    raise OptionError(
        f"--metric {metric.name}: {called(reading)} has shape {per_sample(output)}, and nothing proves "
        f"which axis holds the classes: {which}; set --class-axis"
        + ("" if labels is not None else ", or use --metric mse, which needs none")
    )


def _fitting(metric: Metric, output: Array, labels: Array, reading: Reading | None) -> list[int]:
    """Axes without which the output has the shape of the labels, and that have room for all of them."""
    want = [n for n in labels.shape[1:] if n != 1]
    axes = (1, output.ndim - 1) if reading is None else range(1, output.ndim)
    fits = [a for a in axes if [n for i, n in enumerate(output.shape) if i not in (0, a) and n != 1] == want]
    if not fits:
        several = _texts_meant(reading or Reading())
        if labels[0].size == output[0].size:
            several = (
                "; several labels per sample (0 or 1 for each output) are scored by --metric multilabel "
                "or by one of your own, --metric module:function; --metric mse takes labels as numbers"
            )
        raise DataError(
            f"{(reading or Reading()).labels_in}: shape {list(labels.shape)}, and the output has "
            f"{list(output.shape)}: no axis of class scores makes them fit; choose another "
            f"--output-name or set --class-axis{several}"
        )
    top = _largest(metric, labels)
    # An axis of C scores can hold labels 0 … C − 1 only: of several axes that fit by shape, one that is too
    # short for the labels is none.
    roomy = [a for a in fits if output.shape[a] > top]
    return roomy if reading is not None and roomy else fits[:1] if reading is not None else fits


def _texts_meant(known: Reading) -> str:
    """What to do where labels in text were taken as names of classes."""
    if known.sorted_names is None:
        return ""
    return "; texts that the model reads are scored by --metric cer or wer"


def _largest(metric: Metric, labels: Array) -> int:
    kept = labels if not metric.ignore else np.where(labelled(metric, labels), labels, 0)
    return int(kept.max(initial=0))


def _check_whole(name: str, labels: Array, known: Reading) -> None:
    """Refuse labels between classes: rounded or as they are, they would be scored as something else."""
    if labels.dtype.kind != "f":
        return
    bad = (labels != np.rint(labels)).reshape(len(labels), -1).any(axis=1)
    if bad.any():
        raise DataError(
            f"{known.labels_in}: {int(bad.sum()):,} of {len(labels):,} are no class numbers, the first is "
            f"{known.labels_in.of(int(np.argmax(bad)))}, and --metric {name} is of classes; number them from "
            "0, or choose a metric of values, such as mse"
        )


def _check_labels(metric: Metric, output: Array, labels: Array, known: Reading) -> None:
    classes = 2 if metric.class_axis is None else output.shape[metric.class_axis]
    names, places = known.sorted_names, known.labels_in
    if names is not None and names != classes:
        raise DataError(
            f"{places}: labels are {names} class names and the model has {classes} classes and no list of "
            f"its own, so it is not told which name is which; number them from 0 to {classes - 1}, or, for "
            f"images, state classes in nvaudit.json{_texts_meant(known)}"
        )
    top = _largest(metric, labels)
    if top < classes:
        return
    kept = labelled(metric, labels) if metric.ignore else np.ones(labels.shape, bool)
    beyond = (labels >= classes) & kept
    where = int(np.argmax(beyond.reshape(len(labels), -1).any(axis=1)))
    hint = ""
    if len(np.unique(labels[beyond])) == 1 and top in (255, 254, 65535):
        hint = f"; if {top} stands for no label, --ignore-label {top} leaves it out"
    elif metric.class_axis is None:
        hint = (
            "; whole numbers are taken as classes, --metric mse (landscape: --loss mse) takes them as targets"
        )
    raise DataError(
        f"{places}: label {top} is out of range: the model has {classes} classes (0 … {classes - 1}); "
        f"first seen at {places.of(where)}{hint}"
    )


def check_threshold(option: str, value: float, metric: Metric) -> None:
    """Refuse a threshold that no value of the metric can be on either side of, such as 90 for 90 %.

    Raises
    ------
    OptionError
        Naming the option.
    """
    if metric.unit == "fraction" and not 0 <= value <= 1:
        raise OptionError(
            f"{option} {value:g}: {metric.name} is a fraction from 0 to 1{_percent_hint(value)}"
        )


def check_drop(option: str, value: float, metric: Metric) -> None:
    """Refuse a drop that no metric can exceed, such as 3 for 3 %: a gate on it could not fail.

    Raises
    ------
    OptionError
        Naming the option.
    """
    if metric.unit == "fraction" and value >= 1:
        raise OptionError(
            f"{option} {value:g}: {metric.name} is a fraction from 0 to 1, which cannot drop by more"
            f"{_percent_hint(value)}"
        )


def _percent_hint(value: float) -> str:
    return f"; for {value:g} % write {value / 100:g}" if 1 <= value <= 100 else ""
