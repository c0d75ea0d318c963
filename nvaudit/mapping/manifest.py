"""``manifest.json``: what lies where on the crossbars of a mapping, for whoever programs and reads them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from nvaudit.errors import DataError, first_fault
from nvaudit.files import read_noted
from nvaudit.options import Encoding

MANIFEST = "manifest.json"
ARRAYS = "arrays"
DIGITAL = "digital"
DIGITAL_PART = "digital.onnx"
_MOST_BYTES = 1 << 30
_SHA256 = r"^[0-9a-f]{64}$"
Span = Annotated[tuple[int, int], Field(description="The first, and the one after the last.")]


class ManifestPart(BaseModel):
    """A part of the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ConverterEntry(ManifestPart):
    """A DAC or an ADC: ``code = clip(round(value / step), low, high)``."""

    step: float = Field(description="In the input's unit of a DAC; in input codes × levels of an ADC.")
    low: int
    high: int


class OperatorEntry(ManifestPart):
    """One operator that multiplies by the tensor."""

    node: str = Field(description="Its name, or operator and position.")
    op_type: str
    domain: str
    graph: str = Field(description="The graph it is in; empty for the main one.")
    input: int = Field(description="Position of the weight among its inputs.")
    activation: str | None = Field(
        description="Value that drives the rows: row r of a matrix takes input channel r ÷ kernel at kernel "
        "position r mod kernel (of a convolution, unfolded); null where it is not a value of the graph."
    )
    result: str = Field(description="Value that the columns make: weight column o is output channel o.")
    product: str | None = Field(
        default=None,
        description="Input of digital.onnx that takes the product of weights and inputs, without bias; null "
        "where the operator is there as it is.",
    )
    driver: str | None = Field(
        default=None,
        description="What drives the array: an output of digital.onnx, or a model input.",
    )


class CrossbarEntry(ManifestPart):
    """One crossbar; it is filled from its first row and column on."""

    file: str = Field(description="Below the folder, without the suffix that says the format.")
    rows: Span = Field(description="Rows of the tensor, its matrices counted through.")
    outputs: tuple[int, ...] = Field(
        description="Weight columns on it, runs [first, after-last, first, after-last, …]; its device "
        "columns are the devices of these, side by side, cut where the crossbar ends."
    )
    first_device: int = Field(description="Which device of its weight the first column holds.")
    columns: int = Field(description="Device columns in use.")
    devices: int = Field(description="Devices in use.")
    verify: int | None = Field(default=None, description="Devices to write-verify; null without a plan.")
    sha256: str = Field(pattern=_SHA256, description="Of the arrays' bytes; see docs/deploy.md.")


class OutliersEntry(ManifestPart):
    """Weights of a tensor that no device holds: they are added up beside the array."""

    weights: int = Field(ge=1)
    places: str = Field(description="File of where they are in the flattened weight, .npy, ascending.")
    values: str = Field(description="File of what they are, .npy, float32.")
    sha256: str = Field(pattern=_SHA256, description="Of the places and then the values, as bytes.")


class TensorEntry(ManifestPart):
    """One tensor on the array."""

    name: str
    operators: tuple[OperatorEntry, ...]
    shape: tuple[int, ...] = Field(description="Of the weight, as the first operator takes it.")
    row_axes: tuple[int, ...] = Field(description="Axes of the weight that count rows, the last fastest.")
    column_axes: tuple[int, ...] = Field(description="Axes that count weight columns, the last fastest.")
    matrices: int = Field(description="Groups of a convolution, directions of an LSTM: each its crossbars.")
    matrix: tuple[int, int] = Field(description="Rows and weight columns of one matrix.")
    kernel: int = Field(description="Rows of one input channel.")
    encoding: Encoding
    factors: tuple[float, ...] = Field(
        description="What one level of each device of a weight counts for; negative in a − column. The "
        "value is Σ sign · |factor| · level − zero, with the sign of the file of arrays."
    )
    zero: int = Field(description="Stored value of a zero weight: above 0 with offset only.")
    top_level: int = Field(description="The level at the upper end of the window.")
    slices: bool = Field(description="Whether the code is slices of bits; else another code.")
    scale: float | None = Field(description="Weight units per value; null where there are several.")
    scales: str | None = Field(description="File of several scales, .npy, that broadcasts to the shape.")
    converters: Literal["ideal"] | dict[Literal["dac", "adc"], ConverterEntry | None] = Field(
        description="Ideal without --adc-bits and where the weight is not split; else their ranges."
    )
    outliers: OutliersEntry | None = Field(
        default=None,
        description="Weights whose devices hold a zero weight instead; null without --digital-outliers.",
    )
    whole: str | None = Field(
        default=None,
        description="Why digital.onnx has its operators as they are; null where it has not.",
    )
    crossbars: tuple[CrossbarEntry, ...]


class WindowEntry(ManifestPart):
    """The conductances of level 0 and of the top level."""

    unit: Literal["us", "na", "level"]
    min: float
    max: float


class ModelEntry(ManifestPart):
    """The model as it was given."""

    path: str
    sha256: str = Field(pattern=_SHA256, description="Over the file and its external data.")


class DigitalEntry(ManifestPart):
    """A tensor that stays digital."""

    name: str
    reason: str


