"""Labels: class indices told apart from reference targets, checked, and brought to int64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nvaudit.data.checks import check_finite
from nvaudit.data.spec import Array, LabelKind, is_float
from nvaudit.data.store import Store, row_slices, sealed
from nvaudit.errors import DataError


@dataclass(frozen=True)
class _Survey:
    """What one pass over the labels found."""

    whole: bool
    negative: tuple[int, ...] | None
    lowest: float
    one_hot: bool


def read_labels(
    labels: Array | None, *, reference: bool, where: str, store: Store
) -> tuple[Array | None, LabelKind, tuple[str, ...]]:
    """Bring labels to the form that metrics take.

    Integers and booleans are class indices, of any rank (segmentation: [N, H, W]). Floating-point values
    that are all whole and not negative are class indices too; any other floating-point values are
    per-sample targets (``"reference"``). One-hot rows are refused, because they are as likely to be
    meant as classes as as targets. A trailing axis of size 1 is dropped from [N, 1] classes.

    Parameters
    ----------
    labels : ndarray or None
        As stored, samples on axis 0.
    reference : bool
        The labels are known to be reference outputs.
    where : str
        Path, for messages.
    store : Store
        Where converted labels are written.

    Returns
    -------
    labels : ndarray or None
        int64 for classes, unchanged for references.
    kind : {"class", "reference", "none"}
        What they are.
    notes : tuple of str
        What was assumed.

    Raises
    ------
    DataError
        If labels are NaN, infinite, negative integers, one-hot, or empty.
    """
    if labels is None:
        return None, "none", ()
    if labels.size == 0:
        raise DataError(f"{where}: labels y: shape {list(labels.shape)} holds no values")
    check_finite(labels, 0, "labels y", where)
    if reference:
        return labels, "reference", ()
    survey = _survey(labels)
    if survey.one_hot:
        raise DataError(
            f"{where}: labels y: shape {list(labels.shape)} is one-hot; store class indices: y.argmax(axis=1)"
        )
    floating = is_float(labels.dtype)
    if floating and (not survey.whole or survey.negative is not None):
        return labels, "reference", ("labels y are floating-point targets, not class indices",)
    if survey.negative is not None:
        raise DataError(
            f"{where}: labels y: {survey.lowest:.0f} at {list(survey.negative)} is negative; "
            "class indices start at 0"
        )
    notes = (f"labels y: whole {labels.dtype.name} numbers taken as class indices",) if floating else ()
    return (*_as_classes(labels, store, where), notes)


def _survey(labels: Array) -> _Survey:
    whole, one_hot = True, labels.ndim == 2 and labels.shape[1] > 1
    negative: tuple[int, ...] | None = None
    lowest = 0.0
    for part in row_slices(labels):
        block = labels[part]
        if is_float(labels.dtype):
            whole = whole and bool((block == np.rint(block)).all())
        if negative is None and labels.dtype.kind != "b" and (block < 0).any():
            place = np.unravel_index(int(np.argmax(block < 0)), block.shape)
            negative = (int(place[0]) + part.start, *(int(i) for i in place[1:]))
            lowest = float(block[place])
        if one_hot:
            ones = block == 1
            one_hot = bool(((block == 0) | ones).all() and (ones.sum(axis=1) == 1).all())
    return _Survey(whole, negative, lowest, one_hot)


def _as_classes(labels: Array, store: Store, where: str) -> tuple[Array, LabelKind]:
    shape = labels.shape[:1] if labels.ndim == 2 and labels.shape[1] == 1 else labels.shape
    if labels.dtype == np.int64:
        return labels.reshape(shape), "class"
    out = store.create(np.dtype(np.int64), shape)
    for part in row_slices(labels):
        block = labels[part]
        # 2**62 is far beyond any class count; it keeps the conversion to int64 exact.
        if (block >= 2**62).any():
            raise DataError(f"{where}: labels y: {block.max()} is not a class index")
        out[part] = block.reshape(-1, *shape[1:]).astype(np.int64)
    return sealed(out), "class"
