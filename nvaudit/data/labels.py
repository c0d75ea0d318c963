"""Labels: class indices told apart from reference targets, checked, and brought to int64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from nvaudit.arrays import Array
from nvaudit.data.checks import check_finite
from nvaudit.data.ragged import as_boxes
from nvaudit.data.spec import LabelKind, LabelPlaces, is_float
from nvaudit.data.store import ScratchStore, row_slices, sealed
from nvaudit.errors import DataError, OptionError

_FEW = 2
"""Labels of so many kinds at most may be two classes."""

_SHOWN = 1000


VOID = (-1, -100)
"""Negative labels that stand for "not labelled" in common use: scikit-learn's, and torch's ignore_index."""


@dataclass(frozen=True)
class LabelRules:
    """How labels are to be taken.

    Attributes
    ----------
    targets : bool
        As numbers, whatever they look like (``--metric mse``).
    several : bool
        As 0 or 1 for each output (``--metric multilabel``).
    given : bool
        As they are: the user's own metric knows what they mean.
    ignore : tuple of int
        Labels that stand for "not labelled" (``--ignore-label``).
    names : tuple of str
        The model's own list of its classes; empty: it has none.
    numbers : tuple of int
        The model's own numbers of its classes, where these are not 0, 1, 2, …; else empty.
    decided : bool
        The scored output holds decisions, with which labels are compared as they are.
    file : str or None
        File of the labels (``--labels``); None: they come with the data.
    column : str or None
        Which column or key of it holds them.
    kind : str or None
        What labels are (``--label-kind``); None: by what they look like.
    """

    targets: bool = False
    several: bool = False
    given: bool = False
    ignore: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    decided: bool = False
    file: str | None = None
    column: str | None = None
    kind: Literal["class", "text", "boxes", "values"] | None = None


_OF_METRIC: dict[str, Literal["text", "boxes"]] = {
    "cer": "text", "wer": "text", "map": "boxes", "map50": "boxes",
}  # fmt: skip
"""Metrics that can be taken against one kind of labels only."""


def label_rules(metric: str | None, ignore: tuple[int, ...] = (), **more: Any) -> LabelRules:
    """Make the rules that a metric and the model's own list of classes imply.

    Parameters
    ----------
    metric : str or None
        As the user named it.
    **more
        ``names`` and ``numbers`` of the model's classes, whether it has ``decided``, and the ``file``,
        ``column`` and ``kind`` of the labels.

    Raises
    ------
    OptionError
        If labels are to be of a kind that the metric cannot be taken against.
    """
    own = metric is not None and ":" in metric
    kind = more.pop("kind", None)
    wanted = _OF_METRIC.get(metric or "")
    if wanted is not None and kind not in (None, wanted):
        raise OptionError(f"--metric {metric} needs {wanted} as labels, and --label-kind says {kind}")
    targets = metric == "mse" or kind == "values"
    return LabelRules(targets, metric == "multilabel", own, ignore, kind=kind or wanted, **more)


class Labels(NamedTuple):
    """What :func:`take_labels` gives.

    Attributes
    ----------
    values : ndarray or None
        int64 for classes, unchanged for references.
    notes : tuple of str
        What was assumed.
    ignored : tuple of int
        Labels that occur and stand for "not labelled".
    sorted_names : int or None
        How many class names were numbered in sorted order.
    """

    values: Array | None
    kind: LabelKind
    notes: tuple[str, ...]
    ignored: tuple[int, ...] = ()
    sorted_names: int | None = None


@dataclass(frozen=True)
class _Survey:
    """What one pass over the labels sees; ``negative`` is the place of the first negative one."""

    integral: bool
    negative: tuple[int, ...] | None
    lowest: float
    one_hot: bool
    below: frozenset[int]
    counts: tuple[tuple[int, int], ...]
    kinds: int


def take_labels(
    labels: Array | None,
    *,
    reference: bool,
    places: LabelPlaces,
    store: ScratchStore,
    rules: LabelRules | None = None,
    names: tuple[str, ...] = (),
    kind: Literal["boxes", "ragged"] | None = None,
) -> Labels:
    """Bring labels to the form that metrics take.

    Integers and booleans are class indices, of any rank (segmentation: [N, H, W]). Floating-point values
    that are all whole and not negative are class indices too; any other floating-point values are
    per-sample targets (``"reference"``). One-hot rows are refused, because they are as likely to be
    meant as classes as as targets. A trailing axis of size 1 is dropped from [N, 1] classes. Of negative
    integers −1 and −100 stand for "not labelled"; others are refused.

    Parameters
    ----------
    labels : ndarray or None
        As stored, samples on axis 0; numbers or text.
    reference : bool
        The labels are known to be reference outputs.
    rules : LabelRules, optional
        How they are to be taken, if not as above.
    names : tuple of str
        All class names of the source, where labels in text may not hold every one.
    kind : {"boxes", "ragged"} or None
        What the source knows them to be.
    places : LabelPlaces
        Where they stand, for messages.

    Raises
    ------
    DataError
        If labels are NaN, infinite, negative integers without a meaning, one-hot, or empty.
    """
    rules = rules or LabelRules()
    if labels is None:
        return Labels(None, "none", ())
    if labels.size == 0:
        raise DataError(f"{places}: shape {list(labels.shape)} holds no values")
    if kind is not None or rules.kind in ("text", "boxes"):
        return _of_kind(labels, rules, places, kind)
    if labels.dtype.kind in "US":
        if rules.given and rules.kind is None and not names and not _known(labels, rules):
            return Labels(labels, "text", ("labels y: texts, handed to --metric as they are",))
        return _named(labels, rules, places, store, names)
    check_finite(labels, 0, places.column, places.file, places.at)
    if reference:
        return Labels(labels, "reference", ())
    return _targets(labels, rules) if rules.targets else _numbers(labels, rules, places, store)


def _numbers(labels: Array, rules: LabelRules, places: LabelPlaces, store: ScratchStore) -> Labels:
    """Class indices, told apart from targets by what they look like."""
    survey = _survey(labels, rules)
    if survey.one_hot and not rules.several and not rules.given:
        raise DataError(
            f"{places}: shape {list(labels.shape)} is one-hot; store class indices: y.argmax(axis=1)"
        )
    if is_float(labels.dtype) and (not survey.integral or survey.below - set(rules.ignore)):
        return Labels(labels, "reference", ("labels y are floating-point targets, not class indices",))
    ignored = _ignored(survey, rules, places)
    if ignored is None:
        note = "labels y hold negative numbers: handed to --metric as they are"
        return Labels(labels, "reference", (note,))
    notes = _notes(labels, survey, rules, ignored)
    values = _as_classes(labels, store, places, flat=not rules.several)
    if rules.several:
        return Labels(values, "multilabel", notes, ignored)
    renumbered, more = _own_numbers(values, rules, ignored, store)
    return Labels(renumbered, "class", notes + more, ignored)


def _of_kind(labels: Array, rules: LabelRules, places: LabelPlaces, kind: str | None) -> Labels:
    """Labels that are texts, boxes, or rows of different lengths."""
    wanted = rules.kind or kind
    if kind is None and wanted == "text":
        if labels.dtype.kind not in "US" or labels.ndim != 1:
            raise DataError(
                f"{places}: {labels.dtype} {list(labels.shape)} is not one text for each sample; "
                "store texts, or name their column with --label-column"
            )
        empty = int((labels == np.zeros(1, labels.dtype)).sum())
        note = (f"labels y: {empty} of {len(labels)} texts are empty",) if empty else ()
        return Labels(labels, "text", note)
    if wanted == "boxes" and labels.dtype.kind not in "US":
        return Labels(as_boxes(labels, places), "boxes", ())
    if kind == "ragged" and wanted in ("ragged", "values"):
        return Labels(labels, "ragged", ("labels y have another length for each sample",))
    found = "texts" if labels.dtype.kind in "US" else kind or "numbers"
    raise DataError(f"{places}: these are {found}, and {wanted} is wanted; give them with --labels")


def _known(labels: Array, rules: LabelRules) -> bool:
    """Whether texts are names of the model's own classes."""
    return bool(rules.names) and set(np.unique(labels).tolist()) <= set(rules.names)


