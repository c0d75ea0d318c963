"""Ctrl-C and SIGTERM: a report of what is done, how to go on, and a second one stops at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from nvaudit.cli.kept import Kept

COMMAND = (sys.executable, "-m", "nvaudit")
MANY = ("-n", "200000", "--limit", "32")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


def start(*arguments: object, cache: Path | str = "off", cwd: Path | None = None, **env: str):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        env={**os.environ, "NVAUDIT_CACHE": str(cache), "COLUMNS": "100", **env}, start_new_session=True,
    )  # fmt: skip


def chips_in(folder: Path) -> int:
    """Bytes of the records of finished chips below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("chips.record"))


def interrupt(process: subprocess.Popen, kept: Path, size: int = 3000, number: int = signal.SIGINT):
    """Send a signal once so many bytes are kept."""
    deadline = time.monotonic() + 60
    while chips_in(kept) < size and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    return process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("number", "workers", "more"),
    [
        (signal.SIGINT, 2, ("--exhaustive",)),
        (signal.SIGTERM, 0, ()),
        (signal.SIGINT, 0, ("--min-kpp", "0.0001", "--all-trials")),
    ],
)
def test_the_finished_chips_are_reported(tmp_path, example, number, workers, more):
    """Text, JSON, JUnit, Markdown and page say INTERRUPTED in the verdict's place; exit code 130."""
    kept, files = tmp_path / "kept", {kind: tmp_path / f"report.{kind}" for kind in ("json", "xml", "md")}
    process = start("audit", example, *MANY, "-j", workers, "--resume", kept, "-o", files["json"], "--junit",
                    files["xml"], "--markdown", files["md"], *more)  # fmt: skip
    out, err = interrupt(process, kept, number=number)
    assert process.returncode == 130, err
    report = json.loads(files["json"].read_text())
    done = report["interrupted"]["done"]
    assert report["verdict"] is None
    assert report["interrupted"]["wanted"] == 200000
    assert report["interrupted"]["command"].startswith(f"nvaudit audit {example} -n 200000")
    assert report["trials"]["count"] == report["kpp"][0]["trials"] == done > 20
    assert out.startswith(f"INTERRUPTED: {report['headline'].removeprefix('INTERRUPTED: ')[:12]}")
    assert "\nINTERRUPTED  " in out
    assert f"nvaudit: interrupted after {done:,} of 200,000 chips; finished chips are kept in {kept}" in err
    assert err.rstrip().endswith(report["interrupted"]["command"])
    case = ET.parse(files["xml"]).getroot().find(".//testcase")
    assert case.find("error").get("type") == "interrupted"
    assert "INTERRUPTED" in files["md"].read_text().splitlines()[0]
    if more[:1] == ("--min-kpp",):
        assert report["gate"][0]["verdict"] == "pass" or done < 299
        assert "SO FAR" in out
    again = subprocess.run([*COMMAND, "report", files["json"], "--text"], capture_output=True, text=True)
    assert again.stdout.startswith("INTERRUPTED")


def test_the_same_command_goes_on_by_itself(tmp_path, example):
    """Chips are kept in the cache, taken up by the same command, and removed when it has come to its end."""
    cache, report = tmp_path / "cache", tmp_path / "report.json"
    words = ("audit", example, "-n", 600, "--limit", 200, "-j", 1, "--no-roughness", "-o", report)
    process = start(*words, cache=cache)
    _, err = interrupt(process, cache)
    assert process.returncode == 130, err
    assert "to go on:\nnvaudit audit" in err
    first = json.loads(report.read_text())
    process = start(*words, cache=cache)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "going on with the finished chips of an earlier run" in err
    whole = json.loads(report.read_text())
    assert whole["interrupted"] is None
    done = first["interrupted"]["done"]
    assert whole["trials"]["values"][:done] == first["trials"]["values"]
    assert any(event.startswith("resumed: ") for event in whole["events"])
    assert [path.name for path in cache.iterdir()] == ["CACHEDIR.TAG"]
    plain = start(*words, "--no-cache", cache=cache)
    plain.communicate(timeout=120)
    assert json.loads(report.read_text())["trials"]["values"] == whole["trials"]["values"]


def test_a_refused_run_keeps_nothing(tmp_path, example):
    """Bad input leaves nothing in the cache, and no later run says that it goes on with what is not there."""
    cache, data = tmp_path / "cache", tmp_path / "d.npz"
    with np.load(example.with_suffix(".npz")) as arrays:
        np.savez(data, **{**arrays, "y": np.full(len(arrays["y"]), 77)})
    words = ("audit", example, "--data", data, *MANY, "-j", 0, "--no-roughness")
    for _ in range(2):
        process = start(*words, cache=cache)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (2, "")
        assert "label 77 is out of range" in err
        assert "going on" not in err
        assert [path.name for path in cache.iterdir()] == ["CACHEDIR.TAG"]


