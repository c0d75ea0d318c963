"""One process at a time in a folder, however the last one ended."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from nvaudit.errors import KeptError, why_unread
from nvaudit.files import writing

LOCK_FILE = "lock"

_PID_BYTES = 32
_BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; it is made if it is missing.

    The operating system holds the lock for the process and lifts it when the process ends, also by
    ``kill -9``; the file itself stays and says nothing.

    Raises
    ------
    KeptError
        If another process holds the folder (with its id), or the folder cannot be made or locked.
    """
    try:
        str(folder).encode()  # it stands in the report: UnicodeEncodeError is a ValueError
        folder.mkdir(parents=True, exist_ok=True)
        # Not truncated before the lock is taken: the id in it is that of the process which holds it. And
        # never removed: a process that has it open would hold a lock on a file without a name, beside
        # another on a new one.
        handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = why_unread(error) if isinstance(error, OSError) else error
        raise KeptError(
            f"--resume {folder}: cannot be used: {why}; name a folder that can be written"
        ) from error
    try:
        _take(handle, folder)
        with writing(folder / LOCK_FILE):
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)  # lifts the lock


def try_lock(handle: int) -> bool:
    """Lock an open file without waiting; whether that could be done."""
    try:
        _lock(handle)
    except OSError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of a file; also where that cannot be found out.

    Raises
    ------
    OSError
        If there is no such file.
    """
    handle = os.open(path, os.O_RDWR)
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)


def _take(handle: int, folder: Path) -> None:
    try:
        _lock(handle)
    except OSError as error:
        if error.errno not in _BUSY:
            raise KeptError(
                f"--resume {folder}: this file system has no locks ({error.strerror}), so two runs could "
                "mix; name a folder on another one"
            ) from error
        holder = os.read(handle, _PID_BYTES).decode("ascii", "replace").strip()
        who = f"process {holder}" if holder.isdecimal() else "another process"
        raise KeptError(
            f"--resume {folder}: {who} is at work in this folder; wait for it, or name another folder"
        ) from None


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30
    """The locked byte lies behind the process id, which others must be able to read."""

    def _lock(handle: int) -> None:
        os.lseek(handle, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                raise
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # network file systems know only these
