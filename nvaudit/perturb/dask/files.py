"""The files of a run, known by their contents, so that a machine that has them is not sent them again.

A file is taken where it lies if a Dask worker sees the same path with the same size and SHA-256. Otherwise
its content is kept under its SHA-256 in the Dask worker's own folder (``local_directory``), which Dask
removes with the worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from nvaudit.errors import EngineError
from nvaudit.files import put_in_place, replacing
from nvaudit.perturb.workload import ArrayFile, GraphFile

CHUNK = 8 << 20
"""Bytes that travel in one message."""


@dataclass(frozen=True)
class FileRef:
    """A file by its content.

    Attributes
    ----------
    path : str
        Where it lies, absolute.
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """The files that a setup refers to.

    Attributes
    ----------
    folder : str
        The run's folder for its files, as the setup names it.
    files : mapping of str to FileRef
        By the path that the setup has.
    folders : tuple of str
        Folders that must be there, as the setup names them.
    beside : mapping of str to mapping of str to FileRef
        For the path of a user's model: its external data, by the path relative to the model's folder.
    """

    folder: str
    files: Mapping[str, FileRef]
    folders: tuple[str, ...]
    beside: Mapping[str, Mapping[str, FileRef]]

    def refs(self) -> tuple[FileRef, ...]:
        """Every content once."""
        refs = [*self.files.values(), *(ref for data in self.beside.values() for ref in data.values())]
        return tuple({ref.sha256: ref for ref in refs}.values())


def relocate(value: Any, folder: str, where: Callable[[str], str]) -> Any:
    """Replace paths in a setup, or in the arguments of a call.

    Parameters
    ----------
    value : object
        Dataclasses, tuples, lists and mappings are searched; everything else stays as it is.
    folder : str
        Every text that is this folder or lies in it is a path, and so are the paths of array and graph files.
    where : callable
        Gives the new path for an old one.

    Returns
    -------
    object
        Of the same type; ``value`` itself where nothing changed.
    """
    if isinstance(value, str):
        return where(value) if is_inside(value, folder) else value
    if isinstance(value, tuple | list):
        moved = [relocate(item, folder, where) for item in value]
        same = all(new is old for new, old in zip(moved, value, strict=True))
        return value if same else type(value)(moved)
    if isinstance(value, Mapping):
        table = {key: relocate(item, folder, where) for key, item in value.items()}
        return value if all(table[key] is value[key] for key in table) else table
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed = {}
    for name in (field.name for field in fields(value) if field.init):
        old = getattr(value, name)
        is_file = name == "path" and isinstance(value, ArrayFile | GraphFile)
        new = where(old) if is_file else relocate(old, folder, where)
        if new is not old:
            changed[name] = new
    return replace(value, **changed) if changed else value


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it, by its text."""
    return path == folder or path.startswith(folder + os.sep)


def paths_in(value: Any, folder: str) -> list[str]:
    """Paths that :func:`relocate` would replace, each once."""
    paths: dict[str, None] = {}

    def note(path: str) -> str:
        paths[path] = None
        return path

    relocate(value, folder, note)
    return list(paths)


def digest(path: str | Path) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lies_there(ref: FileRef) -> bool:
    """Whether this machine sees the file at its own path, with the same content."""
    with contextlib.suppress(OSError):
        return os.path.getsize(ref.path) == ref.size and digest(ref.path) == ref.sha256
    return False


def file_ref(path: str | Path) -> FileRef:
    """Read a file's size and SHA-256."""
    return FileRef(os.path.abspath(path), os.path.getsize(path), digest(path))


