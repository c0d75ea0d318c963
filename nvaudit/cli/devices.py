"""`nvaudit devices`: list, show, validate, fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nvaudit.cli.once import OnceGroup
from nvaudit.cli.options import ONE_SIGMA, FilePath, spec_options
from nvaudit.cli.outputs import (
    CommandProduct,
    OldJson,
    Output,
    check_outputs,
    form_output,
    hand_out,
    output_options,
)
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.cli.say import printing, say, tell
from nvaudit.errors import EXIT_GATE, EXIT_OK, OptionError
from nvaudit.files import check_there
from nvaudit.option_texts import read_whole
from nvaudit.options import DeviceOptions, MappingOptions
from nvaudit.report.jsontext import escape_hidden
from nvaudit.spec import make_spec

if TYPE_CHECKING:
    from nvaudit.report.device.result import ProfileList


def _names_json(listed: ProfileList) -> str:
    rows = [{"name": p.name, "description": p.description} for p in listed.profiles]
    return escape_hidden(json.dumps(rows, indent=2))


@click.group("devices", cls=OnceGroup)
def devices_group() -> None:
    """List, show, validate and fit device profiles."""


@devices_group.command("list")
@output_options("devices", old_json=OldJson("the names and descriptions", _names_json))
def list_command(outputs: tuple[Output, ...]) -> None:
    """List the bundled profiles."""
    from nvaudit.jobs.describing import list_profiles

    check_outputs(outputs, {})
    listed = list_profiles()
    hand_out(listed, outputs)


@devices_group.command("show")
@click.argument("profile", metavar="NAME|FILE")
@spec_options(
    MappingOptions,
    DeviceOptions,
    without=("device", "scale", "layers", "digital"),
    own=ONE_SIGMA,
)
@click.option("--plot", is_flag=False, flag_value="-", metavar="[FILE.html]",
              help="The old spelling of --html; the drawing of every level is part of the text.")  # fmt: skip
@output_options("device")
def show_command(
    profile: str,
    plot: str | None,
    outputs: tuple[Output, ...],
    **options: Any,
) -> None:
    """Show a profile: sigma and law of every level, and what it makes of a weight."""
    from nvaudit.jobs.describing import describe_device

    if plot is not None:
        tell("nvaudit: --plot is now --html FILE; the old spelling goes with the next release")
        if plot != "-":
            outputs = (*outputs, replace(form_output("html", Path(plot)), option="--plot", name="plot"))
    check_outputs(outputs, {"the profile": Path(profile)})
    shown = describe_device(make_spec(model="-", device=profile, **options))
    hand_out(shown, outputs)


@devices_group.command("validate")
@click.argument("file", type=FilePath())
def validate_command(file: Path) -> None:
    """Check a profile FILE; exit 2 and say what is wrong if it is not valid."""
    from nvaudit.device import load_profile, operating_point
    from nvaudit.perturb.moments import device_facts

    check_there(file)
    profile = load_profile(file)
    facts = device_facts(operating_point(profile))
    terms = f"{len(profile.noise)} noise term{'' if len(profile.noise) == 1 else 's'}"
    with printing():
        say(
            f"{file}: valid: {profile.name}, {terms}, weight sigma {facts.weight.rms:.4g} of max|W| "
            "at its default"
        )


def _levels(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Read numbers of levels, such as ``0,2,4,6`` or ``0:3``."""
    if text is None:
        return None
    try:
        return tuple(number for number in read_whole(text) if number is not None)
    except ValueError:
        raise click.BadParameter(
            f"got {text!r}; use numbers of levels, such as 0,2,4,6", ctx, param
        ) from None


_PROFILE = CommandProduct("PROFILE.json", "Where the profile goes.", was=("--output",), required=True)


