"""A user's own metric: imported, called, and what it gives read as numbers.

What its code prints is no part of our results: as long as it runs, standard output is standard error.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from nvaudit.errors import OptionError

_PARTS = ("update", "compute")
_STDOUT, _STDERR = 1, 2


class _Aside:
    """Standard output turned to standard error while at least one thread is inside.

    ``contextlib.redirect_stdout`` puts back what each thread found: of two that overlap, the last to leave
    would put back the other's standard error for good. Counted, the first saves and the last restores.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._streams: tuple[TextIO, TextIO] = (sys.stdout, sys.stderr)
        self._copy: int | None = None
        self.kept: TextIO | None = None
        """Where a worker, whose standard error nobody reads, keeps what is printed; None: nowhere."""

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._turn()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._restore()

    def _turn(self) -> None:
        self._streams, self._copy = (sys.stdout, sys.stderr), None
        if self.kept is not None:
            sys.stdout = sys.stderr = self.kept
            return
        # The descriptor as well, where it is the process's: for what a program that it starts prints.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if sys.stdout.fileno() == _STDOUT and sys.stderr.fileno() == _STDERR:
                sys.stdout.flush()
                self._copy = os.dup(_STDOUT)
                os.dup2(_STDERR, _STDOUT)
        sys.stdout = sys.stderr

    def _restore(self) -> None:
        sys.stdout, sys.stderr = self._streams
        if self._copy is not None:
            os.dup2(self._copy, _STDOUT)
            os.close(self._copy)


prints_aside = _Aside()
"""A block in which a user's code runs: what it prints goes to standard error."""


def what_failed(error: BaseException) -> str:
    """Name an error of a user's code."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def run_own(name: str, what: str, function: Callable[..., Any], *given: Any) -> Any:
    """Call a part of a user's metric.

    Raises
    ------
    OptionError
        If it fails.
    """
    try:
        with prints_aside():
            return function(*given)
    except (Exception, SystemExit) as error:
        raise OptionError(f"--metric {name} failed{what}: {what_failed(error)}") from error


def load_metric(name: str) -> Any:
    """Import a user's metric: ``function(outputs, labels)``, or what has ``update`` and ``compute``.

    Parameters
    ----------
    name : str
        ``module:function``, or ``file.py:function``.

    Raises
    ------
    OptionError
        If it cannot be imported, or is neither.
    """
    try:
        with prints_aside():
            module = _module_of(name)
            own = getattr(module, wanted := name.rpartition(":")[2], None)
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        raise OptionError(f"--metric {name}: cannot import it: {what_failed(error)}") from error
    if own is None:
        defined = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        there = f"it has {', '.join(defined[:8])}" if defined else "it has nothing that can be called"
        raise OptionError(f"--metric {name}: there is no {wanted!r} in it; {there}")
    missing = [part for part in _PARTS if not callable(getattr(own, part, None))]
    if not missing or (len(missing) == len(_PARTS) and callable(own) and not isinstance(own, type)):
        return own
    kind = "a class" if isinstance(own, type) else f"of type {type(own).__name__}"
    has = "" if len(missing) == len(_PARTS) else f", has {next(iter({*_PARTS} - {*missing}))}"
    raise OptionError(
        f"--metric {name}: it is {kind}{has} and has no {' and no '.join(missing)}; a metric is a function "
        "of (outputs, labels), or a class or an object with update(outputs, labels) and compute()"
    )


def gathers(own: Any) -> bool:
    """Whether it is fed batch by batch, not called with outputs and labels."""
    return all(callable(getattr(own, part, None)) for part in _PARTS)


def new_one(name: str, own: Any) -> Any:
    """An empty one of what gathers batches: what one chip has gathered must not reach the next."""
    make = own if isinstance(own, type) else lambda: copy.deepcopy(own)
    return run_own(name, " when it was made", make)


def more_is_better(name: str, own: Any) -> bool:
    """What a user's metric says of its direction; more is better where it says nothing.

    Raises
    ------
    OptionError
        If it says something else than True or False.
    """
    # Of a class the instance is asked, which may set it when it is made, or work it out.
    held = new_one(name, own) if gathers(own) else own
    said = run_own(name, "", getattr, held, "higher_is_better", True)
    if not isinstance(said, bool | np.bool_):
        raise OptionError(
            f"--metric {name}: higher_is_better is {said!r:.60} ({type(said).__name__}); set it to True or "
            "False"
        )
    return bool(said)


def as_scores(name: str, given: Any, samples: int) -> NDArray[np.float64]:
    """Read what a user's function gave for a batch: one number, or one for each sample.

    A True or False for each sample counts 1 or 0.

    Raises
    ------
    OptionError
        With what was found, if it is neither.
    """
    try:
        values = np.asarray(given)
    except (Exception, SystemExit) as error:  # rows of different lengths, an array on another device
        raise OptionError(f"--metric {name} returned no numbers: {what_failed(error)}") from error
    wanted = "it must return one score per sample, or one number for all"
    if values.shape not in ((samples,), ()):
        raise OptionError(
            f"--metric {name} returned shape {list(values.shape)} for {samples} samples; {wanted}"
        )
    _check_numbers(name, values, given, wanted)
    return values.astype(np.float64)


def as_value(name: str, given: Any) -> float:
    """Read the one number that a user's metric gave for all samples.

    Raises
    ------
    OptionError
        With what was found, if it is no number.
    """
    try:
        value = np.asarray(given)
    except (Exception, SystemExit) as error:
        raise OptionError(f"--metric {name} gave no number: {what_failed(error)}") from error
    wanted = "it must be one number"
    if value.size != 1:
        raise OptionError(f"--metric {name} gave {str(given)[:60]!r} for all samples; {wanted}")
    _check_numbers(name, value.reshape(()), given, wanted)
    return float(value.reshape(()))


def _check_numbers(name: str, values: NDArray[Any], given: Any, wanted: str) -> None:
    """Refuse what NumPy would turn into numbers without a word, or not at all."""
    kinds = {"c": "complex numbers", "U": "texts", "S": "texts", "O": "objects", "m": "times", "M": "times"}
    found = kinds.get(values.dtype.kind)
    if values.dtype.kind == "b" and not values.ndim:
        found = "a truth value"
    if found is not None or values.dtype.kind not in "biuf":
        shown = f"{given!r:.60}"
        raise OptionError(f"--metric {name} returned {found or values.dtype}: {shown}; {wanted}")


def _module_of(name: str) -> ModuleType:
    """Import the module of a user's metric, or its file, once."""
    module = name.rpartition(":")[0]
    if not module.endswith(".py"):
        if os.getcwd() not in sys.path:
            # Where a user's module most likely lies; last, so it shadows nothing.
            sys.path.append(os.getcwd())
        return importlib.import_module(module)
    path = Path(module).resolve()
    known = f"_metric_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"no file {module}")
    made = importlib.util.module_from_spec(spec)
    # Known before it runs, as an import does it: what it defines can then be pickled and copied. And its
    # neighbours can be imported as by a script.
    sys.modules[known] = made
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[known]
        raise
    return made


def metric_digest(name: str) -> str:
    """SHA-256 of the file of a user's metric; a dash if it has none.

    Raises
    ------
    OptionError
        As :func:`load_metric`.
    """
    load_metric(name)
    code = getattr(_module_of(name), "__file__", None)
    return hashlib.sha256(Path(code).read_bytes()).hexdigest() if code else "-"