def bundle(setup: Any, folder: str) -> Bundle:
    """Find the files of a setup.

    Parameters
    ----------
    setup : object
        What a worker is made from; see :class:`nvaudit.perturb.workers.Pool`.
    folder : str
        The run's folder.
    """
    from nvaudit.model import model_files

    paths = paths_in(setup, folder)
    beside: dict[str, dict[str, FileRef]] = {}
    for path in paths:
        # Outside the run's folder lie mapped arrays and the user's model. The model reads its external data
        # itself; the templates in the run's folder get theirs from memory.
        if not is_inside(path, folder) and not path.endswith(".npy"):
            root = os.path.realpath(os.path.dirname(path))
            others = [str(file) for file in model_files(path)[1:]]
            beside[path] = {os.path.relpath(other, root): file_ref(other) for other in others}
    return Bundle(
        folder=folder,
        files={path: file_ref(path) for path in paths if os.path.isfile(path)},
        folders=tuple(path for path in paths if os.path.isdir(path)),
        beside=beside,
    )


@dataclass(frozen=True)
class FileStore:
    """A folder of files named by their SHA-256; each is complete, and is never changed."""

    root: Path

    def path(self, ref: FileRef) -> Path:
        """Where a content lies, if it is here."""
        return self.root / ref.sha256

    def find(self, ref: FileRef, siblings: Iterable[str] = ()) -> str | None:
        """Where a content can be read: here, at its own path, or linked from a sibling's store."""
        own = self.path(ref)
        if own.is_file():
            return str(own)
        if lies_there(ref):
            return ref.path
        for sibling in siblings:
            other = Path(sibling) / ref.sha256
            with contextlib.suppress(OSError):
                if other.stat().st_size == ref.size:
                    self.adopt(other, ref)
                    return str(own)
        return None

    def adopt(self, source: str | Path, ref: FileRef) -> None:
        """Take over a file, by a link where that is possible."""
        own = self.path(ref)
        if not own.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            put(source, own)

    def write(self, ref: FileRef, run: str, offset: int, data: bytes) -> None:
        """Write a part of a content; the last one makes it visible, once its SHA-256 is right.

        Raises
        ------
        EngineError
            If the content is not what it should be.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        # The run's name in it: two runs may be sent the same content at once. The last rename wins, and
        # both wrote the same bytes.
        part = self.root / f"{ref.sha256}.{run}"
        with part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)
        if offset + len(data) < ref.size:
            return
        if digest(part) != ref.sha256:
            part.unlink()
            raise EngineError(f"{ref.path}: arrived damaged; run again")
        put_in_place(part, self.path(ref), durable=False)

    def prune(self, wanted: Iterable[str]) -> None:
        """Remove every content that is not wanted."""
        # Parts that are on their way carry the SHA-256 before the dot, and are kept with it.
        keep = set(wanted)
        for path in self.root.iterdir() if self.root.is_dir() else ():
            if path.name.partition(".")[0] not in keep:
                with contextlib.suppress(OSError):
                    path.unlink()


def put(source: str | Path, target: Path) -> None:
    """Make a file appear at another path: a second name for it where possible, else a copy."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # another file system, or one without links
        with replacing(target, durable=False) as partial:
            shutil.copyfile(source, partial)


def place(setup_files: Bundle, located: Mapping[str, str], local: Path) -> dict[str, str]:
    """Say for every path of a setup where its file is on this machine.

    Parameters
    ----------
    located : mapping of str to str
        Where each content is, by its SHA-256.
    local : Path
        Stands for the run's folder.
    """
    table = {}
    for path, ref in setup_files.files.items():
        table[path] = located[ref.sha256]
        beside = setup_files.beside.get(path, {})
        if any(located[data.sha256] != data.path for data in (ref, *beside.values())) and beside:
            data = {name: located[data.sha256] for name, data in beside.items()}
            # A model with external data stays where it is only if all its files lie at their own paths: one
            # that lies elsewhere is not found from there.
            table[path] = _rebuilt(local / "model" / ref.sha256, table[path], data)
    for path in setup_files.folders:
        table[path] = str(local / os.path.relpath(path, setup_files.folder))
        os.makedirs(table[path], exist_ok=True)
    return table


def _rebuilt(root: Path, model: str, data: Mapping[str, str]) -> str:
    """Lay a model and its external data side by side: it names its data relative to itself."""
    for name, source in {"model.onnx": model, **data}.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        put(source, target)
    return str(root / "model.onnx")
