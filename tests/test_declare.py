"""A field is declared once: the check, the messages and what is typed come from its type and words."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from nvaudit.declare import Option, Options, fields_of, parts_of
from nvaudit.errors import OptionError
from nvaudit.one_point import OnePoint


class Part(Options):
    """A part."""

    count: Annotated[
        Annotated[int, Field(ge=1)] | None, Option("How many.", unset="all", was=("--number",))
    ] = None
    names: Annotated[tuple[str, ...], Option("Names.", name="--name", wanted="a list of names")] = ()
    law: Annotated[Literal["normal", "uniform"], Option("Law.")] = "normal"


class Other(Options):
    """Another."""

    share: Annotated[Annotated[float, Field(gt=0, lt=1)], Option("Share.")] = 0.5
    measure: Annotated[bool, Option("Measure.")] = True


class Both(Other, Part):
    """Of two parts, one default changed."""

    law: Annotated[Literal["normal", "uniform"], Part.option("law", help="Its law.")] = "uniform"


@pytest.mark.parametrize(
    ("kind", "limits", "wanted", "shown"),
    [
        (int, {"ge": 1, "le": 14}, "a whole number from 1 to 14", "1<=x<=14"),
        (int, {"ge": 0, "lt": 8}, "a whole number from 0 to 7", "0<=x<8"),
        (int, {"gt": 0}, "a whole number, 1 or more", "x>0"),
        (int, {"ge": 1}, "a whole number, 1 or more", "x>=1"),
        (int, {"le": 3}, "a whole number, at most 3", "x<=3"),
        (int, {}, "a whole number", ""),
        (int, {"ge": 1, "le": 100_000_000}, "a whole number from 1 to 100000000", "x>=1"),
        (float, {}, "a finite number", ""),
        (float, {"ge": 0}, "a finite number, 0 or more", "x>=0"),
        (float, {"gt": 0}, "a finite number above 0", "x>0"),
        (float, {"gt": 0, "lt": 1}, "a number above 0 and below 1", "0<x<1"),
        (float, {"ge": 0, "le": 1}, "a number from 0 to 1", "0<=x<=1"),
        (float, {"gt": 0, "le": 10}, "a number above 0, at most 10", "0<x<=10"),
        (float, {"ge": 0, "lt": 10}, "a number, 0 or more, below 10", "0<=x<10"),
        (float, {"lt": 10}, "a finite number below 10", "x<10"),
        (float, {"ge": 0, "le": 1e30}, "a finite number, 0 or more, at most 1e30", "x>=0"),
        (float, {"gt": 0, "le": 1e30}, "a finite number above 0, at most 1e30", "x>0"),
    ],
)
def test_limits_are_said_in_words_and_shown_in_the_help(kind, limits, wanted, shown):
    """Every combination of bounds has its words; a bound beyond what anyone gives is not worth a place."""

    class One(Options):
        value: Annotated[kind, Field(**limits), Option("One.")] = 0

    field = fields_of(One)["value"]
    assert (field.wanted, field.limits) == (wanted, shown)


def test_parts_come_in_the_order_of_their_fields():
    """The last base first, in reports, messages and help; a field that is declared again keeps its place."""
    assert [part.__name__ for part in parts_of(Both)] == ["Part", "Other"]
    assert list(Both.model_fields) == ["count", "names", "law", "share", "measure"]
    assert Both().law == "uniform"
    assert fields_of(Both)["law"].option.help == "Its law."


def test_all_that_is_wrong_is_said_at_once():
    """Each option with what was found and what may be given; a misspelt one with the nearest name."""
    with pytest.raises(OptionError) as caught:
        Both.validated({"count": 0, "law": "log", "share": 1, "cout": 3})
    assert str(caught.value).split("; ") == [
        "--count: got 0", "use a whole number, 1 or more",
        "--law: got 'log'", "use one of normal, uniform",
        "--share: got 1", "use a number above 0 and below 1",
        "cout: there is no such option", "did you mean count?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("count", None, []),
        ("count", 3, ["--count", "3"]),
        ("names", ["a", "-b"], ["--name", "a", "--name=-b"]),
        ("share", 0.25, ["--share", "0.25"]),
        ("share", 1.0, ["--share", "1"]),
        ("measure", True, []),
        ("measure", False, ["--no-measure"]),
    ],
)
def test_what_is_typed_for_a_value(name, value, words):
    """What a report holds as JSON is written so that the command line reads it back."""
    assert fields_of(Both)[name].words(value) == words


def test_what_is_off_is_no_part_of_what_was_given():
    """Records name options by the first flag they had, and leave out what is off."""
    assert Both().given(Both.model_fields) == {"--law": "uniform", "--share": 0.5, "--measure": True}
    assert Both.validated({"count": 2, "names": ["x"], "measure": False}).given(
        ["count", "names", "measure"]
    ) == {
        "--number": 2,
        "--name": ["x"],
    }


def test_a_field_without_words_is_refused():
    """Text needs words for what may be given; a field needs an Option."""

    class Wordless(Options):
        text: Annotated[str, Option("Text.")] = ""

    class Undeclared(Options):
        text: str = ""

    with pytest.raises(TypeError, match="needs words for what is wanted"):
        fields_of(Wordless)
    with pytest.raises(TypeError, match="text: a field of a specification needs an Option"):
        fields_of(Undeclared)


@pytest.mark.parametrize(
    "options",
    [
        {"sigma": 0.1, "percentile": 5},
        {"sigmas": (0.1,), "percentiles": [5]},
        {"sigmas": 0.1, "percentiles": 5.0},
    ],
)
def test_one_point_takes_the_names_of_an_audit_and_its_own(options):
    """Either way it is the same, and in reports one value."""
    spec = OnePoint.validated(options)
    assert (spec.sigmas, spec.percentiles, spec.percentile) == ((0.1,), (5.0,), 5.0)
    dumped = spec.model_dump(mode="json")
    assert (dumped["sigma"], dumped["percentile"]) == (0.1, 5.0)
    assert not {"sigmas", "percentiles"} & set(dumped)
    assert OnePoint.validated(dumped) == spec
    assert spec.given(["sigmas", "percentiles"]) == {"--sigma": 0.1, "--percentile": 5.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigmas": (0.1, 0.2)}, "--sigma: got 2 values; give one"),
        ({"sigmas": (0.1,), "sigma": 0.1}, "sigmas and sigma: choose one; they say the same"),
        ({"sigma": "x"}, "--sigma: got 'x'; use at most 1000 finite numbers"),
        ({"percentile": None}, "--percentile: got None; use 1 to 100 numbers above 0 and below 100"),
    ],
)
def test_one_point_refuses_several(options, message):
    """A sweep is for audits."""
    with pytest.raises(OptionError) as caught:
        OnePoint.validated(options)
    assert str(caught.value) == message


def test_no_sigma_is_that_of_the_profile():
    """None and nothing are the same."""
    assert OnePoint.validated({"sigma": None}) == OnePoint.validated({}) == OnePoint()
    assert OnePoint().model_dump()["sigma"] is None
