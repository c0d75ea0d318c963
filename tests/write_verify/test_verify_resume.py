"""`nvaudit verify-plan --resume`: a plan that was cut off goes on, and is that of an uninterrupted run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import nvaudit
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_OK, OptionError
from nvaudit.perturb.record import RECORD_FILE, ChipRecord
from nvaudit.write_verify import ranking
from nvaudit.write_verify.resume import KEPT_FILES, RANKING_FILE, load_ranking, ranking_task, save_ranking

CHIPS = 6
FEW = ("-n", CHIPS, "--limit", 40, "-j", 0, "-q", "--shares", "0.1,1", "--sigma", 0.3,
       "--sigma-unit", "weight_max")  # fmt: skip
FAST = (*FEW, "--ranking", "magnitude")
SWIM = (*FEW, "--sensitivity-images", 16)
ROW = 52


@pytest.fixture
def model(example, tmp_path, monkeypatch) -> str:
    """The example with its data, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(example.with_suffix(".npz"), "m.npz")
    shutil.copy(example, "m.onnx")
    return "m.onnx"


def results(text: str) -> dict:
    """A plan without what may differ."""
    found = json.loads(text)
    del found["timing"], found["events"]
    return found


def finished(folder: Path) -> int:
    """Whole records in a folder."""
    path = folder / RECORD_FILE
    data = path.read_bytes() if path.exists() else b""
    return (len(data) - data.index(b"\n", data.index(b"\n") + 1) - 1) // ROW if data else 0


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_a_killed_plan_goes_on_bit_for_bit(command, model):
    """After kill -9 within the search for a target, nothing but times differs from a run nobody stopped."""
    at = FAST.index("-n")
    run = ("verify-plan", model, *FAST[:at], "-n", 40, *FAST[at + 2 :], "--target-kpp", 0.9)
    words = [sys.executable, "-m", "nvaudit", *run, "--resume", "kept", "--report", "r.json"]
    with subprocess.Popen(list(map(str, words)), stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while finished(Path("kept")) < 130 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = finished(Path("kept"))
    assert kept >= 130
    assert not Path("r.json").exists()
    resumed = command(*run, "--resume", "kept", "--json")
    plain = command(*run, "--json")
    assert results(resumed.out) == results(plain.out)
    total = sum(len(point["values"]) for point in json.loads(plain.out)["curve"])
    assert json.loads(resumed.out)["events"] == [f"resumed: {kept} of {total} chips were read from kept"]
    assert kept < total


def test_the_ranking_is_kept(command, model, monkeypatch):
    """An interrupt says what is kept; the same command then ranks no more, and the plan is the same."""
    pytest.importorskip("torch")
    run = ("verify-plan", model, *SWIM, "--json")
    plain = command(*run)
    add = ChipRecord.add

    def stop(self, *arguments):
        add(self, *arguments)
        if finished(self.path.parent) == CHIPS + 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ChipRecord, "add", stop)
        ran = command(*run, "--resume", "kept")
    assert ran.code == EXIT_INTERRUPTED
    assert ran.err.startswith(
        "nvaudit: interrupted; finished chips are kept in kept; run the same command again to go on:\n"
        "nvaudit verify-plan "
    )
    monkeypatch.setattr(ranking, "LossCurvature", None)
    resumed = command(*run, "--resume", "kept")
    assert resumed.code == EXIT_OK
    assert results(resumed.out) == results(plain.out)


def test_chips_of_another_ranking_are_not_taken(command, model, monkeypatch):
    """Where the ranking is another one, chips with verified weights are run anew; a torn one is made anew."""
    pytest.importorskip("torch")
    run = ("verify-plan", model, *SWIM, "--resume", "kept", "--json")
    first = command(*run)
    path = Path("kept") / RANKING_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert results(command(*run).out) == results(first.out)
    assert path.read_bytes() == whole
    shapes = [tuple(row["shape"]) for row in json.loads(first.out)["tensors"]]
    places, said = load_ranking(Path("kept"), shapes)
    last = sum(place.size for place in places) - 1
    save_ranking(Path("kept"), [last - place for place in places], said)
    other = json.loads(command(*run).out)
    assert other["events"] == [f"resumed: {CHIPS} of {3 * CHIPS} chips were read from kept"]
    assert other["curve"][1]["values"] != json.loads(first.out)["curve"][1]["values"]