@devices_group.command("fit")
@click.argument("sources", nargs=-1, required=True, type=FilePath(), metavar="CSV | MAPPING MEASURED...")
@output_options("fit", product=_PROFILE)
@click.option("--name", help="Name of the profile.  [default: that of the output file]")
@click.option("--unit", type=click.Choice(["level", "full_scale", "us", "na", "s"]),
              help="Unit of the conductances in CSV.  [default: s or us, by their size; asked for where that "
              "leaves a doubt]")  # fmt: skip
@click.option("--levels", metavar="L,L,…", callback=_levels, help="Levels of CSV that are used, a power of "
              "two.  [default: all; of five or eleven levels four or eight]")  # fmt: skip
@click.option(
    "--window",
    nargs=2,
    type=float,
    metavar="MIN MAX",
    help="Conductance of the lowest and top level.  [default: their measured means]",
)
@click.option("--technology", help="What the device is.  [default: measured device; of arrays that of the "
              "mapping's profile]")  # fmt: skip
@click.option("--citation", help="Where the measurement is published.  [default: the name of CSV]")
@click.option("--encoding", type=click.Choice(["sign_magnitude", "differential", "offset"]),
              default="sign_magnitude", show_default=True, help="How signs are stored.")  # fmt: skip
@click.option("--bits", "weight_bits", type=click.IntRange(1, 14), default=8, show_default=True,
              help="Default magnitude bits of a weight.")  # fmt: skip
@click.option("--trials", "-n", type=click.IntRange(1), metavar="N", help="Of arrays: simulate N chips with "
              "the new profile, and place the measured ones among them.  [default: not]")  # fmt: skip
@click.option("--data", metavar="PATH", help="For --trials: the data of `audit`.  [default: MODEL.npz "
              "beside the model]")  # fmt: skip
@quiet_option()
def fit_command(
    sources: tuple[Path, ...],
    out: Path,
    outputs: tuple[Output, ...],
    name: str | None,
    trials: int | None,
    data: str | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Make a profile from measurements: a table of levels (CSV), or whole arrays.

    CSV has columns level,mean,std or level,value, or one column of samples for each level (0,1,2,3). MAPPING
    is what `nvaudit map` wrote, each MEASURED a folder of chips that were read back.
    """
    from nvaudit.jobs.fitting import fit_chips, fit_table, read_by_fit

    read = read_by_fit(sources, [out, *(output.path for output in outputs)])
    _PROFILE.check(out, read)
    if len(sources) == 1 and not sources[0].is_dir():
        if outputs or trials is not None or data is not None:
            of_arrays = outputs[0].option if outputs else "--trials" if trials is not None else "--data"
            raise OptionError(f"{of_arrays}: only of arrays; leave it out")
        profile = fit_table(sources[0], out, name=name, **options)
        with printing():
            say(f"{out}: {profile.name}, {profile.source.fit}")
        return EXIT_OK
    if len(sources) < 2:
        raise OptionError("MEASURED: missing; give the folder of the mapping, then those of the chips")
    if not sources[0].is_dir():
        raise OptionError(
            f"{sources[0]}: not a folder, and the first of several is the MAPPING that `nvaudit map` wrote; "
            "of tables (CSV) give one"
        )
    source_of = click.get_current_context().get_parameter_source
    for only in ("window", "levels", "unit", "encoding", "weight_bits"):
        given = source_of(only) is ParameterSource.COMMANDLINE
        if given or (only in ("window", "levels", "unit") and options[only] is not None):
            flag = "bits" if only == "weight_bits" else only
            raise OptionError(f"--{flag}: of arrays it is that of the mapping; leave it out")
    check_outputs(outputs, {"the profile": out, **read}, product=out)
    with ProgressDisplay(quiet) as progress:
        report = fit_chips(
            sources[0], sources[1:], out, name=name, trials=trials, data=data,
            technology=options["technology"], citation=options["citation"], progress=progress,
        )  # fmt: skip
    hand_out(report, outputs)
    return EXIT_GATE if any(chip.outside for chip in report.predicted) else EXIT_OK
