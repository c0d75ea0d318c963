"""Reading and writing device profiles; a file is checked completely here and trusted afterwards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from nvaudit.device.messages import checked_file
from nvaudit.device.profile import DeviceProfile
from nvaudit.errors import ProfileError, short
from nvaudit.profile_file import bundled_names, named_text

_SEE = "`nvaudit devices list`"


def _folder() -> Path:
    """Find the bundled profiles: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "devices"
    return installed if installed.is_dir() else package.parent / "devices"


def profile_names() -> tuple[str, ...]:
    """Names of the bundled profiles, sorted.

    Returns
    -------
    tuple of str
        Each is accepted by `load_profile`.
    """
    return bundled_names(_folder())


def profile_schema() -> dict[str, Any]:
    """JSON schema of a profile file, as committed in ``devices/schema.json``.

    Returns
    -------
    dict
        JSON Schema, draft 2020-12. The rules that span several keys are checked by `parse_profile` only.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **DeviceProfile.model_json_schema(mode="validation"),
    }


def schema_text() -> str:
    """Render `profile_schema` as the text of ``devices/schema.json``."""
    return json.dumps(profile_schema(), indent=2, ensure_ascii=False) + "\n"


def parse_profile(text: str, where: str) -> DeviceProfile:
    """Parse and check the text of a profile file.

    Parameters
    ----------
    text : str
        JSON, at most 1 MiB.
    where : str
        Name of the file, for messages.

    Returns
    -------
    DeviceProfile
        Frozen and consistent.

    Raises
    ------
    ProfileError
        Naming the key, what was found, and what to do; one line per finding.
    """
    return checked_file(DeviceProfile, text, where)


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """Load a bundled profile by its name, or any profile from a JSON file.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        A name such as ``"rram"``, or a path; a string with a separator or ending in ``.json`` is a path.

    Returns
    -------
    DeviceProfile
        Frozen and consistent.

    Raises
    ------
    ProfileError
        If the name is unknown, the file cannot be read, or the profile is invalid.

    Examples
    --------
    >>> load_profile("rram").cell_bits
    2
    """
    text = str(name_or_path)
    if text.lower().endswith((".csv", ".tsv")):
        raise ProfileError(
            f"device: {short(text)} is a table of measurements, not a profile; make one of it with "
            f"`nvaudit devices fit {text if text.isprintable() else short(text)} -o PROFILE.json`"
        )
    if "," in text and all(part.strip().lower() in profile_names() for part in text.split(",")):
        repeated = " ".join(f"--device {part.strip()}" for part in text.split(","))
        raise ProfileError(
            f"device: {short(text)} names several profiles; `nvaudit audit` takes them as "
            f"{repeated}, other commands one at a time"
        )
    return parse_profile(*named_text(name_or_path, _folder(), kind="device", shown="devices", see=_SEE))


def dump_profile(profile: DeviceProfile) -> str:
    """Write a profile as the text of a file that `parse_profile` reads back to an equal profile.

    Parameters
    ----------
    profile : DeviceProfile
        What to write.

    Returns
    -------
    str
        Indented JSON with a final newline; keys at their default are left out.
    """
    content = profile.model_dump(mode="json", exclude_defaults=True)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def profile_digest(profile: DeviceProfile) -> str:
    """SHA-256 of everything a profile says, whatever the layout of its file; 64 hex digits."""
    data = profile.model_dump(mode="json")
    if data["level_bits"] is None:
        del data["level_bits"]  # the digest is that of before this key existed
    if data["top_slice"] == "window":
        del data["top_slice"]  # the same
    if data["offset_zero"] == "lower":
        del data["offset_zero"]  # the same
    if data["measured_after_s"] is None:
        del data["measured_after_s"]  # the digest is that of before this key existed
    for term in data["noise"]:
        if term.get("tolerance", 0) is None:
            del term["tolerance"]  # the digest is that of before this key existed
        if term.get("timed") is False:
            del term["timed"]  # the same
    content = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()
