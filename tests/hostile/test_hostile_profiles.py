# ruff: noqa: E501 (a case is one line, its message included)
"""Hostile profile files are refused with a message: never a traceback, a hang, or a wrong profile."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvaudit.device import DeviceProfile, evaluate, load_profile, parse_profile, profile_names
from nvaudit.device.profile import laws_of
from nvaudit.errors import ProfileError
from nvaudit.profile_file import MAX_BYTES
from nvaudit.rng import stream

DEVICES = Path(__file__).parents[2] / "devices"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not JSON: Expecting value at line 1 column 1; correct it there"),
        ("[1", "not JSON: Expecting ',' delimiter at line 1 column 3; correct it there"),
        ("[]", "got []; a profile is a JSON object"),
        ("null", "got null; a profile is a JSON object"),
        ('"' + "a" * 100 + '"', f"got '{'a' * 58}…; a profile is a JSON object"),
        ('{"name": 1, "name": 2}', "name is given twice; keep one"),
        ('{"sigma": NaN}', "NaN is not JSON; write a finite number"),
        ('{"sigma": -Infinity}', "-Infinity is not JSON; write a finite number"),
        ('{"sigma": ' + "9" * 5000 + "}", "a number of 5000 digits; write at most 300"),
        ("[" * 100_000, "nested deeper than 32; flatten it"),
        ('{"a":' * 100_000, "nested deeper than 32; flatten it"),
        ('{"a":' * 33 + "1" + "}" * 33, "nested deeper than 32; flatten it"),
        (" " * (MAX_BYTES + 1), "larger than 1 MiB; a profile holds a table, not a data set"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_text_that_is_no_profile(text: str, expected: str) -> None:
    """What is not one JSON object of sane size and depth is refused with the reason."""
    with pytest.raises(ProfileError) as error:
        parse_profile(text, "evil.json")
    assert str(error.value) == f"evil.json: {expected}"


def test_a_number_that_overflows_is_refused() -> None:
    """1e999 reads as infinity in JSON parsers; it is not a finite number."""
    text = (DEVICES / "pcm.json").read_text(encoding="utf-8").replace("1.965", "1e999")
    with pytest.raises(
        ProfileError, match=r"noise\.0\.sigma\.coefficients\.1: Infinity is not a finite number"
    ):
        parse_profile(text, "evil.json")


def sonos(**changes: object) -> dict[str, object]:
    """A profile in nA with parts replaced."""
    data: dict[str, object] = json.loads((DEVICES / "sonos_day0.json").read_text(encoding="utf-8"))
    return data | changes


def constant(value: float) -> dict[str, object]:
    return {"kind": "constant", "value": value}


FAR = [
    ({"kind": "normal", "sigma": constant(1e11), "unit": "relative"}, "sigma"),
    ({"kind": "normal", "sigma": constant(0), "mean": constant(-1e11), "unit": "full_scale"}, "mean"),
    ({"kind": "shared", "sigma": constant(1e11), "unit": "full_scale", "scope": "chip"}, "sigma"),
    ({"kind": "read", "sigma": constant(1e11), "unit": "full_scale"}, "sigma"),
    ({"kind": "clip", "max": 1e12}, "max"),
    (
        {
            "kind": "normal",
            "sigma": {"kind": "polynomial", "coefficients": [0.0] * 15 + [1.0], "of": "g"},
            "unit": "na",
        },
        "sigma",
    ),
]


@pytest.mark.parametrize(("term", "key"), FAR, ids=[f"{term['kind']}-{key}" for term, key in FAR])
def test_what_leaves_the_window_by_far_is_refused(term: dict[str, object], key: str) -> None:
    """Devices are drawn in float32: such an error overflows there, and the numbers of a report with it."""
    with pytest.raises(
        ProfileError, match=rf"noise\.0\.{key}: reaches .* times the window .* at most 1e\+06"
    ):
        parse_profile(json.dumps(sonos(noise=[term], sigma=None)), "far.json")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1e-12), (1599.9, 1600.0), (0.0, 1e-300)])
def test_a_window_that_float32_does_not_resolve_is_refused(low: float, high: float) -> None:
    """Next to 0, or narrow beside its end."""
    with pytest.raises(ProfileError, match=r"window\.max: .* leaves no window above min"):
        parse_profile(json.dumps(sonos(window={"unit": "na", "min": low, "max": high})), "narrow.json")


def test_a_tower_of_pieces_is_refused() -> None:
    """A law nested in itself beyond the depth limit is refused."""
    law: dict[str, Any] = {"kind": "constant", "value": 1}
    for _ in range(40):
        law = {"kind": "piecewise", "split": 0.5, "of": "rel", "below": law, "above": law["kind"]}
    data = json.loads((DEVICES / "rram.json").read_text(encoding="utf-8"))
    data["noise"][0]["sigma"] = law
    with pytest.raises(ProfileError, match="nested deeper than 32"):
        parse_profile(json.dumps(data), "evil.json")


def test_terminal_escapes_do_not_reach_the_message() -> None:
    """Keys and values from the file are quoted."""
    with pytest.raises(ProfileError) as error:
        parse_profile('{"\\u001b[2J": "\\u001b]0;x\\u0007"}', "evil.json")
    assert str(error.value).replace("\n", "").isprintable()


def test_a_flood_of_mistakes_gives_a_short_message() -> None:
    """A hundred thousand mistakes are ten lines."""
    data = json.loads((DEVICES / "rram.json").read_text(encoding="utf-8"))
    data["noise"] = [{"kind": "table", "unit": "level", "samples": [["x"] * 100_000]}]
    with pytest.raises(ProfileError) as error:
        parse_profile(json.dumps(data), "evil.json")
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ram", "device: 'ram' is not a bundled profile; did you mean rram? See `nvaudit devices list`, or give the path of a .json file"),
        ("zzz", "device: 'zzz' is not a bundled profile; see `nvaudit devices list`, or give the path of a .json file"),
        ("", "device: '' is not a bundled profile; see `nvaudit devices list`, or give the path of a .json file"),
        ("schema", "device: 'schema' is not a bundled profile; see `nvaudit devices list`, or give the path of a .json file"),
        ("no/such.json", "no/such.json: no such file; name a profile file, or see `nvaudit devices list`"),
        ("a\0.json", "'a\\x00.json': no such file; name a profile file, or see `nvaudit devices list`"),
        ("/dev/zero", "/dev/zero: is not a regular file; name a profile file, or see `nvaudit devices list`"),
        ("./", "./: is not a regular file; name a profile file, or see `nvaudit devices list`"),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere(name: str, expected: str) -> None:
    """An unknown name, a missing file, a device file and a folder each get their message."""
    with pytest.raises(ProfileError) as error:
        load_profile(name)
    assert str(error.value) == expected


def test_files_that_are_not_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, and a file above 1 MiB, are refused before parsing."""
    path = tmp_path / "evil.json"
    path.write_bytes(b'{"name": "\xff"}')
    with pytest.raises(ProfileError, match=r"evil\.json: not UTF-8 at byte 10; save it as UTF-8"):
        load_profile(path)
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(ProfileError, match=r"evil\.json: larger than 1 MiB"):
        load_profile(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes exist on POSIX only")
def test_a_named_pipe_does_not_hang(tmp_path: Path) -> None:
    """A pipe that nobody writes to is refused at once."""
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ProfileError, match="is not a regular file"):
        load_profile(tmp_path / "pipe.json")


