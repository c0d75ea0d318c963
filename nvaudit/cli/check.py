"""`nvaudit check`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nvaudit.cli.config_file import ConfigFile
from nvaudit.cli.configured import (
    TABLE,
    Given,
    check_named,
    device_text,
    file_of,
    options_by_key,
    plain_key,
    read_value,
    refuse_key,
    table_at,
)
from nvaudit.cli.interrupts import stoppable
from nvaudit.cli.kept import cache_options, keeping, resume_option
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FieldOption, spec_options, watchdog_option
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.cli.say import tell
from nvaudit.errors import EXIT_GATE, EXIT_INTERRUPTED, EXIT_OK, OptionError, shown
from nvaudit.spec import AXIS_KEYS, NAME_KEYS, CheckOptions, RunSpec, default_workers

if TYPE_CHECKING:
    from nvaudit.jobs.checking import CheckPlan

_PLACE = ("check",)
_OWN = frozenset(CheckOptions.model_fields)
_NAMES = {axis: (key, "name") for axis, key in AXIS_KEYS.items()} | {"exceptions": (*NAME_KEYS, "skip")}
"""Keys of an entry of each axis that are no options."""


@click.command("check", cls=OnceCommand)
@spec_options(
    CheckOptions,
    RunSpec,
    without={"device"},
    own={
        "roughness": {"default": False},
        "suggest": {"default": False},
        "output_name": {"was": ()},
        "max_minutes": {
            "help": "Time of each audit, after which its gate draws no more chips; --total-minutes is that "
            "of the whole matrix."
        },
    },
)
@watchdog_option()
@output_options("check", gate=True)
@resume_option("finished chips")
@cache_options()
@quiet_option()
@click.pass_context
def check_command(
    context: click.Context,
    /,
    outputs: tuple[Output, ...],
    resume: Path | None,
    quiet: bool,
    workers: int | None,
    **options: Any,
) -> int:
    """Run the matrix of models, devices and conditions of nvaudit.toml or pyproject.toml: one gate for all.

    What is typed here holds for every audit, whatever the file says.
    """
    from nvaudit.jobs.checking import run_check

    options["workers"] = default_workers() if workers is None else workers
    plan = plan_of_file(context, options)
    check_outputs(outputs, dict(_inputs(plan)))
    with keeping("finished chips", resume, _depends_on(plan), reports_part=True) as kept:
        with stoppable() as stop, ProgressDisplay(quiet) as progress:
            report = kept.run(lambda folder: run_check(plan, progress, folder, stop, progress.estimated))
        if report.interrupted:
            report = report.model_copy(update={"command": kept.command})
        hand_out(report, outputs)
        if report.interrupted:
            tell(f"nvaudit: interrupted; {kept.how_to_go_on()}")
            return EXIT_INTERRUPTED
        kept.done()
    return EXIT_GATE if report.verdict in ("fail", "undecided") else EXIT_OK


def plan_of_file(context: click.Context, options: Mapping[str, Any]) -> CheckPlan:
    """Make the audits of the matrix in the file.

    Parameters
    ----------
    options : mapping
        Parameters of the command; what was typed wins over the tables of the file.

    Raises
    ------
    OptionError
        If there is no file or no matrix in it, or something in it is wrong: with the line.
    """
    from nvaudit.jobs.checking import plan_check

    file = file_of(context)
    if file is None:
        raise OptionError(
            "there is no nvaudit.toml, and no pyproject.toml with [tool.nvaudit], here or above; write one "
            'with a table [check] and models = ["model.onnx"], or name it with --config'
        )
    table = table_at(file, _PLACE)
    if not table.get("models"):
        name = ".".join((*file.root, *_PLACE))
        raise OptionError(f'{file.path}: [{name}] has no models; list them, such as models = ["model.onnx"]')
    axes = {axis: _entries(context, file, axis, table.get(axis, [])) for axis in _NAMES}
    if not axes["devices"]:
        axes["devices"] = [{"profile": "rram"}]
    own = CheckOptions.validated({name: options[name] for name in _OWN})
    general = {name: value for name, value in options.items() if name not in _OWN}
    typed = {
        name: value
        for name, value in general.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    plan = plan_check(
        axes["models"], axes["devices"], axes["conditions"], axes["exceptions"],
        general=general, forced=typed, options=own, where=lambda *place: f"{file.where(*_PLACE, *place)}: ",
    )  # fmt: skip
    _check_files(plan, axes, file, context.meta[TABLE][1])
    return plan


def _check_files(
    plan: CheckPlan, axes: Mapping[str, Any], file: ConfigFile, given: Mapping[str, Given]
) -> None:
    """Refuse what the file names and is not there, with its line; what was typed is refused later."""
    from nvaudit.session import FILE_FIELDS

    for named in plan.audits:
        for field in ("model", "data", *FILE_FIELDS):
            path = getattr(named.spec, field, None)
            if path is None:
                continue
            key = AXIS_KEYS["models"] if field == "model" else field
            places = [
                file.where(*_PLACE, axis, number)
                for axis, entries in axes.items()
                for number, entry in enumerate(entries)
                if entry.get(key) == path
            ]
            places += [given[field].where] if field in given and given[field].value == path else []
            if places:
                check_named(path, places[0])


def _entries(context: click.Context, file: ConfigFile, axis: str, entries: Any) -> list[dict[str, Any]]:
    """What stands on an axis, each with the fields of its options."""
    where = (*_PLACE, axis)
    if not isinstance(entries, list):
        raise OptionError(f"{file.where(*where)}: {axis}: got {shown(entries)}; give a list")
    return [_entry(context, file, (*where, place), entry) for place, entry in enumerate(entries)]


def _entry(
    context: click.Context, file: ConfigFile, keys: tuple[str | int, ...], entry: Any
) -> dict[str, Any]:
    axis = str(keys[1])
    names = _NAMES[axis]
    if isinstance(entry, str) and axis in ("models", "devices"):
        entry = {names[0]: entry}
    if not isinstance(entry, dict):
        raise OptionError(
            f"{file.where(*keys)}: {axis}: got {shown(entry)}; give a table with {' and '.join(names)}"
        )
    options = {
        key: option
        for key, option in options_by_key(context.command).items()
        if isinstance(option, FieldOption) and option.field.name not in _OWN
    }
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key in names:
            values[key] = _name(file, (*keys, key), value)
        elif (option := options.get(plain_key(key))) is not None:
            values[option.field.name] = read_value(option, value, file, (*keys, key), context)
        else:
            refuse_key(file, (*keys, key), {*names, *options})
    return values


def _name(file: ConfigFile, keys: tuple[str | int, ...], value: Any) -> Any:
    """A path, a profile, the name of an audit or several of them, or whether audits are left out."""
    key = keys[-1]
    several = key in NAME_KEYS and isinstance(value, list)
    if not all(isinstance(item, bool if key == "skip" else str) for item in (value if several else [value])):
        wanted = "true or false" if key == "skip" else "a name"
        raise OptionError(f"{file.where(*keys)}: {key}: got {shown(value)}; give {wanted}")
    if key == "path":
        return file.resolve(value)
    return device_text(value, file) if key == "profile" else value


def _inputs(plan: CheckPlan) -> Iterable[tuple[str, Path]]:
    """What is read, with its name in words."""
    from nvaudit.session import input_files

    for named in plan.audits:
        yield from ((f"{what} of {named.name.text}", path) for what, path in input_files(named.spec).items())


def _depends_on(plan: CheckPlan) -> dict[str, Any]:
    """What the chips of all audits depend on."""
    return {
        named.name.text: [
            named.spec.model,
            named.spec.device,
            named.spec.data,
            named.spec.mapping,
            named.spec.chip_options(),
        ]
        for named in plan.audits
    }
