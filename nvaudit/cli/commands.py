"""The commands, under one name."""

from __future__ import annotations

import click

from nvaudit import __version__
from nvaudit.cli.audit import audit_command
from nvaudit.cli.compare import compare_command
from nvaudit.cli.devices import devices_group
from nvaudit.cli.harden import harden_command
from nvaudit.cli.inspect import inspect_command
from nvaudit.cli.landscape import landscape_command
from nvaudit.cli.replay import replay_command
from nvaudit.cli.report import report_command
from nvaudit.cli.roofline import roofline_command
from nvaudit.cli.verify import verify_command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done and the gate holds; 1 the gate does not hold; 2 bad input or usage; "
    "3 our own failure; 130 interrupted.",
)
@click.version_option(__version__, prog_name="nvaudit")
def cli() -> None:
    """Audit any ONNX model for non-volatile compute-in-memory hardware."""


cli.add_command(audit_command)
cli.add_command(compare_command)
cli.add_command(harden_command)
cli.add_command(inspect_command)
cli.add_command(landscape_command)
cli.add_command(replay_command)
cli.add_command(report_command)
cli.add_command(roofline_command)
cli.add_command(verify_command)
cli.add_command(devices_group)
