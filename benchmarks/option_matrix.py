"""Every numeric option of every command, with numbers that make no sense.

Claim backed: each ends with exit code 0, 1 or 2, within its time, without a traceback or a library's warning.

    python benchmarks/option_matrix.py                      # about ten minutes on one core
    python benchmarks/option_matrix.py audit roofline       # some commands
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
from fuzz import ADDRESS_SPACE, ending
from fuzz_cases import EXAMPLE

VALUES = ("0", "-1", "1e308", "1e-310", "nan", "inf", "9223372036854775808", "")
SECONDS = 60
_FEW = ["-n", "2", "-j", "0", "-q"]
_REMAP = ["--calibration-images", "4", "--calibration-chips", "2", "--time-budget", "5"]
_TRAIN = ["--epochs", "1", "--limit", "16", "--no-roughness"]
COMMANDS: dict[str, list[str]] = {
    "audit": ["audit", "{m}", "--limit", "8", "--no-roughness", *_FEW],
    "audit pcm": ["audit", "{m}", "--limit", "8", "--no-roughness", "-d", "pcm", *_FEW],
    "audit adc": ["audit", "{m}", "--limit", "8", "--no-roughness", "--adc-bits", "6", *_FEW],
    "audit rough": ["audit", "{m}", "--limit", "8", *_FEW],
    "inspect": ["inspect", "{m}"],
    "compare": ["compare", "{m}", "{m}", "--limit", "8", "--no-roughness", *_FEW],
    "roofline": ["roofline", "{m}", "--cell-bits", "1,2", "--limit", "8", *_FEW],
    "landscape": ["landscape", "{m}", "--grid", "3", "--pairs", "1", "--images", "4", "-j", "0", "-q"],
    "verify-plan": ["verify-plan", "{m}", "--ranking", "magnitude", "--limit", "8", *_FEW],
    "harden remap": ["harden", "{m}", "-m", "remap", *_REMAP, "-o", "{d}/h.onnx", *_FEW],
    "harden": ["harden", "{m}", "-m", "gaussian", *_TRAIN, "-o", "{d}/h.onnx", *_FEW],
    "replay": ["replay", "{d}/r.json", "-o", "{d}/c.onnx"],
    "devices fit": ["devices", "fit", "{d}/c.csv", "-o", "{d}/p.json", "--unit", "us"],
    "devices show": ["devices", "show", "rram"],
}


def main() -> int:
    """Run the matrix; exit code 1 if a case ended badly."""
    asked = sys.argv[1:] or list(COMMANDS)
    faults = cases = 0
    with tempfile.TemporaryDirectory(prefix="nvaudit-matrix-") as name:
        folder = Path(name)
        levels = "\n".join(f"{level},{level + 0.1},0.1" for level in range(4))
        (folder / "c.csv").write_text(f"level,mean,std\n{levels}\n")
        in_child([*_line("audit", folder), "-o", f"{folder}/r.json"], folder)
        for what in asked:
            for option in options(COMMANDS[what]):
                for value in VALUES:
                    begin = time.monotonic()
                    fault = in_child(_line(what, folder, option, value), folder)
                    seconds = time.monotonic() - begin
                    cases += 1
                    faults += bool(fault)
                    if fault or seconds > SECONDS / 3:
                        print(f"{what} {option}={value!r}: {seconds:.1f} s {fault}", flush=True)
    print(f"{cases} cases, {faults} faults")
    return 1 if faults else 0


def in_child(arguments: list[str], folder: Path) -> str:
    """Run a command in a forked process; says what is wrong with how it ended."""
    import nvaudit.cli.commands

    for name in nvaudit.cli.commands._HOME:  # loaded once, before the fork
        nvaudit.cli.commands.cli.get_command(click.Context(nvaudit.cli.commands.cli), name)
    shown = folder / "stderr.txt"
    child = os.fork()
    if child == 0:
        os.environ["NVAUDIT_CACHE"] = "off"
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE, mapped + ADDRESS_SPACE))
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(os.open(shown, os.O_RDWR | os.O_CREAT | os.O_TRUNC), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        code = 99
        try:
            code = nvaudit.cli.run(arguments)
        finally:
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            said = shown.read_text(errors="replace")
            fault = ending(os.waitstatus_to_exitcode(status), said, peak)
            return f"{fault}: {said.strip()[-300:]}" if fault else ""
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hang"


def options(arguments: list[str]) -> Iterator[str]:
    """Options of a command that take a value which is no file or choice."""
    from nvaudit.cli.commands import cli

    context = click.Context(cli)
    command = cli.get_command(context, arguments[0])
    if isinstance(command, click.Group):
        command = command.get_command(context, arguments[1])
    assert command is not None
    for parameter in command.params:
        text = isinstance(parameter, click.Option) and not parameter.is_flag and not parameter.is_bool_flag
        if text and not isinstance(parameter.type, click.Choice) and parameter.type.name not in _NO_NUMBER:
            yield max(parameter.opts, key=len)


_NO_NUMBER = ("PATH", "file", "filename")


def _line(what: str, folder: Path, option: str = "", value: str = "") -> list[str]:
    """A command line with one option replaced."""
    line = [part.replace("{m}", str(EXAMPLE)).replace("{d}", str(folder)) for part in COMMANDS[what]]
    short = {"--trials": "-n", "--workers": "-j"}.get(option)
    for name in (option, short):
        if name in line:
            place = line.index(name)
            del line[place : place + 2]
    return [*line, f"{option}={value}"] if option else line


if __name__ == "__main__":
    sys.exit(main())
