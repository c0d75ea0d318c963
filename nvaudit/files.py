"""Files are written whole, and input files must stay as they are while a result is made from them.

A reader of what is written sees the old file or the new one, never half of one.

A model's external data and large arrays are mapped, not copied, and a model is opened again for every
session: a file that is overwritten meanwhile would give numbers of two states under the hash of the first. So
every file is noted as it is read, and looked at again before the result is given.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nvaudit.errors import EngineError, InputChangedError, NvauditError, OptionError, unique_keys

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


def check_product(path: Path, inputs: Mapping[str, str | Path | None], option: str = "-o") -> None:
    """Find out before long work that a file can be written, and that it destroys nothing that goes in.

    Parameters
    ----------
    inputs : mapping of str to path, or None
        What is read, by its name in words; None where nothing is.
    option : str
        That names the file, for the message.

    Raises
    ------
    OptionError, EngineError
        As :func:`check_writable`; also if the file is an input, under whatever name.
    """
    check_input(path, inputs, option)
    check_writable(path)


def check_input(path: Path, inputs: Mapping[str, str | Path | None], option: str) -> None:
    """Refuse to write over an input, under whatever name; as :func:`check_product`.

    Raises
    ------
    OptionError
    """
    for what, name in inputs.items():
        with contextlib.suppress(OSError):  # one of them is not there, or cannot be
            if name is not None and path.samefile(name):
                raise OptionError(f"{option} {path}: this is {what}; choose another path")


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
        forget_input(target)
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
    with replacing(target) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replacing(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Give a file beside a path, to be written in any way; it takes the path's place after the block.

    Where the block fails, nothing is left behind, and what was at the path stays.

    Parameters
    ----------
    path : str or Path
        A link is followed.
    durable : bool
        Force it to the disk; False for working files, which a crash takes with it anyway.

    Raises
    ------
    OSError
        As the system says it; see :func:`writing`.
    """
    target = _target(Path(path))
    temporary = _temporary(target)
    os.close(_create(temporary))
    try:
        yield temporary
        put_in_place(temporary, target, durable)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def check_folder(
    path: Path, overwrite: bool, written: Callable[[Path], Collection[str]], option: str = "-o"
) -> None:
    """Find out before long work whether a folder can be written whole.

    Parameters
    ----------
    overwrite : bool
        Whether a folder that is there may be replaced: one that holds nothing else than what was written.
    written : callable
        Of a folder: names in it of what an earlier run wrote.

    Raises
    ------
    OptionError, EngineError
        As :func:`write_text_atomic`; also if something is there that must stay.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise OptionError(f"{option} {path}: is a file; name a folder")
    with writing(path):
        if target.is_dir() and any(target.iterdir()) and not overwrite:
            raise OptionError(
                f"{option} {path}: there is a folder with files in it; choose another path, or replace it "
                "with --overwrite"
            )
        foreign = (
            sorted({one.name for one in target.iterdir()} - {*written(target)}) if target.is_dir() else []
        )
        if foreign:
            raise OptionError(
                f"{option} {path}: --overwrite replaces what it wrote itself, and {foreign[0]!r} in this "
                "folder is none of that; choose another path"
            )
        if target.is_dir() and Path.cwd().is_relative_to(target):
            raise OptionError(f"{option} {path}: is the folder that this runs in; choose another path")
        probe = _temporary(target)
        probe.mkdir()
        probe.rmdir()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside a path; it takes the path's place, and that of a folder there, after the block.

    Where the block fails, nothing is left behind, and what was at the path stays.

    Raises
    ------
    OptionError, EngineError
        As :func:`write_text_atomic`.
    """
    target = Path(os.path.realpath(path))
    with writing(path):
        temporary, old = _temporary(target), _temporary(target)
        temporary.mkdir()
        try:
            yield temporary
            _sync_folder(temporary)
            if target.exists():
                os.replace(target, old)
            os.replace(temporary, target)
            _sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            if old.exists():
                if not target.exists():  # the second of the two moves failed
                    os.replace(old, target)
                shutil.rmtree(old, ignore_errors=True)


def put_in_place(temporary: Path, target: Path, durable: bool = True) -> None:
    """Let a file that is whole take the place of another in the same folder, with its permissions."""
    if durable:  # else a rename may reach the disk before the contents do
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
    with contextlib.suppress(OSError):
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
    forget_input(target)
    os.replace(temporary, target)
    if durable:
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


_CHUNK = 1 << 22


@dataclass(frozen=True)
class _Noted:
    """A file as it was read.

    Attributes
    ----------
    name : str
        As the user calls it.
    copied : bool
        The run goes on with a copy: what becomes of the file does not matter, unless it is read again.
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str
    copied: bool


_held: ContextVar[dict[str, _Noted] | None] = ContextVar("nvaudit_inputs", default=None)
_own: list[str] = []
"""Folders of working files: nobody but the run itself writes there."""


@contextlib.contextmanager
def own_folder(path: str | Path) -> Iterator[None]:
    """Take what lies in a folder for the run's own: it is no input, and may come and go."""
    prefix = os.path.realpath(path) + os.sep
    _own.append(prefix)
    try:
        yield
    finally:
        _own.remove(prefix)


