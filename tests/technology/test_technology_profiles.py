"""Technology profiles are data: complete, checked, refused where a number is outside what it is known for."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from nvaudit.errors import NvauditError, OptionError, ProfileError
from nvaudit.rng import stream
from nvaudit.technology import (
    change_technology,
    load_technology,
    parse_technology,
    quantities,
    technology_names,
)
from nvaudit.technology.adc import SurveyAdc, ZigzagAdc
from nvaudit.technology.load import schema_text

FOLDER = Path(__file__).parents[2] / "technology"
NAMES = ("cmos_22nm_neurosim", "cmos_32nm_isaac", "cmos_65nm_siam")


def data_of(name: str = NAMES[0]) -> dict[str, object]:
    found: dict[str, object] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_the_bundled_ones() -> None:
    """Three, each with its name, and all that they say is in the committed schema."""
    assert technology_names() == NAMES
    assert (FOLDER / "schema.json").read_text(encoding="utf-8") == schema_text()
    for name in NAMES:
        jsonschema.validate(data_of(name), json.loads(schema_text()))
        assert load_technology(name).name == name
        assert parse_technology(json.dumps(data_of(name)), "again") == load_technology(name)
    assert len({load_technology(name).model_dump_json() for name in NAMES}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_every_number_says_where_it_comes_from(name: str) -> None:
    """No number stands without unit, source, evidence and a valid range that holds it."""
    found = quantities(load_technology(name))
    assert len(found) > 40
    for path, one in found.items():
        assert one.source, path
        assert one.valid[0] <= one.value <= one.valid[1], path
        assert one.si == pytest.approx(one.value * one.units[one.unit])

    def bare(part: object, path: str) -> None:
        """Every other number of the file is a version, a count of bits, a range, or the node."""
        if isinstance(part, dict):
            for key, value in part.items():
                bare(value, f"{path}.{key}")
        elif isinstance(part, list):
            for item in part:
                bare(item, path)
        elif isinstance(part, int | float) and not isinstance(part, bool):
            last = path.rsplit(".", 1)[-1]
            assert last in ("value", "valid", "schema_version", "node_nm", "bits"), path

    bare(data_of(name), "")


def test_a_number_is_set_inside_its_range_only() -> None:
    """In the unit of the profile; what is outside, or no number of it, is refused with what is."""
    technology = load_technology(NAMES[0])
    assert change_technology(technology, [("mux.columns_per_adc", 16)]).mux.columns_per_adc.count == 16
    with pytest.raises(
        OptionError, match=r"--technology-set mux.columns_per_adc=300: outside the valid range 1 … 256"
    ):
        change_technology(technology, [("mux.columns_per_adc", 300)])
    with pytest.raises(OptionError, match=r"has no such number; did you mean mux.columns_per_adc"):
        change_technology(technology, [("mux.columns_per_add", 16)])
    with pytest.raises(NvauditError, match=r"mux.columns_per_adc.value: 2.5 is no whole number"):
        change_technology(technology, [("mux.columns_per_adc", 2.5)])


BAD = [
    ({"input_mode": "spikes"}, "input_mode: got 'spikes'; use one of bit_serial, parallel, pwm"),
    ({"colour": 1}, "colour: unknown key; use one of schema_version, kind, name"),
    ({"adc": {"kind": "sigma_delta"}}, "adc.kind: 'sigma_delta' is not a kind of ADC; use one of sar, flash"),
    ({"supply": None}, "supply: missing where a capacitance is charged to it; add it"),
    ({"node_nm": 0}, "node_nm: 0 is too small; make it more than 0"),
    ({"schema_version": 2}, "schema_version: got 2; use 1"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    """The key, what was found, and what to do."""
    with pytest.raises(ProfileError) as error:
        parse_technology(json.dumps(data_of() | change), "mine.json")
    assert str(error.value).startswith(f"mine.json: {message}")


def test_a_part_of_a_number_is_named() -> None:
    """A unit of another kind, an empty source, a value outside its own range, a key too many."""
    for key, value, message in (
        ("unit", "fJ", "cell.area.unit: got 'fJ'; use one of um2, mm2"),
        ("source", "", "cell.area.source: is empty; write what it is"),
        ("value", 100.0, "cell.area.value: 100 is outside its valid range 0.0116 … 0.0464 um2"),
        ("valid", [2, 1], "cell.area.valid: 2 is above 1; swap them"),
        (
            "evidence",
            "guessed",
            "cell.area.evidence: got 'guessed'; use one of published, derived, scaled, estimated",
        ),
        ("sorce", "x", "cell.area.sorce: unknown key; did you mean 'source'?"),
    ):
        data = data_of()
        data["cell"]["area"][key] = value  # type: ignore[index]
        with pytest.raises(ProfileError) as error:
            parse_technology(json.dumps(data), "mine.json")
        assert f"mine.json: {message}" in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hierarchy.crossbars_per_pe", 0), ("hierarchy.pes_per_tile", 0), ("mux.columns_per_adc", 0),
        ("noc.flit", 0), ("noc.clock", 0), ("digital.lanes", 0), ("digital.clock", 0),
        ("read.sense.voltage", 0), ("supply", 0), ("band.absolute", 0.5),
    ],
)  # fmt: skip
def test_what_is_divided_by_is_never_nothing(path: str, value: float) -> None:
    """Counts are one or more, clocks and voltages above 0, also where the valid range of the file has 0."""
    data = data_of("cmos_65nm_siam")
    part = data
    for key in path.split("."):
        part = part[key]
    part |= {"value": value, "valid": [value, part["valid"][1]]}
    with pytest.raises(ProfileError, match=f"{path}.*too small"):
        parse_technology(json.dumps(data), "file")


def test_a_name_is_taken_in_any_case() -> None:
    """As that of a device is."""
    assert load_technology("CMOS_22nm_NeuroSim") == load_technology("cmos_22nm_neurosim")


def test_unknown_names_and_files() -> None:
    """A name that is near is offered; a file that is not there is named."""
    with pytest.raises(ProfileError, match="did you mean cmos_32nm_isaac"):
        load_technology("cmos_32nm_isac")
    with pytest.raises(
        ProfileError,
        match=r"nowhere.json: no such file; name a profile file, or see `nvaudit technology list`",
    ):
        load_technology("nowhere.json")


def test_models_of_adcs_give_their_published_values() -> None:
    """Conversions of 5 and 8 bits, in pJ, as their authors' code gives them."""
    survey = SurveyAdc.model_validate(
        {
            "kind": "survey", "bits": [4, 12], "source": "a", "node_nm": 32,
            "rate": {"value": 1, "unit": "GHz", "source": "a", "evidence": "published", "valid": [1, 1]},
        },
        strict=False,
    )  # fmt: skip
    assert [survey.energy(bits) * 1e12 for bits in (5, 8)] == pytest.approx([0.936, 1.714], rel=1e-3)
    volts = {"value": 0.9, "unit": "V", "source": "a", "evidence": "published", "valid": [0.9, 0.9]}
    zigzag = ZigzagAdc.model_validate(
        {"kind": "zigzag", "bits": [1, 12], "source": "a", "supply": volts}, strict=False
    )
    assert [zigzag.energy(bits) * 1e12 for bits in (5, 8)] == pytest.approx([0.406, 0.701], rel=2e-3)
    sar, flash = load_technology(NAMES[0]).adc, load_technology(NAMES[2]).adc
    assert [sar.energy(bits) * 1e12 for bits in (5, 8)] == pytest.approx([0.042, 0.078], rel=0.02)
    assert [flash.energy(bits) * 1e12 for bits in (5, 8)] == pytest.approx([0.261, 2.15], rel=0.01)
    with pytest.raises(
        OptionError, match="--adc-bits 9: the ADC of this technology is known from 3 to 8 bits"
    ):
        sar.check(9)


