"""What several runs of one process share, so that it is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Result = TypeVar("Result")

Key = tuple[Any, ...]

_known: ContextVar[dict[Key, Any] | None] = ContextVar("_known", default=None)
_pool: ContextVar[Any] = ContextVar("_pool", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Let the runs inside share what no device has a part in: the model as it was read, its ideal run."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def shared(key: Key | None, make: Callable[[], Result]) -> Result:
    """What another run has made already, else what ``make`` gives.

    Parameters
    ----------
    key : tuple or None
        Everything that the result depends on, beside the contents of files, which a run holds. None: it is
        for this run alone.
    """
    known = _known.get()
    if known is None or key is None:
        return make()
    if key not in known:
        known[key] = make()
    result: Result = known[key]
    return result


@contextmanager
def sharing_pool(pool: Any) -> Iterator[None]:
    """Let the runs inside share a pool whose calls bring their workload with them, and its processes."""
    token = _pool.set(pool)
    try:
        yield
    finally:
        _pool.reset(token)


def shared_pool() -> Any:
    """The pool that runs share; None if each opens its own."""
    return _pool.get()
