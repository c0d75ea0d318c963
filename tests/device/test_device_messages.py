# ruff: noqa: E501 (a case is one line, its message included)
"""A profile that breaks a rule is refused with the file, the key, what was found, and what to do."""

import copy
import json
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvaudit.device import DeviceProfile, dump_profile, load_profile, parse_profile
from nvaudit.device.terms import TERM_KINDS
from nvaudit.errors import ProfileError
from nvaudit.options import Encoding

TERMS = ", ".join(TERM_KINDS)
ENCODINGS = ", ".join(get_args(Encoding))
LAWS = "constant, levels, polynomial, log, power, saturating, piecewise"
Edit = Callable[[dict[str, Any]], object]


def message(name: str, edit: Edit) -> str:
    """The message that an edit of a bundled profile earns."""
    data = json.loads(dump_profile(load_profile(name)))
    edit(data)
    with pytest.raises(ProfileError) as error:
        parse_profile(json.dumps(data), "devices/foo.json")
    return str(error.value)


def noise(*terms: dict[str, Any]) -> Edit:
    return lambda data: data.update(noise=list(terms))


ONE = {"kind": "constant", "value": 1}
LOGNORMAL = {"kind": "lognormal", "sigma": ONE, "unit": "log", "on": "resistance", "preserve": "median"}
NORMAL = {"kind": "normal", "sigma": ONE, "unit": "level"}
READ = {"kind": "read", "sigma": ONE, "unit": "level"}
TABLE = {"kind": "table", "unit": "level", "samples": [[0], [1], [2], [3]]}
DECAY = {"kind": "log_decay", "mean_per_ln_s": 0, "std_const": 0, "std_per_ln_s": 0, "unit": "level"}


def table_levels(*levels: int) -> dict[str, Any]:
    return {"kind": "table", "unit": "level", "levels": [{"level": n, "mean": n, "std": 0} for n in levels]}


def drift(nu: float) -> dict[str, Any]:
    law = {"kind": "constant", "value": nu}
    return {"kind": "drift", "nu_mean": law, "nu_std": ONE | {"value": 0}, "t0_s": 20, "nu_law": "normal"}


