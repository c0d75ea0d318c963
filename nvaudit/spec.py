"""What the user asked for: the full specification of a run, as it stands in the report."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator
from pydantic_core import ErrorDetails

from nvaudit.additions import (
    CORRELATED,
    CORRELATED_WANTED,
    READ_NOISE,
    READ_NOISE_WANTED,
    STUCK_AT,
    STUCK_AT_WANTED,
)
from nvaudit.errors import OptionError

Spec = TypeVar("Spec", bound=BaseModel)

Encoding = Literal["sign_magnitude", "differential", "offset"]
TopSlice = Literal["window", "lowest"]
Scale = Literal["per_tensor", "per_channel"]
SigmaUnit = Literal["level", "full_scale", "weight_max"]
Attribution = Literal["tensors", "terms", "classes", "all"]
Provider = Literal["cpu", "cuda", "tensorrt", "rocm", "openvino", "coreml", "dml"]

MAX_SWEEP = 1000
MAX_QUESTIONS = 100
MOST_WORKERS = 4096
"""Worker processes: beyond any machine."""
WORKERS_WANTED = f"a whole number from 0 to {MOST_WORKERS}"

ADC_RANGE = r"^(max|full_scale|percentile:(100|[5-9]\d(\.\d+)?))$"

RAREST = 1e-9
"""Least percentile, one chip in a hundred billion: a thousandth of what --trials can be."""


def _not_too_rare(percentile: float) -> float:
    if percentile < RAREST:
        raise ValueError(f"below {RAREST:g}")
    return percentile


Percentile = Annotated[float, Field(gt=0, lt=100), AfterValidator(_not_too_rare)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
IgnoreLabels = Annotated[tuple[Annotated[int, Field(ge=-(2**31), lt=2**31)], ...], Field(max_length=16)]
IGNORE_WANTED = "at most 16 whole numbers"
METRIC_WANTED = "top1, topK (e.g. top5), cross_entropy, mse, agreement, multilabel, or module:function"


class RunSpec(BaseModel):
    """One audit, complete: two runs with equal specifications, models, data and devices give equal reports.

    Only ``workers`` and ``dask`` have no influence on results. The fields are the options of
    ``nvaudit audit``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    model: str
    device: str
    data: str | None = None
    trials: Annotated[int, Field(ge=1, le=100_000_000)] = 1000
    percentiles: Annotated[tuple[Percentile, ...], Field(min_length=1, max_length=MAX_QUESTIONS)] = (1.0,)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    bits: Annotated[int, Field(ge=1, le=14)] | None = None
    cell_bits: Annotated[int, Field(ge=1, le=8)] | None = None
    sigmas: Annotated[tuple[Finite, ...], Field(max_length=MAX_SWEEP)] = ()
    sigma_unit: SigmaUnit | None = None
    encoding: Encoding | None = None
    top_slice: TopSlice | None = None
    scale: Scale = "per_tensor"
    metric: str | None = None
    class_axis: Annotated[int, Field(ge=-64, le=63)] | None = None
    output_name: str | None = None
    ignore_labels: IgnoreLabels = ()
    min_kpp: Finite | None = None
    require_mapped: Annotated[float, Field(ge=0, le=1)] | None = None
    yield_at: Annotated[tuple[Finite, ...], Field(max_length=MAX_QUESTIONS)] = ()
    limit: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    layers: tuple[str, ...] = ()
    digital: tuple[str, ...] = ()
    time_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    stuck_at: Annotated[str, Field(pattern=STUCK_AT)] | None = None
    read_noise: Annotated[str, Field(pattern=READ_NOISE)] | None = None
    correlated: Annotated[str, Field(pattern=CORRELATED)] | None = None
    write_verify: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    drift_compensation: bool = False
    crossbar: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (256, 256)
    skip_zero_groups: bool = False
    adc_bits: Annotated[int, Field(ge=2, le=16)] | None = None
    dac_bits: Annotated[int, Field(ge=2, le=16)] | None = None
    adc_range: Annotated[str, Field(pattern=ADC_RANGE)] = "max"
    every_device: bool = False
    provider: Provider = "cpu"
    exhaustive: bool = False
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    all_trials: bool = False
    max_trials: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    max_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    tail: Annotated[tuple[Percentile, ...], Field(max_length=MAX_QUESTIONS)] = ()
    attribute: tuple[Attribution, ...] = ()
    attribution_trials: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    attribution_images: Annotated[int, Field(ge=1)] | None = None
    roughness: bool = True
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] = 0
    dask: str | None = None

    @property
    def most_trials(self) -> int:
        """Chips that are drawn at most."""
        return self.trials if self.max_trials is None else self.max_trials

    def chip_options(self) -> dict[str, JsonValue]:
        """Give every option that the value of a chip depends on, by its name on the command line.

        Left out are the inputs, which are known by their contents, and what decides only how many chips
        there are, what is asked of them, or how they are run.
        """
        unused = {"adc_range"} if self.adc_bits is None else set()
        if self.adc_bits is None and not self.skip_zero_groups:
            unused.add("crossbar")  # then for counting only
        given = {name: getattr(self, name) for name in (*ADDITIONS, "skip_zero_groups", "ignore_labels")}
        unused |= {name for name, value in given.items() if value is None or value is False or value == ()}
        options = self.model_dump(mode="json", exclude=set(_NOT_OF_A_CHIP) | unused)
        return {record_key(name): value for name, value in options.items()}

    @field_validator("sigmas", "percentiles", "yield_at", "tail")
    @classmethod
    def _distinct(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(dict.fromkeys(value + 0.0 for value in values))  # + 0.0: −0 becomes 0

    @field_validator("model", "device", "data")
    @classmethod
    def _encodable(cls, value: str | None) -> str | None:
        if value is not None:
            value.encode()  # ONNX Runtime and JSON know no other names; UnicodeEncodeError is a ValueError
        return value


_NOT_OF_A_CHIP = (
    *("model", "device", "data"),
    *("trials", "percentiles", "confidence", "min_kpp", "require_mapped", "yield_at"),
    "workers",
    *("exhaustive", "tolerance", "all_trials", "max_trials", "max_minutes"),
    *("tail", "attribute", "attribution_trials", "attribution_images", "roughness", "dask"),
)

ADDITIONS = ("top_slice", "stuck_at", "read_noise", "correlated", "write_verify", "drift_compensation")
"""Options that change nothing where they are not given, and are then no part of what a chip is."""

_FLAG = {
    "model": "MODEL",
    "percentiles": "--percentile",
    "sigmas": "--sigma",
    "time_s": "--time",
    "ignore_labels": "--ignore-label",
    "verify_terms": "--verify-term",
}
"""Fields whose option has another name."""

_WANTED = {
    "model": "the path of an ONNX file, in UTF-8",
    "device": "the name of a profile or the path of one, in UTF-8",
    "data": "a path, in UTF-8",
    "trials": "a whole number from 1 to 100000000",
    "percentiles": f"1 to {MAX_QUESTIONS} numbers above 0 and below 100",
    "confidence": "a number above 0.5 and below 1",
    "seed": "a whole number from 0 to 9223372036854775807",
    "bits": "a whole number from 1 to 14",
    "cell_bits": "a whole number from 1 to 8",
    "sigmas": f"at most {MAX_SWEEP} finite numbers",
    "sigma_unit": "one of level, full_scale, weight_max",
    "top_slice": "one of window, lowest",
    "encoding": "one of sign_magnitude, differential, offset",
    "scale": "one of per_tensor, per_channel",
    "metric": METRIC_WANTED,
    "class_axis": "a whole number from -64 to 63",
    "output_name": "the name of an output",
    "ignore_labels": IGNORE_WANTED,
    "min_kpp": "a finite number",
    "require_mapped": "a share from 0 to 1, such as 0.95 for 95 %",
    "yield_at": f"at most {MAX_QUESTIONS} finite numbers",
    "limit": "a whole number, 1 or more",
    "batch_size": "a whole number, 1 or more",
    "layers": "a list of globs",
    "digital": "a list of globs",
    "time_s": "a finite number of seconds, 0 or more",
    "enable": "a list of names of noise terms",
    "disable": "a list of names of noise terms",
    "stuck_at": STUCK_AT_WANTED,
    "read_noise": READ_NOISE_WANTED,
    "correlated": CORRELATED_WANTED,
    "write_verify": "a finite number, 0 or more",
    "drift_compensation": "true or false",
    "crossbar": "rows and columns, whole numbers, 1 or more",
    "skip_zero_groups": "true or false",
    "adc_bits": "a whole number from 2 to 16",
    "dac_bits": "a whole number from 2 to 16",
    "adc_range": "max, full_scale, or percentile:P with P from 50 to 100",
    "every_device": "true or false",
    "provider": "one of cpu, cuda, tensorrt, rocm, openvino, coreml, dml",
    "exhaustive": "true or false",
    "tolerance": "a finite number, 0 or more",
    "all_trials": "true or false",
    "max_trials": "a whole number from 1 to 100000000",
    "max_minutes": "a finite number above 0",
    "tail": f"at most {MAX_QUESTIONS} numbers above 0 and below 100",
    "attribute": "tensors, terms, classes or all",
    "attribution_trials": "a whole number from 1 to 100000000",
    "attribution_images": "a whole number, 1 or more",
    "roughness": "true or false",
    "workers": WORKERS_WANTED,
    "dask": "the address of a scheduler, or its scheduler file",
}
_SHOWN = 60


def make_spec(**options: object) -> RunSpec:
    """Validate options at the edge.

    Raises
    ------
    OptionError
        Naming each option that is wrong, what was found, and what is allowed.
    """
    options = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    try:
        return RunSpec.model_validate(options)
    except ValidationError as error:
        found = error.errors(include_url=False)
        items = {one["loc"][0] for one in found if len(one["loc"]) > 1}
        # A bad item also makes its list too short: only the item is worth a message.
        findings = dict.fromkeys(
            _describe(one) for one in found if len(one["loc"]) > 1 or one["loc"][0] not in items
        )
        raise OptionError("; ".join(findings)) from None


def _describe(error: ErrorDetails) -> str:
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such option; {_near(name, RunSpec.model_fields)}"
    if error["type"] == "missing":
        return f"{flag(name)}: missing; give {_WANTED[name]}"
    got = repr(error["input"])
    got = got if len(got) <= _SHOWN else f"{got[: _SHOWN - 1]}…"
    least = (
        f", {RAREST:g} at least" if error["type"] == "value_error" and name in ("percentiles", "tail") else ""
    )
    return f"{flag(name)}: got {got}; use {_WANTED[name]}{least}"


def validated(kind: type[Spec], options: Mapping[str, object]) -> Spec:
    """Validate options whose fields describe, as their ``description``, what may be given.

    Parameters
    ----------
    kind : type of BaseModel
    options : mapping

    Returns
    -------
    BaseModel
        Of that kind.

    Raises
    ------
    OptionError
        Naming each option that is wrong, what was found, and what is allowed.
    """
    options = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    fields = kind.model_fields
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        found = []
        for one in error.errors(include_url=False):
            name = str(one["loc"][0])
            if name not in fields:
                found.append(f"{name}: there is no such option; {_near(name, fields)}")
            elif one["type"] == "missing":
                found.append(f"{flag(name)}: missing; give {fields[name].description}")
            else:
                found.append(f"{flag(name)}: got {one['input']!r:.60}; use {fields[name].description}")
        raise OptionError("; ".join(dict.fromkeys(found))) from None


def _near(name: str, fields: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, fields, n=1)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(fields)}"


