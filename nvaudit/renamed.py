"""Names of one release ago: still taken, with a warning that says the new one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

Args = ParamSpec("Args")
Result = TypeVar("Result")

OLD_FIELDS = {"output": "output_name"}
"""Fields of ``run`` in reports of an earlier version."""


def current_fields(run: Any) -> Any:
    """Options of a run under today's names; old ones come from a report of an earlier version.

    Examples
    --------
    >>> current_fields({"seed": 0, "output": "logits"})
    {'seed': 0, 'output_name': 'logits'}
    """
    if not isinstance(run, Mapping):
        return run
    return {OLD_FIELDS.get(name, name): value for name, value in run.items()}


def takes_old(**old: str) -> Callable[[Callable[Args, Result]], Callable[Args, Result]]:
    """Let a function take keywords under their old names too, each with a FutureWarning.

    Parameters
    ----------
    **old
        The new name by the old one.
    """

    def apply(function: Callable[Args, Result]) -> Callable[Args, Result]:
        @functools.wraps(function)
        def call(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            for name in [name for name in old if name in kwargs]:
                new = old[name]
                if new in kwargs:
                    raise TypeError(f"{function.__name__}(): {name} is the old name of {new}; give one")
                warnings.warn(
                    f"nvaudit.{function.__name__}(): {name}= is now {new}=; the old name goes with the next "
                    "release",
                    FutureWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(name)
            return function(*args, **kwargs)

        return call

    return apply
