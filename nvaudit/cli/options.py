"""Options that several commands share."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nvaudit.cli.renamed import RenamedOption
from nvaudit.errors import ModelError, OptionError
from nvaudit.perturb.watchdog import LOOP_SECONDS, VARIABLE
from nvaudit.spec import MOST_WORKERS, parse_sigmas, parse_time

Command = TypeVar("Command", bound=Callable[..., Any])


class FilePath(click.ParamType[Path]):
    """A path; an empty one, as from an unset shell variable, is refused rather than read as ``.``."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read a path."""
        if str(value) == "":
            self.fail("it is empty; name a file", param, ctx)
        return Path(value)


class ModelPath(FilePath):
    """The path of a model: a folder such as ``.`` is no file, and has no data beside it either."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read a path that ends in a name."""
        path = super().convert(value, param, ctx)
        if not path.name:
            raise ModelError(f"{path}: is not a file; give an .onnx model")
        return path


class CrossbarType(click.ParamType[Any]):
    """A crossbar size, ``256x256``."""

    name = "RxC"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read rows and columns."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,5})[xX×]([1-9]\d{0,5})", str(value))
        if not match:
            self.fail(f"{value!r} is not a size; write e.g. 256x256", param, ctx)
        return int(match[1]), int(match[2])


class TimeType(click.ParamType[Any]):
    """A time since programming, such as ``1d``."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read seconds."""
        if isinstance(value, float):
            return value
        try:
            return parse_time(str(value))
        except OptionError as error:
            self.fail(str(error).removeprefix("--time "), param, ctx)