def test_work_that_is_not_begun_is_not_kept(tmp_path):
    """A folder with a lock and a record without chips, which an early end leaves, holds nothing."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "lock").write_text("1")
    kept = Kept(folder, False, "finished chips")
    assert kept.command is None
    assert "no finished chips yet" in kept.how_to_go_on()
    (folder / "chips.record").write_bytes(b"first line\nsecond line\n")
    assert kept.command is None
    with (folder / "chips.record").open("ab") as record:
        record.write(bytes(52))
    assert kept.command == "nvaudit"


def test_chips_of_another_model_are_thrown_away(tmp_path, example):
    """The same command on a file with other contents begins anew: nothing is ever mixed."""
    cache, report, model = tmp_path / "cache", tmp_path / "report.json", tmp_path / "model.onnx"
    shutil.copy(example, model)
    data = example.with_suffix(".npz")
    words = (
        "audit",
        model,
        "--data",
        data,
        "-n",
        600,
        "--limit",
        200,
        "-j",
        1,
        "--no-roughness",
        "-o",
        report,
    )
    _, err = interrupt(start(*words, cache=cache), cache)
    assert "finished chips are kept" in err
    raw = bytearray(model.read_bytes())
    at = len(raw) // 2
    raw[at : at + 4] = (0).to_bytes(4, "little")  # inside a weight
    model.write_bytes(raw)
    process = start(*words, cache=cache)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "thrown away, beginning anew" in err
    assert json.loads(report.read_text())["events"] == []


def test_a_second_interrupt_stops_at_once(tmp_path, example):
    """Twice Ctrl-C: no report, exit code 130, no process and no working file left."""
    kept, work, report = tmp_path / "kept", tmp_path / "work", tmp_path / "report.json"
    work.mkdir()
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\ndef score(outputs, labels):\n    time.sleep(20)\n    return outputs[:, 0]\n"
    )
    words = ("-j", 0, "--metric", "slow:score", "--resume", kept, "-o", report)
    paths = f"{tmp_path}:{Path(__file__).parents[2]}"
    process = start("audit", example, *MANY, *words, cwd=tmp_path, TMPDIR=str(work), PYTHONPATH=paths)
    deadline = time.monotonic() + 60
    while not list(work.glob("nvaudit-*/worker-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)  # the metric is at it
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert out == ""
    assert "stopped at once" in err
    assert not report.exists()
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("command", ["landscape", "compare", "roofline"])
def test_other_commands_keep_what_is_finished(tmp_path, example, command):
    """They have no report of a part; they say where the finished work is, and the command goes on with it."""
    words = {
        "landscape": (example, "--grid", 41, "--pairs", 40),
        "compare": (example, shutil.copy(example, tmp_path / "other.onnx"), "-n", 20000, "--data",
                    example.with_suffix(".npz")),
        "roofline": (example, "-n", 20000),
    }[command]  # fmt: skip
    cache = tmp_path / "cache"
    process = start(command, *words, "-j", 1, cache=cache)
    out, err = interrupt(process, cache)
    assert process.returncode == 130
    assert out == ""
    assert "are kept in" in err
    assert err.rstrip().splitlines()[-1].startswith(f"nvaudit {command} ")
    process = start(command, *words, "-j", 1, cache=cache)
    try:
        assert "going on with the finished" in process.stderr.readline()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--resume", "kept", "--no-cache"), "--resume and --no-cache: choose one"),
        (("--cache", "c", "--no-cache"), "--cache and --no-cache: choose one"),
        (("--cache", "file/c"), "--cache file/c: cannot be used"),
    ],
)
def test_options_of_the_cache(command, example, tmp_path, monkeypatch, words, message):
    """What cannot be, is refused before the run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    ran = command("audit", example, "-n", 2, "-j", 0, "--limit", 8, *words)
    assert ran.code == 2
    assert message in ran.err


def test_a_cache_that_cannot_be_is_no_failure(example, tmp_path):
    """Without --cache, a home that cannot be written is no reason not to run."""
    home = tmp_path / "home"
    home.write_text("")
    env = {
        name: value for name, value in os.environ.items() if name not in ("NVAUDIT_CACHE", "XDG_CACHE_HOME")
    }
    ran = subprocess.run(
        [*COMMAND, "audit", example, "-n", "2", "-j", "0", "--limit", "8", "--no-roughness"],
        env={**env, "HOME": str(home)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
