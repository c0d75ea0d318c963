"""Options of a specification as keywords of a function: their names, what they may be, what they are for.

The command line's names hold in Python too (``--batch-size`` is ``batch_size``, ``--sigma`` is ``sigma``),
one value stands where one is meant, and text is read as it would be typed: ``time="1d"``. A model, data and a
metric may be objects; they become files, since a report names what it was made of and workers read files.
"""

from __future__ import annotations

import atexit
import difflib
import functools
import hashlib
import inspect
import io
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from nvaudit.declare import Field, Options, fields_of
from nvaudit.errors import NvauditError, OptionError
from nvaudit.files import write_bytes_atomic

Args = ParamSpec("Args")
Result = TypeVar("Result")
Function = Callable[..., Result]

_OBJECTS: dict[str, str] = {}
"""Keywords of the objects that became files, by the path of these."""


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


def takes_options(
    *specs: type[Options], swept: bool = False, only: Collection[str] | None = None
) -> Callable[[Function[Result]], Function[Result]]:
    """Let a function with ``**options`` take the options of specifications as a person would give them.

    Its signature and its docstring list them, for completion and help. ``progress=True`` shows a bar.
    ``swept``: options of a sweep may have several values; ``only``: the fields that are offered.
    """
    fields = {
        name: field.swept() if swept and field.option.sweep is not None else field
        for spec in specs
        for name, field in fields_of(spec).items()
        if only is None or name in only
    }

    def apply(function: Function[Result]) -> Function[Result]:
        own = inspect.signature(function)
        # What the function names itself is its own, whether an option's field or its keyword is called so:
        # `baseline` of compare is a model, that of an audit a report.
        offered = {
            _keyword(field): field
            for name, field in fields.items()
            if not {name, _keyword(field)} & {*own.parameters, ""}
        }

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Result:
            if only is not None:
                _refuse_others(function.__name__, given, offered, own)
            taken = own.bind_partial(*args, **_by_field(given, offered))
            _as_files(taken.arguments)
            _as_files(taken.arguments.get("options", {}))
            wish = taken.arguments.get("progress")
            with ExitStack() as stack:
                stack.enter_context(_objects_named())
                if isinstance(wish, bool):
                    del taken.arguments["progress"]
                    if wish:
                        taken.arguments["progress"] = stack.enter_context(shown_bar())
                return function(*taken.args, **taken.kwargs)

        call.__signature__ = _signature(own, offered)  # type: ignore[attr-defined]
        call.__doc__ = f"{inspect.getdoc(function)}\n\n{_text(offered)}"
        return call

    return apply


def _refuse_others(
    verb: str, given: Mapping[str, Any], offered: Mapping[str, Field], own: inspect.Signature
) -> None:
    """Refuse options that a function does not have although its specification does."""
    known = {*own.parameters, *offered, *(field.name for field in offered.values())}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise OptionError(
                f"{name}: {verb} has no such option; "
                + (f"did you mean {near[0]}?" if near else f"help(nvaudit.{verb}) lists them")
            )


def _keyword(field: Field) -> str:
    """Name of an option as a keyword; empty for an argument."""
    return field.flag[2:].replace("-", "_") if field.flag.startswith("--") else ""


def _signature(own: inspect.Signature, offered: Mapping[str, Field]) -> inspect.Signature:
    *named, rest = own.parameters.values()
    taken = {parameter.name for parameter in named}
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
        for name, field in offered.items()
        if name not in taken
    ]
    return own.replace(parameters=[*named, *more, rest])


def _text(offered: Mapping[str, Field]) -> str:
    """Explain the options, as numpydoc does."""
    lines = ["Other Parameters", "----------------"]
    for name, field in offered.items():
        default = field.option.unset or (repr(field.default) if not field.switch else "")
        lines += [
            f"{name} : {field.wanted}",
            f"    {field.option.help}" + (f" Default: {default}." if default else ""),
        ]
    return "\n".join(lines)


def _by_field(given: Mapping[str, Any], offered: Mapping[str, Field]) -> dict[str, Any]:
    """Give options by the names of their fields, read where they are text, one as a list where lists go."""
    named: dict[str, Any] = {}
    for name, value in given.items():
        field = offered.get(name)
        target = name if field is None else field.name
        if target in named or (target != name and target in given):
            raise OptionError(f"{name} and {target} are the same option; give one")
        known = field or next((one for one in offered.values() if one.name == name), None)
        named[target] = value if known is None else _read(known, value)
    return named


def _read(field: Field, value: Any) -> Any:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, range):
        value = list(value)
    if isinstance(value, str) and field.option.read is not None:
        value = field.parse(value)
    if isinstance(value, list | tuple) and field.option.read is field.option.sweep is not None:
        value = tuple(one for item in value for one in _several(field, item))
    if field.is_list and isinstance(value, str | int | float) and not isinstance(value, bool):
        return (value,)
    return value


def _several(field: Field, item: Any) -> Iterator[Any]:
    """Values that an item of a list stands for: a text may be several, as on the command line."""
    if isinstance(item, str):
        yield from field.parse(item)  # type: ignore[misc]  # what a sweep reads is a tuple
    else:
        yield item


