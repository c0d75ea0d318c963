"""Input files that are written while they are in use: the numbers of what was hashed, or no result at all."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import nvaudit
from nvaudit.cli import run
from nvaudit.data import npy
from nvaudit.errors import EXIT_BAD_INPUT, EngineError, InputChangedError
from nvaudit.files import holding_inputs, note_files
from nvaudit.jobs import replaying
from nvaudit.jobs.landscaping import landscape
from nvaudit.jobs.replaying import replay
from nvaudit.report.result import from_json

FEW = {"trials": 3, "workers": 0, "limit": 40, "roughness": False, "exhaustive": True}


@pytest.fixture
def place(tmp_path, example):
    """The example model with external data, and its data as .npy files."""
    model = onnx.load(example)
    onnx.save_model(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0
    )
    with np.load(example.with_suffix(".npz")) as arrays:
        np.save(tmp_path / "x.npy", arrays["image"])
        np.save(tmp_path / "y.npy", arrays["y"])
    return tmp_path


def once(action, after="running the unmodified model"):
    """A progress callback that acts the first time that something has begun."""
    left = [action]

    def progress(what, done, total):
        if what == after and left:
            left.pop()()

    return progress


def overwrite(path: Path, offset: int = 512) -> None:
    """Write other bytes in the middle of a file, with the time that it had."""
    times = os.stat(path)
    data = bytearray(path.read_bytes())
    for place in range(offset, min(offset + 4000, len(data)), 4):
        data[place] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_an_array_that_is_overwritten_does_not_reach_the_run(place):
    """x.npy is copied: the numbers are those of what was hashed."""
    still = nvaudit.audit(place / "m.onnx", data=place / "x.npy", **FEW)
    moved = nvaudit.audit(
        place / "m.onnx", data=place / "x.npy", progress=once(lambda: overwrite(place / "x.npy")), **FEW
    )
    assert moved.trials.values == still.trials.values
    assert moved.hashes == still.hashes


def test_an_array_that_gets_shorter_does_not_end_the_process(place):
    """What np.save does to a file in place: it is cut to nothing first."""
    moved = nvaudit.audit(
        place / "m.onnx", data=place, progress=once(lambda: (place / "x.npy").write_bytes(b"")), **FEW
    )
    assert len(moved.trials.values) == 3


@pytest.mark.parametrize("name", ["x.npy", "w.data", "m.onnx"])
def test_a_file_that_is_mapped_and_moves_gives_no_result(place, monkeypatch, name):
    """Other bytes under the same length and time are found by their hash; the file is named."""
    monkeypatch.setattr(npy, "COPY_BYTES", 0)
    with pytest.raises(
        InputChangedError, match=re.escape(f"{name}: changed while it was in use: its content is another")
    ):
        nvaudit.audit(
            place / "m.onnx", data=place / "x.npy", progress=once(lambda: overwrite(place / name)), **FEW
        )


def test_length_and_time_are_looked_at_too(place):
    """A file that was written again is refused, even with the same content; one that is gone as well."""
    model = place / "m.onnx"
    for change, message in (
        (lambda: os.utime(model, (1, 1)), "it was written again"),
        (
            lambda: os.truncate(place / "w.data", 10**6),
            r"w\.data: .* its length was \d+ and is 1000000 bytes",
        ),
        (model.unlink, "it cannot be read any more: No such file"),
    ):
        with pytest.raises(InputChangedError, match=message):
            nvaudit.audit(model, data=place, progress=once(change), **FEW)


def test_a_file_that_is_read_twice_must_be_the_same(place):
    """Also one that was copied: the two halves of a comparison would be of different data."""
    with holding_inputs():
        note_files([place / "x.npy"], copied=True)
        overwrite(place / "x.npy")
        with pytest.raises(InputChangedError, match=r"x\.npy: .* another than when it was read first"):
            note_files([place / "x.npy"], copied=True)


def test_another_error_gives_way_to_its_cause(place):
    """What a changed file led to is not what the user has to hear of."""

    @holding_inputs()
    def fail():
        note_files([place / "m.onnx"])
        (place / "m.onnx").write_bytes(b"short")
        raise EngineError("three workers died")

    with pytest.raises(InputChangedError, match=r"m\.onnx"):
        fail()


def test_landscape_and_replay_refuse_too(place, monkeypatch):
    """And replay writes nothing."""
    model = place / "m.onnx"
    with pytest.raises(InputChangedError, match=r"w\.data"):
        landscape(
            model, data=place, grid=3, pairs=1, images=8, workers=0,
            progress=lambda what, done, total: done and overwrite(place / "w.data"),
        )  # fmt: skip
    shutil.copy(model.with_name("w.data"), place / "kept")
    report = nvaudit.audit(model, data=place, **FEW)
    real = replaying._same
    monkeypatch.setattr(replaying, "_same", lambda *all: (real(*all), overwrite(place / "w.data", 9000)))
    with pytest.raises(InputChangedError, match=r"w\.data"):
        replay(report, place / "chip.onnx")
    assert not (place / "chip.onnx").exists()


def test_the_command_ends_with_exit_code_2(place, monkeypatch, capsys):
    """One line that names the file, and no report."""
    from nvaudit.jobs import auditing

    real = auditing.run_nominal
    monkeypatch.setattr(auditing, "run_nominal", lambda *all: (overwrite(place / "w.data"), real(*all))[1])
    report = place / "r.json"
    options = ["-n", "2", "-j", "0", "-q", "-o", str(report), "--limit", "8", "--no-roughness"]
    code = run(["audit", str(place / "m.onnx"), "--data", str(place), *options])
    said = capsys.readouterr()
    assert (code, said.out, report.exists()) == (EXIT_BAD_INPUT, "", False)
    assert re.fullmatch(r"nvaudit: error: \S+w\.data: changed while it was in use: .*\n", said.err)


def test_an_undisturbed_run_is_accepted(place):
    """Nothing that the run itself writes is taken for a change."""
    report = nvaudit.audit(place / "m.onnx", data=place, **FEW)
    assert from_json(report.model_dump_json(), "again").hashes == report.hashes
