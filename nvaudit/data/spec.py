"""What a dataset is: the description of a graph input, the arrays to feed, and what a source hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

from nvaudit.arrays import Array
from nvaudit.data.preprocess import ImageLayout, Preprocess
from nvaudit.errors import DataError

LABEL_NAMES = frozenset(
    ("y", "label", "labels", "lbl", "target", "targets", "class", "classes", "y_true", "y_test", "y_val",
     "y_train", "ground_truth", "gt", "annotations")
)  # fmt: skip
"""What labels are called elsewhere: an array of such a name must not be left unused without a word."""
NO_NUMBERS = frozenset({"text", "boxes", "ragged"})
"""Kinds of labels that no loss is taken against."""

LabelKind = Literal["class", "reference", "multilabel", "text", "boxes", "ragged", "none"]


@dataclass(frozen=True)
class LabelPlaces:
    """Where labels stand, for what is said of them.

    Attributes
    ----------
    file : str
        That holds them: the data, or a file of labels.
    column : str
        What they are called in it: ``labels y``, ``column 'class'``.
    unit : str
        What has a label: a ``sample``, or a ``row`` or ``line`` of the file.
    rows : tuple or None
        The number of the row of each sample; None: samples are counted from 0.
    """

    file: str
    column: str = "labels y"
    unit: str = "sample"
    rows: tuple[int | str, ...] | None = None

    def __str__(self) -> str:
        """The file and the column.

        Examples
        --------
        >>> places = LabelPlaces("labels.csv", "column 'class'", "row", (2, 3))
        >>> print(places, places.of(1), sep="; ")
        labels.csv: column 'class'; row 3
        """
        return f"{self.file}: {self.column}" if self.file else self.column

    def of(self, sample: int) -> str:
        """Where the label of a sample stands in the file."""
        return f"{self.unit} {sample if self.rows is None else self.rows[sample]}"

    def at(self, place: Sequence[int]) -> str:
        """Where one of the labels of a sample stands.

        Parameters
        ----------
        place : sequence of int
            Its indices; the first is the sample.
        """
        if self.rows is None:
            return f"at {[int(one) for one in place]}"
        inside = f", {[int(one) for one in place[1:]]}" if len(place) > 1 else ""
        return f"in {self.of(int(place[0]))}{inside}"

    def take(self, samples: Sequence[int] | npt.NDArray[np.intp]) -> LabelPlaces:
        """Those of some samples, in the order given."""
        if self.rows is None:
            return self
        return replace(self, rows=tuple(self.rows[int(sample)] for sample in samples))


@dataclass(frozen=True)
class InputSpec:
    """One graph input, as the data must fill it.

    Attributes
    ----------
    dtype : str
        NumPy name of the element type, e.g. ``"float32"`` or ``"bfloat16"``.
    shape : tuple of (int, str or None), or None
        Dimensions with the batch dimension among them; a name, None or a number below 1 is a dynamic
        dimension. None when the rank is unknown.
    batch_axis : int or None
        Axis that counts samples; None for an input that is constant over the set.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None
    batch_axis: int | None


