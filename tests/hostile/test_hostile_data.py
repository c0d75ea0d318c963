"""Attacks and accidents: broken archives, pickles, escapes, bombs, full disks. One clear line each."""

import contextlib
import errno
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvaudit.data import Dataset, InputSpec, load_dataset
from nvaudit.data import store as store_module
from nvaudit.data.store import ScratchStore
from nvaudit.errors import DataError, EngineError

SPEC = InputSpec("a", "float32", ("N", 3), 0)
X = np.arange(12, dtype=np.float32).reshape(4, 3)


def load(path: Path, root: Path, *specs: InputSpec) -> Dataset:
    return load_dataset(
        path, specs or (SPEC,), model_path=root / "m.onnx", limit=None, seed=0, scratch=root / "scratch"
    )


def refused(path: Path, root: Path, *specs: InputSpec) -> str:
    with pytest.raises(DataError) as caught:
        load(path, root, *specs)
    return str(caught.value)


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_object_arrays_are_never_unpickled(tmp_path):
    """A pickle inside an .npz or .npy is refused, and its payload does not run."""
    array = np.array([Bomb(tmp_path / "ran")] * 4, object)
    path = npz(tmp_path / "d.npz", x=npy_bytes(array))
    assert refused(path, tmp_path) == (
        f"{path}: array 'x': holds Python objects, which are never loaded (pickle can run code); "
        "save a plain numeric array"
    )
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    assert "holds Python objects, which are never loaded" in refused(tmp_path / "x.npy", tmp_path)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "x.npy").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert "x.npy: not a complete .npy array" in refused(tmp_path / "p" / "x.npy", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "array",
    [np.array(["a"] * 4), np.zeros(4, complex), np.zeros(4, [("f", "f4")]), np.zeros(4, "M8[s]")],
    ids=["text", "complex", "records", "dates"],
)
def test_other_element_types_are_refused(tmp_path, array):
    """Only booleans, integers and floats are data."""
    path = npz(tmp_path / "d.npz", x=npy_bytes(array))
    assert refused(path, tmp_path) == (
        f"{path}: array 'x': element type {array.dtype} cannot be used; save booleans, integers or floats"
    )


def test_member_names_never_become_paths(tmp_path):
    """A member called ../../evil, wanted by a model with such an input, stays inside the scratch folder."""
    home = tmp_path / "deep" / "er"
    home.mkdir(parents=True)
    for name in ("../../evil", "/evil"):
        path = npz(home / "d.npz", **{name: npy_bytes(X)})
        data = load(path, home, InputSpec(name, "float32", ("N", 3), 0))
        np.testing.assert_array_equal(data.inputs[name], X)
        assert not list(tmp_path.rglob("*evil*"))
        (folder,) = {Path(file).parent.parent for file in home.rglob("0001.npy")}
        assert folder == home / "scratch"


def test_input_names_never_become_paths(tmp_path):
    """A model whose input is called ../secret does not read a file outside the folder."""
    np.save(tmp_path / "secret.npy", X)
    (tmp_path / "d").mkdir()
    np.save(tmp_path / "d" / "other.npy", X)
    message = refused(tmp_path / "d", tmp_path, InputSpec("../secret", "float32", ("N", 3), 0))
    assert "no array for input '../secret': found 'other'" in message


@pytest.mark.parametrize("keep", [0, 10, 100, 200])
def test_a_truncated_archive_is_refused(tmp_path, keep):
    """Without its directory an .npz is no archive."""
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=X)
    path.write_bytes(path.read_bytes()[:keep])
    assert (
        refused(path, tmp_path)
        == f"{path}: not an intact .npz archive: File is not a zip file; write it again"
    )


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    """The suffix alone does not make an .npz."""
    path = tmp_path / "d.npz"
    path.write_text("hello")
    assert (
        refused(path, tmp_path)
        == f"{path}: not an intact .npz archive: File is not a zip file; write it again"
    )


