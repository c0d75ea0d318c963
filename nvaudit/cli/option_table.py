"""The tables of options in the documentation: ``python -m nvaudit.cli.option_table > docs/options.md``."""

from __future__ import annotations

from collections.abc import Iterator

import click

from nvaudit.cli.commands import cli
from nvaudit.cli.options import FieldOption

_HEAD = """\
# Options

Generated from their declarations by `python -m nvaudit.cli.option_table`. The same names stand for the same
in every command, and in Python: `--batch-size 8` is `batch_size=8`; where the name in Python differs, it
stands behind the option. A command may have another default, or take fewer values: see
`nvaudit COMMAND --help`. *(several)*: takes several values, which are a [sweep](sweep.md).
What a command writes and keeps (`-o`, `--html`, `--resume`, …) is in
[report.md](report.md) and [scale.md](scale.md).
"""


def options_text() -> str:
    """Make docs/options.md: a table for each section of the help."""
    sections: dict[str, dict[str, list[tuple[str, FieldOption]]]] = {}
    for command, option in _options(cli, click.Context(cli), ()):
        if isinstance(option, FieldOption):
            sections.setdefault(option.section, {}).setdefault(option.opts[0], []).append((command, option))
    lines = [_HEAD]
    for title, rows in sections.items():
        lines += [
            f"## {title}",
            "",
            "| option | what it does | values | default | commands |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(uses) for uses in rows.values()]
        lines.append("")
    return "\n".join(lines)


def _options(
    group: click.Group, context: click.Context, above: tuple[str, ...]
) -> Iterator[tuple[str, click.Parameter]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _options(command, context, (*above, name))
        elif command is not None:
            for option in command.params:
                yield " ".join((*above, name)), option


def _row(uses: list[tuple[str, FieldOption]]) -> str:
    _, first = uses[0]
    field = first.field
    names = ", ".join(f"`{name}`" for name in (*first.opts, *first.secondary_opts))
    python = "" if field.name == field.flag[2:].replace("-", "_") else f" (`{field.name}`)"
    defaults: dict[str, list[str]] = {}
    for command, option in uses:
        extra = option.get_help_extra(click.Context(click.Command(command)))
        defaults.setdefault(extra.get("default", "off"), []).append(command)
    usual, *others = defaults.items()
    default = "; ".join([usual[0], *(f"{text} ({', '.join(commands)})" for text, commands in others)])
    values = "" if field.switch else field.wanted
    cells = (
        names + python,
        field.option.help,
        values,
        default,
        ", ".join(f"{command} (several)" if option.swept else command for command, option in uses),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    click.echo(options_text(), nl=False)
