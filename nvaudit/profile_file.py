"""The text of a profile file, of a device or of a technology: read whole, as JSON without surprises."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, NoReturn

from nvaudit.errors import ProfileError, short, unique_keys

SCHEMA_FILE = "schema.json"
MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_DIGITS = 300


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON; write a finite number")


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits; write at most {MAX_DIGITS}")
    return int(text)


def _too_deep(data: object) -> bool:
    # Level by level, not by recursion: what is asked is whether recursion would be too deep.
    layer = [data]
    for _ in range(MAX_DEPTH):
        layer = [
            child
            for value in layer
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    return bool(layer)


def parse_json(text: str, where: str) -> dict[str, Any]:
    """Parse JSON, refusing what the standard leaves open: duplicate keys, NaN, endless nesting.

    Raises
    ------
    ProfileError
        Saying where and what was found.
    """
    try:
        data = json.loads(
            text, object_pairs_hook=unique_keys, parse_constant=_no_constant, parse_int=_bounded_int
        )
    except json.JSONDecodeError as error:
        raise ProfileError(
            f"{where}: not JSON: {error.msg} at line {error.lineno} column {error.colno}; correct it there"
        ) from None
    except RecursionError:
        raise ProfileError(f"{where}: nested deeper than {MAX_DEPTH}; flatten it") from None
    except ValueError as error:
        raise ProfileError(f"{where}: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise ProfileError(f"{where}: got {short(data)}; a profile is a JSON object")
    if _too_deep(data):
        raise ProfileError(f"{where}: nested deeper than {MAX_DEPTH}; flatten it")
    return data


def read_text(path: Path, where: str, see: str) -> str:
    """Read the text of a profile file.

    Parameters
    ----------
    where : str
        Its name, for messages.
    see : str
        The command that lists what there is.

    Raises
    ------
    ProfileError
        If it is no regular file, cannot be read, or is larger than a profile is.
    """
    try:
        if not path.is_file():
            problem = "is not a regular file" if path.exists() else "no such file"
            raise ProfileError(f"{where}: {problem}; name a profile file, or see {see}")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ProfileError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ProfileError(f"{where}: cannot be read: {reason}; check the path and its rights") from None
    if len(content) > MAX_BYTES:
        raise ProfileError(f"{where}: larger than 1 MiB; a profile holds a table, not a data set")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProfileError(f"{where}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def bundled_names(folder: Path) -> tuple[str, ...]:
    """Names of the profiles of a folder, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.json") if path.name != SCHEMA_FILE))


def named_text(name_or_path: str | Path, folder: Path, *, kind: str, shown: str, see: str) -> tuple[str, str]:
    """Read a bundled profile by its name, whatever its case, or any from a file.

    Parameters
    ----------
    name_or_path : str or Path
        A string with a separator or ending in ``.json`` is a path.
    folder : Path
        Of the bundled profiles.
    kind, shown, see : str
        For messages: what it is, the folder's name, and the command that lists the names.

    Returns
    -------
    text, where : str
        The file's text, and its name for messages.

    Raises
    ------
    ProfileError
        If the name is unknown or the file cannot be read.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or "\\" in text or text.endswith(".json"):
        where = text if text.isprintable() else short(text)
        return read_text(Path(text), where, see), where
    names = bundled_names(folder)
    name = text if text in names else text.lower()
    if name not in names:
        near = difflib.get_close_matches(text, names, n=3)
        hint = f"did you mean {', '.join(near)}? See" if near else "see"
        raise ProfileError(
            f"{kind}: {short(text)} is not a bundled profile; {hint} {see}, or give the path of a .json file"
        )
    where = f"{shown}/{name}.json"
    return read_text(folder / f"{name}.json", where, see), where