def _notes(labels: Array, survey: _Survey, rules: LabelRules, ignored: tuple[int, ...]) -> tuple[str, ...]:
    """What a reader must know of how class indices were taken."""
    taken = f"labels y: whole {labels.dtype.name} numbers taken as class indices"
    fate = "handed to --metric as they are" if rules.given else "not scored"
    return (
        *([taken] if is_float(labels.dtype) else []),
        *(
            f"labels y: {value} stands for no label: {count} of {labels.size} positions are {fate}"
            for value, count in survey.counts
            if value in ignored
        ),
        *(f"--ignore-label {v}: no label is {v}" for v in rules.ignore if v not in ignored),
    )


def _targets(labels: Array, rules: LabelRules) -> Labels:
    notes: tuple[str, ...] = ()
    if not is_float(labels.dtype) or bool((np.asarray(labels[:1000]) == np.rint(labels[:1000])).all()):
        notes = ("labels y are taken as targets, as --metric mse says",)
    if rules.ignore:
        raise OptionError(
            "--ignore-label leaves out class labels; with --metric mse labels are numbers: leave it out, or "
            "store the samples without the others"
        )
    return Labels(labels, "reference", notes)


def _ignored(survey: _Survey, rules: LabelRules, places: LabelPlaces) -> tuple[int, ...] | None:
    """Labels that occur and stand for "not labelled"; None where an own metric is to see what it likes."""
    present = {value for value, _ in survey.counts}
    negative = survey.below - set(rules.ignore) - set(rules.numbers)
    # A graph that decides gives its own labels, −1 and 1 of a support vector machine: they are compared as
    # they are.
    if rules.decided and survey.kinds == 2:
        negative = frozenset()  # −1 and 1, say, as the model's own decisions are
    if negative and rules.given and not negative <= set(VOID):
        return None
    # −1 beside one other number is two classes as likely as one class and gaps: that has to be said.
    if negative <= set(VOID) and not (negative == {-1} and survey.kinds == 2 and not rules.several):
        return tuple(sorted(present & ({*rules.ignore} | negative)))
    if rules.given:
        return None
    if negative == {-1}:
        raise DataError(
            f"{places}: all labels are -1 or one other number: two classes, or one class and "
            "samples without a label; store two classes as 0 and 1, or say --ignore-label -1"
        )
    place = "" if survey.negative is None else f" {places.at(survey.negative)}"
    least = max(negative - set(VOID)) if int(survey.lowest) in VOID else int(survey.lowest)
    place = place if least == int(survey.lowest) else ""
    raise DataError(
        f"{places}: {least}{place} is negative; class indices start at 0; if it stands for "
        f"no label, --ignore-label {least} leaves it out; if labels are numbers, --metric mse takes them so"
    )