class Manifest(ManifestPart):
    """A model on crossbars, complete."""

    kind: Literal["nvaudit-mapping"] = "nvaudit-mapping"
    schema_version: Literal[1] = 1
    nvaudit_version: str
    sha256: str = Field(
        pattern=_SHA256,
        description="Of all else that stands here but model.path and plan, which may be changed; found anew "
        "by whatever reads the manifest.",
    )
    model: ModelEntry
    device: dict[str, JsonValue] = Field(description="The full device profile.")
    device_sha256: str = Field(pattern=_SHA256)
    sigma: float
    sigma_unit: str
    time_s: float
    run: dict[str, JsonValue] = Field(description="Options that the mapping was made with.")
    crossbar: tuple[int, int] = Field(description="Rows and columns.")
    window: WindowEntry
    format: Literal["npz", "csv", "hdf5", "zarr"]
    tensors: tuple[TensorEntry, ...]
    digital: tuple[DigitalEntry, ...]
    digital_part: str | None = Field(
        default=None,
        description="The model with the products of arrays as inputs; null for simulated chips.",
    )
    plan: str | None = Field(
        default=None, description="The plan of what to write-verify, where one is given."
    )
    order: tuple[tuple[int, int], ...] = Field(
        description="Crossbars in the order of programming, each [tensor, crossbar]: those with the most "
        "devices to write-verify last, so that what is verified is disturbed by little afterwards."
    )
    chips: tuple[str, ...] = Field(
        default=(), description="Folders of simulated chips beside this file; empty in a mapping."
    )
    seed: int | None = Field(default=None, description="Of the simulated chips.")

    @property
    def crossbars(self) -> int:
        """All crossbars."""
        return sum(len(tensor.crossbars) for tensor in self.tensors)


def folder_name(index: int, name: str) -> str:
    """Name the folder of a tensor: any name of a tensor may be in a model, not every one in a folder.

    Examples
    --------
    >>> folder_name(3, "/conv1/weight")
    '003-conv1_weight'
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:60]
    return f"{index:03d}-{plain}".rstrip("-")


def crossbar_file(index: int, name: str, number: int) -> str:
    """Name the file of one crossbar of a tensor, without suffix.

    Examples
    --------
    >>> crossbar_file(0, "fc", 12)
    'arrays/000-fc/000012'
    """
    return f"{ARRAYS}/{folder_name(index, name)}/{number:06d}"


def runs_of(outputs: list[int]) -> tuple[int, ...]:
    """Write ascending numbers as runs.

    Examples
    --------
    >>> runs_of([0, 1, 2, 5, 6])
    (0, 3, 5, 7)
    """
    runs: list[int] = []
    for output in outputs:
        if runs and runs[-1] == output:
            runs[-1] = output + 1
        else:
            runs += [output, output + 1]
    return tuple(runs)


def content_of(manifest: Manifest) -> dict[str, Any]:
    """All that a manifest says of its mapping: without the names of files that may lie elsewhere by now."""
    content = manifest.model_dump(mode="json", exclude={"sha256": True, "plan": True, "model": {"path"}})
    # Whether there is a plan is what a mapping is; where it lies is not.
    return {**content, "planned": manifest.plan is not None}


def content_digest(manifest: Manifest) -> str:
    """SHA-256 of what a manifest says: its own ``sha256``, unless it was edited."""
    text = json.dumps(content_of(manifest), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def names_written(folder: Path) -> frozenset[str]:
    """Give the names of what `nvaudit map` wrote into a folder; none where it holds no mapping."""
    try:
        chips = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["chips"]
        return frozenset({MANIFEST, ARRAYS, DIGITAL, DIGITAL_PART, *chips})
    except (OSError, ValueError, LookupError, TypeError):
        return frozenset()


def read_manifest(folder: Path, *, edited: bool = False) -> Manifest:
    """Read the manifest of a folder.

    Parameters
    ----------
    edited : bool
        Whether it may say something else than was written.

    Raises
    ------
    DataError
        If there is none, it is none of this version, or it was edited: naming the key and what was found.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path}: larger than {_MOST_BYTES >> 30} GiB; no manifest is")
        text = read_noted(path)
    except FileNotFoundError:
        raise DataError(
            f"{folder}: has no {MANIFEST}; give the folder that `nvaudit map` wrote, and for measured chips "
            "copy its manifest beside them"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise DataError(f"{path}: {first_fault(error)}; make the mapping anew") from None
    if not edited and content_digest(manifest) != manifest.sha256:
        raise DataError(
            f"{path}: was edited after it was written (its SHA-256 is of another content), and only "
            "model.path and plan may be; take it as `nvaudit map` wrote it. `nvaudit map --check` of the "
            "mapping names what differs"
        )
    return manifest


def manifest_text(manifest: Manifest) -> str:
    """Write a manifest; lists of numbers are on one line, for it is read by people, too."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    return re.sub(r"\[[-+.\d\sEe,]+\]", lambda match: " ".join(match[0].split()), text) + "\n"


def schema_text() -> str:
    """Write the JSON schema (draft 2020-12) of a manifest, as it is committed."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema = Manifest.model_json_schema(mode="serialization")
    return json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"
