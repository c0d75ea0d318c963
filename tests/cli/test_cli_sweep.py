"""`nvaudit audit` with several values of an option: a sweep."""

import csv
import json
from pathlib import Path

import pytest

from nvaudit.errors import EXIT_BAD_INPUT, EXIT_GATE, EXIT_OK


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Files are written into a folder of the test."""
    monkeypatch.chdir(tmp_path)


QUICK = ("--limit", 40, "-n", 12, "-j", 0, "-q")


def test_one_command_one_table(command, example):
    """ADC bits x crossbars x times come as one CSV with one row each, and the page has a figure of them."""
    ran = command(
        "audit", example, "-d", "pcm", "--adc-bits", "4:5", "--crossbar", "32x32,64x64", "--time", "0,1y",
        *QUICK[:-1], "-n", 2, "--limit", 10, "--csv", "t.csv", "--html", "p.html", "-o", "s.json",
    )  # fmt: skip
    assert ran.code == EXIT_OK
    with Path("t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["time_s"], row["crossbar"], row["adc_bits"]) for row in rows] == [
        (time, size, bits) for time in ("0.0", "31557600.0") for size in ("32x32", "64x64") for bits in "45"
    ]
    assert "nvaudit: 8 audits of 2 chips: about " in ran.err
    page = Path("p.html").read_text(encoding="utf-8")
    assert "KPP over ADC bits with its interval, a line for each time and crossbar" in page
    report = json.loads(Path("s.json").read_text(encoding="utf-8"))
    assert report["kind"] == "sweep"
    # What is the same everywhere stands in the headline, what differs in the names of the combinations.
    assert "; on pcm, sigma 1 us, " not in report["headline"]
    said = report["headline"].split("2 chips each; ")[1]
    assert said.startswith("on pcm, sigma ")
    assert said.endswith("; 100 % of the products on the array")
    assert "crossbar" not in said
    assert "after programming" not in said


def test_terminal_has_80_columns(command, example, monkeypatch):
    """Every combination is one line of a table that fits."""
    monkeypatch.setenv("COLUMNS", "80")
    ran = command("audit", example, "-d", "rram", "-d", "fefet1", "--cell-bits", "1,2", *QUICK)
    assert ran.code == EXIT_OK
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(("  rram, ", "  fefet1, ")) for line in lines) == 4


def test_gate(command, example):
    """One combination that fails fails the command; each has its own test case."""
    ran = command(
        "audit", example, "--sigma", "0,0.4", "--bits", "7,6", "--min-kpp", "95%", "--limit", 40, "-n", 400,
        "-j", 0, "-q", "--junit", "j.xml",
    )  # fmt: skip
    assert ran.code == EXIT_GATE
    assert ran.out.startswith("FAIL: ")
    assert Path("j.xml").read_text(encoding="utf-8").count("<testcase") == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--time", "0,1d"), "time 1 d: time: 86400 s: profile 'rram' does not change with time"),
        (("--crossbar", "8x8,9x9"), "without --adc-bits all of these are the same chips"),
        (("--bits", "4,5", "--plan"), "--plan and several values: choose one"),
        (("--adc-bits", "8:4"), "--adc-bits: 8:4 runs backwards; write 4:8"),
        (("--adc-bits", "4:8:0"), "--adc-bits: 4:8:0 has no step"),
        (("--adc-bits", "4;8"), "--adc-bits: got '4;8'"),
        (("--adc-bits", "4:"), "use a whole number from 2 to 16, or several, such as 4,6,8 or 4:8"),
        (
            ("-d", "rram,pcm"),
            "'rram,pcm' names several profiles; `nvaudit audit` takes them as --device rram --device pcm",
        ),
    ],
)
def test_refused(command, example, words, said):
    """What makes no sense is named, with exit code 2."""
    ran = command("audit", example, *QUICK, *words)
    assert ran.code == EXIT_BAD_INPUT
    assert said in ran.err


def test_file_may_have_lists(command, example):
    """A list in nvaudit.toml is a sweep as well; of another command it is refused by its line."""
    Path("nvaudit.toml").write_text("[audit]\nadc-bits = [4, 6]\ncrossbar = '32x32'\n", encoding="utf-8")
    ran = command("audit", example, *QUICK, "-n", 3, "--limit", 10)
    assert ran.code == EXIT_OK
    assert "over ADC bits: 2 audits" in ran.out
    Path("nvaudit.toml").write_text("[audit]\nadc-bits = [4, 60]\n", encoding="utf-8")
    ran = command("audit", example, *QUICK)
    assert ran.code == EXIT_BAD_INPUT
    assert "nvaudit.toml, line 2: adc-bits: got 60" in ran.err