def test_ranking_file(tmp_path):
    """Places and words come back; a missing or torn file, or one of other tensors, is none."""
    places = [np.arange(6, dtype=np.int32).reshape(2, 3), np.array([7, 6], np.int32)]
    assert load_ranking(tmp_path, [(2, 3), (2,)]) is None
    save_ranking(tmp_path, places, "why: ½\nand")
    found, said = load_ranking(tmp_path, [(2, 3), (2,)])
    assert said == "why: ½\nand"
    assert all(np.array_equal(a, b) and a.dtype == np.int32 for a, b in zip(found, places, strict=True))
    assert load_ranking(tmp_path, [(2, 3), (3,)]) is None
    assert ranking_task(found) == ranking_task(places) != ranking_task(places[::-1])
    path = tmp_path / RANKING_FILE
    data = path.read_bytes()
    for wrong in (b"", data[:3], data[:-1], data[:-1] + b"\1"):
        path.write_bytes(wrong)
        assert load_ranking(tmp_path, [(2, 3), (2,)]) is None


def test_other_questions_to_the_same_chips(command, model):
    """Shares, target, percentile and more trials find the chips that are there; values are a fresh run's."""
    first = command("verify-plan", model, *FAST, "--resume", "kept")
    assert first.code == EXIT_OK
    words = ("--shares", "0.1,0.3", "-n", CHIPS + 2, "--target-kpp", 0.05, "-k", 10)
    again = command("verify-plan", model, *FAST, *words, "--resume", "kept", "--json")
    found = json.loads(again.out)
    assert found["events"] == [f"resumed: {2 * CHIPS} of {3 * (CHIPS + 2)} chips were read from kept"]
    assert results(again.out) == results(command("verify-plan", model, *FAST, *words, "--json").out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seed", 3), "--seed is 3, there 0"),
        (("--verify-sigma", 0.1), "--verify-sigma is 0.1, there 0.0"),
        (("--ranking", "random"), "--ranking is random, there magnitude"),
        (("--verify-term", "programming"), "--verify-term is programming, there not given"),
    ],
)
def test_another_run_is_refused(command, model, words, said):
    """What changes a chip is named with both values, and nothing is written."""
    run = ("verify-plan", model, *FAST, "-n", 1, "--resume", "kept")
    assert command(*run).code == EXIT_OK
    before = (Path("kept") / RECORD_FILE).read_bytes()
    ran = command(*run, *words, "--report", "r.json")
    assert ran.code == EXIT_BAD_INPUT
    assert f"--resume kept: its chips are of another run: {said}. Run with what" in ran.err
    assert (Path("kept") / RECORD_FILE).read_bytes() == before
    assert not Path("r.json").exists()


def test_an_audit_s_folder_is_refused(model):
    """A record of an audit has other points."""
    options = {"trials": 1, "limit": 8, "workers": 0, "resume": "kept"}
    nvaudit.audit(model, "rram", roughness=False, **options)
    with pytest.raises(OptionError, match=r"another run: --ranking is random, there not given"):
        nvaudit.verify_plan(model, "rram", ranking="random", **options)


def test_other_samples_of_the_ranking_are_refused(command, model):
    """The samples that the ranking looked at are known by their contents."""
    pytest.importorskip("torch")
    with np.load("m.npz") as given:
        np.savez("other.npz", **{name: given[name][:40] for name in given.files})
    run = ("verify-plan", model, *SWIM, "-n", 1, "--shares", 0, "--resume", "kept")
    assert command(*run).code == EXIT_OK
    ran = command(*run, "--sensitivity-data", "other.npz")
    assert ran.code == EXIT_BAD_INPUT
    assert "another run: the sensitivity data is other.npz (SHA-256 " in ran.err


@pytest.mark.parametrize("name", KEPT_FILES)
def test_no_output_overwrites_what_is_kept(command, model, name):
    """Neither the masks nor the page go into a file of the folder."""
    Path("kept").mkdir()
    for option in ("-o", "--html"):
        ran = command("verify-plan", model, *FAST, "--resume", "kept", option, f"kept/{name}")
        assert ran.code == EXIT_BAD_INPUT
        assert f"{option} kept/{name}: this is a file of --resume; choose another path" in ran.err
    assert list(Path("kept").iterdir()) == []


def test_progress_begins_where_the_plan_was(model):
    """The first number told of a share is what the record has."""
    options = {"ranking": "random", "shares": (0.5,), "limit": 8, "workers": 0, "resume": "kept"}
    nvaudit.verify_plan(model, "rram", trials=3, **options)
    told = []
    nvaudit.verify_plan(model, "rram", trials=5, progress=lambda *step: told.append(step), **options)
    steps = [step[1:] for step in told if step[0].startswith("chips with 50 %")]
    assert steps == [(3, 5), (4, 5), (5, 5)]