def flag(name: str) -> str:
    """Name of a field on the command line.

    Examples
    --------
    >>> flag("batch_size"), flag("sigmas")
    ('--batch-size', '--sigma')
    """
    return _FLAG.get(name, f"--{name.replace('_', '-')}")


def record_key(name: str) -> str:
    """Name of a field in the records of ``--resume``: the first one it had, so that old folders go on."""
    return "--output" if name == "output_name" else flag(name)


def parse_sigmas(texts: tuple[str, ...]) -> tuple[float, ...]:
    """Read ``--sigma`` values: a number each, or ``start:stop:step`` for a sweep, both ends included.

    Raises
    ------
    OptionError
        If a text is neither, or the sweep is empty or longer than 1000 points.

    Examples
    --------
    >>> parse_sigmas(("0.1:0.3:0.1",))
    (0.1, 0.2, 0.3)
    """
    values: list[float] = []
    for text in texts:
        parts = text.split(":")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) == 1 and math.isfinite(numbers[0]):
            values.append(numbers[0])
        elif len(numbers) == 3:
            _check_sweep(text, *numbers)
            values.extend(_sweep(text, *map(Decimal, parts)))
        else:
            raise OptionError(f"--sigma {text!r} is neither a finite number nor a sweep start:stop:step")
    return tuple(dict.fromkeys(values))


