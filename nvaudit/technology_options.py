"""The options that say what hardware costs, and what they need of others."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nvaudit.declare import Option, Options
from nvaudit.errors import OptionError
from nvaudit.options import MAX_QUESTIONS, Encodable

_SETTING = r"^[a-z0-9_]+(\.[a-z0-9_]+)*=[-+0-9.eE]+$"


class TechnologyOptions(Options):
    """The circuits around the devices, and how the hardware is built with them."""

    title: ClassVar[str] = "Hardware cost"

    technology: Annotated[
        Encodable | None,
        Option(
            "Also say what the hardware costs: energy, latency, area. A bundled technology (see `nvaudit "
            "technology list`) or a technology file; needs --adc-bits.",
            unset="no cost",
            short="-t",
            metavar="PROFILE",
            wanted="the name of a technology or the path of one, in UTF-8",
        ),
    ] = None
    technology_set: Annotated[
        tuple[Annotated[str, Field(pattern=_SETTING)], ...],
        Field(max_length=MAX_QUESTIONS),
        Option(
            "Set a number of the technology, in its unit, within its valid range, such as "
            "mux.columns_per_adc=16; repeatable.",
            unset="as in the profile",
            metavar="PATH=VALUE",
            wanted="PATH=VALUE, such as mux.columns_per_adc=16",
        ),
    ] = ()
    input_mode: Annotated[
        Literal["bit_serial", "parallel", "pwm"] | None,
        Option(
            "How inputs drive rows: bit after bit, as one voltage, or as one pulse of proportional length. "
            "An audit simulates one voltage.",
            unset="the technology's; in an audit parallel",
        ),
    ] = None
    copies: Annotated[
        Annotated[int, Field(ge=1, le=65536)] | None,
        Option(
            "Copies of the layer with most input vectors; others have as many as keep pace.",
            unset="1",
            metavar="N",
        ),
    ] = None
    pipelined: Annotated[
        bool, Option("Layers work on different samples at a time, instead of one after the other.")
    ] = False
    g_max_us: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        Option(
            "Highest conductance of a device whose profile is in levels, in microsiemens; with --on-off.",
            unset="the profile's",
            metavar="G",
        ),
    ] = None
    on_off: Annotated[
        Annotated[float, Field(gt=1, le=1e9)] | None,
        Option(
            "Highest over lowest conductance of a device whose profile is in levels; with --g-max-us.",
            unset="the profile's",
            metavar="R",
        ),
    ] = None
    energy_chips: Annotated[
        Annotated[int, Field(ge=2, le=1_000_000)] | None,
        Option(
            "Also work out the energy on the first N simulated chips: its mean and spread, and in an audit "
            "its correlation with the metric.",
            unset="not",
            metavar="N",
        ),
    ] = None


def check_technology(spec: TechnologyOptions, adc_bits: int | None, *, audited: bool) -> None:
    """Refuse options of a cost where none is asked for, and inputs that an audit does not simulate.

    Raises
    ------
    OptionError
        Naming the option.
    """
    if spec.technology is None:
        for name, field in TechnologyOptions.model_fields.items():
            if getattr(spec, name) != field.default:
                raise OptionError(
                    f"{type(spec).flag(name)} is for the cost of hardware; give --technology too"
                )
        return
    if adc_bits is None:
        raise OptionError("--technology: what conversions cost depends on the ADCs; give --adc-bits too")
    if audited and spec.input_mode not in (None, "parallel"):
        raise OptionError(
            f"--input-mode {spec.input_mode}: an audit simulates inputs as one voltage, and its accuracy is "
            "not that of others; leave it out, or use `nvaudit cost`"
        )
