"""Files are written whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from nvaudit.errors import EngineError, OptionError
from nvaudit.files import check_product, check_writable, replacing, write_bytes_atomic, write_text_atomic


def test_text_is_written_as_it_is(tmp_path):
    """UTF-8, no newline translation, no file left beside it."""
    path = tmp_path / "r.json"
    write_text_atomic(path, "σ\r\n")
    write_text_atomic(str(path), "σ ±\n")
    assert path.read_bytes() == "σ ±\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_lone_surrogates_become_escapes(tmp_path):
    """Text that UTF-8 cannot hold is escaped rather than refused at the end of a long run."""
    write_text_atomic(tmp_path / "r", "a\udc80b")
    assert (tmp_path / "r").read_bytes() == rb"a\udc80b"


def test_permissions(tmp_path):
    """A new file gets the usual permissions, an old one keeps its own."""
    path = tmp_path / "r"
    umask = os.umask(0o022)
    try:
        write_bytes_atomic(path, b"1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        path.chmod(0o600)
        write_bytes_atomic(path, b"2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(umask)


def test_links_are_followed(tmp_path):
    """The file that a link points to is replaced, the link stays."""
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("write", [check_writable, lambda path: write_text_atomic(path, "x")])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/r.json", "folder does not exist"),
        ("file/r.json", "a part of its folder is a file"),
        ("folder", "it is a folder"),
        ("", "it is a folder"),
        ("x" * 300, "the name is too long"),
        ("loop", "links go in a circle"),
        ("nul\0byte", "null byte"),
    ],
)
def test_bad_paths_are_the_users_mistake(tmp_path, write, name, message):
    """A path that cannot be written gives an option error that names it."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OptionError, match=message) as caught:
        write(tmp_path / name)
    assert (name.split("\0")[0] or tmp_path.name)[:20] in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_forbidden_folder(tmp_path):
    """A folder without permission is the user's mistake."""
    tmp_path.chmod(0o500)
    try:
        for write in (check_writable, lambda path: write_text_atomic(path, "x")):
            with pytest.raises(OptionError, match="permission denied"):
                write(tmp_path / "r.json")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, code):
    """A full disk at any step is our failure; the old content stays and no temporary file remains."""
    path = tmp_path / "r.json"
    path.write_text("old")

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(EngineError, match=r"r\.json: cannot be written: "):
        write_text_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_interruption_leaves_nothing(tmp_path, monkeypatch):
    """Ctrl-C while writing leaves no temporary file and is passed on."""

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text_atomic(tmp_path / "r", "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_devices_are_written_not_replaced():
    """A device stays a device, and a full one is our failure."""
    check_writable("/dev/null")
    write_text_atomic("/dev/null", "x")
    with pytest.raises(EngineError, match="the disk is full"):
        write_text_atomic("/dev/full", "x")
    assert Path("/dev/null").is_char_device()
    assert Path("/dev/full").is_char_device()


def test_a_product_is_no_input(tmp_path):
    """A file that goes in is refused under any of its names; another one is free, and is not made."""
    model = tmp_path / "m.onnx"
    model.write_bytes(b"model")
    (tmp_path / "link.onnx").symlink_to(model)
    inputs = {"the data": tmp_path / "missing.npz", "the profile": None, "the model": str(model)}
    for name in ("m.onnx", "link.onnx"):
        with pytest.raises(OptionError, match=rf"^--out .*{name}: this is the model; choose another path$"):
            check_product(tmp_path / name, inputs, "--out")
    check_product(tmp_path / "new.onnx", inputs)
    assert not (tmp_path / "new.onnx").exists()
    assert model.read_bytes() == b"model"
    with pytest.raises(OptionError, match="its folder does not exist"):
        check_product(tmp_path / "nowhere" / "new.onnx", inputs)


def test_a_file_written_in_pieces_appears_whole(tmp_path):
    """Until the block is done the old file stays; a block that fails leaves it, and nothing beside it."""
    path = tmp_path / "data"
    path.write_bytes(b"old")

    def half():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            assert path.read_bytes() == b"old"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    with replacing(path, durable=False) as temporary, temporary.open("wb") as file:
        file.write(b"ne")
        file.write(b"w")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