CASES: list[tuple[str, Edit, str]] = [
    ("pcm", lambda d: d["noise"][0].update(kind="gausian"), f"noise.0.kind: 'gausian' is not a noise term; use one of {TERMS}"),
    ("pcm", lambda d: d["noise"][0].update(tolerance=-1), "noise.0.tolerance: -1 is too small; make it 0 or more"),
    ("rram", noise({"kind": "shared", "sigma": ONE, "unit": "level", "scope": "tile"}), "noise.0.tile: is missing; add it, as [rows, columns]"),
    ("rram", noise({"kind": "shared", "sigma": ONE, "unit": "level", "scope": "chip", "tile": [2, 2]}), "noise.0.tile: is for scope 'tile', not 'chip'; leave it out"),
    ("rram", noise({"kind": "shared", "sigma": ONE, "unit": "level", "scope": "tile", "tile": [0, 2]}), "noise.0.tile.0: 0 is too small; make it 1 or more"),
    ("rram", noise({"kind": "shared", "sigma": ONE, "unit": "us", "scope": "chip"}), "noise.0.unit: 'us' is not the unit of the window (null); make them equal"),
    ("rram", noise({"kind": "shared", "sigma": ONE, "unit": "level", "scope": "row"}), "noise.0.scope: got 'row'; use one of chip, tensor, tile"),
    ("pcm", lambda d: d["noise"][0].pop("kind"), f"noise.0.kind: missing; use one of {TERMS}"),
    ("pcm", lambda d: d["noise"].insert(0, 5), "noise.0: got 5; write an object"),
    ("pcm", lambda d: d["noise"][0]["sigma"].update(kind="poly"), f"noise.0.sigma.kind: 'poly' is not a law; use one of {LAWS}"),
    ("pcm", lambda d: d["noise"][0].update(sgima=1), "noise.0.sgima: unknown key; did you mean 'sigma'?"),
    ("pcm", lambda d: d.update(nmae=1), "nmae: unknown key; did you mean 'name'?"),
    ("pcm", lambda d: d["window"].update(zzz=1), "window.zzz: unknown key; use one of unit, min, max"),
    ("pcm", lambda d: d["noise"][3]["one_over_f"].update(t_read=1), "noise.3.one_over_f.t_read: unknown key; did you mean 't_read_s'?"),
    ("pcm", lambda d: d["noise"][0].update(unit="mu"), "noise.0.unit: got 'mu'; use one of sigma, level, full_scale, relative, us, na, weight_max"),
    ("pcm", lambda d: d["noise"][0]["sigma"]["coefficients"].append("x"), "noise.0.sigma.coefficients.3: got 'x'; write a number"),
    ("pcm", lambda d: d["noise"][0]["sigma"]["coefficients"].append(True), "noise.0.sigma.coefficients.3: got true; write a number"),
    ("pcm", lambda d: d["noise"][0]["sigma"].update(coefficients=[]), "noise.0.sigma.coefficients: 0 entries; give at least 1"),
    ("pcm", lambda d: d["noise"][0]["sigma"].update(coefficients=[0] * 17), "noise.0.sigma.coefficients: more than 16 entries; give fewer"),
    ("pcm", lambda d: d["noise"][0]["sigma"].update(coefficients=[0.1, 1e13]), "noise.0.sigma.coefficients.1: 10000000000000.0 is too large; make it 1e+12 or less"),
    ("pcm", lambda d: d["noise"][0].update(sigma={"kind": "constant", "value": 1, "min": 2, "max": 1}), "noise.0.sigma.min: 2 is above max 1; swap them"),
    ("pcm", lambda d: d["noise"][0].update(sigma={"kind": "levels", "values": [1, 2]}), "noise.0.sigma.values: an analog cell (cell_bits null) has no levels; set cell_bits, or use a law of g"),
    ("pcm", lambda d: d["noise"][0].update(sigma={"kind": "constant", "value": -0.5}), "noise.0.sigma: the spread is -0.5 at level 0; a spread is 0 or more, set its key 'min' to 0 to floor it"),
    ("pcm", lambda d: d["noise"][0].update(unit="sigma"), "noise.0.unit: 'sigma' has no unit under a 'multiplier' knob; state the unit of the law"),
    ("pcm", lambda d: d.pop("cell_bits"), "cell_bits: missing; add it"),
    ("pcm", lambda d: d.update(cell_bits=2.5), "cell_bits: got 2.5; write a whole number"),
    ("pcm", lambda d: d.update(cell_bits=0), "cell_bits: 0 is too small; make it 1 or more"),
    ("pcm", lambda d: d.update(schema_version=2), "schema_version: got 2; use 1"),
    ("pcm", lambda d: d.update(encoding="twos"), f"encoding: got 'twos'; use one of {ENCODINGS}"),
    ("pcm", lambda d: d.update(name="A b"), "name: 'A b' is not a name; use 1 to 64 of a-z, 0-9, '-' and '_', a letter or digit first"),
    ("pcm", lambda d: d.update(technology="\x1b[31m"), "technology: '\\x1b[31m' holds a control character; write plain text on one line"),
    ("pcm", lambda d: d.update(technology=""), "technology: is empty; write what it is"),
    ("pcm", lambda d: d.update(technology="a" * 2001), "technology: is longer than 2000 characters; shorten it"),
    ("pcm", lambda d: d.update(technology="\ud800"), "the file: not valid text, such as half of a surrogate pair; save it as UTF-8"),
    ("pcm", lambda d: d["source"].pop("citation"), "source.citation: missing; add it"),
    ("pcm", lambda d: d["source"].update(doi="x"), "source.doi: 'x' is not a DOI; write it as '10.1000/xyz'"),
    ("pcm", lambda d: d["window"].update(min=30), "window.min: 30 is not below max 25; make min < max"),
    ("pcm", lambda d: d["window"].update(min=-1), "window.min: -1 is too small; make it 0 or more"),
    ("pcm", lambda d: d["window"].update(unit="na"), "noise.0.unit: 'us' is not the unit of the window ('na'); make them equal"),
    ("pcm", lambda d: d.update(window=None), "noise.0.unit: 'us' is not the unit of the window (null); make them equal"),
    ("pcm", lambda d: d.pop("time"), "noise.2.kind: 'drift' needs the key 'time' in the profile; add it"),
    ("pcm", lambda d: d["sigma"].update(default=9), "sigma.default: 9 is outside 0 … 4; move it inside, or use 0"),
    ("pcm", lambda d: d["time"].update(min_s=9, max_s=9), "time.min_s: 9 is not below max_s 9; make min < max"),
    ("pcm", lambda d: d.update(noise={}), "noise: got {}; write a list"),
    ("pcm", lambda d: d["noise"].reverse(), "noise.1.kind: 'drift' comes after a 'read'; move the read terms to the end"),
    ("pcm", lambda d: d["noise"].__setitem__(2, drift(1.5)), "noise.2.nu_mean: reaches 1.5; a drift exponent is at most 1"),
    ("rram", noise(DECAY), "noise.0.kind: 'log_decay' needs the key 'time' in the profile; add it"),
    ("rram", noise(NORMAL, NORMAL), "noise.1.name: 'normal' is used twice; give each term its own name"),
    ("rram", noise(NORMAL, TABLE), "noise.1.kind: a 'table' replaces the target conductance; move it to the front"),
    ("rram", noise({"kind": "stuck_at", "p_low": 0.7, "p_high": 0.5}), "noise.0.p_high: p_low + p_high is 1.2; make it 1 or less"),
    ("rram", noise({"kind": "stuck_at", "p_low": -0.1, "p_high": 0}), "noise.0.p_low: -0.1 is too small; make it 0 or more"),
    ("rram", noise({"kind": "clip"}), "noise.0.min: neither min nor max given; give one or both"),
    ("rram", noise({"kind": "clip", "min": 1, "max": 1}), "noise.0.min: 1 is not below max 1; make min < max"),
    ("rram", noise(READ | {"unit": "weight_max"}), "noise.0.unit: got 'weight_max'; use one of sigma, level, full_scale, relative, us, na"),
    ("rram", noise(LOGNORMAL | {"unit": "weight_max"}), "noise.0.unit: got 'weight_max'; use one of sigma, log"),
    ("rram", noise(LOGNORMAL | {"unit": "sigma"}), "noise.0.unit: 'sigma' takes the unit 'level' of the knob, which a 'lognormal' term cannot have; use one of log in sigma.unit"),
    ("rram", noise(LOGNORMAL | {"sigma": {"kind": "constant", "value": 6}}), "noise.0.sigma: reaches 6; a log-normal sigma is at most 5"),
    ("rram", lambda d: d["sigma"].update(unit="log"), "noise.0.unit: 'sigma' takes the unit 'log' of the knob, which a 'normal' term cannot have; use one of level, full_scale, weight_max in sigma.unit"),
    ("rram", lambda d: (d["sigma"].update(unit="weight_max"), noise(READ | {"unit": "sigma"})(d)), "noise.0.unit: 'sigma' takes the unit 'weight_max' of the knob, which a 'read' term cannot have; use one of level, full_scale in sigma.unit"),
    ("rram", lambda d: d.pop("sigma"), "noise.0.unit: 'sigma' needs the key 'sigma' in the profile; add it, or state a unit"),
    ("rram", noise(TABLE | {"unit": "us"}), "noise.0.unit: 'us' is not the unit of the window (null); make them equal"),
    ("rram", noise(TABLE | {"samples": [[0], [1], [2]]}), "noise.0.samples: 3 entries for 4 levels (2 bits); give one each"),
    ("rram", noise(TABLE | {"samples": [[0], [1], [], [3]]}), "noise.0.samples.2: no samples; give at least one for each level"),
    ("rram", noise({"kind": "table", "unit": "level"}), "noise.0.levels: neither of levels and samples given; give exactly one"),
    ("rram", noise(TABLE | table_levels(0, 1)), "noise.0.levels: both of levels and samples given; give exactly one"),
    ("rram", noise(table_levels(0, 1, 2)), "noise.0.levels: 3 entries for 4 levels (2 bits); give one each"),
    ("rram", noise(table_levels(0, 1, 1, 3)), "noise.0.levels.2.level: got level 1 in place of 2; list each level once, in ascending order"),
    ("fefet1", lambda d: d["noise"][0]["sigma"]["values"].append(1), "noise.0.sigma.values: 5 entries for 4 levels (2 bits); give one each"),
    ("fefet1", lambda d: d.update(cell_bits=4), "noise.0.sigma.values: 4 entries for 16 levels (4 bits); give one each"),
    ("hermes_1device", lambda d: d["noise"][2]["nu_mean"]["below"].update(kind="x"), f"noise.2.nu_mean.below.kind: 'x' is not a law; use one of {LAWS}"),
    ("hermes_1device", lambda d: d["noise"][2]["nu_mean"]["above"].update(of=1), "noise.2.nu_mean.above.of: got 1; use one of rel, g"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "edit", "expected"), CASES, ids=[case[2].split(";")[0][:60] for case in CASES]
)
def test_each_mistake_has_its_message(name: str, edit: Edit, expected: str) -> None:
    """One mistake in a bundled profile gives one line: file, key, what was found, what to do."""
    assert message(name, edit) == f"devices/foo.json: {expected}"


