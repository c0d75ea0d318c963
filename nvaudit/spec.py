"""What the user asked for: the full specification of a run, as it stands in the report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nvaudit.errors import OptionError

Encoding = Literal["sign_magnitude", "differential", "offset"]
Scale = Literal["per_tensor", "per_channel"]
SigmaUnit = Literal["level", "full_scale", "weight_max"]
Provider = Literal["cpu", "cuda", "tensorrt", "rocm", "openvino", "coreml", "dml"]

MAX_SWEEP = 1000


class RunSpec(BaseModel):
    """One audit, complete: two runs with equal specifications, models, data and devices give equal reports.

    Only ``workers`` has no influence on results. The fields are the options of ``nvaudit audit``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    device: str
    data: str | None = None
    trials: Annotated[int, Field(ge=1, le=100_000_000)] = 1000
    percentiles: tuple[Annotated[float, Field(gt=0, lt=100)], ...] = (1.0,)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    bits: Annotated[int, Field(ge=1, le=14)] | None = None
    cell_bits: Annotated[int, Field(ge=1, le=8)] | None = None
    sigmas: tuple[float, ...] = ()
    sigma_unit: SigmaUnit | None = None
    encoding: Encoding | None = None
    scale: Scale = "per_tensor"
    metric: str | None = None
    class_axis: int | None = None
    output: str | None = None
    min_kpp: float | None = None
    yield_at: tuple[float, ...] = ()
    limit: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 64
    layers: tuple[str, ...] = ()
    digital: tuple[str, ...] = ()
    time_s: Annotated[float, Field(ge=0)] | None = None
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    crossbar: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (256, 256)
    every_device: bool = False
    provider: Provider = "cpu"
    workers: Annotated[int, Field(ge=0)] = 0

    @field_validator("sigmas", "yield_at", "min_kpp", "time_s")
    @classmethod
    def _finite(cls, value: object) -> object:
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
            raise ValueError("must be a finite number")
        return value


def make_spec(**options: object) -> RunSpec:
    """Validate options at the edge.

    Raises
    ------
    OptionError
        Naming each option that is wrong, what was found, and what is allowed.
    """
    options = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
    try:
        return RunSpec.model_validate(options)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            name = str(item["loc"][0]).replace("_", "-")
            lines.append(f"--{_FLAG.get(name, name)}: {item['msg'].lower()}, got {item['input']!r}")
        raise OptionError("; ".join(lines)) from None


_FLAG = {"percentiles": "percentile", "sigmas": "sigma", "time-s": "time"}


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
        if len(numbers) == 1:
            values.append(numbers[0])
        elif len(numbers) == 3:
            values.extend(_sweep(text, *numbers))
        else:
            raise OptionError(f"--sigma {text!r} is neither a number nor a sweep start:stop:step")
    return tuple(dict.fromkeys(values))


def _sweep(text: str, start: float, stop: float, step: float) -> list[float]:
    if not all(map(math.isfinite, (start, stop, step))) or step <= 0 or stop < start:
        raise OptionError(f"--sigma {text!r}: a sweep needs start ≤ stop and a step above 0")
    # Half a millionth of a step: 0.3 belongs to 0.1:0.3:0.1 although 0.1 + 2·0.1 > 0.3 in floating point.
    count = math.floor((stop - start) / step + 5e-7) + 1
    if count > MAX_SWEEP:
        raise OptionError(f"--sigma {text!r} has {count} points; at most {MAX_SWEEP} are run at once")
    return [round(start + i * step, 12) for i in range(count)]


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
