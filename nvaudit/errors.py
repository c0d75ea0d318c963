"""The errors that nvaudit raises: a flat tree, each with the exit code that the command line gives it.

A message says what is wrong, where, what was found, and what to do about it. The library raises;
only the command line turns an error into text and an exit code.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

EXIT_OK = 0
EXIT_GATE = 1
EXIT_BAD_INPUT = 2
EXIT_FAILURE = 3
EXIT_INTERRUPTED = 130


class NvauditError(Exception):
    """Anything that nvaudit reports to its user instead of a traceback."""

    exit_code = EXIT_BAD_INPUT


class ModelError(NvauditError, ValueError):
    """The ONNX file cannot be read, is unsafe, or cannot be audited."""


class DataError(NvauditError, ValueError):
    """The evaluation data cannot be read or does not fit the model."""


class ProfileError(NvauditError, ValueError):
    """The device profile is invalid or unknown."""


class OptionError(NvauditError, ValueError):
    """An option, or a combination of options, makes no sense."""


class KeptError(OptionError):
    """A folder of finished work is of another run, damaged, in use, or cannot be used."""


class InputChangedError(NvauditError, RuntimeError):
    """An input file was written while a result was made from it."""


class EngineError(NvauditError, RuntimeError):
    """Our own failure: a worker that keeps dying, a full disk, no ONNX Runtime."""

    exit_code = EXIT_FAILURE


_FAULTS = {"missing": "missing", "extra_forbidden": "unknown key"}
"""In place of pydantic's words, which speak of fields and inputs, by its kinds."""


def shown(value: object) -> str:
    """Show a value of a JSON or TOML file as it stands there; a text alone in single quotes.

    Examples
    --------
    >>> shown(True), shown(()), shown({"a": None}), shown("a")
    ('true', '[]', '{"a": null}', "'a'")
    """
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


SHOWN = 60
"""Characters of a wrong value in a message."""


def short(value: object) -> str:
    """Show a value of a file as :func:`shown`, cut to a length that fits a message."""
    text = shown(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its keys and values, for ``object_pairs_hook``.

    Raises
    ------
    ValueError
        If a key is given twice: JSON leaves open which one holds.
    """
    table = dict(pairs)
    if len(table) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice if twice.isidentifier() else repr(twice)[:60]} is given twice; keep one")
    return table


def first_fault(error: ValidationError, whole: str = "the file") -> str:
    """Describe the first thing that is wrong in a file: its key, what was found there, what is wrong.

    Parameters
    ----------
    whole : str
        In place of the key, where the fault is no single key's.
    """
    faults = error.errors(include_url=False)
    first = faults[0]
    kind, key = first["type"], ".".join(map(str, first["loc"])) or whole
    got = f"got {short(first['input'])}: "
    if kind in ("missing", "json_invalid") or isinstance(first["input"], dict):
        got = ""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    words = first["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
    return f"{key}: {got}{_FAULTS.get(kind, words)}{more}"


def why_unread(error: OSError | UnicodeDecodeError) -> str:
    """Say why a file or folder cannot be read or used, in words for its user."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not text (byte {error.start} is not UTF-8)"
    if isinstance(error, FileExistsError | NotADirectoryError):  # of a folder that was to be made
        return "it is a file, or a part of its path is one"
    return error.strerror or str(error)
