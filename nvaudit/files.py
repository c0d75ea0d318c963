"""Files are written whole: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from nvaudit.errors import EngineError, NvauditError, OptionError

_USER_ERRORS = {
    errno.ENOENT: "its folder does not exist; create it or choose another path",
    errno.ENOTDIR: "a part of its folder is a file; choose another path",
    errno.EISDIR: "it is a folder; name a file",
    errno.EACCES: "permission denied; choose another path",
    errno.EPERM: "not permitted; choose another path",
    errno.EROFS: "the file system is read-only; choose another path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its links go in a circle; choose another path",
}
_ENGINE_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "the disk quota is used up; free some space and run again",
    errno.EFBIG: "the file is larger than the file system or the process limit allows",
}


def write_text_atomic(path: str | Path, text: str) -> None:
    r"""Write a text file (UTF-8) whole: temporary file in the same folder, fsync, rename.

    Parameters
    ----------
    path : str or Path
        A link is followed; a device or a pipe is written directly.
    text : str
        Lone surrogates are written as ``\udXXX``, which JSON reads back.

    Raises
    ------
    OptionError
        If the path cannot be written: no such folder, a folder itself, no permission.
    EngineError
        If writing fails: a full disk, a quota, an I/O error. Nothing is left behind.
    """
    write_bytes_atomic(path, encoded(text))


def encoded(text: str) -> bytes:
    """Text as the bytes of a file; see :func:`write_text_atomic`."""
    return text.encode("utf-8", errors="backslashreplace")


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write a binary file whole; as :func:`write_text_atomic`."""
    try:
        _write(Path(path), data)
    except OSError as error:
        raise _explain(path, error) from error
    except ValueError as error:  # a NUL byte in the path
        raise _bad_name(path, error) from error


def check_writable(path: str | Path) -> None:
    """Find out before long work whether a file can be written; nothing is left behind.

    Parameters
    ----------
    path : str or Path
        It need not exist; its folder must.

    Raises
    ------
    OptionError, EngineError
        As :func:`write_text_atomic` would.
    """
    try:
        target = _target(Path(path))
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not _is_special(target):
            probe = _temporary(target)
            os.close(_create(probe))
            probe.unlink()
    except OSError as error:
        raise _explain(path, error) from error
    except ValueError as error:  # a NUL byte in the path
        raise _bad_name(path, error) from error


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Name the file in what fails inside: the system's own errors of a write do not.

    Raises
    ------
    OptionError, EngineError
        As :func:`write_text_atomic`.
    """
    try:
        yield
    except OSError as error:
        raise _explain(path, error) from error


def _write(path: Path, data: bytes) -> None:
    target = _target(path)
    if _is_special(target):
        target.write_bytes(data)
    else:
        _replace(target, data)


def _target(path: Path) -> Path:
    """Find the file behind a path: what a link points to is replaced, not the link."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():  # a circle: there is no file behind it
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not path.name or target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return target


def _is_special(target: Path) -> bool:
    """Whether a path is a device or a pipe, which cannot be replaced by a file."""
    return target.exists() and not target.is_file()


def _temporary(target: Path) -> Path:
    """Name a file beside the target that nobody else uses."""
    return target.with_name(f".{target.name[:32]}.{secrets.token_hex(8)}.tmp")


def _create(path: Path) -> int:
    # os.open, not tempfile: the file gets the user's usual permissions (umask), not 0600.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _replace(target: Path, data: bytes) -> None:
    temporary = _temporary(target)
    handle = _create(temporary)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(OSError):
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _bad_name(path: str | Path, error: ValueError) -> OptionError:
    return OptionError(f"{str(path)!r}: cannot be written: {error}; choose another path")


def _explain(path: str | Path, error: OSError) -> NvauditError:
    code = error.errno if error.errno is not None else 0
    if code in _USER_ERRORS:
        return OptionError(f"{path}: cannot be written: {_USER_ERRORS[code]}")
    if "requested and" in str(error):  # ndarray.tofile says how much it could write, not why no more
        code = errno.ENOSPC
    cure = _ENGINE_ERRORS.get(code, error.strerror or str(error))
    return EngineError(f"{path}: cannot be written: {cure}")