def _named(
    labels: Array, rules: LabelRules, places: LabelPlaces, store: ScratchStore, given: tuple[str, ...]
) -> Labels:
    """Class names to indices, by the model's own list or in sorted order."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.reshape(-1)
    text = np.asarray(labels).astype(str)
    present = np.unique(text)
    if rules.targets or rules.several:
        raise DataError(f"{places}: these are texts, and this --metric takes numbers; store numbers")
    names, source = np.asarray(rules.names or given or present), "the model's own list of classes"
    if not rules.names:
        source = "sorted names; the model has no list of its own"
    strange = sorted(set(present.tolist()) - set(names.tolist()))
    if strange:
        first = places.of(int(np.argmax(text == strange[0])))
        raise DataError(
            f"{places}: {first}: {strange[0][:60]!r} is not among the model's classes "
            f"{', '.join(map(repr, names[:8].tolist()))}{', …' if len(names) > 8 else ''}"
        )
    order = np.argsort(names, kind="stable")
    # Found among the sorted names; order gives back the model's own number. Every name is known: see above.
    index = order[np.searchsorted(names, text, sorter=order)].astype(np.int64)
    shown = ", ".join(f"{i} {name}" for i, name in enumerate(names[:8].tolist()))
    note = f"labels y: class names numbered by {source}: {shown}{', …' if len(names) > 8 else ''}"
    out = store.create(np.dtype(np.int64), index.shape)
    out[...] = index
    return Labels(sealed(out), "class", (note,), (), None if rules.names else len(names))


def _own_numbers(
    values: Array, rules: LabelRules, ignored: tuple[int, ...], store: ScratchStore
) -> tuple[Array, tuple[str, ...]]:
    """The model's own numbers of its classes to indices of its scores."""
    own = np.asarray(rules.numbers, np.int64)
    if not own.size or not np.isin(values, (*rules.numbers, *ignored)).all():
        return values, ()
    order = np.argsort(own)
    # An ignored label may lie behind every number: clipped to a valid place here, and put back below.
    place = order[np.searchsorted(own, values, sorter=order).clip(0, len(own) - 1)]
    out = store.create(np.dtype(np.int64), values.shape)
    out[...] = np.where(np.isin(values, ignored), values, place)
    listed = ", ".join(map(str, rules.numbers[:8]))
    return sealed(out), (f"labels y: class numbers of the model's own list ({listed}), in its order",)


