"""`nvaudit audit --resume`: a run that was killed goes on, and its report is that of an uninterrupted one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from quick import audit

from nvaudit.perturb.lock import lock_folder
from nvaudit.perturb.record import RECORD_FILE

COMMAND = (sys.executable, "-m", "nvaudit", "audit")
CHIPS = 400
RUN = (
    "-n", CHIPS // 2, "-j", 1, "--limit", 200, "--sigma", 0.4, "--sigma", 0.2, "--metric", "cross_entropy",
    "--no-roughness",
)  # fmt: skip
FEW = ("-n", 3, "-j", 0, "--limit", 8, "--no-roughness")
ROW = 52
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(folder: Path) -> int:
    """Whole records in a folder."""
    path = folder / RECORD_FILE
    if not path.exists():
        return 0
    data = path.read_bytes()
    return (len(data) - data.index(b"\n", data.index(b"\n") + 1) - 1) // ROW


def stop_after(process: subprocess.Popen, folder: Path, chips: int, number: int) -> tuple[str, str]:
    """Send a signal once a folder has so many chips, or the process has ended; what it printed."""
    deadline = time.monotonic() + 60
    while finished(folder) < chips and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    return process.communicate(timeout=60)


def results(path: Path) -> dict:
    """A report without what may differ."""
    report = json.loads(path.read_text())
    del report["timing"], report["events"]
    return report


@pytest.fixture(scope="module")
def uninterrupted(example, tmp_path_factory) -> dict:
    """The results of the run that nobody stops."""
    path = tmp_path_factory.mktemp("whole") / "report.json"
    with start(example, *RUN, "-q", "-o", path) as process:
        assert process.wait(120) == 0
    found = results(path)
    assert len(set(found["trials"]["values"])) > CHIPS / 4
    return found


def kill_and_go_on(example: Path, folder: Path, kills: int, seed: int) -> dict:
    """Kill a run at random moments, finish it, and give its report."""
    rng = random.Random(seed)
    report = folder.parent / "report.json"
    kept = 0
    for _ in range(kills):
        with start(example, *RUN, "--resume", folder, "-o", report) as process:
            step = rng.randrange(0, 2 * CHIPS // kills)
            stop_after(process, folder, min(kept + step, CHIPS - 100), signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert finished(folder) >= kept, "a finished chip was lost"
        kept = finished(folder)
    assert 0 < kept < CHIPS
    assert not report.exists()
    with start(example, *RUN, "--resume", folder, "-o", report) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    events = json.loads(report.read_text())["events"]
    assert f"resumed: {kept} of {CHIPS} chips were read from {folder}" in events
    return results(report)


@posix
def test_a_killed_run_goes_on_bit_for_bit(example, tmp_path, uninterrupted):
    """After kill -9 at two random moments the report is that of the run that nobody stopped."""
    assert kill_and_go_on(example, tmp_path / "kept", 2, seed=1) == uninterrupted


@posix
@pytest.mark.slow
def test_twenty_kills(example, tmp_path, uninterrupted):
    """Twenty times kill -9, also before the first chip: no chip is lost, no value moves."""
    assert kill_and_go_on(example, tmp_path / "kept", 20, seed=2) == uninterrupted


@posix
def test_an_interrupt_says_how_to_go_on(example, tmp_path):
    """Ctrl-C: exit code 130, what is kept and what to do; the same command then does the rest."""
    folder = tmp_path / "kept"
    with start(example, *RUN, "--resume", folder) as process:
        out, err = stop_after(process, folder, 50, signal.SIGINT)
    assert process.returncode == 130
    assert out.startswith("INTERRUPTED: ")
    assert f"finished chips are kept in {folder}; run the same command again to go on:" in err
    assert err.splitlines()[-1].startswith("nvaudit audit ")
    kept = finished(folder)
    assert kept >= 50
    with start(example, *RUN, "--resume", folder, "-o", "-") as process:
        out, _ = process.communicate(timeout=120)
    assert f"resumed: {kept} of {CHIPS} chips were read from {folder}" in json.loads(out)["events"]


@posix
def test_a_second_process_is_refused(command, example, tmp_path):
    """While one run is at work in the folder, another says who it is and ends; the first goes on."""
    folder = tmp_path / "kept"
    with start(example, "-n", 100000, "-j", 1, "--resume", folder) as process:
        deadline = time.monotonic() + 60
        while not finished(folder) and time.monotonic() < deadline:
            time.sleep(0.01)
        ran = command("audit", example, *FEW, "--resume", folder)
        assert process.poll() is None
        process.kill()
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err == (
        f"nvaudit: error: --resume {folder}: process {process.pid} is at work in this folder; wait for it, "
        "or name another folder\n"
    )


@pytest.fixture
def kept(command, example, tmp_path) -> Path:
    """A folder with three finished chips of the example."""
    folder = tmp_path / "kept"
    assert command("audit", example, *FEW, "--resume", folder).code == 0
    return folder


def refusal(folder: Path, ran) -> str:
    """What differs, from the one line that a refused run prints."""
    begin = f"nvaudit: error: --resume {folder}: its chips are of another run: "
    end = ". Run with what the folder has, or name another folder\n"
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith(begin), ran.err
    assert ran.err.endswith(end), ran.err
    return ran.err[len(begin) : -len(end)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--seed", 7), "--seed is 7, there 0"),
        (("--sigma", 0.2), "--sigma is 0.2, there not given"),
        (("--bits", 6), "--bits is 6, there not given"),
        (("--limit", 9), "--limit is 9, there 8"),
        (("--batch-size", 4), "--batch-size is 4, there 64"),
        (("--every-device",), "--every-device is given, there not given"),
        (("--layers", "conv*", "--metric", "top2"),
         "--layers is conv*, there not given; --metric is top2, there not given"),
    ],
)  # fmt: skip
def test_another_option_is_refused(command, example, kept, options, said):
    """The message names each option with both values, and the record stays as it is."""
    before = (kept / RECORD_FILE).read_bytes()
    assert refusal(kept, command("audit", example, *FEW, "--resume", kept, *options)) == said
    assert (kept / RECORD_FILE).read_bytes() == before


def test_another_device_is_refused(command, example, kept):
    """Chips of two devices are never mixed."""
    said = refusal(kept, command("audit", example, *FEW, "--resume", kept, "-d", "fefet1"))
    assert said.startswith("the device is fefet1 (SHA-256 ")
    assert "), there rram (SHA-256 " in said


def test_other_data_are_refused(command, example, kept, tmp_path):
    """Other values under the same names are other data."""
    path = tmp_path / "other.npz"
    with np.load(example.with_suffix(".npz")) as data:
        np.savez(path, image=data["image"][::-1], y=data["y"][::-1])
    said = refusal(kept, command("audit", example, *FEW, "--resume", kept, "--data", path))
    assert said.startswith(f"the data is {path} (SHA-256 ")
    assert f", there {example.with_suffix('.npz')} (SHA-256 " in said


def test_another_model_is_refused(command, example, kept, tmp_path):
    """A model that differs in one byte that nothing shows is another model."""
    path = tmp_path / "other.onnx"
    path.write_bytes(example.read_bytes() + b"\x32\x00")  # an empty doc_string
    shutil.copy(example.with_suffix(".npz"), path.with_suffix(".npz"))
    said = refusal(kept, command("audit", path, *FEW, "--resume", kept))
    assert said.startswith(f"the model is {path} (SHA-256 ")
    assert f", there {example} (SHA-256 " in said


def test_another_metric_function_is_refused(command, example, tmp_path, monkeypatch):
    """A metric of the user's own is known by its source, not by its name only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = "def half(outputs, labels):\n    return (outputs.argmax(axis=1) == labels) / {}\n"
    folder, ran = tmp_path / "kept", []
    for divisor in (2, 3):
        (tmp_path / "resume_metric.py").write_text(source.format(divisor))
        monkeypatch.delitem(sys.modules, "resume_metric", raising=False)
        ran.append(command("audit", example, *FEW, "--resume", folder, "--metric", "resume_metric:half"))
    assert ran[0].code == 0
    assert refusal(folder, ran[1]).startswith("the metric is resume_metric:half (SHA-256 ")


