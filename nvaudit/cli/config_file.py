"""The configuration file: where it is, what stands in it, and on which line."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvaudit.errors import OptionError, why_unread

OWN_FILE, PROJECT_FILE = "nvaudit.toml", "pyproject.toml"

_REPOSITORY = (".git", ".hg", ".jj")
"""What marks the top of a repository, above which no file is looked for."""

_HEADER = re.compile(r"^\s*\[(\[?)\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""^\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*=""")
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([\w-]+)""")
_NO_STRUCTURE = re.compile(r""""(?:\\.|[^"\\])*"|'[^']*'|#.*""")

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file.

    Attributes
    ----------
    path : Path
        Relative to the working folder where it lies at or below it.
    root : tuple of str
        Tables above ours: ``tool``, ``nvaudit`` in a pyproject.toml.
    table : mapping
        What stands in ours.
    lines : mapping
        Line of a table or key, counted from 1, by its full path.
    """

    path: Path
    root: tuple[str, ...]
    table: Mapping[str, Any]
    lines: Mapping[Keys, int]

    def where(self, *keys: str | int) -> str:
        """Say where a key stands: the file with the line, or the next table above that has one."""
        full: Keys = (*self.root, *keys)
        line = next(
            (self.lines[full[:end]] for end in range(len(full), 0, -1) if full[:end] in self.lines), None
        )
        return str(self.path) if line is None else f"{self.path}, line {line}"

    def resolve(self, text: str) -> str:
        """Take a path of the file, which is relative to the file's folder, to one of the working folder."""
        return os.path.normpath(self.path.parent / text) if text != "-" else text


def find_config(folder: Path) -> Path | None:
    """Find the file that holds in a folder: nvaudit.toml or a pyproject.toml with ``[tool.nvaudit]``.

    The nearest of the folder and those above it, up to the top of the repository.
    """
    here = Path(os.path.abspath(folder))
    for place in (here, *here.parents):
        own, project = place / OWN_FILE, place / PROJECT_FILE
        if own.is_file():
            return _shown(own)
        if project.is_file() and "nvaudit" in project.read_text(encoding="utf-8", errors="replace"):
            content = _parsed(project)
            if isinstance(content.get("tool"), dict) and "nvaudit" in content["tool"]:
                return _shown(project)
        if any((place / mark).exists() for mark in _REPOSITORY):
            return None
    return None


def _shown(path: Path) -> Path:
    """A path as short as a person would write it."""
    try:
        return Path(os.path.relpath(path))
    except ValueError:  # another drive
        return path


def read_config(path: Path) -> ConfigFile:
    """Read a configuration file.

    Raises
    ------
    OptionError
        If it cannot be read, is no TOML, or a pyproject.toml has no ``[tool.nvaudit]``.
    """
    table: Any = _parsed(path)
    root: tuple[str, ...] = ()
    if path.name == PROJECT_FILE:
        root = ("tool", "nvaudit")
        for name in root:
            table = table.get(name) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            raise OptionError(f"{path}: has no table [tool.nvaudit]; add it, or name another file")
    return ConfigFile(path, root, table, dict(_lines(path.read_text(encoding="utf-8"))))


def _parsed(path: Path) -> Any:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: cannot be read: {why_unread(error)}; name a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{path}: is no TOML: {error}") from error


def _lines(text: str) -> Iterator[tuple[Keys, int]]:
    """Find the line of every table and of every key that begins one; tomllib keeps none.

    Of a value over several lines, such as a list of inline tables, only the first line is known.
    """
    table: Keys = ()
    counts: dict[Keys, int] = {}
    depth, quoted = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not quoted and not depth:
            if header := _HEADER.match(line):
                table = _path(header[2], counts)
                if header[1]:
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                yield table, number
                continue
            if key := _KEY.match(line):
                yield (*table, *_names(key[1])), number
        quoted, rest = _after_quotes(line, quoted)
        plain = _NO_STRUCTURE.sub("", rest)
        depth += sum(plain.count(mark) for mark in "[{") - sum(plain.count(mark) for mark in "]}")


def _after_quotes(line: str, quoted: str) -> tuple[str, str]:
    """Which long string is open after a line, and the line without what is in long strings."""
    rest = ""
    while line:
        if quoted:
            _, end, line = line.partition(quoted)
            if not end:
                return quoted, rest
            quoted = ""
        else:
            opening = re.search(r'"""|\'\'\'', line)
            if opening is None:
                return "", rest + line
            rest, quoted, line = rest + line[: opening.start()], opening[0], line[opening.end() :]
    return quoted, rest


def _names(text: str) -> tuple[str, ...]:
    """The parts of a dotted key."""
    return tuple(match[1] or match[2] or match[3] or "" for match in _PART.finditer(text))


def _path(text: str, counts: Mapping[Keys, int]) -> Keys:
    """The full path of a table; below a list of tables it is that of the last one."""
    path: Keys = ()
    for name in _names(text):
        if path in counts:
            path = (*path, counts[path])
        path = (*path, name)
    return path
