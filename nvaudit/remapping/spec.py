"""What the user asked for: the full specification of a remapping, as it stands in its report."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nvaudit.additions import (
    CORRELATED,
    CORRELATED_WANTED,
    READ_NOISE,
    READ_NOISE_WANTED,
    STUCK_AT,
    STUCK_AT_WANTED,
)
from nvaudit.spec import (
    ADDITIONS,
    IGNORE_WANTED,
    METRIC_WANTED,
    MOST_WORKERS,
    WORKERS_WANTED,
    Encoding,
    IgnoreLabels,
    Provider,
    Scale,
    SigmaUnit,
    TopSlice,
    validated,
)

DigitalScale = Literal["absorb", "insert", "insert-both"]

CHIPS = 16
IMAGES = 256
TRIALS = 500
MAX_CLEAN_LOSS = 0.005
TIME_BUDGET_S = 60.0

_WHOLE = "a whole number, 1 or more"


class RemapSpec(BaseModel):
    """One remapping, complete; only ``workers`` has no influence on results.

    The fields are the options of ``nvaudit harden --method remap``; each describes what may be given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    model: str = Field(description="the path of an ONNX file, in UTF-8")
    device: str = Field(default="rram", description="the name of a profile or the path of one, in UTF-8")
    data: str | None = Field(default=None, description="a path, in UTF-8")
    calibration_data: str | None = Field(default=None, description="a path, in UTF-8")
    digital_scale: DigitalScale = Field(default="absorb", description="absorb, insert or insert-both")
    equalise: bool = Field(default=True, description="true or false")
    clip: bool = Field(default=True, description="true or false")
    recalibrate: bool = Field(default=True, description="true or false")
    max_clean_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=MAX_CLEAN_LOSS, description="a finite number, 0 or more: 0.005 is half a point of accuracy"
    )
    calibration_images: Annotated[int, Field(ge=1)] = Field(default=IMAGES, description=_WHOLE)
    calibration_chips: Annotated[int, Field(ge=2, le=100_000)] = Field(
        default=CHIPS, description="a whole number from 2 to 100000"
    )
    time_budget: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = Field(
        default=TIME_BUDGET_S, description="a finite number of seconds, 0 (no limit) to 1e9"
    )
    trials: Annotated[int, Field(ge=0, le=100_000_000)] = Field(
        default=TRIALS, description="a whole number from 0 (no audit) to 100000000"
    )
    percentile: Annotated[float, Field(gt=0, lt=100)] = Field(
        default=1.0, description="a number above 0 and below 100"
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        default=0.95, description="a number above 0.5 and below 1"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63 - 1)] = Field(
        default=0, description="a whole number from 0 to 9223372036854775806"
    )
    bits: Annotated[int, Field(ge=1, le=14)] | None = Field(
        default=None, description="a whole number from 1 to 14"
    )
    cell_bits: Annotated[int, Field(ge=1, le=8)] | None = Field(
        default=None, description="a whole number from 1 to 8"
    )
    sigma: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None, description="a finite number"
    )
    sigma_unit: SigmaUnit | None = Field(default=None, description="one of level, full_scale, weight_max")
    top_slice: TopSlice | None = Field(default=None, description="one of window, lowest")
    encoding: Encoding | None = Field(default=None, description="one of sign_magnitude, differential, offset")
    scale: Scale = Field(default="per_tensor", description="one of per_tensor, per_channel")
    metric: str | None = Field(default=None, description=METRIC_WANTED)
    class_axis: Annotated[int, Field(ge=-64, le=63)] | None = Field(
        default=None, description="a whole number from -64 to 63"
    )
    ignore_labels: IgnoreLabels = Field(default=(), description=IGNORE_WANTED)
    output_name: str | None = Field(default=None, description="the name of an output")
    limit: Annotated[int, Field(ge=1)] | None = Field(default=None, description=_WHOLE)
    batch_size: Annotated[int, Field(ge=1)] | None = Field(default=None, description=_WHOLE)
    layers: tuple[str, ...] = Field(default=(), description="a list of globs")
    digital: tuple[str, ...] = Field(default=(), description="a list of globs")
    time_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="a finite number of seconds, 0 or more"
    )
    enable: tuple[str, ...] = Field(default=(), description="a list of names of noise terms")
    disable: tuple[str, ...] = Field(default=(), description="a list of names of noise terms")
    stuck_at: Annotated[str, Field(pattern=STUCK_AT)] | None = Field(
        default=None, description=STUCK_AT_WANTED
    )
    read_noise: Annotated[str, Field(pattern=READ_NOISE)] | None = Field(
        default=None, description=READ_NOISE_WANTED
    )
    correlated: Annotated[str, Field(pattern=CORRELATED)] | None = Field(
        default=None, description=CORRELATED_WANTED
    )
    write_verify: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="a finite number, 0 or more"
    )
    drift_compensation: bool = Field(default=False, description="true or false")
    provider: Provider = Field(
        default="cpu", description="one of cpu, cuda, tensorrt, rocm, openvino, coreml, dml"
    )
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] = Field(default=0, description=WORKERS_WANTED)

    @field_validator("model", "device", "data", "calibration_data")
    @classmethod
    def _encodable(cls, value: str | None) -> str | None:
        if value is not None:
            value.encode()  # ONNX Runtime and JSON know no other names; UnicodeEncodeError is a ValueError
        return value

    def audit_options(self, **changes: Any) -> dict[str, Any]:
        """Give the options of an audit under the same conditions."""
        same = (
            *("model", "device", "data", "confidence", "seed", "bits", "cell_bits", "sigma_unit", "encoding"),
            *(
                "scale",
                "metric",
                "class_axis",
                "ignore_labels",
                "output_name",
                "limit",
                "batch_size",
                "layers",
                "digital",
            ),
            *("time_s", "enable", "disable", "provider", "workers"),
            *ADDITIONS,
        )
        sigmas = () if self.sigma is None else (self.sigma,)
        options = {name: getattr(self, name) for name in same}
        return {**options, "sigmas": sigmas, "percentiles": (self.percentile,), "roughness": False, **changes}


def make_remap_spec(**options: object) -> RemapSpec:
    """Validate options at the edge.

    Raises
    ------
    OptionError
        Naming each option that is wrong, what was found, and what is allowed.
    """
    return validated(RemapSpec, options)
