"""Metrics: a score per sample from a batch of outputs, and what is read into the outputs' shape.

Class scores are looked for on axis 1 or on the last axis, as the shapes of output and labels say; scores
are averaged over positions (pixels, time steps). A single score column is a probability of the positive
class if all nominal outputs lie in [0, 1], else a logit. What was assumed is said in ``Metric.assumed``.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.errors import DataError, OptionError

Array = NDArray[Any]
Scores = NDArray[np.float64]

_SUM_TOLERANCE = 1e-3
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Metric:
    """How outputs become scores; small enough to travel with every task.

    Attributes
    ----------
    name : str
        As the user named it: ``top1``, ``top5``, ``cross_entropy``, ``mse``, ``agreement``, or a
        ``module:function``.
    kind : str
        Which rule scores a batch.
    k : int
        Of top-k.
    class_axis : int or None
        Axis of the class scores in a batch-first output; None for a single score column or no classes.
    scale : str
        ``logit`` or ``probability``: how scores are read by cross-entropy and by a single column.
    higher_is_better : bool
    unit : str
        ``fraction``, ``nats``, ``squared error`` or ``score``.
    against : str
        ``labels`` or ``nominal`` (the unmodified model's outputs).
    assumed : tuple of str
        What was read into the shapes, in plain words.
    """

    name: str
    kind: Literal["top_k", "cross_entropy", "mse", "agreement", "function"]
    k: int = 1
    class_axis: int | None = None
    scale: Literal["logit", "probability"] = "logit"
    higher_is_better: bool = True
    unit: str = "fraction"
    against: Literal["labels", "nominal"] = "labels"
    assumed: tuple[str, ...] = ()


def resolve_metric(
    name: str | None,
    output: Array,
    labels: Array | None,
    label_kind: str,
    class_axis: int | None = None,
) -> Metric:
    """Settle a metric from its name and the unmodified model's output on a first batch.

    Parameters
    ----------
    name : str or None
        None chooses ``top1`` with class labels, ``mse`` with reference outputs or targets, and without
        labels ``agreement`` where the outputs are class scores, else ``mse`` against the nominal outputs.
    output : ndarray, batch first
        Nominal outputs of the first samples.
    labels : ndarray or None, sample first
        All labels.
    label_kind : {"class", "reference", "none"}
    class_axis : int, optional
        Overrides the reading of the shape.

    Returns
    -------
    Metric

    Raises
    ------
    OptionError
        If the name is unknown or the metric does not fit the outputs.
    DataError
        If labels do not fit the outputs.
    """
    if output.ndim == 0:
        raise OptionError("the output is a single number for the whole batch; choose another with --output")
    name = name or _default_name(output, label_kind)
    base = _named(name)
    if base.kind == "function":
        return replace(base, higher_is_better=bool(getattr(load_function(name), "higher_is_better", True)))
    if label_kind == "none" or base.kind == "agreement":
        if base.kind not in ("agreement", "mse"):
            raise OptionError(f"--metric {name} needs labels; without them use agreement or mse")
        base = replace(base, against="nominal" if label_kind != "reference" else "labels")
    if base.kind == "mse":
        return _settle_mse(base, output, labels)
    settled = _settle_classes(base, output, labels if label_kind == "class" else None, class_axis)
    if label_kind == "class" and base.kind != "agreement" and labels is not None:
        _check_labels(settled, output, labels)
    return settled


def _default_name(output: Array, label_kind: str) -> str:
    if label_kind == "class":
        return "top1"
    if label_kind == "reference":
        return "mse"
    single = output.ndim == 1 or output.shape[-1] == 1
    scores = output.ndim <= 3 and (not single or bool(((output >= 0) & (output <= 1)).all()))
    return "agreement" if scores and output[0].size <= 100_000 else "mse"


def _named(name: str) -> Metric:
    if match := re.fullmatch(r"top(\d+)", name):
        k = int(match[1])
        if k < 1:
            raise OptionError("--metric top0: k must be at least 1")
        return Metric(name, "top_k", k=k)
    if name in ("cross_entropy", "cross-entropy", "loss"):
        return Metric("cross_entropy", "cross_entropy", higher_is_better=False, unit="nats")
    if name == "mse":
        return Metric("mse", "mse", higher_is_better=False, unit="squared error")
    if name == "agreement":
        return Metric("agreement", "agreement")
    if ":" in name:
        return Metric(name, "function", unit="score")
    raise OptionError(
        f"--metric {name!r} is unknown; use top1, topK (e.g. top5), cross_entropy, mse, agreement, "
        "or module:function"
    )


def load_function(name: str) -> Any:
    """Import a user's metric, ``function(outputs, labels) -> score per sample``.

    Raises
    ------
    OptionError
        If it cannot be imported, or is no function.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a user's module most likely lies; last, so it shadows nothing
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        raise OptionError(f"--metric {name}: cannot import it: {_what(error)}") from error
    if not callable(function):
        raise OptionError(f"--metric {name}: it is of type {type(function).__name__}, not a function")
    return function


def _what(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _settle_mse(metric: Metric, output: Array, labels: Array | None) -> Metric:
    if metric.against == "labels" and labels is not None and labels[: len(output)].size != output.size:
        raise DataError(
            f"--metric mse: targets have shape {list(labels.shape[1:])} per sample, the output "
            f"{list(output.shape[1:])}; they must have the same number of elements"
        )
    what = "targets" if metric.against == "labels" else "the unmodified model's outputs"
    return replace(metric, assumed=(f"squared error against {what}, mean over all elements",))


def _settle_classes(metric: Metric, output: Array, labels: Array | None, axis: int | None) -> Metric:
    single = output.ndim == 1 or (axis is None and output.ndim == 2 and output.shape[1] == 1)
    if single:
        unit_interval = bool(((output >= 0) & (output <= 1)).all())
        scale: Literal["logit", "probability"] = "probability" if unit_interval else "logit"
        said = f"the single score column is a {scale} of the positive class"
        if metric.k > 1:
            raise OptionError(f"--metric {metric.name}: the output has a single score column")
        return replace(metric, class_axis=None, scale=scale, assumed=(said,))
    axis = _class_axis(output, labels, axis)
    classes = output.shape[axis]
    if metric.k >= classes:
        raise OptionError(f"--metric {metric.name}: the output has only {classes} classes on axis {axis}")
    said_axis = f"class scores on axis {axis} ({classes} classes)"
    if output[0].size > classes:
        said_axis += ", averaged over positions"
    if metric.kind != "cross_entropy":
        return replace(metric, class_axis=axis, assumed=(said_axis,))
    total = output.astype(np.float64).sum(axis=axis)
    is_probability = bool((output >= 0).all() and (np.abs(total - 1) < _SUM_TOLERANCE).all())
    said = (
        f"the scores are probabilities (they sum to 1), floored at {_SMALLEST:.2g} in the logarithm"
        if is_probability
        else "the scores are logits"
    )
    return replace(
        metric,
        class_axis=axis,
        scale="probability" if is_probability else "logit",
        assumed=(said_axis, said),
    )


def _class_axis(output: Array, labels: Array | None, axis: int | None) -> int:
    if axis is not None:
        if not -output.ndim <= axis < output.ndim or axis % output.ndim == 0:
            raise OptionError(
                f"--class-axis {axis}: the output has shape {list(output.shape)} (axis 0 is the batch)"
            )
        return axis % output.ndim
    if labels is not None:
        want = [n for n in labels.shape[1:] if n != 1]
        fits = [
            a
            for a in (1, output.ndim - 1)
            if [n for i, n in enumerate(output.shape) if i not in (0, a) and n != 1] == want
        ]
        if not fits:
            raise DataError(
                f"labels have shape {list(labels.shape)} and the output {list(output.shape)}: no axis of "
                "class scores makes them fit; choose another --output or set --class-axis"
            )
        return fits[0]
    return output.ndim - 1 if output.ndim == 3 else 1


def _check_labels(metric: Metric, output: Array, labels: Array) -> None:
    classes = 2 if metric.class_axis is None else output.shape[metric.class_axis]
    top = int(labels.max(initial=0))
    if top >= classes:
        where = int(np.argmax(labels.reshape(len(labels), -1).max(axis=1) >= classes))
        raise DataError(
            f"label {top} is out of range: the model has {classes} classes (0 … {classes - 1}); first seen "
            f"at sample {where}"
        )


def reference_of(metric: Metric, output: Array) -> Array:
    """What must be kept of the nominal outputs for a metric ``against="nominal"``."""
    return _decision(metric, output) if metric.kind == "agreement" else output


def score(metric: Metric, output: Array, target: Array | None) -> Scores:
    """Score a batch.

    Parameters
    ----------
    metric : Metric
    output : ndarray, batch first
    target : ndarray or None, batch first
        Labels, targets, or what :func:`reference_of` kept.

    Returns
    -------
    ndarray, float64, shape (batch,)
        A sample whose scores are not numbers counts as wrong.
    """
    if metric.kind == "function":
        return _call(metric, output, target)
    assert target is not None
    if metric.kind == "mse":
        error = output.astype(np.float64) - target.reshape(output.shape)
        return np.asarray(np.square(error).reshape(len(output), -1).mean(axis=1))
    per_position: Array
    if metric.kind == "cross_entropy":
        per_position = _cross_entropy(metric, output, target)
    elif metric.kind == "agreement" and target.dtype.kind == "f":
        per_position = _right(metric, output, _decision(metric, target))
    else:
        per_position = _right(metric, output, target)
    return np.asarray(per_position.reshape(len(output), -1).mean(axis=1, dtype=np.float64))


def _call(metric: Metric, output: Array, target: Array | None) -> Scores:
    function = load_function(metric.name)
    try:
        values = np.asarray(function(output, target), np.float64)
    except (Exception, SystemExit) as error:  # the user's code
        raise OptionError(
            f"--metric {metric.name} failed on {len(output)} samples: {_what(error)}"
        ) from error
    if values.shape != (len(output),):
        raise OptionError(
            f"--metric {metric.name} returned shape {list(values.shape)} for {len(output)} samples; it must "
            "return one score per sample"
        )
    return values


def class_last(metric: Metric, output: Array) -> Array:
    """Outputs with the class scores on the last axis."""
    return np.moveaxis(output, metric.class_axis or 0, -1)


def _decision(metric: Metric, output: Array) -> NDArray[np.int64]:
    if metric.class_axis is None:
        return np.asarray(output > (0.5 if metric.scale == "probability" else 0), np.int64)
    return np.asarray(np.argmax(output, axis=metric.class_axis))


def _right(metric: Metric, output: Array, target: Array) -> NDArray[np.bool_]:
    if metric.class_axis is None:
        decision = _decision(metric, output)
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
        cost = y * np.log(np.maximum(p, _SMALLEST)) + (1 - y) * np.log(np.maximum(1 - p, _SMALLEST))
        return np.asarray(-cost)
    scores = class_last(metric, output).astype(np.float64)
    wanted = target.reshape(scores.shape[:-1])[..., None].astype(np.int64)
    own = np.take_along_axis(scores, wanted, -1)[..., 0]
    if metric.scale == "probability":
        return np.asarray(-np.log(np.maximum(own, _SMALLEST)))
    peak = scores.max(axis=-1)
    return np.asarray(np.log(np.exp(scores - peak[..., None]).sum(axis=-1)) + peak - own)
