"""The points of a design space: axes from options or a file, every combination, and why some cannot be."""

from __future__ import annotations

import itertools
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvaudit.declare import fields_of
from nvaudit.device import DeviceProfile
from nvaudit.errors import OptionError, shown
from nvaudit.exploration.spec import MAX_POINTS, SpaceOptions
from nvaudit.files import parse_json_once
from nvaudit.spec import RunSpec

MAX_BYTES = 1 << 20

_READERS: Mapping[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": parse_json_once}

_SIZES = ((64, 64), (128, 128), (256, 256))
_ADC_BITS = (4, 5, 6, 7, 8)
_ANALOG_BITS = (1, 2, 3, 4)

_NONE = {"dac_bits": "ideal", "write_verify": "none"}
"""Words for no value of an axis that may have none."""

Settings = Mapping[str, Any]
"""One value of each axis, by its name, which is that of an option of an audit."""


@dataclass(frozen=True)
class Space:
    """A design space.

    Attributes
    ----------
    axes : mapping of str to tuple
        The values of each axis in the order given; also of those that have one value for all points.
    """

    axes: Mapping[str, tuple[Any, ...]]

    @property
    def size(self) -> int:
        """Combinations."""
        return math.prod(len(values) for values in self.axes.values())

    @property
    def varied(self) -> tuple[str, ...]:
        """Axes with more than one value."""
        return tuple(name for name, values in self.axes.items() if len(values) > 1)

    def combinations(self) -> Iterator[Settings]:
        """Every combination, the last axis fastest."""
        for values in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))

    def label(self, settings: Settings) -> str:
        """Name a point by what it has not in common with all others."""
        return " ".join(f"{name}={value_text(name, settings[name])}" for name in self.varied) or "the point"


def value_text(axis: str, value: Any) -> str:
    """Show a value of an axis as it is typed.

    Examples
    --------
    >>> value_text("crossbar", (64, 128)), value_text("dac_bits", None)
    ('64x128', 'ideal')
    """
    if value is None:
        return _NONE.get(axis, "own")
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return fields_of(RunSpec)[axis].option.write(value)


def settle_space(given: Mapping[str, object], file: Path | None, profile: DeviceProfile) -> Space:
    """Settle the axes: options, else the keys of the file, else what holds without either.

    Parameters
    ----------
    given : mapping
        Fields of :class:`SpaceOptions`; None where an option is not given.

    Raises
    ------
    OptionError
        If the file is none, a key or value is wrong, or there are too many combinations.
    """
    axes: dict[str, tuple[Any, ...]] = {
        "crossbar": _SIZES,
        "cell_bits": _ANALOG_BITS if profile.cell_bits is None else tuple(range(1, profile.cell_bits + 1)),
        "adc_bits": _ADC_BITS,
        "code": ("slices",),  # also where a mapping file lies beside the model: codes are an axis
    }
    if file is not None:
        axes |= _chosen(read_space(file))
    axes |= _chosen(SpaceOptions.validated(given))
    space = Space({name: axes[name] for name in SpaceOptions.model_fields if name in axes})
    if space.size > MAX_POINTS:
        sizes = " · ".join(f"{len(values)} {name}" for name, values in space.axes.items() if len(values) > 1)
        raise OptionError(
            f"the design space has {space.size:,} points ({sizes}), more than {MAX_POINTS:,}; give fewer "
            "values"
        )
    return space


def _chosen(options: SpaceOptions) -> dict[str, tuple[Any, ...]]:
    return {name: getattr(options, name) for name in SpaceOptions.model_fields if getattr(options, name)}


def read_space(path: Path) -> SpaceOptions:
    """Read the axes of a file.

    Raises
    ------
    OptionError
        If it cannot be read, is neither TOML nor JSON by its name, or has a wrong key or value.
    """
    where = f"--space {path}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OptionError(f"{where}: cannot be read: {error.strerror}; name a TOML or JSON file") from error
    if len(data) > MAX_BYTES:
        raise OptionError(f"{where}: has {len(data):,} bytes; a space takes a few hundred")
    try:
        raw = _READERS[path.suffix.lower()](data.decode("utf-8"))
    except KeyError:
        raise OptionError(f"{where}: is neither .toml nor .json by its name; rename it") from None
    except (ValueError, RecursionError) as error:  # both readers' errors, and that of UTF-8, are ValueErrors
        raise OptionError(f"{where}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(raw, dict):
        raise OptionError(f"{where}: is a list or a value; give axes with their values")
    try:
        return SpaceOptions.validated({name: _value(name, item) for name, item in raw.items()})
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from None


def _value(name: str, value: object) -> object:
    """Read the value of a key: a text as on the command line, a list of such, or values."""
    fields = fields_of(SpaceOptions)
    if name not in fields:
        return value  # is refused with its name
    if value == []:
        raise OptionError(f"{name}: got []; give at least one value")
    read: list[object] = []
    for item in value if isinstance(value, list) else [value]:
        try:
            parsed = fields[name].parse(item) if isinstance(item, str) else (item,)
            assert isinstance(parsed, tuple)  # as every axis reads a text
            SpaceOptions.validated({name: parsed})
        except OptionError as error:
            text = str(error).removeprefix(f"{fields[name].flag}: ")
            if not text.startswith("got "):  # says more than what may be given
                raise OptionError(f"{name}: {text}") from None
            raise OptionError(f"{name}: got {shown(item)}; use {_in_file(name)}") from None
        read += parsed
    return tuple(read)


def _in_file(axis: str) -> str:
    """What may be given for an axis in a file, where several values are a list."""
    field = fields_of(SpaceOptions)[axis]
    if field.choices:
        return f"{', '.join(map(json.dumps, field.choices))}, one or several in a list"
    # The significances of a code stand between commas in a file too.
    wanted = field.wanted if axis == "code" else re.sub(",? between commas", "", field.wanted)
    return f"{wanted}, one or a list"


def read_baseline(text: str, space: Space) -> Settings:
    """Read the settings of ``--baseline``.

    Raises
    ------
    OptionError
        If an axis is unknown, or a value is none that it can have.
    """
    settings: dict[str, Any] = {name: values[0] for name, values in space.axes.items()}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name not in SpaceOptions.model_fields:
            known = ", ".join(SpaceOptions.model_fields)
            raise OptionError(f"--baseline: got {part.strip()!r}; write AXIS=VALUE with an axis of {known}")
        try:
            read = fields_of(SpaceOptions)[name].parse(value)
            (settings[name],) = getattr(SpaceOptions.validated({name: read}), name)
        except ValueError:  # an OptionError, which speaks of several values, or there are several
            raise OptionError(f"--baseline: {name}: got {value!r}; give one value, {_one(name)}") from None
    return {name: settings[name] for name in SpaceOptions.model_fields if name in settings}


def _one(axis: str) -> str:
    """What may be given for one value of an axis."""
    field = fields_of(SpaceOptions)[axis]
    wanted = fields_of(RunSpec).get(axis, field).wanted
    if field.choices:
        wanted = f"one of {', '.join(field.choices)}"
    return f"{wanted}{f', or {_NONE[axis]}' if axis in _NONE else ''}"


def likeness(one: Settings, other: Settings, axes: Sequence[str]) -> int:
    """Count the axes on which two points are alike."""
    return sum(one[name] == other[name] for name in axes)
