"""An option that is not repeatable is taken once: the last of two values does not win in silence."""

import click
import pytest

from nvaudit.cli import run
from nvaudit.cli.commands import cli
from nvaudit.cli.once import OnceCommand


def commands(group: click.Group = cli, path: tuple[str, ...] = ()):
    """Every command of the command line."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


@pytest.fixture
def command(capsys):
    """Run as typed."""

    class Ran:
        def __init__(self, *words):
            self.code = run([str(word) for word in words])
            self.out, self.err = capsys.readouterr()

    return Ran


EVERY = {" ".join(path): found for path, found in commands()}


@pytest.mark.parametrize("name", EVERY)
def test_every_single_option_of_every_command(name, command):
    """Twice is refused with exit code 2, naming the option and both values."""
    assert isinstance(EVERY[name], OnceCommand)
    for option in EVERY[name].params:
        if not isinstance(option, click.Option) or option.multiple or option.is_eager or option.is_flag:
            continue
        flag = max(option.opts, key=len)
        values = [["1"] * option.nargs, ["2"] * option.nargs]
        ran = command(*name.split(), flag, *values[0], flag, *values[1])
        assert ran.code == 2
        assert f"{flag} is given 2 times: '{' '.join(values[0])}' and '{' '.join(values[1])}'" in ran.err


def test_both_names_and_forms_are_one_option(command, example):
    """-d and --device=…, --roughness and --no-roughness."""
    assert (
        "--device is given 2 times: 'a' and 'b'" in command("compare", example, "-d", "a", "--device=b").err
    )
    assert "--roughness and --no-roughness" in command("audit", example, "--roughness", "--no-roughness").err


def test_a_switch_may_be_given_twice(command, example):
    """It says the same; that, and its opposite, is refused."""
    few = ("-n", 2, "-j", 0, "--limit", 8)
    assert command("audit", example, *few, "-q", "-q", "--exhaustive", "--exhaustive").code == 0


def test_repeatable_options_stay_repeatable(command, example):
    """-k 1 -k 5 asks for two percentiles."""
    ran = command("audit", example, "-n", 2, "-j", 0, "--limit", 8, "-k", 1, "-k", 5)
    assert ran.code == 0
    assert "KPP 5 %" in ran.out