def test_every_finding_has_its_line() -> None:
    """Several mistakes are reported together, each on its line."""
    found = message("pcm", lambda d: (d.pop("technology"), d.update(weight_bits=0)))
    assert found.splitlines() == [
        "devices/foo.json: technology: missing; add it",
        "devices/foo.json: weight_bits: 0 is too small; make it 1 or more",
    ]


def test_many_findings_are_counted() -> None:
    """At most ten lines, then how many more there are."""
    found = message("pcm", noise(*[{"kind": "x"} for _ in range(14)])).splitlines()
    assert len(found) == 11
    assert found[-1] == "devices/foo.json: and 4 more"


def test_terms_and_profiles_are_frozen() -> None:
    """A loaded profile cannot be changed by accident."""
    profile = load_profile("rram")
    with pytest.raises(ValueError, match="frozen"):
        profile.cell_bits = 4  # type: ignore[misc]
    assert copy.deepcopy(profile) == profile


numbers = st.floats(-100, 100)
spreads = st.floats(0, 2)
simple_laws = st.one_of(
    st.builds(lambda v: {"kind": "constant", "value": v}, spreads),
    st.builds(lambda v: {"kind": "levels", "values": v}, st.lists(spreads, min_size=4, max_size=4)),
    st.builds(
        lambda c, of, low: {"kind": "polynomial", "coefficients": c, "of": of, "min": low, "max": low + 1},
        st.lists(numbers, min_size=1, max_size=16),
        st.sampled_from(["rel", "g"]),
        spreads,
    ),
    st.builds(
        lambda a, b: {"kind": "saturating", "amplitude": a, "decay": b, "of": "g"},
        spreads,
        st.floats(0.01, 10),
    ),
    st.builds(lambda s: {"kind": "log", "slope": s, "intercept": 0, "of": "rel", "min": 0}, numbers),
)
laws = st.one_of(
    simple_laws,
    st.builds(
        lambda split, below, above: {
            "kind": "piecewise",
            "split": split,
            "of": "rel",
            "below": below,
            "above": above,
        },
        numbers,
        simple_laws,
        simple_laws,
    ),
)
terms = st.one_of(
    st.builds(
        lambda law, mean, unit: {"kind": "normal", "sigma": law, "mean": mean, "unit": unit},
        laws,
        st.none() | laws,
        st.sampled_from(["sigma", "level", "full_scale", "relative", "us", "weight_max"]),
    ),
    st.builds(lambda p: {"kind": "stuck_at", "p_low": p, "p_high": 1 - p}, st.floats(0, 1)),
    st.builds(lambda low: {"kind": "clip", "min": low, "max": low + 1}, numbers),
    st.builds(
        lambda s, on, keep: LOGNORMAL | {"sigma": ONE | {"value": s}, "on": on, "preserve": keep},
        spreads,
        st.sampled_from(["resistance", "conductance"]),
        st.sampled_from(["median", "mean"]),
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(terms, max_size=6), st.booleans())
def test_any_valid_profile_survives_a_round_trip(drawn: list[dict[str, Any]], enabled: bool) -> None:
    """JSON → profile → JSON → profile is the identity, and the second JSON is the first one written."""
    data = {
        "schema_version": 1,
        "name": "drawn",
        "technology": "any",
        "description": "drawn",
        "source": {"citation": "none", "where": "none", "fit": "none"},
        "cell_bits": 2,
        "encoding": "offset",
        "window": {"unit": "us", "min": 1.0, "max": 4.0},
        "sigma": {"default": 0.1, "unit": "level", "min": 0.0, "max": 0.4},
        "valid_range": "everywhere",
        "noise": [term | {"name": f"term_{i}", "enabled": enabled} for i, term in enumerate(drawn)],
    }
    profile = parse_profile(json.dumps(data), "drawn.json")
    assert profile == DeviceProfile.model_validate(data)
    text = dump_profile(profile)
    again = parse_profile(text, "again.json")
    assert again == profile
    assert dump_profile(again) == text
