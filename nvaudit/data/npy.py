"""Sources of plain arrays: .npz archives, folders of .npy files, and a pair of .npy files."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

from nvaudit.arrays import Array
from nvaudit.data.preprocess import FILE_NAME
from nvaudit.data.ragged import cut_rows
from nvaudit.data.spec import LABEL_NAMES, InputSpec, Raw, match_names
from nvaudit.data.store import ScratchStore, open_npy
from nvaudit.errors import DataError, EngineError
from nvaudit.files import digest_file, inputs_held, note_files

LENGTHS = "y_lengths"
"""Beside labels ``y`` of which each sample has another number: how many."""

_CHUNK = 1 << 20
COPY_BYTES = 1 << 30
"""Larger arrays are not copied out of their files."""
# What a damaged archive makes zipfile and its decompressors raise; RuntimeError: an encrypted member.
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def read_npz(path: Path, specs: tuple[InputSpec, ...], store: ScratchStore) -> Raw:
    """Take the wanted arrays out of an .npz archive.

    Only the wanted members are unpacked, each into a file of the scratch folder whose name is a number,
    so a member's own name never becomes a path.

    Raises
    ------
    DataError
        If the archive is broken, an input has no array, a member holds objects, or the archive declares
        more bytes than the scratch disk has free.
    """
    where = str(path)
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from error
    except _BAD_ZIP as error:
        raise DataError(f"{where}: not an intact .npz archive: {error}; write it again") from error
    with archive:
        note_files([path], copied=True)
        members = _members(archive, where)
        chosen, labelled = match_names(members, specs, where)
        wanted = [*chosen.values(), *(["y"] if labelled else [])]
        ragged = labelled and LENGTHS in members and LENGTHS not in wanted
        wanted += [LENGTHS] if ragged else []
        _check_room([members[name] for name in wanted], store, where)
        arrays = {
            name: _unpack(archive, members[name], store, where, text=labelled and name == "y")
            for name in dict.fromkeys(wanted)
        }
    return Raw(
        inputs={spec.name: arrays[chosen[spec.name]] for spec in specs},
        labels=cut_rows(arrays["y"], arrays[LENGTHS], where) if ragged else arrays["y"] if labelled else None,
        label_kind="ragged" if ragged else None,
        source=where,
        preprocess_paths=(path.with_suffix(".json"), path.parent / FILE_NAME),
        notes=_unused(members.keys() - set(wanted)),
    )


def _members(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    """Arrays of an archive by name; readers disagree on which of two of one name is meant."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if info.is_dir():
            continue
        if name in members:
            raise DataError(f"{where}: array {name[:60]!r} is stored twice; write the archive again")
        members[name] = info
    return members


def _check_room(members: list[zipfile.ZipInfo], store: ScratchStore, where: str) -> None:
    need, free = sum(info.file_size for info in members), store.free_bytes()
    if need > free:
        raise DataError(
            f"{where}: unpacks to {need} bytes and the scratch disk has {free} free; "
            "use a scratch folder on a larger disk"
        )


def _unpack(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, store: ScratchStore, where: str, *, text: bool
) -> Array:
    name = f"{where}: array {member.filename.removesuffix('.npy')!r}"
    target = store.new_path()
    try:
        # zipfile stops at the declared size and checks the checksum, so a lying member cannot grow.
        with archive.open(member) as source:
            store.write(target, iter(lambda: source.read(_CHUNK), b""))
    except EngineError:
        raise
    except (*_BAD_ZIP, OSError) as error:
        raise DataError(f"{name} cannot be unpacked: {error}; write it again") from error
    return open_npy(target, name, text=text)


def _unused(names: set[str]) -> tuple[str, ...]:
    return (f"arrays not used: {', '.join(map(repr, sorted(names)))}",) if names else ()


def read_npy_folder(path: Path, specs: tuple[InputSpec, ...], store: ScratchStore) -> Raw:
    """Map ``x.npy`` or one ``<input>.npy`` per input, with ``y.npy``, from one folder.

    Raises
    ------
    DataError
        If an input has no file, or a file is not an intact numeric array.
    """
    return _read_files(_npy_files(path), specs, path, (path / FILE_NAME,), store)


def read_npy_file(path: Path, specs: tuple[InputSpec, ...], store: ScratchStore) -> Raw:
    """Map one .npy file as the only batched input, with ``y.npy`` and the other inputs beside it.

    Raises
    ------
    DataError
        As for `read_npy_folder`.
    """
    known = {spec.name for spec in specs}
    files = {
        name: file
        for name, file in _npy_files(path.parent).items()
        if name in known or name.lower() in LABEL_NAMES
    }
    files[path.stem if path.stem in known else "x"] = path
    return _read_files(files, specs, path, (path.with_suffix(".json"), path.parent / FILE_NAME), store)


def _npy_files(folder: Path) -> dict[str, Path]:
    # Names come from the listing, so an input called "../../x" reaches nothing outside.
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix == ".npy" and file.is_file()}


def _read_files(
    files: dict[str, Path],
    specs: tuple[InputSpec, ...],
    path: Path,
    preprocess_paths: tuple[Path, ...],
    store: ScratchStore,
) -> Raw:
    chosen, labelled = match_names(files, specs, str(path))
    used = {*chosen.values(), *(["y"] if labelled else [])}
    return Raw(
        inputs={spec.name: _held(files[chosen[spec.name]], store) for spec in specs},
        labels=_held(files["y"], store, text=True) if labelled else None,
        source=str(path),
        preprocess_paths=preprocess_paths,
        notes=_unused(files.keys() - used),
    )


def _held(path: Path, store: ScratchStore, text: bool = False) -> Array:
    """Map an array so that what becomes of its file does not reach the run.

    A file that is overwritten in place changes what is mapped, and ends the process where it got shorter. So
    the array is copied, like the arrays of an archive; one that is too large for that is mapped where it
    lies, and its file is looked at again before the result is given.
    """
    array = open_npy(path, str(path), text=text)
    if not inputs_held():
        return array
    size = path.stat().st_size
    # Half of what is free: converted arrays will need room too.
    copied = size <= min(COPY_BYTES, store.free_bytes() // 2)
    if copied:
        target = store.new_path()
        try:
            with path.open("rb") as source:
                store.write(target, iter(lambda: source.read(_CHUNK), b""))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        array = open_npy(target, str(path), text=text)
    note_files([path], copied)
    # Compared after copying, against the file as it is now: a writer in between would leave a mixture of
    # two states.
    if copied and digest_file(target) != digest_file(path):
        raise DataError(f"{path}: changed while it was read; run again when nothing writes it")
    return array
