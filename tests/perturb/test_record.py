"""The record of finished chips: what is kept, what a crash may tear, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvaudit.errors import EngineError, OptionError
from nvaudit.perturb.lock import lock_folder
from nvaudit.perturb.outcome import Outcome
from nvaudit.perturb.record import RECORD_FILE, Identity, Input, open_record

SIZE = 52
IDENTITY = Identity(
    inputs={name: Input(name=f"{name}.x", sha256=name[0] * 64) for name in ("model", "data", "device")},
    options={"--seed": 0, "--sigma": [0.1, 0.2], "--bits": None, "--every-device": False},
    versions={"nvaudit": "1.0", "numpy": "2.0"},
)
CHIPS = [(0, 0, Outcome(0.1, 7, 1e-3)), (1, 5, Outcome(1 / 3, 7, 0.25)), (0, 12, Outcome(-0.0, 9, 2.0))]

floats = st.floats(allow_nan=False, allow_infinity=False)
outcomes = st.builds(Outcome, floats, st.integers(0, 2**63), floats)
addresses = st.tuples(st.integers(0, 999), st.integers(0, 10**8 - 1))


def write(folder: Path, chips=CHIPS, identity=IDENTITY) -> Path:
    """A record with some chips; its path."""
    folder.mkdir(exist_ok=True)
    with open_record(folder, identity) as record:
        for point, trial, outcome in chips:
            record.add(point, trial, outcome)
    return folder / RECORD_FILE


def read(folder: Path, identity=IDENTITY) -> list[tuple]:
    """The chips of a record, floats by their bits."""
    with open_record(folder, identity) as record:
        return [
            (int(row["point"]), int(row["trial"]), int(row["images"]), row["value"].tobytes(),
             row["seconds"].tobytes())
            for row in record.rows
        ]  # fmt: skip


def expected(chips=CHIPS) -> list[tuple]:
    return [
        (point, trial, o.images, np.float64(o.value).tobytes(), np.float64(o.seconds).tobytes())
        for point, trial, o in chips
    ]


@given(st.dictionaries(addresses, outcomes, max_size=20))
def test_what_is_kept_comes_back_bit_for_bit(tmp_path_factory, chips):
    """Any chips come back in order, every float exact, also the sign of zero and subnormal numbers."""
    folder = tmp_path_factory.mktemp("record")
    listed = [(*address, outcome) for address, outcome in chips.items()]
    half = len(listed) // 2
    write(folder, listed[:half])
    write(folder, listed[half:])  # a second run appends
    assert read(folder) == expected(listed)


def test_a_chip_is_in_the_file_as_soon_as_it_is_kept(tmp_path):
    """Nothing waits in a buffer of the process, where kill -9 would lose it."""
    with open_record(tmp_path, IDENTITY) as record:
        before = record.path.stat().st_size
        for count, (point, trial, outcome) in enumerate(CHIPS, 1):
            record.add(point, trial, outcome)
            assert record.path.stat().st_size == before + count * SIZE


def test_a_torn_last_record_is_dropped(tmp_path):
    """Cut anywhere inside the last record, the others are read, and the next chip takes its place."""
    path = write(tmp_path)
    whole = path.read_bytes()
    for left in range(SIZE):
        path.write_bytes(whole[: len(whole) - SIZE + left])
        with open_record(tmp_path, IDENTITY) as record:
            assert len(record.rows) == 2
            assert record.dropped == left
            record.add(*CHIPS[2])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("zeros", [1, SIZE, 5 * SIZE + 3])
def test_zeros_at_the_end_are_dropped(tmp_path, zeros):
    """After a power failure a file may be longer than what was written into it."""
    path = write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(zeros))
    assert read(tmp_path) == expected()
    assert path.read_bytes() == whole


def test_a_wrong_last_record_is_dropped(tmp_path):
    """The last record is done again also if its length is right and its contents are not."""
    path = write(tmp_path)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    assert read(tmp_path) == expected(CHIPS[:2])


@given(st.data())
def test_damage_in_the_middle_is_an_error(tmp_path_factory, data):
    """A changed byte before the last record names file and offset, and the file stays as it is."""
    folder = tmp_path_factory.mktemp("record")
    path = write(folder)
    content = bytearray(path.read_bytes())
    start = len(content) - 3 * SIZE
    where = data.draw(st.integers(start, len(content) - SIZE - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    offset = start + (where - start) // SIZE * SIZE
    with pytest.raises(OptionError) as caught:
        open_record(folder, IDENTITY)
    assert str(caught.value) == (
        f"{path}: damaged at byte {offset}: the checksum does not match; nothing was changed; put back a "
        "copy of the file, or name another folder to begin anew"
    )
    assert path.read_bytes() == content


@given(st.data())
def test_a_damaged_head_is_an_error(tmp_path_factory, data):
    """A changed byte before the first record is refused, whichever it is, and nothing is written."""
    folder = tmp_path_factory.mktemp("record")
    path = write(folder)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 3 * SIZE - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(OptionError, match=r"damaged at byte \d+|a record of version"):
        open_record(folder, IDENTITY)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged at byte 0: not a record of finished chips"),
        (b"\x00" * 100, "damaged at byte 0: not a record of finished chips"),
        (b"my,precious,data\n1,2,3\n", "damaged at byte 0: not a record of finished chips"),
        (b"nvaudit-chips 3 00000000\n{}\n", "a record of version '3'; this nvaudit knows version 2"),
        (b"nvaudit-chips 2 00000000\n{}", "damaged at byte 25: the checksum does not match"),
        (b"nvaudit-chips 2 a3831cba\n{}\n", "damaged at byte 25"),
    ],
)
def test_a_file_of_another_kind_is_left_alone(tmp_path, content, message):
    """What is not a record of this version is refused and not overwritten."""
    path = tmp_path / RECORD_FILE
    path.write_bytes(content)
    with pytest.raises(OptionError) as caught:
        open_record(tmp_path, IDENTITY)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert path.read_bytes() == content


def test_a_chip_that_stands_twice_is_an_error(tmp_path):
    """Two records of one chip are never averaged or chosen from."""
    path = write(tmp_path, [*CHIPS, CHIPS[1]])
    with pytest.raises(OptionError, match=f"damaged at byte {path.stat().st_size - SIZE}: a chip stands twi"):
        open_record(tmp_path, IDENTITY)


def with_input(what: str, **change) -> Identity:
    inputs = {**IDENTITY.inputs, what: IDENTITY.inputs[what].model_copy(update=change)}
    return IDENTITY.model_copy(update={"inputs": inputs})


def with_options(**change) -> Identity:
    options = {**IDENTITY.options, **{f"--{name}": value for name, value in change.items()}}
    return IDENTITY.model_copy(update={"options": options})


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (with_options(seed=3), "--seed is 0, there 3"),
        (with_options(sigma=[0.3]), "--sigma is 0.1, 0.2, there 0.3"),
        (with_options(bits=6), "--bits is not given, there 6"),
        (with_options(**{"every-device": True}), "--every-device is not given, there given"),
        (with_options(new="x"), "--new is not given, there x"),
        (with_input("model", sha256="0" * 64),
         "the model is model.x (SHA-256 mmmmmmmmmmmm), there model.x (SHA-256 000000000000)"),
        (with_input("data", name="b.npz", sha256="0" * 64),
         "the data is data.x (SHA-256 dddddddddddd), there b.npz (SHA-256 000000000000)"),
        (with_input("device", name="b", sha256="0" * 64),
         "the device is device.x (SHA-256 dddddddddddd), there b (SHA-256 000000000000)"),
        (IDENTITY.model_copy(update={"versions": {"nvaudit": "0.9", "numpy": "2.0"}}),
         "nvaudit is 1.0, there 0.9"),
    ],
)  # fmt: skip
def test_another_run_is_refused_with_what_differs(tmp_path, there, said):
    """The message names each difference with both values; the record stays as it is."""
    path = write(tmp_path, identity=there)
    content = path.read_bytes()
    with pytest.raises(OptionError) as caught:
        open_record(tmp_path, IDENTITY)
    assert str(caught.value) == (
        f"--resume {tmp_path}: its chips are of another run: {said}. Run with what the folder has, or name "
        "another folder"
    )
    assert path.read_bytes() == content


def test_an_option_that_is_off_is_as_one_that_is_not_there(tmp_path):
    """A record that writes out what is off, or does not know the option yet, goes on; 0 is a value."""
    write(tmp_path, identity=with_options(layers=[], bits=None, **{"every-device": False}))
    on = {name: value for name, value in IDENTITY.options.items() if value is not None and value is not False}
    assert read(tmp_path, IDENTITY.model_copy(update={"options": on})) == expected()
    assert IDENTITY.differences(with_options(seed=None)) == ["--seed is 0, there not given"]


def test_an_option_that_changes_an_input_stands_for_it(tmp_path):
    """--bits changes the device's hash; only the option is worth a message."""
    there = with_input("device", sha256="0" * 64)
    there = there.model_copy(update={"options": {**there.options, "--bits": 6}})
    assert IDENTITY.differences(there) == ["--bits is not given, there 6"]


