"""What the user asked for: the full specification of a remapping, as it stands in its report."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from nvaudit.declare import Option, Options
from nvaudit.one_point import OnePoint
from nvaudit.options import (
    ChipOptions,
    CodeOptions,
    ConverterOptions,
    Count,
    DataOptions,
    DeviceOptions,
    Encodable,
    LossOptions,
    MappingOptions,
    MetricOptions,
    ModelOptions,
    NotNegative,
    OutlierOptions,
    RunOptions,
    TimeOptions,
    path_option,
)
from nvaudit.spec import RunSpec
from nvaudit.task_options import TaskOptions
from nvaudit.technology_options import TechnologyOptions

DigitalScale = Literal["absorb", "insert", "insert-both"]

CHIPS = 16
IMAGES = 256
TRIALS = 500
MAX_CLEAN_LOSS = 0.005
"""What may be lost without noise where the user does not say, in the metric's unit …"""

NOISE_SHARE = 0.1
"""… or as a share of what noise costs, if that is more."""

TIME_BUDGET_S = 60.0

AUDITED_SHARE, ALONE_SHARE = 0.4, 0.9
"""Share of ``--max-minutes`` that calibration may take: of three parts of about the same length where two
audits follow, and alone."""


class CalibrationOptions(Options):
    """What a remapping may do, and what it calibrates on."""

    title: ClassVar[str] = "Remapping"

    calibration_data: Annotated[
        Encodable | None,
        path_option("remap: data to calibrate on.", unset="a part of --data"),
    ] = None
    digital_scale: Annotated[
        DigitalScale,
        Option("remap: rescale only what the model can absorb, or insert digital factors.", unset="absorb"),
    ] = "absorb"
    calibration_images: Annotated[
        Count, Option("remap: samples to calibrate on.", unset=f"{IMAGES}", metavar="I")
    ] = IMAGES
    calibration_chips: Annotated[
        Annotated[int, Field(ge=2, le=100_000)],
        Option("remap: chips to calibrate on.", unset=f"{CHIPS}", metavar="C"),
    ] = CHIPS
    time_budget: Annotated[
        Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None,
        Option(
            "remap: what calibration may take; 0: no limit.",
            unset=f"{TIME_BUDGET_S:g}, with --max-minutes {100 * AUDITED_SHARE:.0f} % of it",
            metavar="SECONDS",
            wanted="a finite number of seconds, 0 (no limit) to 1e9",
        ),
    ] = None
    equalise: Annotated[bool, Option("remap: rescale nothing.", off_only=True)] = True
    clip: Annotated[bool, Option("remap: clip nothing.", off_only=True)] = True
    rounding: Annotated[bool, Option("remap: leave every weight at its nearest code.", off_only=True)] = True
    recalibrate: Annotated[
        bool, Option("remap: leave biases and normalisations as they are.", off_only=True)
    ] = True


class RemapSpec(
    TechnologyOptions,
    OnePoint,
    TimeOptions,
    RunOptions,
    ChipOptions,
    LossOptions,
    CalibrationOptions,
    ConverterOptions,
    OutlierOptions,
    CodeOptions,
    MappingOptions,
    DeviceOptions,
    TaskOptions,
    MetricOptions,
    DataOptions,
    ModelOptions,
):
    """One remapping, complete; only ``workers`` has no influence on results.

    The fields are the options of ``nvaudit harden --method remap``.
    """

    max_clean_loss: Annotated[
        NotNegative | None,
        LossOptions.option(
            "max_clean_loss", wanted="a finite number, 0 or more: 0.005 is half a point of accuracy"
        ),
    ] = None
    trials: Annotated[
        Annotated[int, Field(ge=0, le=100_000_000)],
        ChipOptions.option("trials", wanted="a whole number from 0 (no audit) to 100000000"),
    ] = TRIALS
    # Calibration takes the next one.
    seed: Annotated[Annotated[int, Field(ge=0, lt=2**63 - 1)], RunOptions.option("seed")] = 0

    @property
    def calibration_s(self) -> float:
        """Seconds that calibration may take; infinite without a limit."""
        asked = math.inf if self.time_budget == 0 else self.time_budget
        if self.max_minutes is None:
            return TIME_BUDGET_S if asked is None else asked
        share = 60 * self.max_minutes * (AUDITED_SHARE if self.trials else ALONE_SHARE)
        return share if asked is None else min(asked, share)

    def audit_options(self, **changes: Any) -> dict[str, Any]:
        """Give the options of an audit under the same conditions."""
        same = {name: getattr(self, name) for name in RunSpec.model_fields if name in RemapSpec.model_fields}
        del same["trials"], same["max_minutes"]
        return {**same, "roughness": False, **changes}


def make_remap_spec(**options: object) -> RemapSpec:
    """Validate the options of a remapping at the edge; see :meth:`nvaudit.declare.Options.validated`."""
    return RemapSpec.validated(options)
