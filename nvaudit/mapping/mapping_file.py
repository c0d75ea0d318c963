"""Mapping files: the code of every weight of a model, beside the model.

``H.mapping.json`` beside ``H.onnx`` says on which devices the weights of that very file lie. It names the
model by its SHA-256, and holds each code with its table, so that a mapping does not depend on how codes are
searched for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nvaudit.errors import OptionError, first_fault
from nvaudit.files import read_noted, write_text_atomic
from nvaudit.mapping.codes import MOST_VALUE, Code
from nvaudit.options import Encoding

MOST_BYTES = 64 << 20
_MOST_DEVICES = 128
_Level = Annotated[int, Field(ge=-255, le=255)]


class _FilePart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CodeData(_FilePart):
    """A code as it stands in a file; see :class:`nvaudit.mapping.codes.Code`."""

    significances: Annotated[
        tuple[Annotated[float, Field(gt=0, le=MOST_VALUE, allow_inf_nan=False)], ...],
        Field(min_length=1, max_length=_MOST_DEVICES),
    ] = Field(description="What a level of each device (of each pair) counts for, least first.")
    levels: int = Field(ge=2, le=256, description="Of a device.")
    encoding: Encoding
    zero: int = Field(ge=0, le=MOST_VALUE, description="Stored value of a zero weight.")
    table: Annotated[
        tuple[Annotated[tuple[_Level, ...], Field(min_length=2, max_length=MOST_VALUE + 1)], ...],
        Field(min_length=1, max_length=_MOST_DEVICES),
    ] = Field(description="Level of each device, by stored value; + devices first, then − devices.")

    @classmethod
    def of(cls, code: Code) -> CodeData:
        """Write a code down."""
        return cls(
            significances=code.significances,
            levels=code.levels,
            encoding=code.encoding,
            zero=code.zero,
            table=tuple(map(tuple, code.table.tolist())),
        )

    def code(self) -> Code:
        """Give the code.

        Raises
        ------
        ValueError
            If the table contradicts the rest.
        """
        rows = len(self.significances) * (2 if self.encoding == "differential" else 1)
        if len(self.table) != rows or len({len(row) for row in self.table}) > 1:
            raise ValueError(f"table: {len(self.table)} rows; give {rows} of equal length, one a device")
        table = np.array(self.table, np.int16)
        low = 1 - self.levels if self.encoding == "sign_per_device" else 0
        if table.min() < low or table.max() >= self.levels:
            raise ValueError(f"table: levels must lie in {low} … {self.levels - 1}")
        # With offset zero lies strictly inside, so that weights of both signs have values.
        if (self.zero > 0) != (self.encoding == "offset") or self.zero >= table.shape[1] - 1:
            raise ValueError(f"zero: got {self.zero}; it lies inside the table with offset, and is 0 else")
        code = Code(self.significances, self.levels, self.encoding, table, self.zero)
        # reachable runs over −T … T: [top] is a zero weight, the two ends are max|W| of either sign, one of
        # which has to have it.
        if not (code.reachable[code.top] and code.reachable[[0, -1]].any()):
            raise ValueError("table: the levels of a zero weight, or of the largest, do not add up to it")
        return code


class TensorData(_FilePart):
    """The code of one weight, by its place in ``codes``."""

    name: str = Field(min_length=1)
    code: int = Field(ge=0)
    rounding: Literal["nearest"] | None = Field(
        default=None,
        description="Nearest: the weight's numbers are values of its code already. Null: as all weights.",
    )


class MappingFile(_FilePart):
    """A mapping as it stands in a file."""

    kind: Literal["mapping"] = "mapping"
    schema_version: Literal[1] = 1
    model_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the model with these codes.")
    device: str = Field(description="Profile that the codes were chosen for.")
    sigma: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    rounding: Literal["least_error", "nearest"] = Field(
        description="Whether weights take the value of least expected error, or the nearest: as of weights "
        "that were rounded to these codes before."
    )
    level_variance: Annotated[
        tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], Field(max_length=256)
    ] = Field(description="Of a device at each level, in squared spacings: what codes were chosen by.")
    codes: Annotated[tuple[CodeData, ...], Field(max_length=4096)]
    tensors: tuple[TensorData, ...] = Field(description="Weights that are not named are slices.")
    digital_outliers: Annotated[float, Field(gt=0, le=0.5)] | None = Field(
        default=None, description="Share of each tensor's weights, the largest, that no device holds."
    )

    @property
    def nearest(self) -> frozenset[str]:
        """Weights that take the nearest value of their code."""
        every = self.rounding == "nearest"
        return frozenset(one.name for one in self.tensors if every or one.rounding == "nearest")

    def of(self, where: str) -> dict[str, Code]:
        """Give the code of each weight, by key.

        Raises
        ------
        OptionError
            If the file contradicts itself.
        """
        codes = []
        if not self.tensors and self.digital_outliers is None:
            raise OptionError(
                f"{where}: tensors: names no weight, and there are no digital_outliers, so it maps nothing; "
                "name a weight, or leave the mapping out"
            )
        for i, data in enumerate(self.codes):
            try:
                codes.append(data.code())
            except ValueError as error:
                raise OptionError(f"{where}: codes.{i}.{error}") from None
            if data.levels != len(self.level_variance):
                raise OptionError(
                    f"{where}: codes.{i}.levels: got {data.levels}, and level_variance has "
                    f"{len(self.level_variance)} numbers; make them equal"
                )
        code_of: dict[str, Code] = {}
        for tensor in self.tensors:
            if tensor.code >= len(codes):
                raise OptionError(
                    f"{where}: the code of {tensor.name!r} is {tensor.code}; there are {len(codes)}, from 0"
                )
            if tensor.name in code_of:
                raise OptionError(f"{where}: {tensor.name!r} stands there twice; keep one")
            code_of[tensor.name] = codes[tensor.code]
        return code_of


def mapping_beside(model: Path) -> Path:
    """Where the mapping of a model lies: ``H.mapping.json`` beside ``H.onnx``."""
    return model.with_suffix(".mapping.json")


def mapping_data(
    codes: Mapping[str, Code],
    *,
    model_sha256: str,
    device: str,
    sigma: float | None,
    variance: tuple[float, ...],
    nearest: Collection[str] = (),
    digital_outliers: float | None = None,
) -> MappingFile:
    """Write the codes of a model's weights down.

    Parameters
    ----------
    variance : tuple of float
        By which weights take the value of least expected error.
    nearest : collection of str
        Weights that take the nearest value instead, since their numbers were rounded to their code before.
    digital_outliers : float, optional
        Share of each tensor's weights, the largest, that no device holds.
    """
    # Codes are equal by contents: layers that share one refer to one table.
    distinct = list(dict.fromkeys(codes.values()))
    place = {code: i for i, code in enumerate(distinct)}
    return MappingFile(
        model_sha256=model_sha256,
        device=device,
        sigma=sigma,
        rounding="least_error",
        level_variance=variance,
        codes=tuple(map(CodeData.of, distinct)),
        tensors=tuple(
            TensorData(name=key, code=place[code], rounding="nearest" if key in nearest else None)
            for key, code in codes.items()
        ),
        digital_outliers=digital_outliers,
    )


def write_mapping(path: Path, mapping: MappingFile) -> None:
    """Write a mapping file.

    Raises
    ------
    OptionError, EngineError
        If it cannot be written; nothing is left half-written.
    """
    write_text_atomic(path, f"{mapping.model_dump_json()}\n")


def read_mapping(path: Path) -> MappingFile:
    """Read and check a mapping file.

    Raises
    ------
    OptionError
        Naming the file, the key, and what was found.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise OptionError(f"--mapping: {path} is larger than {MOST_BYTES >> 20} MiB; no mapping is")
        text = read_noted(path).decode()
    except OSError as error:
        raise OptionError(f"--mapping: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OptionError(f"--mapping: {path} is not UTF-8; give a mapping file") from None
    try:
        return MappingFile.model_validate_json(text)
    except ValidationError as error:
        raise OptionError(f"--mapping: {path}: {first_fault(error)}") from None
