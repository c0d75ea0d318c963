"""What the user asked for: the full specification of a landscape, as it stands in its report."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from nvaudit.perturb.landscape.loss import LossOption
from nvaudit.perturb.landscape.workload import BatchNorm
from nvaudit.spec import (
    IGNORE_WANTED,
    MOST_WORKERS,
    WORKERS_WANTED,
    IgnoreLabels,
    Provider,
    record_key,
    validated,
)

SPAN = 0.3
"""The default plane reaches from −SPAN to SPAN, in lengths of the weights' filters."""

GRID = 9
IMAGES = 64
PAIRS = 12


class LandscapeSpec(BaseModel):
    """One landscape, complete; only ``workers`` and ``dask`` have no influence on results.

    The fields are the options of ``nvaudit landscape``; each describes what may be given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    model: str = Field(description="the path of an ONNX file, in UTF-8")
    data: str | None = Field(default=None, description="a path, in UTF-8")
    span: Annotated[float, Field(ge=1e-9, le=100, allow_inf_nan=False)] = Field(
        default=SPAN, description="a number above 0, at most 100"
    )
    grid: Annotated[int, Field(ge=3, le=1001)] = Field(
        default=GRID, description="a whole number from 3 to 1001"
    )
    images: Annotated[int, Field(ge=1)] = Field(default=IMAGES, description="a whole number, 1 or more")
    pairs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=PAIRS, description="a whole number from 1 to 10000"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="a whole number from 0 to 9223372036854775807"
    )
    loss: LossOption | None = Field(
        default=None, description="cross_entropy, mse or binary_cross_entropy (several labels a sample)"
    )
    batch_norm: BatchNorm = Field(default="stored", description="stored or recalibrated")
    output_name: str | None = Field(default=None, description="the name of an output")
    class_axis: Annotated[int, Field(ge=-64, le=63)] | None = Field(
        default=None, description="a whole number from -64 to 63"
    )
    ignore_labels: IgnoreLabels = Field(default=(), description=IGNORE_WANTED)
    limit: Annotated[int, Field(ge=1)] | None = Field(default=None, description="a whole number, 1 or more")
    batch_size: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="a whole number, 1 or more"
    )
    provider: Provider = Field(
        default="cpu", description="one of cpu, cuda, tensorrt, rocm, openvino, coreml, dml"
    )
    dask: str | None = Field(default=None, description="the address of a scheduler, or its scheduler file")
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] = Field(default=0, description=WORKERS_WANTED)

    @field_validator("model", "data")
    @classmethod
    def _encodable(cls, value: str | None) -> str | None:
        if value is not None:
            value.encode()  # ONNX Runtime and JSON know no other names; UnicodeEncodeError is a ValueError
        return value

    def point_options(self) -> dict[str, JsonValue]:
        """Give every option that the loss at a point depends on, by its name on the command line.

        Left out are the inputs, known by their contents, and what :func:`task_digest` covers.
        """
        exclude = {"model", "data", "workers", "dask", "span", "grid", "images", "pairs", "loss"}
        if not self.ignore_labels:
            exclude.add("ignore_labels")
        return {
            record_key(name): value for name, value in self.model_dump(mode="json", exclude=exclude).items()
        }


def make_landscape_spec(**options: object) -> LandscapeSpec:
    """Validate options at the edge.

    Raises
    ------
    OptionError
        Naming each option that is wrong, what was found, and what is allowed.
    """
    return validated(LandscapeSpec, options)
