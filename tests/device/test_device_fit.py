# ruff: noqa: E501 (a case is one line, its message included)
"""Profiles fitted from measurements in CSV."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from nvaudit.device import TableTerm, fit_profile, operating_point
from nvaudit.errors import ProfileError
from nvaudit.rng import stream

LEVELS = "level,mean,std\n0,0.02,0.1\n1,1.01,0.2\n2,1.97,0.2\n3,3.0,0.1\n"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "cells.csv"
    path.write_text(LEVELS, encoding="utf-8")
    return path


def table_of(path: Path, **options: object) -> TableTerm:
    (term,) = fit_profile(path, "cells", **({"unit": "level"} | options)).noise  # type: ignore[arg-type]
    assert isinstance(term, TableTerm)
    return term


def test_level_statistics_become_a_table(csv: Path) -> None:
    """Each row becomes a level; bits, source and a multiplier are filled in."""
    profile = fit_profile(
        csv, "cells", unit="level", technology="RRAM", citation="Our lab, 2024", encoding="differential"
    )
    (term,) = profile.noise
    assert isinstance(term, TableTerm)
    assert term.levels is not None
    assert [(e.level, e.mean, e.std) for e in term.levels] == [
        (0, 0.02, 0.1),
        (1, 1.01, 0.2),
        (2, 1.97, 0.2),
        (3, 3.0, 0.1),
    ]
    assert (profile.cell_bits, profile.window, profile.encoding) == (2, None, "differential")
    assert (profile.technology, profile.source.citation) == ("RRAM", "Our lab, 2024")
    assert profile.source.where == f"cells.csv, SHA-256 {hashlib.sha256(LEVELS.encode()).hexdigest()}"
    assert profile.source.fit == "mean and standard deviation of 4 levels, as given"
    assert operating_point(profile).sigma_unit == "multiplier"


@pytest.mark.parametrize(
    "text",
    [
        "states,mean,std\n0,0.02,0.1\n1,1.01,0.2\n2,1.97,0.2\n3,3.0,0.1\n",
        "Level , Mean,STD\r\n3,3.0,0.1\r\n1,1.01,0.2\r\n\r\n2,1.97,0.2\r\n0,0.02,0.1\r\n",
        "\ufefflevel,mean,std\n0.0,0.02,1e-1\n1,1.01,0.2\n2,1.97,0.2\n3,3.0,0.1",
    ],
)
def test_the_header_and_the_layout_may_vary(csv: Path, text: str) -> None:
    """`states`, capitals, blank lines, any order of rows, CRLF and a byte-order mark give the same table."""
    expected = table_of(csv)
    csv.write_bytes(text.encode())
    assert table_of(csv) == expected


def test_siemens_become_microsiemens_with_a_window(csv: Path) -> None:
    """Absolute siemens are converted, and the window spans the means of the end levels."""
    csv.write_text("states,mean,std\n0,1e-6,1e-7\n1,4e-5,2e-6\n", encoding="utf-8")
    profile = fit_profile(csv, "cells", unit="s")
    assert profile.window is not None
    assert (profile.window.unit, profile.window.min, profile.window.max) == ("us", 1.0, pytest.approx(40.0))
    (term,) = profile.noise
    assert isinstance(term, TableTerm)
    assert term.unit == "us"
    assert term.levels is not None
    assert (term.levels[1].mean, term.levels[1].std) == (pytest.approx(40.0), pytest.approx(2.0))


def test_a_window_may_be_given(csv: Path) -> None:
    """The nominal window takes precedence over the measured means."""
    profile = fit_profile(csv, "cells", unit="na", window=(0.0, 3.0))
    assert profile.window is not None
    assert (profile.window.unit, profile.window.min, profile.window.max) == ("na", 0.0, 3.0)


def test_raw_samples_are_kept(csv: Path) -> None:
    """Every measured value stands in the profile, under its level, in the order of the file."""
    generator = stream(5, "fit-test")
    level = generator.integers(0, 4, 200)
    value = level + 0.1 * generator.standard_normal(200)
    rows = "\n".join(f"{n},{float(v)!r}" for n, v in zip(level, value, strict=True))
    csv.write_text("level,value\n" + rows, encoding="utf-8")
    term = table_of(csv)
    assert term.samples is not None
    for n in range(4):
        np.testing.assert_array_equal(term.samples[n], value[level == n])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty; give the header level,mean,std (or states,mean,std), level,value, or a column of samples for each level: 0,1,2,3 and one row per level or sample"),
        ("a,b\n", "header: got 'a,b'; use level,mean,std (or states,mean,std), level,value, or a column of samples for each level: 0,1,2,3"),
        ("level,mean,std\n", "no rows below the header; give one row per level or sample"),
        ("level,mean,std\n0,1\n", "line 2: got 2 cells; give 3: level,mean,std"),
        ("level,mean,std\n0,x,1\n", "line 2: mean: got 'x'; write a finite number"),
        ("level,mean,std\n0,0,nan\n", "line 2: std: got 'nan'; write a finite number"),
        ("level,mean,std\n0,0,0\n1,1e999,0\n", "line 3: mean: got '1e999'; write a finite number"),
        ("level,mean,std\n0.5,0,0\n", "line 2: level: got '0.5'; levels are whole numbers from 0"),
        ("states,mean,std\n-1,0,0\n", "line 2: states: got '-1'; levels are whole numbers from 0"),
        ("level,mean,std\n0,0,-1\n1,1,1\n", "level 0: std: got -1; a standard deviation is 0 or more"),
        ("level,mean,std\n0,0,0\n0,1,0\n", "level 0: given twice; give one row per level"),
        ("level,mean,std\n0,0,0\n2,1,0\n", "level 1: missing; give each level from 0 to 2"),
        ("level,mean,std\n0,0,0\n", "got 1 level; their number must be a power of two, 2 or more"),
        ("level,value\n0,0\n0,1\n", "got 1 level; their number must be a power of two, 2 or more"),
        ("level,value\n0,0\n3,1\n", "level 1: no samples; measure levels 0 to 3"),
        ('level,value\n0,"0\n', "not CSV: unexpected end of data; save it as comma-separated UTF-8 text"),
    ],
)  # fmt: skip
def test_each_mistake_in_a_file_has_its_message(csv: Path, text: str, expected: str) -> None:
    """The message has the file, the line or level, what was found, and what to do."""
    csv.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError) as error:
        fit_profile(csv, "cells", unit="level")
    assert str(error.value) == f"{csv}: {expected}"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("level,mean,std\n0,1e-6,1e-7\n1,4e-5,2e-6\n", "s"),
        ("level,mean,std\n0,1.5,1e-1\n1,40,2\n", "us"),
        ("level,value\n0,0.001\n0,0.0011\n1,0.004\n1,0.0041\n", "s"),
    ],
)
def test_the_unit_by_the_size_of_the_numbers(csv: Path, text: str, unit: str) -> None:
    """What can only be siemens or only microsiemens is taken as such, and the profile says so."""
    csv.write_text(text, encoding="utf-8")
    profile, told = fit_profile(csv, "cells"), fit_profile(csv, "cells", unit=unit)  # type: ignore[arg-type]
    assert profile.noise == told.noise
    words = {"s": "siemens", "us": "microsiemens"}[unit]
    assert profile.source.fit == f"{told.source.fit}; taken as {words} by the size of the numbers"


@pytest.mark.parametrize("text", [LEVELS, "level,value\n0,0.1\n1,0.9\n", "level,mean,std\n0,1,0\n1,1e6,0\n"])
def test_a_unit_in_doubt_is_asked_for(csv: Path, text: str) -> None:
    """Level numbers, shares of a window and what no cell has are not guessed at."""
    csv.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=r"the unit cannot be told from the numbers \(the largest is"):
        fit_profile(csv, "cells")


def test_other_numbers_of_levels(csv: Path) -> None:
    """Of five levels four are used, at about equal distances with both ends; others can be chosen."""
    means = (2.0, 11.0, 14.0, 21.0, 30.0)
    csv.write_text(
        "level,mean,std\n" + "".join(f"{n},{m},1\n" for n, m in enumerate(means)), encoding="utf-8"
    )
    profile = fit_profile(csv, "cells", unit="us")
    (term,) = profile.noise
    assert isinstance(term, TableTerm)
    assert term.levels is not None
    assert [row.mean for row in term.levels] == [2.0, 11.0, 21.0, 30.0]
    assert profile.cell_bits == 2
    assert profile.source.fit.endswith("levels 0, 1, 3, 4 of the 5 that were measured")
    (term,) = fit_profile(csv, "cells", unit="us", levels=(0, 4)).noise
    assert isinstance(term, TableTerm)
    assert term.levels is not None
    assert [row.mean for row in term.levels] == [2.0, 30.0]
    with pytest.raises(ProfileError, match="levels 0,7: choose some of 0,1,2,3,4"):
        fit_profile(csv, "cells", unit="us", levels=(0, 7))


@pytest.mark.parametrize(
    "text",
    [
        "level;mean;std\n0;0,02;0,1\n1;1,01;0,2\n2;1,97;0,2\n3;3,0;0,1\n",
        "level\tmean\tstd\n0\t0.02\t0.1\n1\t1.01\t0.2\n2\t1.97\t0.2\n3\t3.0\t0.1\n",
    ],
)
def test_semicolons_tabs_and_decimal_commas(csv: Path, text: str) -> None:
    """What spreadsheets write in other countries is the same table."""
    expected = table_of(csv)
    csv.write_text(text, encoding="utf-8")
    assert table_of(csv) == expected


def test_decimal_commas_between_commas_are_explained(csv: Path) -> None:
    """A comma cannot be both."""
    csv.write_text("level,mean,std\n0,0,02,0,1\n", encoding="utf-8")
    with pytest.raises(ProfileError, match=r"line 2: got 5 cells; give 3: .* \(decimal commas need ;"):
        table_of(csv)


def test_a_column_for_each_level(csv: Path) -> None:
    """A wide table holds samples; an empty cell is none, and a first column may hold names."""
    csv.write_text("cell;L0;L1\na;0,1;1\nb;0,2;\nc;;0,9\n", encoding="utf-8")
    assert table_of(csv).samples == ((0.1, 0.2), (1.0, 0.9))
    csv.write_text("0,1\n0.1,1\n0.2,1.1\n", encoding="utf-8")
    assert table_of(csv).samples == ((0.1, 0.2), (1.0, 1.1))


def test_a_level_that_was_measured_once_has_the_spread_of_the_others(csv: Path) -> None:
    """One value says nothing of a spread: it is pooled and said, and where there is none, asked for."""
    generator = stream(7, "fit-once")
    rows = [
        (0, 1.0),
        *((level, level + 0.1 * float(generator.standard_normal())) for level in (1, 2, 3) * 400),
    ]
    csv.write_text("level,value\n" + "\n".join(f"{n},{v!r}" for n, v in rows), encoding="utf-8")
    profile = fit_profile(csv, "cells", unit="level")
    (term,) = profile.noise
    assert isinstance(term, TableTerm)
    assert term.samples is not None
    assert np.mean(term.samples[0]) == pytest.approx(1.0, abs=1e-12)
    assert np.std(term.samples[0]) == pytest.approx(0.1, rel=0.05)
    assert "level 0 was measured once, and the spread there is that of the other levels" in profile.source.fit
    csv.write_text("level,value\n0,0.01\n1,1.02\n", encoding="utf-8")
    with pytest.raises(ProfileError, match="every level has one sample, which says nothing of its spread"):
        fit_profile(csv, "cells", unit="level")


@pytest.mark.parametrize(
    ("header", "factor", "unit"),
    [
        ("level,G (uS)", 1.0, "us"),
        ("Level,Conductance [µS]", 1.0, "us"),
        ("level,value in nS", 1e-3, "us"),
        ("level,G [S]", 1e6, "us"),
        ("level,G (mS)", 1e3, "us"),
        ("level,current (nA)", 1.0, "na"),
        ("level,current (uA)", 1e3, "na"),
    ],
)
def test_the_unit_of_the_header_is_understood(csv: Path, header: str, factor: float, unit: str) -> None:
    """In brackets or after `in`; the numbers are converted, and the profile says by what they were taken."""
    numbers = [(0, 2.0), (0, 2.2), (1, 40.0), (1, 41.0)]
    csv.write_text(header + "\n" + "\n".join(f"{n},{v / factor!r}" for n, v in numbers), encoding="utf-8")
    profile = fit_profile(csv, "cells")
    assert profile.window is not None
    assert profile.window.unit == unit
    assert (profile.window.min, profile.window.max) == (pytest.approx(2.1), pytest.approx(40.5))
    assert "by the header" in profile.source.fit
    told = {"us": "us", "na": "na"}[unit] if factor == 1.0 else None
    if told is not None:
        assert fit_profile(csv, "cells", unit=told).noise == profile.noise  # type: ignore[arg-type]


def test_siemens_in_the_header_and_as_the_unit_are_the_same(csv: Path) -> None:
    """What is said twice in one way is taken once."""
    csv.write_text("level,mean (S),std (S)\n0,1e-6,1e-7\n1,4e-5,2e-6\n", encoding="utf-8")
    assert fit_profile(csv, "cells", unit="s").noise == fit_profile(csv, "cells").noise


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("level,G (kOhm)\n0,1\n1,2\n", None, r"header: 'g \(kohm\)': 'kohm' is no unit of it; use S, mS, uS"),
        ("level,mean (uS),std (nS)\n0,1,1\n", None, "give all columns after the level in one unit"),
        ("level,mean (uS),std\n0,1,1\n", None, "give all columns after the level in one unit"),
        ("level,G (uS)\n0,1\n1,2\n", "s", "header: the numbers are in us, and the unit that is given is s"),
        (
            "level,mean,std\n0,1,0\n1,40,1\n",
            "s",
            r"unit s: the largest number is 40, .* is the unit us or na\?",
        ),
        ("level,mean,std\n0,1e-6,0\n1,4e-5,1e-6\n", "us", r"unit us: the largest number is 4e-05.* unit s\?"),
        (
            "level,mean,std\n0,1,0\n1,40,1\n",
            "level",
            r"unit level: the largest number is 40, .* unit us or na",
        ),
        ("level,mean,std\n0,0,0\n1,40,1\n", "full_scale", "unit full_scale: the largest number is 40"),
        (
            "level;mean;std\n0;0,02;0,1\n1;1.010;0,2\n",
            "level",
            r"line 3: got '1\.010' in a file with decimal commas",
        ),
    ],
)
def test_units_and_numbers_that_contradict_each_other_are_refused(
    csv: Path, text: str, unit: str | None, said: str
) -> None:
    """An unknown or second unit, a size that no cell has in it, dots beside decimal commas."""
    csv.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=said):
        fit_profile(csv, "cells", unit=unit)  # type: ignore[arg-type]


def test_a_falling_table_has_no_window(csv: Path) -> None:
    """In absolute units the conductance must grow with the level."""
    csv.write_text("level,mean,std\n0,3,0\n1,1,0\n", encoding="utf-8")
    with pytest.raises(
        ProfileError, match="window: level 0 at 3 and the top level at 1; the conductance must grow"
    ):
        fit_profile(csv, "cells", unit="us")


def test_a_window_needs_an_absolute_unit(csv: Path) -> None:
    """In level units there is no window to give."""
    with pytest.raises(
        ProfileError, match="a window is for the units us, na and s, got 'level'; leave it out"
    ):
        fit_profile(csv, "cells", unit="level", window=(0.0, 1.0))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder, and bytes that are not text."""
    with pytest.raises(ProfileError, match="no such file; name a CSV file with the header level,mean,std"):
        fit_profile(tmp_path / "none.csv", "cells")
    with pytest.raises(ProfileError, match="no such file"):
        fit_profile(tmp_path, "cells")
    (tmp_path / "bytes.csv").write_bytes(b"level,mean\xff")
    with pytest.raises(ProfileError, match="not CSV: it is not text"):
        fit_profile(tmp_path / "bytes.csv", "cells")


def test_too_many_samples_are_refused(csv: Path) -> None:
    """A profile stays below 1 MiB."""
    csv.write_text("level,value\n" + "0,0.123456789\n1,1.123456789\n" * 50_000, encoding="utf-8")
    with pytest.raises(
        ProfileError, match="100000 samples make a profile above 1 MiB; give fewer, or level,mean,std"
    ):
        fit_profile(csv, "cells", unit="level")


def test_a_bad_name_is_refused(csv: Path) -> None:
    """The name is checked as in a file."""
    with pytest.raises(ProfileError, match="as a profile: name: 'My Cells' is not a name"):
        fit_profile(csv, "My Cells", unit="level")