class SigmaType(click.ParamType[Any]):
    """A sigma or a sweep."""

    name = "S|A:B:STEP"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Read one value or the points of a sweep."""
        if isinstance(value, tuple):
            return value
        try:
            return parse_sigmas((str(value),))
        except OptionError as error:
            self.fail(str(error).removeprefix("--sigma "), param, ctx)


def stack(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Make one decorator of several; the first gives the first options."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


def device_options(
    cell_bits: bool = True, bits: click.ParamType[Any] | None = None
) -> Callable[[Command], Command]:
    """Options that choose how weights lie in devices; a command may have bits of its own."""
    per_device = click.option("--cell-bits", type=click.IntRange(1, 8), metavar="B",
                              help="Bits per device.  [default: the profile's]")  # fmt: skip
    return stack(
        click.option("--device", "-d", default="rram", show_default=True, metavar="PROFILE",
                     help="Bundled profile (see `nvaudit devices list`) or a profile file."),
        click.option("--bits", type=bits or click.IntRange(1, 14), metavar="H" if bits is None else bits.name,
                     help="Magnitude bits of a weight.  [default: the profile's]"),
        *([per_device] if cell_bits else []),
        click.option("--encoding", type=click.Choice(["sign_magnitude", "differential", "offset"]),
                     help="How signs are stored.  [default: the profile's]"),
        click.option("--top-slice", type=click.Choice(["window", "lowest"]),
                     help="Levels of a top slice that holds fewer bits than a device: spread over the "
                     "window, or only the lowest.  [default: window]"),
    )  # fmt: skip


def point_options(sweep: bool = True) -> Callable[[Command], Command]:
    """Options that choose the operating point of a device, or the points of a sweep."""
    many = "; repeatable, or a sweep such as 0.1:0.4:0.1" if sweep else ""
    return stack(
        click.option("--sigma", "sigmas", type=SigmaType(), multiple=True,
                     help=f"Device variation in the profile's unit{many}.  [default: the profile's]"),
        click.option("--sigma-unit", type=click.Choice(["level", "full_scale", "weight_max"]),
                     help="Unit of --sigma: level spacings of the cells in use, the conductance "
                     "window, or max|W| (no slicing).  [default: the profile's; level spacings are then "
                     "those of its own cells, whatever --cell-bits says]"),
        click.option("--time", "time_s", type=TimeType(), help="Time since programming, e.g. 90s, "
                     "5min, 1h, 1d, 10y.  [default: the profile's]"),
        click.option("--enable", multiple=True, metavar="TERM", help="Switch a noise term on; "
                     "repeatable.  [default: as in the profile]"),
        click.option("--disable", multiple=True, metavar="TERM", help="Switch a noise term off; "
                     "repeatable.  [default: as in the profile]"),
        addition_options(),
    )  # fmt: skip


def addition_options() -> Callable[[Command], Command]:
    """Options that add noise to a profile, or take some of it away."""
    return stack(
        click.option("--stuck-at", metavar="P_LOW,P_HIGH", help="Add devices stuck at the lowest and at the "
                     "highest conductance, with these probabilities.  [default: as in the profile]"),
        click.option("--read-noise", metavar="S[UNIT]", help="Add normal noise of every read: a share of the "
                     "window of conductances, or with a unit, 0.02relative.  [default: as in the profile]"),
        click.option("--correlated", metavar="S[UNIT][:SCOPE]", help="Add variation that all devices of a "
                     "chip share, or those of a tensor or a tile, such as 0.02:tensor or 0.02:128x128.  "
                     "[default: as in the profile]"),
        click.option("--write-verify", type=click.FloatRange(0), metavar="T", help="Write devices again "
                     "until the error is within T, in the unit of sigma.  [default: as in the profile]"),
        click.option("--drift-compensation", is_flag=True, help="Multiply each tensor by its total "
                     "conductance before it drifted over that after."),
    )  # fmt: skip


def mapped_option(fails: str = "exit 1") -> Callable[[Command], Command]:
    """The gate of the share that is on the array, and what happens where it is missed."""
    return click.option("--require-mapped", type=float, metavar="SHARE", help="Another gate: at least this "
                        "share of the products (multiply-accumulates with a weight) must be on the array, "
                        f"e.g. 0.95; else {fails}.  [default: no gate]")  # fmt: skip


def select_options() -> Callable[[Command], Command]:
    """Options that choose which tensors are on the array."""
    return stack(
        click.option("--layers", multiple=True, metavar="GLOB",
                     help="Map only weights whose name matches; repeatable.  [default: all]"),
        click.option("--digital", multiple=True, metavar="GLOB",
                     help="Keep weights whose name matches digital; repeatable.  [default: none]"),
        click.option("--crossbar", type=CrossbarType(), default="256x256", show_default=True,
                     help="Crossbar size, for counting crossbars."),
    )  # fmt: skip


def group_options() -> Callable[[Command], Command]:
    """Options that leave groups of weights out of the array."""
    return stack(
        click.option("--skip-zero-groups", is_flag=True, help="Leave out what one crossbar holds of one "
                     "output where all of it is zero: such a group has no devices and no noise."),
    )  # fmt: skip


def converter_options() -> Callable[[Command], Command]:
    """Options that put the mapped layers on crossbars with converters."""
    return stack(
        click.option("--adc-bits", type=click.IntRange(2, 16), metavar="N",
                     help="Split mapped layers over crossbars of --crossbar size and convert every column "
                     "sum to N bits.  [default: ideal, not split]"),
        click.option("--dac-bits", type=click.IntRange(2, 16), metavar="N",
                     help="With --adc-bits: convert the inputs of crossbars to N bits.  [default: ideal]"),
        click.option("--adc-range", default="max", show_default=True, metavar="max|percentile:P|full_scale",
                     help="With --adc-bits: what the converters of a layer reach up to on the calibration "
                     "samples."),
    )  # fmt: skip


def ignore_option() -> Callable[[Command], Command]:
    """Option that leaves out what is not labelled."""
    return click.option("--ignore-label", "ignore_labels", type=int, multiple=True, metavar="V",
                        help="A label that stands for \"not labelled\", such as 255: what has it is not "
                        "scored; repeatable.  [default: -1 and -100]")  # fmt: skip


def run_options() -> Callable[[Command], Command]:
    """Options that choose what is scored, on which samples, and what runs it."""
    return stack(
        click.option("--output-name", metavar="NAME", cls=RenamedOption, was=("--output",),
                     help="Which output is scored.  [default: the first]"),
        click.option("--class-axis", type=int,
                     help="Axis of the class scores.  [default: read from the shapes]"),
        ignore_option(),
        click.option("--scale", type=click.Choice(["per_tensor", "per_channel"]), default="per_tensor",
                     show_default=True, help="One quantisation scale per tensor or per output channel."),
        click.option("--limit", type=click.IntRange(1), metavar="N",
                     help="Use only the first N samples.  [default: all]"),
        click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Samples at a time; with "
                     "--adc-bits at most, fewer where column sums are large.  [default: 64; all of them "
                     "where samples influence each other]"),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
                     help="Same seed, same chips."),
        click.option("--every-device", is_flag=True,
                     help="Draw every device even where one draw per weight is exact."),
        click.option("--workers", "-j", type=click.IntRange(0, MOST_WORKERS), metavar="W",
                     help="Worker processes; 0 runs in this one.  [default: all cores]"),
        click.option("--dask", metavar="ADDRESS", help="Run chips on the Dask cluster of this scheduler (its "
                     "address, or its scheduler file).  [default: worker processes on this machine]"),
        click.option("--provider", default="cpu",
                     type=click.Choice(["cpu", "cuda", "tensorrt", "rocm", "openvino", "coreml", "dml"]),
                     show_default=True, help="ONNX Runtime execution provider."),
        watchdog_option(),
    )  # fmt: skip


def watchdog_option() -> Callable[[Command], Command]:
    """The limit on one pass of the model; it goes into the environment, which worker processes inherit."""

    def apply(ctx: click.Context, param: click.Parameter, value: float | None) -> None:
        if value is None:
            return
        if not math.isfinite(value):
            raise click.BadParameter(f"{value} is no number of seconds", ctx, param)
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = repr(value)
        ctx.call_on_close(lambda: _restore(before))

    return click.option(
        "--pass-timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", callback=apply,
        expose_value=False, help="Stop a forward pass of the model that takes longer.  [default: "
        f"{LOOP_SECONDS:g} where the model has a Loop, which may never end; else no limit]",
    )  # fmt: skip


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = before


def flatten(sigmas: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    """All points of all ``--sigma`` options, each once, in order."""
    return tuple(dict.fromkeys(value for group in sigmas for value in group))
