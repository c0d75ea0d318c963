"""Preprocessing of images: the small JSON beside the data, and the arithmetic it states.

Every key describes what the *model* takes, so that one file serves images and arrays alike.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from nvaudit.errors import DataError, first_fault
from nvaudit.files import parse_json_once

ImageLayout = Literal["NCHW", "NHWC"]
PositiveFinite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1, le=65535)]

FILE_NAME = "nvaudit.json"
# A preprocessing file is a few lines; anything longer is something else.
MAX_JSON_BYTES = 1 << 20
_CHANNELS = (1, 3, 4)


class Preprocess(BaseModel):
    """How stored images become the model's input: ``(value / scale − mean) / std`` in float32.

    Attributes
    ----------
    layout : {"NCHW", "NHWC"} or None
        Layout that the model takes; None: read off the shape of its input.
    size : (int, int) or None
        Height and width to which the images of a folder are resized (bilinear); one number stands for a
        square. Arrays are never resized.
    fit : {"stretch", "pad"}
        How images of another aspect are brought to ``size``: stretched, or as large as fits at the upper
        left, the rest being filled.
    pad : int
        Value that fills it, 0 to 255, in every channel.
    scale : float
        Divisor of the stored integers.
    mean, std : tuple of float
        One number, or one per channel in the order that the model takes.
    color : {"RGB", "BGR", "L"} or None
        Channels that the model takes; stored colour images are RGB. None: grey for one channel, else RGB.
    classes : tuple of str or None
        Subfolder names in label order; None: sorted. Only used for image folders.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    layout: ImageLayout | None = None
    size: tuple[Pixels, Pixels] | None = None
    fit: Literal["stretch", "pad"] = "stretch"
    pad: Annotated[int, Field(ge=0, le=255)] = 0
    scale: PositiveFinite = 255.0
    mean: tuple[FiniteFloat, ...] = (0.0,)
    std: tuple[PositiveFinite, ...] = (1.0,)
    color: Literal["RGB", "BGR", "L"] | None = None
    classes: tuple[str, ...] | None = None

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @field_validator("mean", "std", "classes")
    @classmethod
    def _not_empty(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value is not None and not value:
            raise ValueError("must not be empty")
        return value

    @field_validator("scale", "mean", "std")
    @classmethod
    def _single_precision(cls, value: Any) -> Any:
        # The arithmetic is done in single precision, where a smaller divisor is 0 and a larger one infinite.
        for one in value if isinstance(value, tuple) else (value,):
            if abs(one) > 1e30 or 0 < abs(one) < 1e-30:
                raise ValueError("must be between 1e-30 and 1e30 in size, as the arithmetic is float32")
        return value

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("names a class twice")
        return value


def read_preprocess(path: Path) -> Preprocess:
    """Read a preprocessing file.

    Raises
    ------
    DataError
        If the file cannot be read, is not JSON, or holds an unknown key or a bad value.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > MAX_JSON_BYTES:
        raise DataError(f"{path}: larger than 1 MiB, so it is not a preprocessing file")
    try:
        content = parse_json_once(text)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object with keys {_known()}, got {type(content).__name__}")
    try:
        return Preprocess.model_validate(content)
    except ValidationError as error:
        raise DataError(_explain(path, error)) from error


def _known() -> str:
    return ", ".join(Preprocess.model_fields)


def _explain(path: Path, error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place, Preprocess.model_fields, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{path}: {place}: unknown key; {hint}the keys are {_known()}"
    return f"{path}: {first_fault(error)}"


def find_preprocess(paths: Sequence[Path]) -> Preprocess | None:
    """Read the first of the candidate files that exists; None when none does."""
    for path in paths:
        if path.is_file():
            return read_preprocess(path)
    return None


def needed_message(where: str, name: str, stored: str, dtype: str, path: Path) -> str:
    """Say that integer data for a floating-point input lack their preprocessing, and what to write."""
    return (
        f"{where}: input {name!r} takes {dtype} and the data are {stored}: no preprocessing is stated; "
        f'write {path}, for example {{"scale": 255, "mean": [0.0], "std": [1.0]}} '
        "(value / scale, minus mean, divided by std)"
    )


def guess_layout(shape: Sequence[int | str | None]) -> ImageLayout | None:
    """Layout of a 4-D shape, told by which of axis 1 and the last axis is 1, 3 or 4; None if undecided.

    Examples
    --------
    >>> guess_layout(("N", 3, 32, 32)), guess_layout((5, 28, 28, 1)), guess_layout(("N", None, None, None))
    ('NCHW', 'NHWC', None)
    """
    if len(shape) != 4:
        return None
    # Both or neither say nothing: [N, 3, H, 3] may be either.
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first == last:
        return None
    return "NCHW" if first else "NHWC"


def normalise(
    images: npt.NDArray[Any], preprocess: Preprocess, channel_axis: int | None
) -> npt.NDArray[np.float32]:
    """Compute ``(value / scale − mean) / std`` in float32.

    Parameters
    ----------
    images : ndarray, any numeric dtype
        Stored values in the model's layout.
    preprocess : Preprocess
        The numbers; ``mean`` and ``std`` have one entry, or one per channel.
    channel_axis : int or None
        Axis of the channels; None when mean and std are single numbers.

    Returns
    -------
    ndarray, float32
        Same shape.
    """
    shape = [1] * images.ndim
    if channel_axis is not None:
        shape[channel_axis] = -1
    mean = np.asarray(preprocess.mean, np.float32)
    std = np.asarray(preprocess.std, np.float32)
    # Divided, subtracted, divided in float32, in the order of torchvision's ToTensor and Normalize; a
    # factor worked out beforehand would round otherwise.
    scaled = images.astype(np.float32) / np.float32(preprocess.scale)
    result: npt.NDArray[np.float32] = (scaled - (mean if mean.size == 1 else mean.reshape(shape))) / (
        std if std.size == 1 else std.reshape(shape)
    )
    return result
