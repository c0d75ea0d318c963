"""The record of finished chips, from which an interrupted run goes on.

One append-only file in a folder. Its first line names the format and guards the second; the second is the
identity of the run as JSON; then follow records of 52 bytes, one for each finished call: operating point,
gap of a race (-1: none), what was done with the chip (0: run on every sample; else the digest of the race),
trial, images, metric, seconds (little-endian, floats as they are), and the CRC-32 of these 48 bytes. Each
record is handed to the operating system as soon as its chip is finished, so a killed process loses only the
chips in flight; it is forced to the disk at most once a second and at the end, so a power failure loses
little more.

A record that a crash has torn can only be the last one: it is dropped. Damage anywhere else is an error, and
nothing is written.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zlib
from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from nvaudit.errors import EngineError, KeptError
from nvaudit.files import write_bytes_atomic
from nvaudit.perturb.outcome import Outcome

RECORD_FILE = "chips.record"
RECORD_VERSION = 2

CACHE_TAG = "CACHEDIR.TAG"
"""Tells programs that make copies of everything to leave a folder out (https://bford.info/cachedir/)."""

_MAGIC = "nvaudit-chips"
_BODY = struct.Struct("<IiQQQdd")
_CRC = struct.Struct("<I")
_SIZE = _BODY.size + _CRC.size
_ROW = np.dtype(
    [
        ("point", "<u4"),
        ("gap", "<i4"),
        ("task", "<u8"),
        ("trial", "<u8"),
        ("images", "<u8"),
        ("value", "<f8"),
        ("seconds", "<f8"),
        ("crc", "<u4"),
    ]
)
_SYNC_EVERY_S = 1.0
_SHORT = 12
_FOLLOWS = {"device": ("--bits", "--cell-bits", "--encoding"), "data": ("--limit", "--seed")}
"""Options that change the contents of an input."""

_CURE = "nothing was changed; put back a copy of the file, or name another folder to begin anew"


def has_chips(path: Path) -> bool:
    """Whether a record holds a finished call, and not only the lines that say of which run it is."""
    with path.open("rb") as file:
        file.readline()
        file.readline()
        return bool(file.read(_SIZE))


class Input(BaseModel):
    """Something that went into a run: its name, for messages, and its SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: str
    sha256: str


class Identity(BaseModel):
    """What the values of a run's chips depend on.

    Attributes
    ----------
    inputs : mapping of str to Input
        Model, data and device, and the user's own metric if there is one.
    options : mapping of str to JSON value
        By the name of the command-line option.
    versions : mapping of str to str
        Of the software that draws and evaluates chips.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    inputs: Mapping[str, Input]
    options: Mapping[str, JsonValue]
    versions: Mapping[str, str]

    def differences(self, there: Identity) -> list[str]:
        """Say how the run of a record differs from this one, in plain words; empty if it does not."""
        options = _unequal(_given(self.options), _given(there.options))
        differences = [
            f"{name} is {_shown(self.options.get(name))}, there {_shown(there.options.get(name))}"
            for name in options
        ]
        for name in _unequal(
            {name: item.sha256 for name, item in self.inputs.items()},
            {name: item.sha256 for name, item in there.inputs.items()},
        ):
            one, other = self.inputs.get(name), there.inputs.get(name)
            # An option that changes the contents says it all.
            if options.isdisjoint(_FOLLOWS.get(name, ())) or not one or not other or one.name != other.name:
                differences.append(f"the {name} is {_input_text(one)}, there {_input_text(other)}")
        differences += [
            f"{name} is {self.versions.get(name)}, there {there.versions.get(name)}"
            for name in _unequal(self.versions, there.versions)
        ]
        return differences


def _given(options: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Options without those that are off: an option that came later is in no older record."""
    return {
        name: value
        for name, value in options.items()
        if value is not None and value is not False and value != []
    }


def _unequal(here: Mapping[str, Any], there: Mapping[str, Any]) -> KeysView[str]:
    """Keys whose values differ, or that only one side has, in order."""
    names = (*here, *there)
    return {name: None for name in names if here.get(name) != there.get(name)}.keys()


def _input_text(item: Input | None) -> str:
    return "not there" if item is None else f"{item.name} (SHA-256 {item.sha256[:_SHORT]})"


def _shown(value: JsonValue) -> str:
    if value is None or value is False or value == []:
        return "not given"
    if value is True:
        return "given"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass
class ChipRecord:
    """An open record; made by :func:`open_record`.

    Attributes
    ----------
    rows : ndarray, structured, shape (call,)
        What was finished before: ``point``, ``gap``, ``task``, ``trial``, ``images``, ``value``, ``seconds``.
    dropped : int
        Bytes of an unfinished record that were dropped.
    forgiving : bool
        In a cache: where a call cannot be kept the run goes on, and nothing more is kept (``lost``).
    """

    path: Path
    rows: NDArray[Any]
    dropped: int
    _file: BinaryIO
    forgiving: bool = False
    lost: bool = False
    _synced: float = 0.0

    def __post_init__(self) -> None:
        self._index = {key: i for i, key in enumerate(self.rows[["point", "trial", "task"]].tolist())}

    def find(self, point: int, trial: int, task: int = 0) -> Outcome | None:
        """What became of a call in an earlier run; None if it was not finished."""
        place = self._index.get((point, trial, task))
        if place is None:
            return None
        row = self.rows[place]
        gap = int(row["gap"])
        return Outcome(
            float(row["value"]), int(row["images"]), float(row["seconds"]), None if gap < 0 else gap
        )

    def add(self, point: int, trial: int, outcome: Outcome, task: int = 0) -> None:
        """Keep a finished call.

        Raises
        ------
        EngineError
            If it cannot be written.
        """
        if self.lost:
            return
        gap = -1 if outcome.gap is None else outcome.gap
        # The checksum comes last, so that a record which a crash cuts short never passes for a sound one.
        body = _BODY.pack(point, gap, task, trial, outcome.images, outcome.value, outcome.seconds)
        try:
            write_all(self._file, body + _CRC.pack(zlib.crc32(body)))
            # The write alone survives the death of this process; an fsync, which survives that of the
            # machine, can take as long as a small chip, so there is one at most every second.
            now = time.monotonic()
            if now - self._synced >= _SYNC_EVERY_S:
                os.fsync(self._file.fileno())
                self._synced = now
        except OSError as error:
            if not self.forgiving:
                raise _not_written(self.path, error) from error
            self.lost = True

    def find_pilot(self, point: int, trial: int) -> tuple[Outcome, NDArray[np.float32]] | None:
        """A chip of an earlier run with its scores, shape (sample,); None if these were not kept whole."""
        outcome, path = self.find(point, trial), self._pilot_file(point, trial)
        if outcome is None or not path.exists():
            return None
        crc, data = path.read_bytes()[: _CRC.size], path.read_bytes()[_CRC.size :]
        if len(data) != 4 * outcome.images or crc != _CRC.pack(zlib.crc32(data)):
            return None
        return outcome, np.frombuffer(data, np.float32)

    def add_pilot(self, point: int, trial: int, outcome: Outcome, scores: NDArray[np.float32]) -> None:
        """Keep a chip that was run on every sample, and its scores beside the record."""
        data = scores.astype(np.float32).tobytes()
        with forgiven(self.path.parent):
            write_bytes_atomic(self._pilot_file(point, trial), _CRC.pack(zlib.crc32(data)) + data)
        # A chip whose scores were lost is run again while its record stands: it may not stand twice.
        if self.find(point, trial) is None:
            self.add(point, trial, outcome)

    def _pilot_file(self, point: int, trial: int) -> Path:
        return self.path.parent / f"pilot-{point}-{trial}.scores"

    def torn(self) -> list[str]:
        """Say what of the record a crash has torn, as events of a report; empty if nothing."""
        if not self.dropped:
            return []
        return [f"{self.path}: an unfinished record ({self.dropped} bytes) at its end was dropped"]

    def __enter__(self) -> ChipRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Force everything to the disk and close."""
        try:
            os.fsync(self._file.fileno())
        except OSError as failed:
            if error is None and not self.forgiving:
                raise _not_written(self.path, failed) from failed
        finally:
            self._file.close()


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write everything to an unbuffered file, which may take only a part at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def open_record(folder: Path, identity: Identity) -> ChipRecord:
    """Open the record of a run for going on, or begin one.

    Parameters
    ----------
    folder : Path
        Locked by the caller; see :func:`nvaudit.perturb.lock.lock_folder`.
    identity : Identity
        Of the run that wants to go on.

    Raises
    ------
    KeptError
        If the record is of another run (saying what differs), of another version, or damaged (with the
        offset in bytes). The file is then left as it is.
    EngineError
        If it cannot be written.
    """
    path = folder / RECORD_FILE
    try:
        data = path.read_bytes() if path.exists() else None
    except OSError as error:
        raise KeptError(f"{path}: cannot be read: {error.strerror}; name another folder") from error
    if data is None:
        text = identity.model_dump_json().encode("utf-8", "backslashreplace")
        data = f"{_MAGIC} {RECORD_VERSION} {zlib.crc32(text):08x}\n".encode() + text + b"\n"
        write_bytes_atomic(path, data)
    there, start = _read_header(path, data)
    differences = identity.differences(there)
    if differences:
        raise KeptError(
            f"--resume {folder}: its chips are of another run: {'; '.join(differences)}. "
            "Run with what the folder has, or name another folder"
        )
    rows = _read_rows(path, data, start)
    end = start + len(rows) * _SIZE
    try:
        file = path.open("ab", buffering=0)
        # The next record must begin at a multiple of the record's size: appended to a torn one, it would be
        # read together with that one's rest, as damage.
        if end < len(data):
            file.truncate(end)
    except OSError as error:
        raise _not_written(path, error) from error
    return ChipRecord(path, rows, len(data) - end, file, is_cache(folder))


@contextlib.contextmanager
def forgiven(folder: Path) -> Iterator[None]:
    """Go on where a cache cannot be written; of a folder that the user has named it is an error."""
    try:
        yield
    except EngineError:
        if not is_cache(folder):
            raise


def is_cache(folder: Path) -> bool:
    """Whether a folder lies in a cache: the user has not asked for what is kept in it."""
    return any((above / CACHE_TAG).is_file() for above in folder.absolute().parents)


def _not_written(path: Path, error: OSError) -> EngineError:
    return EngineError(
        f"{path}: cannot be written: {error.strerror}; finished chips are kept: put that right and run the "
        "same command again"
    )


def _read_header(path: Path, data: bytes) -> tuple[Identity, int]:
    """Read whose record it is, and where the records begin."""
    first, _, rest = data.partition(b"\n")
    words = first.split(b" ")
    if len(words) != 3 or words[0] != _MAGIC.encode():
        raise KeptError(f"{path}: damaged at byte 0: not a record of finished chips; {_CURE}")
    if words[1] != str(RECORD_VERSION).encode():
        version = words[1].decode("ascii", "replace")
        raise KeptError(
            f"{path}: a record of version {version[:20]!r}; this nvaudit knows version {RECORD_VERSION}: "
            "use the nvaudit that wrote it, or name another folder"
        )
    text, end, _ = rest.partition(b"\n")
    where = len(first) + 1
    if not end or words[2] != f"{zlib.crc32(text):08x}".encode():
        raise KeptError(f"{path}: damaged at byte {where}: the checksum does not match; {_CURE}")
    try:
        return Identity.model_validate_json(text), where + len(text) + 1
    except ValidationError as error:
        raise KeptError(f"{path}: damaged at byte {where}: not the identity of a run; {_CURE}") from error


def _read_rows(path: Path, data: bytes, start: int) -> NDArray[Any]:
    """Every sound record; what a crash has left at the end is not among them."""
    view = memoryview(data)
    good = start
    while good + _SIZE <= len(data) and _is_sound(view[good : good + _SIZE]):
        good += _SIZE
    torn = view[good:]
    # The system may grow a file before it writes what is in it: zeros at the end are torn records too.
    if len(torn) > _SIZE and any(torn):
        raise KeptError(f"{path}: damaged at byte {good}: the checksum does not match; {_CURE}")
    rows = np.frombuffer(data, _ROW, (good - start) // _SIZE, start)
    # What is known is not run again, so one run never writes a call twice: a file that has it twice is of
    # several runs.
    _, firsts = np.unique(rows[["point", "trial", "task"]], return_index=True)
    if len(firsts) < len(rows):
        second = int(np.setdiff1d(np.arange(len(rows)), firsts)[0])
        raise KeptError(f"{path}: damaged at byte {start + second * _SIZE}: a chip stands twice; {_CURE}")
    return rows


def _is_sound(record: memoryview) -> bool:
    (crc,) = _CRC.unpack(record[_BODY.size :])
    return bool(zlib.crc32(record[: _BODY.size]) == crc)
