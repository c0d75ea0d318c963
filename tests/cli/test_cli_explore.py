"""`nvaudit explore`: exit codes, outputs, and what is said of wrong options, on the example."""

import json

import pytest

SMALL = (
    "--device", "fefet1", "-t", "cmos_22nm_neurosim", "-n", "6", "-k", "20", "--limit", "30", "--quiet",
    "--workers", "0", "--crossbar", "64x64", "--cell-bits", "2", "--adc-bits", "4,6",
)  # fmt: skip


def test_a_front_in_every_form(command, example, tmp_path):
    """One run writes them all; the table has a row for each point and a column for each axis."""
    paths = {name: tmp_path / name for name in ("r.json", "r.md", "r.csv", "r.xml")}
    ran = command(
        "explore", example, *SMALL, "-o", paths["r.json"], "--markdown", paths["r.md"],
        "--csv", paths["r.csv"], "--junit", paths["r.xml"],
    )  # fmt: skip
    assert ran.code == 0, ran.err
    report = json.loads(paths["r.json"].read_text(encoding="utf-8"))
    assert (report["kind"], report["technology"]) == ("explore", "cmos_22nm_neurosim")
    head, *rows = paths["r.csv"].read_text(encoding="utf-8").splitlines()
    assert len(rows) == len(report["points"]) == 2
    assert {"crossbar", "adc_bits", "cost_energy_j", "status"} <= set(head.split(","))
    assert report["points"][0]["cost"]["energy_j"] <= report["points"][1]["cost"]["energy_j"]
    assert "The front" in paths["r.md"].read_text(encoding="utf-8")


def test_the_command_of_a_point_audits_it(command, example):
    """It runs as it stands, and gives the KPP of the point, with its cost."""
    ran = command("explore", example, *SMALL, "--report", "-")
    report = json.loads(ran.out)
    point = next(p for p in report["points"] if p["number"] == report["recommended"])
    words = point["command"].split()
    assert words[:2] == ["nvaudit", "audit"]
    alone = json.loads(
        command(*words[1:], "--no-roughness", "--workers", "0", "--quiet", "--report", "-").out
    )
    assert alone["kpp"][0]["value"] == point["kpp"]["value"]
    assert alone["cost"]["totals"]["energy_j"] == pytest.approx(point["cost"]["energy_j"], rel=1e-9)


def test_no_point_is_enough(command, example):
    """Exit 1, and the reason stands first."""
    ran = command("explore", example, *SMALL, "--min-kpp", "1")
    assert ran.code == 1
    assert ran.out.startswith("of 2 points, no point reaches KPP 20 % 100 %")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--adc-bits", "4:x"], "--adc-bits: got '4:x'; use whole numbers from 2 to 16"),
        (["--input-mode", "bit_serial"], "an audit simulates inputs as one voltage"),
        (["--technology", "nowhere"], "nowhere"),
        (["--baseline", "adc=3"], "--baseline: got 'adc=3'; write AXIS=VALUE"),
        (["--max-energy", "0"], "--max-energy: got 0"),
        (["--min-kpp", "88"], "for 88 % write 0.88"),
        (["--sigma", "0.1", "--sigma", "0.2"], "--sigma: got 2 values; an exploration has one"),
    ],
)
def test_bad_input(command, example, words, wanted):
    """Exit 2, naming the option, what was found and what may be given; nothing runs."""
    ran = command("explore", example, *SMALL, *words)
    assert ran.code == 2
    assert wanted in " ".join(ran.err.split())


def test_a_technology_must_be_named(command, example):
    """Without one there are no costs; the bundled ones are listed."""
    words = [word for word in SMALL if word not in ("-t", "cmos_22nm_neurosim")]
    ran = command("explore", example, *words)
    assert ran.code == 2
    assert "--technology: missing; give one of cmos_22nm_neurosim" in " ".join(ran.err.split())


def test_the_space_is_not_overwritten(command, example, tmp_path):
    """No output may be the file of the design space."""
    space = tmp_path / "space.json"
    space.write_text('{"adc_bits": 4}')
    ran = command("explore", example, *SMALL, "--space", space, "-o", space)
    assert ran.code == 2
    assert "this is the design space" in " ".join(ran.err.split())
