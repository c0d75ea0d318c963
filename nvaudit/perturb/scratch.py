"""The folder of a run's working files: gone afterwards, and where the process was killed, at a later run."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nvaudit.errors import EngineError
from nvaudit.files import own_folder
from nvaudit.perturb.lock import is_held, try_lock
from nvaudit.perturb.stop import at_abort

PREFIX = "nvaudit-"
OWNER_FILE = "owner"
"""In every scratch folder; locked by the process for as long as it lives, whatever ends it."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for the run's working files, gone afterwards.

    Raises
    ------
    EngineError
        If it cannot be made.
    """
    remove_stale()
    try:
        folder = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    except OSError as error:
        raise EngineError(
            f"cannot make a folder for the run's working files: {error.strerror or error}; "
            "set TMPDIR to a folder that can be written"
        ) from error
    with folder as path, own_folder(path), at_abort(folder.cleanup):
        owner = _own(Path(path))
        try:
            yield Path(path)
        finally:
            if owner is not None:
                os.close(owner)


def _own(folder: Path) -> int | None:
    """Lock a folder for this process; None where that cannot be done: nobody will then remove it."""
    # Locked before it has its name: nobody may find it unlocked in between.
    new = folder / f"{OWNER_FILE}.new"
    try:
        handle = os.open(new, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        if try_lock(handle):
            new.rename(folder / OWNER_FILE)
            return handle
    except OSError:  # such as on Windows, where an open file keeps its name
        pass
    os.close(handle)
    return None


def remove_stale() -> None:
    """Remove scratch folders whose process is gone: ``kill -9`` and power failures leave them.

    Only this user's own folders are looked at, only such as this module has made, and none that a living
    process holds. What goes wrong is left for the next run.
    """
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                if _is_ours(folder) and not is_held(folder / OWNER_FILE):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    status = folder.lstat()  # a link may point anywhere
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
        return False
    return stat.S_ISREG((folder / OWNER_FILE).lstat().st_mode)