def _survey(labels: Array, rules: LabelRules) -> _Survey:
    integral, one_hot = True, labels.ndim == 2 and labels.shape[1] > 1
    negative: tuple[int, ...] | None = None
    lowest = 0.0
    counts: dict[int, int] = {}
    kinds: set[int] = set()
    for part in row_slices(labels):
        block = labels[part]
        if is_float(labels.dtype):
            integral = integral and bool((block == np.rint(block)).all())
        if labels.dtype.kind != "b" and negative is None and (block < 0).any():
            place = np.unravel_index(int(np.argmax(block < 0)), block.shape)
            negative = (int(place[0]) + part.start, *(int(i) for i in place[1:]))
            lowest = float(block[place])
        if integral and labels.dtype.kind != "b":
            _count(block, rules, counts, kinds)
        if one_hot:
            ones = block == 1
            # One 1 and zeros in every row of every block; a single row that is not so is enough to say no.
            one_hot = bool(((block == 0) | ones).all() and (ones.sum(axis=1) == 1).all())
    nonzero = tuple((value, count) for value, count in sorted(counts.items()) if count)
    below = frozenset(value for value, _ in nonzero if value < 0)
    return _Survey(integral, negative, lowest, one_hot, below, nonzero, len(kinds))


def _count(block: Array, rules: LabelRules, counts: dict[int, int], kinds: set[int]) -> None:
    """Count labels that may stand for "not labelled"; see whether there are more than a few kinds."""
    # Of targets there may be as many values as samples: a few are enough to refuse them as classes.
    for value, count in zip(*np.unique(block[block < 0], return_counts=True), strict=True):
        if len(counts) < _SHOWN or int(value) in counts:
            counts[int(value)] = counts.get(int(value), 0) + int(count)
    for value in rules.ignore:
        if value >= 0:
            counts[value] = counts.get(value, 0) + int((block == value).sum())
    if len(kinds) <= _FEW:
        kinds.update(int(value) for value in np.unique(block)[: _FEW + 1])


def _as_classes(labels: Array, store: ScratchStore, places: LabelPlaces, *, flat: bool) -> Array:
    shape = labels.shape[:1] if flat and labels.ndim == 2 and labels.shape[1] == 1 else labels.shape
    if labels.dtype == np.int64:
        return labels.reshape(shape)
    out = store.create(np.dtype(np.int64), shape)
    for part in row_slices(labels):
        block = labels[part]
        # 2**62 is far beyond any class count; it keeps the conversion to int64 exact.
        if (block >= 2**62).any():
            row = part.start + int(np.argmax((block >= 2**62).reshape(len(block), -1).any(axis=1)))
            raise DataError(f"{places}: {places.of(row)}: {block.max()} is not a class index")
        out[part] = block.reshape(-1, *shape[1:]).astype(np.int64)
    return sealed(out)
