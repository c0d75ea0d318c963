"""Sources of plain arrays: .npz archives, folders of .npy files, and a pair of .npy files."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

from nvaudit.data.preprocess import FILE_NAME
from nvaudit.data.spec import LABEL_NAMES, Array, InputSpec, Raw, match_names
from nvaudit.data.store import Store, open_npy
from nvaudit.errors import DataError, EngineError

_CHUNK = 1 << 20
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


def read_npz(path: Path, specs: tuple[InputSpec, ...], store: Store) -> Raw:
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
        members = {
            info.filename.removesuffix(".npy"): info for info in archive.infolist() if not info.is_dir()
        }
        chosen, labelled = match_names(members, specs, where)
        wanted = [*chosen.values(), *(["y"] if labelled else [])]
        _check_room([members[name] for name in wanted], store, where)
        arrays = {
            name: _unpack(archive, members[name], store, where, text=labelled and name == "y")
            for name in dict.fromkeys(wanted)
        }
    return Raw(
        inputs={spec.name: arrays[chosen[spec.name]] for spec in specs},
        labels=arrays["y"] if labelled else None,
        source=where,
        preprocess_paths=(path.with_suffix(".json"), path.parent / FILE_NAME),
        notes=_unused(members.keys() - set(wanted)),
    )


def _check_room(members: list[zipfile.ZipInfo], store: Store, where: str) -> None:
    need, free = sum(info.file_size for info in members), store.free_bytes()
    if need > free:
        raise DataError(
            f"{where}: unpacks to {need} bytes and the scratch disk has {free} free; "
            "use a scratch folder on a larger disk"
        )


def _unpack(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, store: Store, where: str, *, text: bool
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


def read_npy_folder(path: Path, specs: tuple[InputSpec, ...]) -> Raw:
    """Map ``x.npy`` or one ``<input>.npy`` per input, with ``y.npy``, from one folder.

    Raises
    ------
    DataError
        If an input has no file, or a file is not an intact numeric array.
    """
    return _read_files(_npy_files(path), specs, path, (path / FILE_NAME,))


def read_npy_file(path: Path, specs: tuple[InputSpec, ...]) -> Raw:
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
    return _read_files(files, specs, path, (path.with_suffix(".json"), path.parent / FILE_NAME))


def _npy_files(folder: Path) -> dict[str, Path]:
    # Names come from the listing, so an input called "../../x" reaches nothing outside.
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix == ".npy" and file.is_file()}


def _read_files(
    files: dict[str, Path], specs: tuple[InputSpec, ...], path: Path, preprocess_paths: tuple[Path, ...]
) -> Raw:
    chosen, labelled = match_names(files, specs, str(path))
    used = {*chosen.values(), *(["y"] if labelled else [])}
    return Raw(
        inputs={
            spec.name: open_npy(files[chosen[spec.name]], str(files[chosen[spec.name]])) for spec in specs
        },
        labels=open_npy(files["y"], str(files["y"]), text=True) if labelled else None,
        source=str(path),
        preprocess_paths=preprocess_paths,
        notes=_unused(files.keys() - used),
    )
