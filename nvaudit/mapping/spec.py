"""Options of `nvaudit map`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nvaudit.declare import Option, Options
from nvaudit.options import Count, Encodable, path_option

MOST_CHIPS = 1000
ArrayFormat = Literal["npz", "csv", "hdf5", "zarr"]


class MapOptions(Options):
    """What is written."""

    title: ClassVar[str] = "What is written"

    format: Annotated[ArrayFormat, Option("Of the file of each crossbar.")] = "npz"
    verify_plan: Annotated[
        Encodable | None,
        path_option(
            "Masks of `nvaudit verify-plan`: say which devices to write-verify, and program these last.",
            unset="none",
            metavar="PLAN.npz",
        ),
    ] = None
    simulate: Annotated[
        Annotated[int, Field(ge=1, le=MOST_CHIPS)] | None,
        Option(
            "Instead of the targets write N simulated chips, in the form of measured ones.",
            unset="targets",
            metavar="N",
        ),
    ] = None
    reads: Annotated[
        Count | None,
        Option(
            "With --simulate: read every device N times, with the profile's read noise.",
            unset="one conductance without read noise",
            metavar="N",
        ),
    ] = None
