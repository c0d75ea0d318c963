"""The classes of a model by its own list: in the operators of a classifier, or in the file's metadata."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from nvaudit.model.load import LoadedModel
from nvaudit.model.tensors import read_tensor
from nvaudit.model.walk import attribute, operand, places

MAX_TEXT = 1 << 20
"""Metadata beyond this length are no list of names."""

_KEYS = ("names", "classes", "class_names", "class_labels", "labels", "id2label", "categories")
_LISTS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints", "classes_strings")


@dataclass(frozen=True)
class ClassList:
    """The model's own classes in the order of their scores.

    Attributes
    ----------
    names : tuple of str
        Empty where it has none.
    numbers : tuple of int
        Where classes are numbers other than 0, 1, 2, …; else empty.
    """

    names: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()


def class_list(loaded: LoadedModel) -> ClassList:
    """Find the model's own list of its classes.

    Returns
    -------
    ClassList
        Of classifiers the operators' own list, else what the metadata say (``names``, ``classes``, …, as
        JSON, as a Python literal, or one name a line or between commas).
    """
    for listed in _of_operators(loaded.model.graph):
        if len(set(listed)) < len(listed) or len(listed) < 2:
            continue
        if all(isinstance(one, str) for one in listed):
            return ClassList(names=tuple(map(str, listed)))
        numbers = tuple(int(one) for one in listed)
        if numbers != tuple(range(len(numbers))):
            return ClassList(numbers=numbers)
    for key, text in loaded.model.metadata_props.items():
        names = _names(text) if key.lower() in _KEYS and len(text) <= MAX_TEXT else ()
        if len(names) > 1 and len(set(names)) == len(names):
            return ClassList(names=names)
    return ClassList()


def _of_operators(graph: ir.Graph) -> Iterator[list[Any]]:
    for place in places(graph):
        node = place.node
        if node.domain == "ai.onnx.ml":
            for name in _LISTS:
                if listed := attribute(node, name):
                    yield [_text(one) for one in listed]
            if node.op_type == "LabelEncoder":
                keys, values = attribute(node, "keys_int64s"), attribute(node, "values_strings")
                if keys and values and sorted(keys) == list(range(len(values))):
                    yield [_text(value) for _, value in sorted(zip(keys, values, strict=False))]
            if node.op_type == "ArrayFeatureExtractor" and _decides(operand(node, 1)):
                tensor = None if (table := operand(node, 0)) is None else table.const_value
                if tensor is not None:
                    yield [_text(one) for one in read_tensor(tensor).reshape(-1).tolist()]


def _decides(value: ir.Value | None) -> bool:
    """Whether an index comes from an arg max, whatever its shape was made."""
    for _ in range(10):
        node = None if value is None else value.producer()
        if node is None:
            return False
        if node.op_type in ("ArgMax", "TopK"):
            return True
        value = operand(node, 0)
    return False


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _names(text: str) -> tuple[str, ...]:
    """Names from metadata, in the order of their numbers."""
    parsed: Any = None
    for read in (json.loads, ast.literal_eval):
        try:
            parsed = read(text)
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    if isinstance(parsed, dict):
        try:
            numbered = sorted((int(key), value) for key, value in parsed.items())
        except (ValueError, TypeError):
            return ()
        if [number for number, _ in numbered] != list(range(len(numbered))):
            return ()
        parsed = [value for _, value in numbered]
    if parsed is None:
        parsed = [part.strip() for part in text.split("\n" if "\n" in text.strip() else ",")]
    if not isinstance(parsed, list | tuple) or not all(isinstance(one, str) and one for one in parsed):
        return ()
    return tuple(parsed)
