"""Options of `nvaudit map`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nvaudit.declare import Option, Options
from nvaudit.option_texts import read_path
from nvaudit.options import Count, Encodable

MOST_CHIPS = 1000
ArrayFormat = Literal["npz", "csv", "hdf5", "zarr"]


class MapOptions(Options):
    """What is written."""

    title: ClassVar[str] = "What is written"

    format: Annotated[ArrayFormat, Option("Of the file of each crossbar.")] = "npz"
    verify_plan: Annotated[
        Encodable | None,
        Option(
            "Masks of `nvaudit verify-plan`: say which devices to write-verify, and program these last.",
            unset="none",
            metavar="PLAN.npz",
            wanted="a path, in UTF-8",
            read=read_path,
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
