"""Every option of every command stands in a file: none goes, and no default changes, without a word."""

from pathlib import Path

import click
from test_cli_help import COMMANDS

GOLDEN = Path(__file__).parents[1] / "golden" / "cli_options.txt"


def described(option: click.Option) -> str:
    """An option in one line: its names, the default, and how often it is taken."""
    facts = option.to_info_dict()
    names = " ".join(
        [*sorted(option.opts, key=len, reverse=True), *(f"/{name}" for name in option.secondary_opts)]
    )
    default = str(option.get_default(click.Context(click.Command("none"))))
    default = "" if default in ("None", "()", "False", "Sentinel.UNSET") else f" = {default}"
    marks = [name for name in ("is_flag", "multiple", "required", "hidden") if facts[name]]
    marks += [f"${facts['envvar']}"] if facts["envvar"] else []
    return f"{names}{default}" + (f" [{', '.join(marks)}]" if marks else "")


def test_golden_options():
    """Commands, flags and defaults are those of the file; write the difference into it on purpose only."""
    lines = []
    for names, command in COMMANDS.items():
        lines.append(" ".join(["nvaudit", *names]))
        options = [option for option in command.params if isinstance(option, click.Option)]
        lines += sorted(f"  {described(option)}" for option in options)
    assert lines == GOLDEN.read_text(encoding="utf-8").splitlines()
