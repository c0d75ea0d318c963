"""`nvaudit cost` and `nvaudit technology`: forms, keys for scripts, and what is refused."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BASE = ("--device", "rram_65nm", "--technology", "cmos_22nm_neurosim", "--adc-bits", "5", "-q")
Command = Callable[..., Any]


def test_keys_for_scripts(command: Command, example: Path) -> None:
    """Totals, components and layers by name, with the same keys; the band; shares add up."""
    ran = command("cost", example, *BASE, "--crossbar", "64x64", "--report", "-")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["kind"] == "cost"
    totals = report["totals"]
    for key in ("energy_j", "latency_s", "area_m2", "edp_js", "tops", "tops_per_w", "utilisation"):
        assert totals[key] > 0, key
    assert totals["edp_js"] == pytest.approx(totals["energy_j"] * totals["latency_s"])
    for name in ("components", "layers"):
        assert sum(part["energy_j"] for part in report[name].values()) == pytest.approx(totals["energy_j"])
        assert sum(part["area_m2"] for part in report[name].values()) == pytest.approx(totals["area_m2"])
    assert report["band"]["factor"] == 10
    assert report["band"]["energy_j"] == [totals["energy_j"] / 10, totals["energy_j"] * 10]
    assert report["images"] > 0
    assert "of one inference" in ran.err


def test_every_form(command: Command, example: Path, tmp_path: Path) -> None:
    """Text, Markdown, page, JSON, CSV and the tables of it; the text has the band beside the headline."""
    files = {form: tmp_path / f"c.{form}" for form in ("md", "html", "json", "csv")}
    ran = command("cost", example, *BASE, "--energy-chips", "3", "--markdown", files["md"], "--html",
                  files["html"], "-o", files["json"], "--csv", files["csv"],
                  "--csv-table", "chips")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "(×/÷ 10)" in ran.out.splitlines()[0] + ran.out.splitlines()[1]
    assert all(path.stat().st_size > 50 for path in files.values())
    assert len(list(csv.DictReader(io.StringIO(files["csv"].read_text(encoding="utf-8"))))) == 3
    shown = command("report", files["json"])
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[0] == ran.out.splitlines()[0]


REFUSED = [
    (("--device", "rram"), "--technology: missing; give one of cmos_22nm_neurosim, cmos_32nm_isaac"),
    (
        ("--technology", "cmos_65nm_siam"),
        "--technology: what conversions cost depends on the ADCs; give --adc-bits",
    ),
    ((*BASE, "--g-max-us", "5"), "--g-max-us: rram_65nm states its conductances"),
    ((*BASE[2:], "--device", "fefet1", "--on-off", "5"), "--g-max-us: missing; fefet1 states levels only"),
    (
        (*BASE, "--technology-set", "adc.idle_power=9"),
        "--technology-set adc.idle_power=9: outside the valid range",
    ),
    ((*BASE, "--input-mode", "pwm"), "--input-mode pwm: cmos_22nm_neurosim has no 'read.pulse_step'"),
    ((*BASE, "--sigma", "0.1:0.3:0.1"), "--sigma: cost one operating point at a time, got 3"),
    ((*BASE[:-2], "12"), "--adc-bits 12: the ADC of this technology is known from 3 to 8 bits"),
    ((*BASE, "--layers", "nothing*"), "--layers 'nothing*' matches no weight"),
    (("--technology", "isaac", "--adc-bits", "8"), "'isaac' is not a bundled profile"),
    (
        (*BASE[2:], "--device", "rram", "--energy-chips", "4"),
        "--energy-chips: rram does not say what devices conduct",
    ),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_cannot_be_is_named(
    command: Command, example: Path, words: tuple[str, ...], message: str
) -> None:
    """Exit code 2, and the option with what was found."""
    ran = command("cost", example, *words)
    assert ran.code == 2
    assert message in " ".join(ran.err.split())
    assert ran.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--copies", "2"), "--copies is for the cost of hardware; give --technology too"),
        (("--technology", "cmos_65nm_siam"), "--technology: what conversions cost depends on the ADCs"),
        (("--technology", "cmos_65nm_siam", "--adc-bits", "5", "--input-mode", "bit_serial"),
         "--input-mode bit_serial: an audit simulates inputs as one voltage"),
    ],
)  # fmt: skip
def test_an_audit_costs_what_it_simulates(
    command: Command, example: Path, words: tuple[str, ...], message: str
) -> None:
    """Options of a cost without one, and inputs that the chips do not have, are refused before the run."""
    ran = command("audit", example, "-n", "2", "--no-roughness", "-j", "0", "-q", *words)
    assert ran.code == 2
    assert message in " ".join(ran.err.split())


def test_an_audit_reports_the_cost_beside_its_chips(command: Command, example: Path) -> None:
    """One input mode, one converter, the same crossbars; energies of the chips with their correlation."""
    ran = command("audit", example, "-n", "12", "--no-roughness", "-j", "0", "-q", "--limit", "60",
                  "--device", "rram_65nm", "--adc-bits", "5", "--technology", "cmos_65nm_siam",
                  "--energy-chips", "12",
                  "--exhaustive", "--report", "-")  # fmt: skip
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    cost = report["cost"]
    assert cost["design"]["input_mode"] == "parallel"
    assert cost["totals"]["crossbars"] == report["crossbar"]["crossbars"]
    assert len(cost["chips"]["values"]) == 12
    assert -1 <= cost["chips"]["correlation"] <= 1
    assert "Hardware cost" in ran.err


def test_technologies_are_listed_shown_and_checked(command: Command, tmp_path: Path) -> None:
    """The list names all, a technology shows every number, and a file with a fault is refused."""
    assert "cmos_32nm_isaac" in command("technology", "list").out
    shown = command("technology", "show", "cmos_32nm_isaac", "--report", "-")
    numbers = {one["path"]: one for one in json.loads(shown.out)["numbers"]}
    assert numbers["adc.rate"]["value"] == 1.28
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(json.loads(shown.out)["technology"]), encoding="utf-8")
    assert "valid: cmos_32nm_isaac" in command("technology", "validate", file).out
    file.write_text(file.read_text(encoding="utf-8").replace('"unit": "V"', '"unit": "kV"'), encoding="utf-8")
    ran = command("technology", "validate", file)
    assert ran.code == 2
    assert "supply.unit: got 'kV'; use V" in ran.err