def test_more_trials_go_on_and_fewer_are_the_first(command, example, kept, tmp_path):
    """Trials are addressed: the record of 3 serves 5, and that of 5 serves 2."""
    path = tmp_path / "report.json"
    for trials, found in ((5, 3), (2, 2), (5, 5)):
        assert command("audit", example, *FEW, "-n", trials, "--resume", kept, "-o", path).code == 0
        report = json.loads(path.read_text())
        assert report["events"] == [f"resumed: {found} of {trials} chips were read from {kept}"]
        whole = audit(example, limit=8, trials=trials)
        assert tuple(report["trials"]["values"]) == whole.trials.values
        assert report["trials"]["images_evaluated"] == trials * 8
        assert finished(kept) == 5


def test_other_questions_to_the_same_chips(command, example, kept):
    """What is asked of the chips, and how they are run, may change."""
    questions = ("-k", 10, "--confidence", 0.9, "--yield-at", 0.5, "--crossbar", "64x64", "-j", 1)
    ran = command("audit", example, *FEW, *questions, "--resume", kept)
    assert ran.code == 0
    assert f"resumed: 3 of 3 chips were read from {kept}" in " ".join(ran.out.split())


def test_a_torn_record_is_said_and_done_again(command, example, kept, tmp_path):
    """What a crash has torn is dropped with a word about it, and the results are the same."""
    path, record = tmp_path / "report.json", kept / RECORD_FILE
    whole = record.read_bytes()
    record.write_bytes(whole[:-7])
    assert command("audit", example, *FEW, "--resume", kept, "-o", path).code == 0
    report = json.loads(path.read_text())
    assert report["events"] == [
        f"{record}: an unfinished record (45 bytes) at its end was dropped",
        f"resumed: 2 of 3 chips were read from {kept}",
    ]
    assert tuple(report["trials"]["values"]) == audit(example, limit=8, trials=3).trials.values
    assert record.read_bytes()[:-16] == whole[:-16]  # all but the seconds of the last chip, and its checksum