@contextlib.contextmanager
def holding_inputs() -> Iterator[None]:
    """Refuse the result of this block if a file that it read has changed meanwhile; blocks may be nested.

    Raises
    ------
    InputChangedError
        Also in place of another error that a changed file has led to.
    """
    outer = _held.get()
    mine: dict[str, _Noted] = dict(outer or {})
    # A copy: a block that fails does not leave its files to the outer one.
    token = _held.set(mine)
    try:
        try:
            yield
        except NvauditError:
            check_inputs()
            raise
        # What the outer block had noted before, it will look at itself, later and once.
        check_inputs(known=outer)
    finally:
        _held.reset(token)
    if outer is not None:
        outer.update(mine)


def check_inputs(known: dict[str, _Noted] | None = None) -> None:
    """Look at every file again that is in use, but for those that are looked at later.

    Parameters
    ----------
    known : dict, optional
        What an outer block has noted.

    Raises
    ------
    InputChangedError
        Naming the first that has another length, time or content.
    """
    for path, noted in list((_held.get() or {}).items()):
        if noted.copied or (known is not None and known.get(path) == noted):
            continue
        try:
            now = os.stat(path)
            if now.st_size != noted.size:
                raise _changed(noted.name, f"its length was {noted.size} and is {now.st_size} bytes")
            if now.st_mtime_ns != noted.mtime_ns:
                raise _changed(noted.name, "it was written again")
            # Length and time cost nothing, but prove nothing where they are the same: a file can be written
            # within one tick of the clock, or get its old time back.
            if digest_file(Path(path)) != noted.sha256:
                raise _changed(noted.name, "its content is another")
        except OSError as error:
            raise _changed(noted.name, f"it cannot be read any more: {error.strerror or error}") from error


def note_input(path: Path, sha256: str, before: os.stat_result, copied: bool = False) -> None:
    """Note a file that was read.

    Parameters
    ----------
    sha256 : str
        Of what was read.
    before : os.stat_result
        Of the file before it was read.
    copied : bool
        The run goes on with a copy.

    Raises
    ------
    InputChangedError
        If the file changed while it was read, or since it was read before.
    """
    held = _held.get()
    if held is None:
        return
    now = os.stat(path)
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise _changed(str(path), "it was written while it was read")
    key = os.path.realpath(path)
    if key.startswith(tuple(_own)):
        return
    earlier = held.get(key)
    if earlier is not None and earlier.sha256 != sha256:
        raise _changed(str(path), "its content is another than when it was read first")
    noted = _Noted(str(path), now.st_size, now.st_mtime_ns, sha256, copied)
    # One reader that goes on with the file itself is enough for it to be looked at again.
    held[key] = noted if earlier is None else replace(earlier, copied=earlier.copied and copied)


def inputs_held() -> bool:
    """Whether a result is being made from what is read now."""
    return _held.get() is not None


def forget_input(path: str | Path) -> None:
    """Leave out a file that this run itself writes."""
    held = _held.get()
    if held:
        held.pop(os.path.realpath(path), None)


def read_noted(path: Path) -> bytes:
    """Read a file whole and note it."""
    before = os.stat(path)
    data = path.read_bytes()
    note_input(path, hashlib.sha256(data).hexdigest(), before)
    return data


def note_files(paths: Iterable[Path], copied: bool = False) -> str:
    """Hash files, streamed, in the order given, and note each.

    Returns
    -------
    str
        SHA-256 over all of them, hexadecimal.
    """
    total = hashlib.sha256()
    for path in paths:
        before = os.stat(path)
        single = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
                single.update(chunk)
        note_input(path, single.hexdigest(), before, copied)
    return total.hexdigest()


def parse_json_once(text: str | bytes) -> Any:
    """Parse a JSON file that a person may have written, in which no key may be given twice.

    Raises
    ------
    ValueError
        Saying what was found.
    """
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {str(error)[:120]}") from error


def digest_file(path: Path) -> str:
    """SHA-256 of one file, streamed, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed(name: str, how: str) -> InputChangedError:
    return InputChangedError(
        f"{name}: changed while it was in use: {how}; there is no result, for it would be of two states of "
        "the file: run again when nothing writes it"
    )


def check_there(profile: Path) -> None:
    """Refuse a profile that is no file.

    Raises
    ------
    OptionError
        If it is not there.
    """
    try:
        there = profile.is_file()
    except OSError as error:  # a name that no file can have
        raise OptionError(f"{str(profile)[:60]}…: {error.strerror}; name a JSON profile") from error
    if not there:
        raise OptionError(f"{profile}: no such file; name a JSON profile")
