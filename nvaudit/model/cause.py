"""What a library's error means, for a message of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nvaudit.errors import ModelError


def cause(error: BaseException) -> str:
    """Describe an error of a library by its innermost cause, in one line of at most 200 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"


@contextmanager
def graph_errors(path: Path, done: str = "analysed") -> Iterator[None]:
    """Turn whatever a strange graph makes onnx or this package raise into one line.

    Raises
    ------
    ModelError
        Saying that the graph cannot be ``done``; one that is raised inside passes as it is.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path}: the graph cannot be {done}: {cause(error)}; check it with onnx.checker"
        ) from error