def _as_files(arguments: dict[str, Any]) -> None:
    """Put objects that stand for a model, data or a metric where their names can be given."""
    if "model" in arguments:
        arguments["model"] = _model_file(arguments["model"])
    if isinstance(arguments.get("models"), list | tuple):
        arguments["models"] = [_model_file(model) for model in arguments["models"]]
    if "data" in arguments:
        arguments["data"] = _data_file(arguments["data"])
    metric = arguments.get("metric")
    if callable(metric):
        arguments["metric"] = _metric_name(metric, bool(arguments.get("workers") or arguments.get("dask")))


def _model_file(model: Any) -> Any:
    """Write an ``onnx.ModelProto``; a path is given back."""
    if not hasattr(model, "SerializeToString"):
        return model
    name = re.sub(r"\W+", "_", model.graph.name) or "model"
    return _kept("model", name, ".onnx", model.SerializeToString(deterministic=True))


def _data_file(data: Any) -> Any:
    """Write arrays: ``X``, ``(X, y)``, or several inputs by their names with labels as ``y``."""
    if data is None or _of_paths(data):
        return data
    arrays: Mapping[str, Any]
    if isinstance(data, tuple) and len(data) == 2:
        arrays = {"x": data[0], "y": data[1]}
    elif isinstance(data, Mapping) and data and not any(map(_of_paths, data.values())):
        arrays = data
    elif not isinstance(data, Mapping) and hasattr(data, "__array__") and np.ndim(data):
        arrays = {"x": data}
    else:
        kind = f"tuple of {len(data)}" if isinstance(data, tuple) else type(data).__name__
        article = "an" if kind[0].lower() in "aeiou" else "a"
        raise OptionError(f"data: {article} {kind}; give a path, X, (X, y), or arrays by name")
    buffer = io.BytesIO()
    made: dict[str, Any] = {}
    for name, array in arrays.items():
        try:
            made |= _of_lengths(array) if name == "y" else {str(name): np.asarray(array)}
        except ValueError as error:
            if isinstance(error, OptionError):
                raise
            raise OptionError(f"data: {name!r} is no array of numbers: {error}") from None
    for name, array in made.items():
        if array.dtype == object:
            raise OptionError(
                f"data: {name!r} is no array of numbers: its rows differ in length or are objects"
            )
    np.savez(buffer, **made)
    return _kept("data", "data", ".npz", buffer.getvalue())


def _of_paths(data: Any) -> bool:
    """Whether data are named by a path, or by several: of a sweep, or one for each model of a comparison."""
    if isinstance(data, list | tuple | Mapping):
        paths = data.values() if isinstance(data, Mapping) else data
        return bool(data) and all(isinstance(one, str | Path) for one in paths)
    return isinstance(data, str | Path)


def _of_lengths(labels: Any) -> dict[str, Any]:
    """Labels as arrays; lists of different lengths as one array, with their lengths beside it."""
    try:
        array = np.asarray(labels)
        if array.dtype != object or not isinstance(labels, list | tuple):
            return {"y": array}
    except ValueError:  # rows of different lengths
        pass
    try:
        rows = [np.asarray(row) for row in labels]
    except ValueError:
        rows = []
    rest = {row.shape[1:] for row in rows if row.size}
    if len(rest) != 1 or any(row.dtype == object for row in rows):
        raise OptionError("data: 'y' is no array of numbers: its rows are no lists of numbers alike")
    lengths = np.array([len(row) for row in rows])
    padded = np.zeros((len(rows), max(lengths.max(), 1), *rest.pop()))
    padded = padded.astype(np.result_type(*(row.dtype for row in rows if row.size)))
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row if row.size else 0
    return {"y": padded, "y_lengths": lengths}


def _metric_name(metric: Callable[..., Any], elsewhere: bool) -> str:
    """Name a function so that whoever runs the chips can import it."""
    module, name = metric.__module__, getattr(metric, "__qualname__", "")
    if getattr(sys.modules.get(module), name, None) is not metric:
        raise OptionError(
            f"metric: {name or metric!r} is not at the top of its module; define it there with def"
        )
    if module == "__main__" and elsewhere:
        raise OptionError(
            f"metric: {name} is defined here, where other processes cannot import it; put it into a file "
            "(mymetric.py) and import it from there, or leave out workers and dask"
        )
    return f"{module}:{name}"


def _kept(keyword: str, name: str, suffix: str, content: bytes) -> str:
    """Write a file that stays as long as this process; the same content is the same file."""
    path = _folder() / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
    if not path.exists():
        write_bytes_atomic(path, content)
    _OBJECTS[str(path)] = keyword
    return str(path)


@contextmanager
def _objects_named() -> Iterator[None]:
    """Name objects in messages by their keywords: the user has made no such files."""
    try:
        yield
    except NvauditError as error:
        text = str(error)
        for path, keyword in _OBJECTS.items():
            text = text.replace(path, keyword)
        if text != str(error):
            error.args = (text,)
        raise


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="nvaudit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def shown_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show progress as a bar, on a terminal's standard error or below a cell of a notebook."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TextColumn("ETA"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        shown = ""

        def tell(what: str, done: int, total: int) -> None:
            nonlocal shown
            if what != shown:
                bar.reset(task)
                shown = what
            bar.update(task, description=what, completed=done, total=total if total > 1 else None)

        yield tell