@dataclass(frozen=True)
class Dataset:
    """Arrays ready to be fed: right names, right dtype, right layout; memory-mapped and read-only.

    Attributes
    ----------
    inputs : dict of str to ndarray
        One array per graph input, in graph order.
    batched : frozenset of str
        Names of the inputs with a batch axis.
    batch_axes : dict of str to int
        Batch axis of each batched input.
    labels : ndarray or None
        Labels with the samples on axis 0: int64 when `label_kind` is ``"class"``, any numeric type when
        it is ``"reference"``.
    label_kind : {"class", "reference", "multilabel", "text", "boxes", "ragged", "none"}
        ``"class"``: class indices (any number of position axes after the first). ``"reference"``: target
        or reference outputs, good for ``mse`` only. ``"multilabel"``: 0 or 1 for each output. ``"text"``: a
        text for each sample. ``"boxes"`` and ``"ragged"``: filled up, see :mod:`nvaudit.data.ragged`.
    source : str
        Where the data came from, or ``"synthetic"``.
    digest : str
        SHA-256 over names, dtypes, shapes and bytes of all arrays, labels included.
    notes : tuple of str
        What was assumed, converted or left out.
    skipped : tuple of (str, str)
        Files that could not be used, each with the reason.
    given : int
        Samples that the source has; `count` is lower with a limit.
    parts : tuple of int
        Samples of each of the sets that were joined, if there were several.
    together : int
        0: samples do not influence each other, and any of them may be run. Else they do: the set is run in
        its own order, so many at a time, and a part of it would give other outputs.
    ignored : tuple of int
        Labels that stand for "not labelled": the positions that have them are not scored.
    sorted_names : int or None
        How many class names were numbered in sorted order, which holds only if that is all classes.
    places : LabelPlaces or None
        Where the labels stand; None without any.
    """

    inputs: dict[str, Array]
    batched: frozenset[str]
    batch_axes: dict[str, int]
    labels: Array | None
    label_kind: LabelKind
    count: int
    source: str
    digest: str
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    given: int = 0
    parts: tuple[int, ...] = ()
    together: int = 0
    ignored: tuple[int, ...] = ()
    sorted_names: int | None = None
    places: LabelPlaces | None = None

    def take(self, rows: npt.NDArray[np.intp]) -> dict[str, Array]:
        """Inputs of some samples, in the order given, as arrays of their own; constant inputs as they are."""
        return {
            name: np.take(array, rows, axis=self.batch_axes[name])
            if name in self.batch_axes
            else np.asarray(array)
            for name, array in self.inputs.items()
        }

    def facts(self) -> dict[str, Any]:
        """What a report says of the data: source, count, label_kind, skipped, notes."""
        names = ("source", "count", "label_kind", "skipped", "notes")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Raw:
    """What a source gives, before anything is converted.

    Attributes
    ----------
    inputs : mapping of str to ndarray
        Arrays under the names of the graph inputs, as stored.
    source : str
        Path, for messages and for the report.
    reference : bool
        The labels are reference outputs, whatever their dtype.
    preprocess_paths : tuple of Path
        Where the preprocessing of integer data may be stated; the first is the one to recommend.
    preprocess : Preprocess or None
        The preprocessing, when the source needed it itself.
    stored : {"NCHW", "NHWC"} or None
        Layout of the stored images when the source knows it.
    notes, skipped, parts
        As in `Dataset`.
    names : tuple of str
        All class names that the source has, where labels are text and may not hold every one.
    label_kind : {"boxes", "ragged"} or None
        What the source knows labels to be that numbers alone do not tell.
    places : LabelPlaces or None
        Where the labels stand, if in a file of their own.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    source: str
    reference: bool = False
    preprocess_paths: tuple[Path, ...] = ()
    preprocess: Preprocess | None = None
    stored: ImageLayout | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    parts: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    label_kind: Literal["boxes", "ragged"] | None = None
    places: LabelPlaces | None = None


def numpy_dtype(spec: InputSpec) -> np.dtype[Any]:
    """Element type of an input, including those that only ``ml_dtypes`` knows.

    Raises
    ------
    DataError
        If the type is text or unknown.
    """
    special = getattr(ml_dtypes, spec.dtype, None)
    try:
        dtype = np.dtype(spec.dtype if special is None else special)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind in "OSUcMm":
        raise DataError(
            f"input {spec.name!r}: element type {spec.dtype!r} cannot be fed; "
            "only boolean, integer and floating-point inputs are supported"
        )
    return dtype


def is_float(dtype: np.dtype[Any]) -> bool:
    """Tell floating-point types, including bfloat16 and the 8-bit ones, from all others."""
    return dtype.name.startswith(("float", "bfloat"))


def is_integer(dtype: np.dtype[Any]) -> bool:
    """Tell integer types, including the 4-bit ones, from all others."""
    return dtype.name.startswith(("int", "uint"))


def fixed(dimension: int | str | None) -> bool:
    """Whether a dimension of an input is a known positive number."""
    return isinstance(dimension, int) and dimension > 0


def shape_text(spec: InputSpec) -> str:
    """Shape of an input as text, e.g. ``[N, 3, 32, 32]``; ``?`` stands for an unnamed dynamic dimension."""
    if spec.shape is None:
        return "[any shape]"
    words = []
    for axis, dimension in enumerate(spec.shape):
        if axis == spec.batch_axis:
            words.append("N")
        else:
            words.append(str(dimension) if fixed(dimension) or isinstance(dimension, str) else "?")
    return "[" + ", ".join(words) + "]"


def match_names(
    names: Mapping[str, Any], specs: tuple[InputSpec, ...], where: str
) -> tuple[dict[str, str], bool]:
    """Decide which stored array feeds which input.

    Parameters
    ----------
    names : mapping of str
        Stored arrays by name; only the names are looked at.

    Returns
    -------
    chosen : dict of str to str
        Stored name for each input; ``x`` stands for the only batched input when its own name is absent.
    labelled : bool
        Whether ``y`` holds labels: it does unless it feeds an input.

    Raises
    ------
    DataError
        If an input has no array.
    """
    chosen = {spec.name: spec.name for spec in specs if spec.name in names}
    batched = [spec.name for spec in specs if spec.batch_axis is not None]
    if len(batched) == 1 and batched[0] not in chosen and "x" in names and "x" not in chosen:
        chosen[batched[0]] = "x"
    missing = [spec.name for spec in specs if spec.name not in chosen]
    if missing:
        wanted = ", ".join(repr(spec.name) for spec in specs)
        either = f" ('x' may stand for {batched[0]!r})" if len(batched) == 1 else ""
        raise DataError(
            f"{where}: no array for input {', '.join(map(repr, missing))}: "
            f"found {', '.join(map(repr, sorted(names))) or 'no arrays'}; "
            f"name the arrays {wanted}{either}, and the labels 'y'"
        )
    labelled = "y" in names and "y" not in chosen.values()
    other = sorted(name for name in names if name.lower() in LABEL_NAMES and name not in chosen.values())
    if not labelled and other:
        raise DataError(
            f"{where}: {other[0]!r} looks like the labels, which must be called 'y'; rename it, or leave "
            "it out for a run without labels"
        )
    return chosen, labelled
