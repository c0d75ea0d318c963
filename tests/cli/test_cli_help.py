"""Help texts: every option explains itself and its default."""

import subprocess
import sys

import click
import pytest

from nvaudit import __version__
from nvaudit.cli.commands import cli
from nvaudit.errors import EXIT_BAD_INPUT


def tree(command: click.Command, names: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Every command with its words."""
    found = {names: command} if names else {}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            found |= tree(child, (*names, name))
    return found


COMMANDS = tree(cli)


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(command, names, flag):
    """Help goes to standard output and is a success."""
    ran = command(*names, flag)
    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.startswith(f"Usage: nvaudit {' '.join(names)}")


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_does_and_its_default(names):
    """No option is without words; one that is neither a flag nor required states its default."""
    for option in COMMANDS[names].params:
        if not isinstance(option, click.Option):
            continue
        assert option.help, option.name
        shown = option.get_help_record(click.Context(COMMANDS[names]))[1]
        assert option.is_flag or option.required or "[default: " in shown or option.name == "plot", (
            option.name
        )


def test_the_commands_of_the_contract_are_there():
    """What the documentation names can be called."""
    assert {("audit",), ("inspect",), ("devices", "fit"), ("devices", "list"), ("devices", "show"),
            ("devices", "validate")} <= set(COMMANDS)  # fmt: skip


def test_main_help_lists_exit_codes(command):
    """Scripts find the meaning of the exit codes."""
    ran = command("-h")
    assert (
        "Exit codes: 0 done and the gate holds; 1 the gate does not hold; 2 bad input or usage"
        in " ".join(ran.out.split())
    )


def test_main_help_has_the_first_words_of_every_command(command):
    """They are read from the files of the commands, and are those of the commands themselves."""
    words = " ".join(command("-h").out.split())
    for names, one in COMMANDS.items():
        if len(names) == 1:
            assert f"{names[0]} {one.get_short_help_str(80)}" in words


def test_main_help_loads_no_command():
    """It comes at once: nothing that reads or runs models is imported for it."""
    code = (
        "import sys; from nvaudit.cli import run; run(['--help']); "
        "print(sorted({'onnx', 'numpy', 'scipy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_version(command):
    """The version is the package's."""
    ran = command("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"nvaudit, version {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Usage: nvaudit [OPTIONS] COMMAND [ARGS]..."),
        (("nope",), "No such command 'nope'."),
        (("audit",), "Missing argument 'MODEL'."),
        (("audit", "m.onnx", "--nope"), "No such option '--nope'."),
        (("audit", "m.onnx", "more"), "Got unexpected extra argument (more)"),
        (("devices", "fit", "m.csv"), "Missing option '-o' / '--out'."),
    ],
)
def test_wrong_usage(command, arguments, message):
    """Usage errors go to standard error with exit code 2."""
    ran = command(*arguments)
    assert ran.code == EXIT_BAD_INPUT
    assert ran.out == ""
    assert message in ran.err