def test_a_damaged_member_is_refused(tmp_path):
    """The checksum of the archive is checked."""
    path = tmp_path / "d.npz"
    np.savez(path, x=X)
    content = bytearray(path.read_bytes())
    place = bytes(content).index(X.tobytes())
    content[place + 5] ^= 0xFF
    path.write_bytes(content)
    assert refused(path, tmp_path) == (
        f"{path}: array 'x' cannot be unpacked: Bad CRC-32 for file 'x.npy'; write it again"
    )


def test_an_array_shorter_than_its_header_is_refused(tmp_path):
    """The header says 4 rows and the file ends early: in an archive and as a file."""
    content = npy_bytes(X)[:-8]
    path = npz(tmp_path / "d.npz", x=content)
    assert refused(path, tmp_path).startswith(f"{path}: array 'x': not a complete .npy array: ")
    (tmp_path / "x.npy").write_bytes(content)
    assert ": not a complete .npy array: " in refused(tmp_path / "x.npy", tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976, 16), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3)",
        "__import__('os').mkdir('ran')",
        "{'descr': '<f4'}",
        "(" * 5000,
    ],
)
def test_a_hostile_header_is_refused(tmp_path, header):
    """Negative, huge, cut-off, executable and nested headers all end in one line."""
    text = header.encode().ljust(6000) + b"\n"
    (tmp_path / "x.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + X.tobytes()
    )
    assert ": not a complete .npy array: " in refused(tmp_path / "x.npy", tmp_path)


def test_an_archive_larger_than_the_disk_is_refused_before_unpacking(tmp_path, monkeypatch):
    """The declared size is compared with the free space first."""
    path = npz(tmp_path / "d.npz", x=npy_bytes(np.zeros((100_000, 3), np.float32)))
    monkeypatch.setattr(ScratchStore, "free_bytes", lambda self: 1000)
    assert refused(path, tmp_path) == (
        f"{path}: unpacks to 1200128 bytes and the scratch disk has 1000 free; "
        "use a scratch folder on a larger disk"
    )
    assert not list((tmp_path / "scratch").rglob("*.npy"))


def test_a_member_that_understates_its_size_cannot_grow(tmp_path):
    """A bomb that declares 200 bytes writes no more than that."""
    path = npz(tmp_path / "d.npz", x=npy_bytes(np.zeros((100_000, 3), np.float32)))
    content = bytearray(path.read_bytes())
    size = (1200128).to_bytes(4, "little")
    assert content.count(size) == 2
    path.write_bytes(bytes(content).replace(size, (200).to_bytes(4, "little")))
    message = refused(path, tmp_path)
    assert message.startswith(f"{path}: array 'x' cannot be unpacked: ")
    assert sum(file.stat().st_size for file in (tmp_path / "scratch").rglob("*.npy")) <= 200


def test_an_encrypted_member_is_refused(tmp_path):
    """The encryption flag of the member is set."""
    path = npz(tmp_path / "d.npz", x=npy_bytes(X))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    path.write_bytes(content)
    message = refused(path, tmp_path)
    assert message.startswith(f"{path}: array 'x' cannot be unpacked: File ")
    assert "is encrypted" in message


@pytest.mark.parametrize("stage", ["unpack", "convert"])
def test_a_full_disk_is_our_failure_in_one_line(tmp_path, monkeypatch, stage):
    """No space while unpacking or converting: EngineError with the system's reason, no crash."""

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if stage == "convert":
        np.save(tmp_path / "x.npy", X.astype(np.float64))
        monkeypatch.setattr(store_module, "_reserve", full)
    else:
        np.savez(tmp_path / "x.npz", x=X)
        original = Path.open

        def opened(self: Path, mode: str = "r", *args: object, **kwargs: object):
            file = original(self, mode, *args, **kwargs)
            if mode != "xb":
                return file
            file.close()
            return original(Path("/dev/full"), "wb", buffering=0)

        monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(EngineError, match=r"\.npy: cannot be written: No space left on device$"):
        load(tmp_path / ("x.npy" if stage == "convert" else "x.npz"), tmp_path)


