"""Working files: what a killed process has left is removed by a later run, and nothing else is."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from nvaudit.perturb.scratch import OWNER_FILE, PREFIX, remove_stale, scratch_folder

HOLD = "import sys, time\nfrom nvaudit.perturb.scratch import scratch_folder\n" + (
    "with scratch_folder() as folder:\n    print(folder, flush=True)\n    time.sleep(60)\n"
)
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder for temporary files of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def holder(root: Path) -> tuple[subprocess.Popen, Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(root)},
    )
    return process, Path(process.stdout.readline().strip())


def test_what_kill_9_leaves_is_removed_later(root):
    """Not while its process lives; after kill -9 the next run removes it."""
    process, folder = holder(root)
    try:
        with scratch_folder() as mine:
            assert folder.is_dir()
            assert mine != folder
        assert folder.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert folder.is_dir()
        with scratch_folder() as mine:
            assert list(root.iterdir()) == [mine]
    finally:
        process.kill()
        process.communicate()
    assert list(root.iterdir()) == []


def test_nothing_else_is_removed(root):
    """Folders without our mark, links, files, and folders of other names stay."""
    elsewhere = root / "precious"
    elsewhere.mkdir()
    (elsewhere / OWNER_FILE).write_text("")
    (root / f"{PREFIX}link").symlink_to(elsewhere)
    (root / f"{PREFIX}file").write_text("")
    (root / f"{PREFIX}unmarked").mkdir()
    (root / f"{PREFIX}pipe").mkdir()
    os.mkfifo(root / f"{PREFIX}pipe" / OWNER_FILE)  # opening it would wait for ever
    before = sorted(root.rglob("*"))
    began = time.monotonic()
    remove_stale()
    assert time.monotonic() - began < 5
    assert sorted(root.rglob("*")) == before