def test_a_damaged_record_is_an_error(command, example, kept):
    """Damage in the middle is exit code 2 with file and offset, and nothing is overwritten."""
    record = kept / RECORD_FILE
    data = bytearray(record.read_bytes())
    data[-2 * ROW] ^= 1
    record.write_bytes(data)
    ran = command("audit", example, *FEW, "--resume", kept)
    assert ran.code == 2
    assert ran.err.startswith(f"nvaudit: error: {record}: damaged at byte {len(data) - 2 * ROW}: ")
    assert record.read_bytes() == data


@pytest.mark.parametrize("name", [RECORD_FILE, "lock"])
def test_a_report_does_not_overwrite_the_record(command, example, kept, name):
    """`-o` into the folder may not hit what it needs."""
    path = kept / name
    before = path.read_bytes()
    ran = command("audit", example, *FEW, "--resume", kept, "-o", path)
    assert ran.code == 2
    assert ran.err == f"nvaudit: error: -o {path}: this is a file of --resume; choose another path\n"
    assert path.read_bytes() == before


def test_progress_begins_where_the_run_was(example, kept):
    """The first number told is what the record has."""
    told = []
    audit(example, limit=8, trials=6, resume=kept, progress=lambda *step: told.append(step))
    assert next(step for step in told if step[0] == "chips") == ("chips", 3, 6)
    assert told[-1] == ("chips", 6, 6)


def test_the_library_leaves_the_folder_free(example, kept):
    """After an audit in this process the folder is not locked, and the specification does not name it."""
    report = audit(example, limit=8, trials=3, resume=kept)
    assert str(kept) not in json.dumps(report.run)
    with lock_folder(kept):
        pass
