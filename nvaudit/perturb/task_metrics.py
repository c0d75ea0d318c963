"""Metrics of real tasks: texts, boxes, and a user's own; what is read into outputs and labels for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nvaudit.arrays import Array
from nvaudit.data.ragged import rows_of
from nvaudit.errors import DataError, OptionError
from nvaudit.perturb.own_metric import gathers, load_metric, more_is_better
from nvaudit.perturb.scores import Metric, Reading, over_set
from nvaudit.perturb.text import fit_alphabet

TAKES = {"text": "cer, wer", "boxes": "map, map50", "ragged": "one of your own, --metric module:function"}
"""Metrics that labels of a kind can be taken against."""

WHOLE_SET = (
    "one value for the whole set: KPP, gates and paired differences of chips hold; no chip is stopped early, "
    "and nothing is said of the error of a finite set"
)


def _check_kind(metric: Metric, label_kind: str, known: Reading) -> None:
    """Refuse labels that a metric cannot be taken against.

    Raises
    ------
    OptionError
        Naming those that can.
    """
    wanted = {"error_rate": "text", "boxes": "boxes"}.get(metric.kind)
    if wanted is not None and label_kind != wanted:
        found = "there are none" if label_kind == "none" else f"they are of kind {label_kind}"
        raise OptionError(f"--metric {metric.name} needs {wanted} as labels, and {found}; see --labels")
    if wanted is None and label_kind in TAKES:
        raise OptionError(
            f"--metric {metric.name} takes no labels of kind {label_kind}; {TAKES[label_kind]} does"
        )
    if metric.kind == "boxes" and not known.boxes:
        raise OptionError(
            f"--metric {metric.name} needs boxes as outputs; --boxes says how they are laid out"
        )


def settle_task(
    base: Metric,
    output: Array,
    labels: Array | None,
    class_axis: int | None,
    reading: Reading | None,
    trying: Callable[[Metric, Array, Array | None], Array],
) -> Metric | None:
    """Settle a metric of texts or boxes, or a user's own; None for the others.

    Raises
    ------
    OptionError
        If the metric and the labels do not go together.
    DataError
        If labels hold nothing to compare with.
    """
    if base.kind == "function":
        return _settle_function(base, output, labels, class_axis, reading, trying)
    _check_kind(base, base.label_kind, reading or Reading())
    if base.kind == "boxes":
        return _settle_boxes(base, labels, reading or Reading())
    if base.kind == "error_rate":
        return _settle_text(base, output, labels, class_axis, reading)
    return None


def _settle_function(
    base: Metric,
    output: Array,
    labels: Array | None,
    class_axis: int | None,
    reading: Reading | None,
    trying: Callable[[Metric, Array, Array | None], Array],
) -> Metric:
    """Settle a user's own metric: what it gives for the first samples tells whether it is one for each."""
    own, known = load_metric(base.name), reading or Reading()
    base = replace(base, higher_is_better=more_is_better(base.name, own), row=None)
    if known.alphabet:
        base = _with_alphabet(base, output, class_axis, reading)
    if known.boxes:
        base = replace(base, assumed=(*base.assumed, _BOXES))
    if gathers(own):
        return replace(base, corpus=True, assumed=(*base.assumed, WHOLE_SET))
    count = len(output) if labels is None else min(len(output), len(labels))
    part = None if labels is None else np.asarray(labels[:count])
    scores = trying(base, output[:count], part)
    if scores.ndim:
        if np.isnan(scores).any():
            raise OptionError(
                f"--metric {base.name} gave NaN for {int(np.isnan(scores).sum())} of the first {count} "
                "samples of the unmodified model; it must give a number for every sample"
            )
        return base
    return replace(base, corpus=True, assumed=(*base.assumed, WHOLE_SET))


_BOXES = (
    "boxes are rows x1, y1, x2, y2 (pixels of the input), score, class; at most 100 of a sample, surest first"
)


def _settle_boxes(base: Metric, labels: Array | None, known: Reading) -> Metric:
    assert labels is not None
    if not any(len(rows) for rows in rows_of(np.asarray(labels))):
        raise DataError(
            f"{known.labels_in}: none of the {len(labels)} images has a box, so there is nothing to find"
        )
    how = "overlaps 0.5, 0.55 … 0.95" if base.name == "map" else "an overlap of 0.5"
    assumed = (f"mean of the average precisions over classes and {how}, as COCO takes it", _BOXES)
    return replace(base, row=None, assumed=(*assumed, WHOLE_SET))


def _settle_text(
    base: Metric, output: Array, labels: Array | None, class_axis: int | None, reading: Reading | None
) -> Metric:
    """Settle an error rate; the alphabet says what each class of an output stands for."""
    known = reading or Reading()
    if not known.alphabet:
        raise OptionError(
            f"--metric {base.name}: it is not known what the classes of the output stand for; give "
            "--alphabet FILE, a line for each class but the blank, which is class 0"
        )
    base = _with_alphabet(base, output, class_axis, reading)
    unit = "words" if base.name == "wer" else "characters"
    rate = f"edit distance over the length of the labels, in {unit}, all samples together"
    return over_set(replace(base, uneven=True, assumed=(*base.assumed, rate)), labels, str(known.labels_in))


def _with_alphabet(base: Metric, output: Array, class_axis: int | None, reading: Reading | None) -> Metric:
    known = reading or Reading()
    if known.decisions and class_axis is None:
        classes: int | None = None
        base = replace(base, decided=True, class_axis=known.ranked_axis)
    else:
        axis = output.ndim - 1 if class_axis is None else class_axis % output.ndim
        classes = output.shape[axis]
        base = replace(base, class_axis=axis)
    if output.ndim < 2 + (classes is not None):
        raise OptionError(
            f"--metric {base.name}: the output has shape {per_sample(output)} and no steps of a text; "
            "choose another with --output-name"
        )
    alphabet = fit_alphabet(known.alphabet, classes, known.alphabet_of)
    assumed = (
        f"texts by greedy CTC decoding of {called(known)}: class 0 is the blank, repeats count once; "
        f"{len(alphabet) - 1} characters from {known.alphabet_of}"
    )
    return replace(base, alphabet=alphabet, row=None, assumed=(*base.assumed, assumed))


def called(reading: Reading) -> str:
    """Name an output in words."""
    return f"output {reading.output!r}" if reading.output else "the output"


def per_sample(output: Array) -> str:
    """Shape of a sample in words."""
    return f"[N, {', '.join(map(str, output.shape[1:]))}]"
