"""The installed command as a process: signals, pipes, and what is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FEW = ("-n", "2", "-j", "0", "--limit", "8", "--no-roughness")
COMMAND = (sys.executable, "-m", "nvaudit")
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and pipes")


def nvaudit(*arguments: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, **options
    )


def children(pid: int) -> list[int]:
    """Living children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def test_the_command_runs_from_anywhere(tmp_path, example):
    """`python -m nvaudit` writes JSON that can be piped, and leaves no working files."""
    work = tmp_path / "work"
    work.mkdir()
    ran = nvaudit("audit", example, "-n", 4, "-j", 2, "--limit", 8, "--no-roughness", "-o", "-", cwd=tmp_path,
                  env={**os.environ, "TMPDIR": str(work)})  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["headline"] in " ".join(ran.stderr.split())
    assert list(work.iterdir()) == []


@posix
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupt_ends_in_good_order(tmp_path, example, workers, number):
    """Ctrl-C in the middle: exit code 130, how it goes on, no working files, no processes."""
    work, report = tmp_path / "work", tmp_path / "report.json"
    work.mkdir()
    process = subprocess.Popen(
        [*COMMAND, "audit", example, "-n", "1000000", "-j", str(workers), "--limit", "64", "-o", report],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(work)},
        start_new_session=True,
    )  # fmt: skip
    with process:
        deadline = time.monotonic() + 60
        while not list(work.glob("nvaudit-*/template.onnx")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.7)
        workers_then = children(process.pid)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("nvaudit: interrupted")
    assert ("with --resume DIR the same command goes on" in err) == report.exists()
    assert out.startswith("INTERRUPTED: ") == report.exists()  # not before the first chip
    assert list(work.iterdir()) == []
    assert (workers_then == []) == (workers == 0)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers_then)


@posix
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("inspect",), 0),
        (("inspect", "--json"), 0),
        (("audit", *FEW), 0),
        (("audit", *FEW, "--min-kpp", "0.5"), 1),
        (("audit", *FEW, "-o", "-"), 0),
    ],
)
def test_a_reader_that_goes_away_is_no_failure(example, arguments, code):
    """`nvaudit … | head -1` is quiet and keeps the exit code of the command."""
    process = subprocess.Popen(
        [*COMMAND, arguments[0], example.name, *arguments[1:]], cwd=example.parent, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything is written: every write fails
        err = process.stderr.read()
        assert process.wait(60) == code
    if "-o" not in arguments and "--json" not in arguments:  # with these the text goes to standard error
        assert err == ""
    assert "Traceback" not in err
    assert "Error" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_standard_output(example):
    """Lost output is a failure that is named, not a success."""
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [*COMMAND, "audit", example, *FEW], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ran.returncode == 3
    assert ran.stderr == ("nvaudit: error: standard output cannot be written: No space left on device\n")


@pytest.mark.parametrize("arguments", [("devices", "list"), ("devices", "show", "rram"), ("inspect",)])
def test_a_terminal_without_unicode(example, arguments):
    """A character that cannot be shown does not end a command."""
    model = (example,) if arguments == ("inspect",) else ()
    ran = nvaudit(*arguments, *model, env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100"})
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""


def test_json_is_utf_8_on_every_terminal(example):
    """The report's JSON does not depend on the terminal's encoding."""
    ran = subprocess.run(
        [*COMMAND, "audit", example, *FEW, "-o", "-"], capture_output=True, check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert "sorted(a)[int(k/100·N)]" in json.loads(ran.stdout.decode("utf-8"))["kpp"][0]["definition"]


@posix
@pytest.mark.parametrize("times", [1, 3])
def test_a_worker_that_dies(tmp_path, example, times):
    """One death is made good and reported; three in a row end the run with a clear message."""
    (tmp_path / "fragile.py").write_text(
        "import os, pathlib, signal\n"
        "def score(outputs, labels):\n"
        "    deaths = pathlib.Path('deaths')\n"
        "    n = len(deaths.read_text()) if deaths.exists() else 0\n"
        f"    if n < {times}:\n"
        "        deaths.write_text('x' * (n + 1))\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return outputs.max(axis=1)\n"
    )
    work = tmp_path / "work"
    work.mkdir()
    few = ("-n", 2, "-j", 1, "--limit", 8, "--no-roughness")
    ran = nvaudit("audit", example, *few, "--metric", "fragile:score", "-o", "-",
                  cwd=tmp_path, env={**os.environ, "TMPDIR": str(work)})  # fmt: skip
    assert list(work.iterdir()) == []
    if times == 1:
        assert ran.returncode == 0, ran.stderr
        (event,) = json.loads(ran.stdout)["events"]
        assert event == (
            "a worker died in the unmodified model: signal SIGSEGV; replaced, the unmodified model done again"
        )
        assert "a worker died in the unmodified model: signal SIGSEGV" in " ".join(ran.stderr.split())
    else:
        assert ran.returncode == 3
        assert ran.stdout == ""
        assert ran.stderr.startswith(
            "nvaudit: error: the unmodified model ended 3 workers in a row: signal SIGSEGV. "
        )
        assert "Traceback" not in ran.stderr
