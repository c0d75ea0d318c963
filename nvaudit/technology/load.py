"""Reading technology profiles; a file is checked completely here and trusted afterwards."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from nvaudit.device.messages import FileWords, checked_file
from nvaudit.errors import OptionError
from nvaudit.profile_file import bundled_names, named_text
from nvaudit.technology.adc import FlashAdc, SarAdc, SurveyAdc, TableAdc, ZigzagAdc
from nvaudit.technology.profile import BitAdders, ConversionAdders, Technology
from nvaudit.technology.quantity import Quantity, TechnologyPart

_SEE = "`nvaudit technology list`"
_KINDS: dict[str, tuple[str, dict[str, type[TechnologyPart]]]] = {
    "adc": (
        "kind of ADC",
        {"sar": SarAdc, "flash": FlashAdc, "table": TableAdc, "survey": SurveyAdc, "zigzag": ZigzagAdc},
    ),
    "shift_add": ("kind of shift-and-add", {"bits": BitAdders, "conversion": ConversionAdders}),
}


def _folder() -> Path:
    """Find the bundled profiles: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "technologies"
    return installed if installed.is_dir() else package.parent / "technology"


def technology_names() -> tuple[str, ...]:
    """Names of the bundled profiles, sorted; each is accepted by :func:`load_technology`."""
    return bundled_names(_folder())


def schema_text() -> str:
    """JSON schema of a technology file, as committed in ``technology/schema.json``."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Technology.model_json_schema(mode="validation"),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field may hold, itself or in a list."""
    if get_origin(annotation) in (Union, UnionType, tuple):
        return [model for part in get_args(annotation) for model in _models(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _keys(parent: object, path: list[int | str]) -> list[str]:
    """Keys of the part of a technology at a path, whose last step is the unknown key."""
    models: list[type[BaseModel]] = [Technology]
    for step in path[:-1]:
        if isinstance(step, int):
            continue
        fields = [model.model_fields[step] for model in models if step in model.model_fields]
        models = [model for field in fields for model in _models(field.annotation)]
    kind = parent.get("kind") if isinstance(parent, Mapping) else None
    one = next((kinds[kind] for _, kinds in _KINDS.values() if kind in kinds), None)
    models = [one] if one in models and one is not None else models
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _kinds(path: list[int | str]) -> tuple[str, tuple[str, ...]]:
    noun, kinds = _KINDS[str(path[0])]
    return noun, tuple(kinds)


_WORDS = FileWords(_keys, _kinds)


def parse_technology(text: str, where: str) -> Technology:
    """Parse and check the text of a technology file.

    Parameters
    ----------
    text : str
        JSON, at most 1 MiB.
    where : str
        Name of the file, for messages.

    Raises
    ------
    ProfileError
        Naming the key, what was found, and what to do; one line per finding.
    """
    return checked_file(Technology, text, where, _WORDS)


def load_technology(name_or_path: str | Path) -> Technology:
    """Load a bundled technology by its name, or any from a JSON file.

    Parameters
    ----------
    name_or_path : str or Path
        A string with a separator or ending in ``.json`` is a path.

    Raises
    ------
    ProfileError
        If the name is unknown, the file cannot be read, or the profile is invalid.

    Examples
    --------
    >>> load_technology("cmos_22nm_neurosim").adc.kind
    'sar'
    """
    return parse_technology(
        *named_text(name_or_path, _folder(), kind="technology", shown="technology", see=_SEE)
    )


def quantities(technology: Technology) -> dict[str, Quantity]:
    """Every number of a profile by its path, such as ``adc.idle_power``, in the order of the file."""
    quantities: dict[str, Quantity] = {}

    def walk(part: object, path: str) -> None:
        if isinstance(part, Quantity):
            quantities[path] = part
        elif isinstance(part, BaseModel):
            for name in type(part).model_fields:
                walk(getattr(part, name), f"{path}.{name}" if path else name)
        elif isinstance(part, tuple):
            for number, item in enumerate(part):
                walk(item, f"{path}.{number}")

    walk(technology, "")
    return quantities


def change_technology(technology: Technology, changes: Sequence[tuple[str, float]]) -> Technology:
    """Set numbers of a profile, each in the unit that the profile states it in.

    Parameters
    ----------
    changes : sequence of (path, value)
        Such as ``("mux.columns_per_adc", 16)``.

    Raises
    ------
    OptionError
        If there is no such number, or the value is outside its valid range.
    """
    known = quantities(technology)
    data = technology.model_dump(mode="json")
    for path, value in changes:
        if path not in known:
            near = difflib.get_close_matches(path, known, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else "`nvaudit technology show` lists them"
            raise OptionError(f"--technology-set {path}: {technology.name} has no such number; {hint}")
        low, high = known[path].valid
        if not low <= value <= high:
            unit = "" if known[path].unit == "1" else f" {known[path].unit}"
            raise OptionError(
                f"--technology-set {path}={value:g}: outside the valid range {low:g} … {high:g}{unit} of "
                f"{technology.name} ({known[path].source}); stay inside, or write a profile of your own"
            )
        place: Any = data
        for step in path.split("."):
            place = place[int(step)] if isinstance(place, list) else place[step]
        place["value"] = value
    return parse_technology(json.dumps(data), f"technology {technology.name!r} with the options given")