def test_a_conversion_larger_than_the_disk_is_refused_first(tmp_path, monkeypatch):
    """The room is compared before anything is written."""
    np.save(tmp_path / "x.npy", X.astype(np.float64))
    monkeypatch.setattr(ScratchStore, "free_bytes", lambda self: 10)
    with pytest.raises(EngineError, match=r"48 bytes are needed for the converted data and 10 are free"):
        load(tmp_path / "x.npy", tmp_path)


@pytest.mark.parametrize("block_bytes", [16 << 20, 12])
def test_nan_and_infinity_are_counted_and_located(tmp_path, monkeypatch, block_bytes):
    """The number of bad values and the first place, in the input's own axes, whatever the block size."""
    monkeypatch.setattr(store_module, "BLOCK_BYTES", block_bytes)
    x = X.copy()
    x[2, 1], x[3, 0] = np.nan, np.inf
    np.save(tmp_path / "x.npy", x)
    assert refused(tmp_path / "x.npy", tmp_path) == (
        f"{tmp_path / 'x.npy'}: input 'a': 2 of 12 values are NaN or infinite as float32, "
        "the first at [2, 1]; clean the data"
    )
    np.savez(tmp_path / "d.npz", s=x.reshape(2, 2, 3))
    message = refused(tmp_path / "d.npz", tmp_path, InputSpec("s", "float32", (2, "N", 3), 1))
    assert "the first at [1, 0, 1]" in message


def test_a_number_too_large_for_the_type_of_the_model_is_refused(tmp_path):
    """1e300 is finite in float64 and infinite in float32."""
    np.save(tmp_path / "x.npy", np.full((4, 3), 1e300))
    assert "12 of 12 values are NaN or infinite as float32, the first at [0, 0]" in refused(
        tmp_path / "x.npy", tmp_path
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 3), np.float32), "no samples: input 'a' is empty"),
        (np.zeros((4, 0), np.float32), "input 'a': shape [4, 0] holds no values"),
        (np.float32(1), "input 'a': the data have shape [] and the model takes [N, 3]"),
    ],
)
def test_empty_data_are_refused(tmp_path, array, message):
    """No samples, no values and no batch axis."""
    np.savez(tmp_path / "d.npz", x=array)
    assert refused(tmp_path / "d.npz", tmp_path) == f"{tmp_path / 'd.npz'}: {message}"


def test_paths_that_hold_no_data_are_refused(tmp_path):
    """Nothing there, an empty folder, an unknown suffix, a link to itself, a device."""
    kinds = (
        "the data may be an .npz, a .npy with y.npy beside it, a folder of .npy files, a folder of images "
        "with a subfolder per class or with --labels, or a folder of test_data_set_* folders"
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "d.csv").write_text("1")
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    for name, problem in {
        "none.npz": "no such file or folder",
        "empty": "the folder holds no data",
        "d.csv": ".csv is not a known kind",
        "loop.npz": "no such file or folder",
    }.items():
        assert refused(tmp_path / name, tmp_path) == f"{tmp_path / name}: {problem}; {kinds}"
    assert refused(Path("/dev/null"), tmp_path).startswith("/dev/null: not a regular file; ")
    assert "cannot be read: File name too long" in refused(tmp_path / ("x" * 300), tmp_path)


def test_a_scratch_path_that_is_a_file_is_our_failure(tmp_path):
    """The folder for converted data cannot be made."""
    (tmp_path / "scratch").write_text("")
    with pytest.raises(EngineError, match=r"scratch: cannot make a scratch folder: File exists$"):
        load(tmp_path / "x.npy", tmp_path)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_give_data_or_one_line(tmp_path, data):
    """An .npz with damaged bytes loads or is refused; no other exception."""
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=X, y=np.arange(4))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert load(path, tmp_path).count == 4
