"""Read the values of options from the texts that stand for them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal

from nvaudit.errors import OptionError

MAX_SWEEP = 1000


def read_path(text: str) -> str:
    """Read a path; an empty one, as from an unset shell variable, is refused rather than read as ``.``."""
    if not text:
        raise ValueError
    return text


def read_sweep(text: str) -> tuple[float, ...]:
    """Read a number, several between commas, or ``start:stop:step`` for a sweep, both ends included.

    Raises
    ------
    OptionError
        If a text is neither, or the sweep is empty or longer than 1000 points.

    Examples
    --------
    >>> read_sweep("0.1:0.3:0.1")
    (0.1, 0.2, 0.3)
    """
    if "," in text:
        return tuple(number for part in text.split(",") for number in read_sweep(part))
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and math.isfinite(numbers[0]):
        return (numbers[0],)
    if len(numbers) != 3:
        raise OptionError(f"--sigma {text!r} is neither a finite number nor a sweep start:stop:step")
    start, stop, step = numbers
    if not all(map(math.isfinite, numbers)) or step <= 0 or stop < start:
        raise OptionError(f"--sigma {text!r}: a sweep needs finite start ≤ stop and a step above 0")
    # Decimal, as typed: 0.3 belongs to 0.1:0.3:0.1 although 0.1 + 2·0.1 > 0.3 in binary floating point.
    first, last, stride = map(Decimal, parts)
    steps = (last - first) / stride
    if steps >= MAX_SWEEP:
        raise OptionError(f"--sigma {text!r} has more than {MAX_SWEEP} points; take a larger step")
    return tuple(float(first + i * stride) for i in range(int(steps) + 1))


def read_share(text: str) -> float:
    """Read a share, as a number or in percent.

    Examples
    --------
    >>> read_share("1%"), read_share("0.01")
    (0.01, 0.01)
    """
    number = text.strip()
    return float(number[:-1]) / 100 if number.endswith("%") else float(number)


_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31557600.0}


def read_amount(text: str) -> float:
    """Read a number; with a percent sign it is a hundredth.

    Examples
    --------
    >>> read_amount("0.85"), read_amount("85%"), read_amount("85 %")
    (0.85, 0.85, 0.85)
    """
    number = text.strip()
    return float(number[:-1]) / 100 if number.endswith("%") else float(number)


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


def read_size(text: str) -> tuple[int, int]:
    """Read rows and columns, such as ``256x256``."""
    match = re.fullmatch(r"([1-9]\d{0,5})[xX×]([1-9]\d{0,5})", text)
    if match is None:
        raise ValueError
    return int(match[1]), int(match[2])


def read_numbers(text: str) -> tuple[float, ...]:
    """Read numbers between commas, such as ``0.1,0.2``."""
    return tuple(float(part) for part in text.split(","))


def write_numbers(values: tuple[float, ...]) -> str:
    """Write numbers between commas."""
    return ",".join(f"{value:g}" for value in values)


IDEAL = "ideal"
_RANGE = re.compile(r"(\d{1,4})(?::|-)(\d{1,4})(?::(\d{1,4}))?")


def read_whole(text: str) -> tuple[int | None, ...]:
    """Read whole numbers between commas, ranges such as ``4:8`` or ``2:8:2``, and ``ideal``.

    Examples
    --------
    >>> read_whole("4:6,8"), read_whole("ideal,2:8:3"), read_whole("1-4")
    ((4, 5, 6, 8), (None, 2, 5, 8), (1, 2, 3, 4))
    """
    numbers: list[int | None] = []
    for part in text.replace(" ", "").split(","):
        span = _RANGE.fullmatch(part)
        if span is not None:
            first, last, step = int(span[1]), int(span[2]), int(span[3] or 1)
            if first > last:
                raise OptionError(
                    f"{part} runs backwards; write {last}:{first}{f':{step}' if span[3] else ''}"
                )
            if step == 0:
                raise OptionError(f"{part} has no step; write one of 1 or more")
            numbers.extend(range(first, last + 1, step))
        elif part == IDEAL:
            numbers.append(None)
        else:
            numbers.append(int(part))
    return tuple(numbers)


def listed(read: Callable[[str], object]) -> Callable[[str], tuple[object, ...]]:
    """Read items between commas."""
    return lambda text: tuple(read(part.strip()) for part in text.split(","))