def test_a_renamed_input_is_the_same_input(tmp_path):
    """Contents count, not names."""
    write(tmp_path, identity=with_input("model", name="elsewhere.onnx"))
    assert read(tmp_path) == expected()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said(tmp_path):
    """A chip that cannot be kept ends the run, with what to do."""
    said = "No space left on device; finished chips are kept"
    with open_record(tmp_path, IDENTITY) as record:
        handle = record._file.fileno()
        good = os.dup(handle)
        with Path("/dev/full").open("wb") as full:
            os.dup2(full.fileno(), handle)
        with pytest.raises(EngineError, match=said):
            record.add(*CHIPS[0])
        os.dup2(good, handle)
        os.close(good)


def test_one_process_at_a_time(tmp_path):
    """A second process is refused with the first one's id; a killed one does not block the folder."""
    code = (
        "import sys, time; from pathlib import Path; from nvaudit.perturb.lock import lock_folder\n"
        "with lock_folder(Path(sys.argv[1])):\n    print('locked', flush=True); time.sleep(60)"
    )
    folder = tmp_path / "a" / "b"
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(OptionError) as caught, lock_folder(folder):
            pass
        process.kill()
    assert str(caught.value) == (
        f"--resume {folder}: process {process.pid} is at work in this folder; wait for it, or name "
        "another folder"
    )
    for _ in range(2):
        with lock_folder(folder):
            assert (folder / "lock").read_text() == f"{os.getpid()}\n"


def test_a_thread_is_kept_out_too(tmp_path):
    """Two runs in one process do not share a folder either."""
    with lock_folder(tmp_path), pytest.raises(OptionError, match=f"process {os.getpid()} is at work"):
        lock_folder(tmp_path).__enter__()


@pytest.mark.parametrize("name", ["file", "file/under", "bad\0name", "bad\udcff"])
def test_what_cannot_be_a_folder_is_refused(tmp_path, name):
    """A file, a folder below a file, and an impossible name are usage errors."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionError, match=r"cannot be used: .*; name a folder that can be written"):
        lock_folder(tmp_path / name).__enter__()
    assert (tmp_path / "file").read_text() == "x"