JUNK = [None, True, -1, 0, 1e308, 1e-320, "", "x" * 3000, [], {}, [1, 2], "um2", "\u0000", 2**70, [3, 1]]


def spots(data: object) -> list[tuple[object, object]]:
    """Every place of a JSON value: the object or list, and the key."""
    found: list[tuple[object, object]] = []
    pending = [data]
    while pending:
        part = pending.pop()
        items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for key, value in items:
            found.append((part, key))
            pending.append(value)
    return found


def test_mutated_technologies_are_refused_or_usable() -> None:
    """Of 500 mutated files and 200 garbled texts each is refused with its name, or every number is finite."""
    gen = stream(20261129, "technology-fuzz")
    accepted = refused = named = 0
    for number in range(700):
        data = copy.deepcopy(data_of(NAMES[int(gen.integers(3))]))
        text = json.dumps(data)
        if number < 500:
            for _ in range(int(gen.integers(1, 4))):
                places = spots(data)
                holder, key = places[int(gen.integers(len(places)))]
                other, other_key = places[int(gen.integers(len(places)))]
                value = copy.deepcopy(other[other_key])  # type: ignore[index]
                if gen.random() < 0.5:
                    value = JUNK[int(gen.integers(len(JUNK)))]
                if isinstance(holder, dict) and gen.random() < 0.3:
                    holder.pop(key, None)
                elif isinstance(holder, dict) or key < len(holder):  # type: ignore[operator,arg-type]
                    holder[key] = value  # type: ignore[index]
            text = json.dumps(data)
        else:
            start = int(gen.integers(len(text)))
            text = (
                text[:start]
                + "".join(map(chr, gen.integers(32, 127, 3)))
                + text[start + int(gen.integers(20)) :]
            )
        try:
            technology = parse_technology(text, "fuzz.json")
            for one in quantities(technology).values():
                assert one.valid[0] <= one.value <= one.valid[1] < float("inf")
            accepted += 1
        except ProfileError as error:
            named += str(error).startswith("fuzz.json: ")
            refused += 1
    assert accepted > 20
    assert refused == named > 300
