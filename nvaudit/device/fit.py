"""Making a profile from measurements: a CSV file of level statistics or of raw samples."""

from __future__ import annotations

import csv as csv_format
import hashlib
import io
import json
import math
from pathlib import Path
from typing import Literal, TypeAlias

from nvaudit.device.load import parse_profile
from nvaudit.device.profile import DeviceProfile
from nvaudit.errors import ProfileError
from nvaudit.options import Encoding
from nvaudit.profile_file import MAX_BYTES

TableUnit: TypeAlias = Literal["level", "full_scale", "us", "na", "s"]
MAX_CSV_BYTES = 64 << 20
MAX_ROWS = MAX_BYTES // len("1, ")
"""What a profile can hold at most: a digit and its separator for each sample."""
_HEADERS = "level,mean,std (or states,mean,std) or level,value"
_MICROSIEMENS_PER_SIEMENS = 1e6
_Rows: TypeAlias = list[tuple[int, list[float]]]


def fit_profile(
    csv: Path,
    name: str,
    *,
    unit: TableUnit = "us",
    window: tuple[float, float] | None = None,
    technology: str = "measured device",
    citation: str | None = None,
    encoding: Encoding = "sign_magnitude",
    weight_bits: int = 8,
) -> DeviceProfile:
    """Make a profile from a CSV file of measured conductances.

    Parameters
    ----------
    csv : pathlib.Path
        Header ``level,mean,std`` (or ``states,mean,std``): one row per level. Header ``level,value``:
        one row per measurement, which is kept as a raw sample. Levels count from 0; their number is a
        power of two.
    name : str
        Name of the profile.
    unit : str
        Unit of the conductances in the file; ``"s"`` (siemens) is converted to µS.
    window : tuple of float, optional
        Conductance of level 0 and of the top level, in `unit` (µS for ``"s"``); the measured means of
        these levels without it. Only for ``"us"``, ``"na"`` and ``"s"``.
    technology, citation : str, optional
        What is written into the profile; the citation names the file without it.
    encoding : str
        How signed weights are held.
    weight_bits : int
        Default magnitude bits of a weight.

    Returns
    -------
    DeviceProfile
        One `table` term; sigma is a multiplier of the measured deviations, 0 … 4.

    Raises
    ------
    ProfileError
        If the file cannot be read, or its header, levels or numbers are wrong.
    """
    where = str(csv)
    content = _read(csv, where)
    header, rows = _rows(content, where)
    table, means, fit = _table(header, rows, unit, where)
    data = {
        "schema_version": 1,
        "name": name,
        "technology": technology,
        "description": f"Measured conductances of {len(means)} levels.",
        "source": {
            "citation": citation or f"Measurements in {csv.name}",
            "where": f"{csv.name}, SHA-256 {hashlib.sha256(content).hexdigest()}",
            "fit": fit,
        },
        "cell_bits": _bits(len(means), where),
        "weight_bits": weight_bits,
        "encoding": encoding,
        "window": _window(unit, window, means, where),
        "sigma": {"default": 1.0, "unit": "multiplier", "min": 0.0, "max": 4.0},
        "valid_range": "the measured levels; a multiplier other than 1 is an extrapolation",
        "noise": [table],
    }
    text = json.dumps(data)
    if len(text) > MAX_BYTES:
        raise ProfileError(
            f"{where}: {len(rows)} samples make a profile above 1 MiB; give fewer, or level,mean,std"
        )
    return parse_profile(text, f"{where} as a profile")


def _table(
    header: tuple[str, ...], rows: _Rows, unit: TableUnit, where: str
) -> tuple[dict[str, object], list[float], str]:
    """Make the table term; with it the mean of each level, and how the numbers were obtained."""
    scale = _MICROSIEMENS_PER_SIEMENS if unit == "s" else 1.0
    table: dict[str, object] = {"kind": "table", "unit": "us" if unit == "s" else unit}
    if header == ("value",):
        samples = _samples(rows, scale, where)
        means = [math.fsum(values) / len(values) for values in samples]
        fit = f"{len(rows)} raw samples of {len(means)} levels, kept as they are"
        return table | {"samples": samples}, means, fit
    levels = _levels(rows, scale, where)
    entries = [{"level": index, "mean": mean, "std": std} for index, (mean, std) in enumerate(levels)]
    fit = f"mean and standard deviation of {len(levels)} levels, as given"
    return table | {"levels": entries}, [mean for mean, _ in levels], fit


