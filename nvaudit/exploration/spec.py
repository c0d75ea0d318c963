"""What an exploration has beside the options of an audit: its axes, and what is wanted of the points."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field

from nvaudit.declare import Option, Options
from nvaudit.option_texts import listed, read_path, read_size, read_whole
from nvaudit.options import (
    ADC_RANGE,
    CODE,
    Bits,
    CellBits,
    ConverterBits,
    Count,
    Encodable,
    Encoding,
    NotNegative,
    Positive,
    path_option,
)
from nvaudit.spec import BaselineOptions, EffortOptions, QuestionOptions, RareOptions, RunSpec

MAX_POINTS = 100_000

Objective = Literal["energy", "edp", "latency", "area"]


def _each_once(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(dict.fromkeys(values))


Value = TypeVar("Value")
Axis = Annotated[tuple[Value, ...] | None, Field(min_length=1), AfterValidator(_each_once)]


def _tolerance(text: str) -> float | None:
    return None if text == "none" else float(text)


def _whole(help_: str, wanted: str, **more: Any) -> Option:
    return Option(help_, metavar="B,B,…|A:B", read=read_whole, wanted=wanted, **more)


class SpaceOptions(Options):
    """The axes of a design space; a point is one value of each.

    They may stand in a file (``--space``), TOML or JSON: each key has a value, a list of values, or a text as
    on the command line (``adc_bits = "4:8"``).
    """

    title: ClassVar[str] = "Design space"

    crossbar: Annotated[
        Axis[tuple[Count, Count]],
        Option(
            "Crossbar sizes.",
            unset="64x64,128x128,256x256",
            metavar="RxC,…",
            read=listed(read_size),
            wanted="sizes such as 64x64,256x256",
        ),
    ] = None
    cell_bits: Annotated[
        Axis[CellBits],
        _whole("Bits per device.", "whole numbers from 1 to 8, such as 1,2,4 or 1:4",
               unset="1 to the profile's; 1 to 4 for an analog device"),
    ] = None  # fmt: skip
    adc_bits: Annotated[
        Axis[ConverterBits],
        _whole("Bits of the ADCs.", "whole numbers from 2 to 16, such as 4,6,8 or 4:8", unset="4:8"),
    ] = None
    adc_range: Annotated[
        Axis[Annotated[str, Field(pattern=ADC_RANGE)]],
        Option(
            "What the converters of a layer reach up to.",
            unset="max",
            metavar="RANGE,…",
            read=listed(str),
            wanted="max, full_scale and percentile:P with P from 50 to 100, between commas",
        ),
    ] = None
    dac_bits: Annotated[
        Axis[ConverterBits | None],
        _whole("Bits of the inputs of crossbars.", "whole numbers from 2 to 16, such as 4,8, and ideal",
               unset="ideal inputs, whose cost is that of 8 bits"),
    ] = None  # fmt: skip
    bits: Annotated[
        Axis[Bits],
        _whole("Magnitude bits of a weight.", "whole numbers from 1 to 14, such as 4,8 or 4:8",
               unset="the profile's"),
    ] = None  # fmt: skip
    encoding: Annotated[
        Axis[Encoding],
        Option(
            "How signs are stored.",
            unset="the profile's",
            metavar="NAME,…",
            read=listed(str),
            wanted="names of encodings between commas: sign_magnitude, sign_per_device, differential, offset",
        ),
    ] = None
    code: Annotated[
        Axis[Annotated[str, Field(pattern=CODE)]],
        Option(
            "What the devices of a weight count for, as for `audit`; repeatable.",
            unset="slices",
            metavar="CODE",
            read=lambda text: (text,),
            repeatable=True,
            wanted="slices, auto, auto:integers, or significances between commas such as 8,4,2,1",
        ),
    ] = None
    write_verify: Annotated[
        Axis[NotNegative | None],
        Option(
            "Tolerances within which devices are written, in the unit of sigma.",
            unset="as in the profile",
            metavar="T,…",
            read=listed(_tolerance),
            wanted="numbers, 0 or more, between commas, and none",
        ),
    ] = None

    remap: Annotated[
        tuple[Literal["no", "yes"], ...] | None,
        Field(min_length=1),
        AfterValidator(_each_once),
        Option(
            "Whether the model is hardened by `harden --method remap` first, for the bits, cells and codes "
            "of the point.",
            unset="no",
            metavar="no,yes",
            read=listed(str),
            wanted="no, yes or both between commas",
        ),
    ] = None

    copies: Annotated[
        Axis[Count],
        _whole(
            "Copies of the layer with most input vectors; others have as many as keep pace.",
            "whole numbers, 1 or more, such as 1,4,16",
            unset="1",
        ),
    ] = None
    input_mode: Annotated[
        Axis[Literal["parallel", "bit_serial", "pwm"]],
        Option(
            "How inputs drive rows; chips are simulated with parallel inputs, so other points are left out.",
            unset="parallel",
            metavar="NAME,…",
            read=listed(str),
            wanted="parallel, bit_serial and pwm, between commas",
        ),
    ] = None


class ExploreOptions(Options):
    """What is wanted of the points."""

    title: ClassVar[str] = "Exploration"

    space: Annotated[
        Encodable | None,
        Option(
            "The axes as a file, TOML or JSON; options given beside it replace its keys.",
            unset="the options below",
            metavar="FILE",
            wanted="the path of a TOML or JSON file, in UTF-8",
            read=read_path,
        ),
    ] = None
    calibration_data: Annotated[
        Encodable | None,
        path_option("Data that --remap calibrates on.", unset="a part of --data"),
    ] = None
    against: Annotated[Objective, Option("The cost that the front is drawn against.")] = "energy"
    max_energy: Annotated[
        Positive | None,
        Option(
            "Leave out points that take more energy per inference, in joules, e.g. 2e-6.",
            unset="no limit",
            metavar="J",
        ),
    ] = None
    max_latency: Annotated[
        Positive | None,
        Option("The same for the latency of an inference, in seconds.", unset="no limit", metavar="S"),
    ] = None
    max_area: Annotated[
        Positive | None,
        Option(
            "The same for the area, in square metres, e.g. 5e-6 for 5 mm².", unset="no limit", metavar="M2"
        ),
    ] = None
    max_edp: Annotated[
        Positive | None,
        Option("The same for the energy-delay product, in joule seconds.", unset="no limit", metavar="JS"),
    ] = None
    baseline: Annotated[
        str | None,
        Option(
            "A point that the recommended one is compared with, such as crossbar=256x256,adc_bits=5; an axis "
            "that is not named has its first value.",
            unset="none",
            metavar="AXIS=VALUE,…",
            wanted="axes with values, such as crossbar=256x256,adc_bits=5",
        ),
    ] = None


OF_ONE_AUDIT = (
    *(name for name in SpaceOptions.model_fields if name in RunSpec.model_fields),
    "energy_chips",
    *("roughness", "tolerance", "require_mapped", "mapping", "devices_per_weight", "allocate"),
    *(
        name
        for part in (BaselineOptions, EffortOptions, QuestionOptions, RareOptions)
        for name in part.model_fields
    ),
)
"""Options of an audit that an exploration does not take, or takes as axes."""