def test_a_byte_order_mark_is_harmless(tmp_path: Path) -> None:
    """A file saved with a byte-order mark loads as without."""
    path = tmp_path / "rram.json"
    path.write_bytes(b"\xef\xbb\xbf" + (DEVICES / "rram.json").read_bytes())
    assert load_profile(path) == load_profile("rram")


JUNK: list[Any] = [
    *(None, True, -1, 0, 1, 2, 3, 255, 10**30, -0.0, 1e-320, 1e300, -1e12, 1e12, 0.5, "", "x", "sigma"),
    *("level", "weight_max", "relative", "us", "na", "\x00", "ü", [], [1], [[]], {}, {"kind": "constant"}),
    *({"kind": "constant", "value": -1}, {"kind": "levels", "values": [0, 1]}, {"kind": "clip", "min": 0}),
]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, child in list(items):
        found.append((value, key))
        found.extend(places(child))
    return found


def mutate(data: dict[str, Any], generator: np.random.Generator) -> None:
    """Replace, delete, duplicate or swap one to three places of a profile."""
    for _ in range(int(generator.integers(1, 4))):
        spots = places(data)
        holder, key = spots[int(generator.integers(len(spots)))]
        choice = int(generator.integers(5))
        if choice == 0:
            del holder[key]
        elif choice == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif choice == 2:
            other, other_key = spots[int(generator.integers(len(spots)))]
            holder[key] = copy.deepcopy(other[other_key])
        else:
            holder[key] = copy.deepcopy(JUNK[int(generator.integers(len(JUNK)))])


def check_usable(profile: DeviceProfile) -> None:
    """Every law of an accepted profile is finite on its window, without a float warning."""
    scale = profile.scale
    level = np.arange(scale.levels)
    g = scale.conductance(level)
    for term in profile.noise:
        for _, law in laws_of(term):
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                assert np.isfinite(evaluate(law, level=level, g=g, g_max=scale.g_max)).all()


def test_mutated_profiles_are_refused_or_usable() -> None:
    """Of 400 mutated profiles and 200 garbled texts each is refused by ProfileError or gives finite laws."""
    generator = stream(20240607, "profile-fuzz")
    originals = [
        json.loads((DEVICES / f"{name}.json").read_text(encoding="utf-8")) for name in profile_names()
    ]
    accepted = refused = named = 0
    for round_number in range(600):
        data = copy.deepcopy(originals[int(generator.integers(len(originals)))])
        if round_number < 400:
            mutate(data, generator)
            text = json.dumps(data)
        else:
            text = json.dumps(data)
            start = int(generator.integers(len(text)))
            stop = start + int(generator.integers(20))
            text = text[:start] + "".join(map(chr, generator.integers(32, 127, 3))) + text[stop:]
        try:
            check_usable(parse_profile(text, "fuzz.json"))
            accepted += 1
        except ProfileError as error:
            named += str(error).startswith("fuzz.json: ")
            refused += 1
    assert accepted > 20
    assert refused == named > 300