def _read(csv: Path, where: str) -> bytes:
    try:
        if not csv.is_file():
            raise ProfileError(f"{where}: no such file; name a CSV file with the header {_HEADERS}")
        with csv.open("rb") as file:
            content = file.read(MAX_CSV_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{where}: cannot be read: {error.strerror}; check the path") from None
    if len(content) > MAX_CSV_BYTES:
        raise ProfileError(f"{where}: larger than 64 MiB; give level,mean,std instead of raw samples")
    return content


def _rows(content: bytes, where: str) -> tuple[tuple[str, ...], _Rows]:
    """Read the names of the columns after the level, and each row as (level, numbers)."""
    lines: list[tuple[int, list[str]]] = []
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    try:
        reader = csv_format.reader(text, strict=True)
        for row in reader:
            if any(cell.strip() for cell in row):
                lines.append((reader.line_num, row))
            if len(lines) > MAX_ROWS or reader.line_num > 4 * MAX_ROWS:  # before all are in memory
                raise ProfileError(
                    f"{where}: more than {MAX_ROWS} rows make a profile above 1 MiB; give fewer, or "
                    "level,mean,std"
                )
    except (UnicodeDecodeError, csv_format.Error) as error:
        raise ProfileError(f"{where}: not CSV: {error}; save it as comma-separated UTF-8 text") from None
    if not lines:
        raise ProfileError(f"{where}: empty; give the header {_HEADERS} and one row per level or sample")
    header = tuple(cell.strip().lower() for cell in lines[0][1])
    if header not in (("level", "mean", "std"), ("states", "mean", "std"), ("level", "value")):
        raise ProfileError(f"{where}: header: got {','.join(header)[:60]!r}; use {_HEADERS}")
    if len(lines) == 1:
        raise ProfileError(f"{where}: no rows below the header; give one row per level or sample")
    return header[1:], [_row(row, header, f"{where}: line {number}") for number, row in lines[1:]]


def _row(cells: list[str], header: tuple[str, ...], where: str) -> tuple[int, list[float]]:
    if len(cells) != len(header):
        raise ProfileError(f"{where}: got {len(cells)} cells; give {len(header)}: {','.join(header)}")
    level = _number(cells[0], header[0], where)
    if level != int(level) or not 0 <= level <= 4095:
        raise ProfileError(f"{where}: {header[0]}: got {cells[0].strip()!r}; levels are whole numbers from 0")
    return int(level), [_number(cell, key, where) for cell, key in zip(cells[1:], header[1:], strict=True)]


def _number(cell: str, key: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ProfileError(f"{where}: {key}: got {cell.strip()[:60]!r}; write a finite number")
    return value


def _samples(rows: _Rows, scale: float, where: str) -> list[list[float]]:
    count = max(level for level, _ in rows) + 1
    samples: list[list[float]] = [[] for _ in range(count)]
    for level, numbers in rows:
        samples[level].append(numbers[0] * scale)
    for level, values in enumerate(samples):
        if not values:
            raise ProfileError(f"{where}: level {level}: no samples; measure levels 0 to {count - 1}")
    return samples


def _levels(rows: _Rows, scale: float, where: str) -> list[tuple[float, float]]:
    by_level: dict[int, tuple[float, float]] = {}
    for level, (mean, std) in rows:
        if level in by_level:
            raise ProfileError(f"{where}: level {level}: given twice; give one row per level")
        if std < 0:
            raise ProfileError(f"{where}: level {level}: std: got {std:g}; a standard deviation is 0 or more")
        by_level[level] = mean * scale, std * scale
    for level in range(len(by_level)):
        if level not in by_level:
            raise ProfileError(f"{where}: level {level}: missing; give each level from 0 to {max(by_level)}")
    return [by_level[level] for level in range(len(by_level))]


def _bits(count: int, where: str) -> int:
    bits = count.bit_length() - 1
    if bits < 1 or count != 1 << bits:
        raise ProfileError(f"{where}: got {count} levels; their number must be a power of two, 2 or more")
    return bits


def _window(
    unit: TableUnit, asked: tuple[float, float] | None, means: list[float], where: str
) -> dict[str, object] | None:
    if unit in ("level", "full_scale"):
        if asked is not None:
            raise ProfileError(f"{where}: a window is for the units us, na and s, got {unit!r}; leave it out")
        return None
    # Targets are equally spaced over the window: by default the end levels have no mean error by definition,
    # and the other levels show how far the device is from linear.
    low, high = asked if asked is not None else (means[0], means[-1])
    if not 0 <= low < high:
        raise ProfileError(
            f"{where}: window: level 0 at {low:g} and the top level at {high:g}; the conductance must grow "
            "with the level, from 0 or more"
        )
    return {"unit": "na" if unit == "na" else "us", "min": low, "max": high}
