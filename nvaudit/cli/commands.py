"""The commands, under one name; each is loaded when it is asked for."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import click

from nvaudit._version import __version__

_HOME = {
    "audit": "audit:audit_command",
    "check": "check:check_command",
    "calibrate": "calibrate:calibrate_command",
    "compare": "compare:compare_command",
    "config": "config:config_command",
    "cost": "cost:cost_command",
    "devices": "devices:devices_group",
    "harden": "harden:harden_command",
    "inspect": "inspect:inspect_command",
    "landscape": "landscape:landscape_command",
    "map": "map:map_command",
    "replay": "replay:replay_command",
    "report": "report:report_command",
    "roofline": "roofline:roofline_command",
    "explore": "explore:explore_command",
    "technology": "technology:technology_group",
    "verify-plan": "verify:verify_command",
}
"""Module in this folder and name of the command in it."""


class Commands(click.Group):
    """A group that imports a command's module when the command is asked for: most need not the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted(_HOME)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; for an unknown name all of them, among which click looks for similar ones."""
        for name in [cmd_name] if cmd_name in _HOME else _HOME:
            if name not in self.commands:
                module, _, attribute = _HOME[name].partition(":")
                self.add_command(getattr(import_module(f"nvaudit.cli.{module}"), attribute))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by the docstrings in their files: importing all of them takes a second."""
        limit = formatter.width - 6 - max(map(len, _HOME))
        rows = [
            (name, click.Command(name, help=_help(name)).get_short_help_str(limit)) for name in sorted(_HOME)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _help(command: str) -> str:
    """The docstring of a command, read without importing what the command needs."""
    module, _, attribute = _HOME[command].partition(":")
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return next(ast.get_docstring(node) or "" for node in functions if node.name == attribute)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done and the gate holds; 1 the gate does not hold; 2 bad input or usage; "
    "3 our own failure; 130 interrupted.",
)
@click.version_option(__version__, prog_name="nvaudit")
def cli() -> None:
    """Audit any ONNX model for non-volatile compute-in-memory hardware."""