def _check_sweep(text: str, start: float, stop: float, step: float) -> None:
    if not all(map(math.isfinite, (start, stop, step))) or step <= 0 or stop < start:
        raise OptionError(f"--sigma {text!r}: a sweep needs finite start ≤ stop and a step above 0")


def _sweep(text: str, start: Decimal, stop: Decimal, step: Decimal) -> list[float]:
    # Decimal, as typed: 0.3 belongs to 0.1:0.3:0.1 although 0.1 + 2·0.1 > 0.3 in binary floating point.
    steps = (stop - start) / step
    if steps >= MAX_SWEEP:
        raise OptionError(f"--sigma {text!r} has more than {MAX_SWEEP} points; take a larger step")
    return [float(start + i * step) for i in range(int(steps) + 1)]


_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31557600.0}


def parse_time(text: str) -> float:
    """Read a time such as ``90``, ``90s``, ``5min``, ``12h``, ``1d``, ``2w``, ``10y`` in seconds.

    Raises
    ------
    OptionError
        If the text is not a time.
    """
    for unit in sorted(_SECONDS, key=len, reverse=True):
        if text.endswith(unit):
            number, factor = text[: -len(unit)], _SECONDS[unit]
            break
    else:
        number, factor = text, 1.0
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise OptionError(f"--time {text!r} is not a time; write e.g. 90s, 5min, 12h, 1d, 2w, 10y")
    return seconds
