"""Chips that were read back are costed by what their devices conduct."""

import csv
import json

import numpy as np
import pytest

CIRCUITS = ("--technology", "cmos_22nm_neurosim", "--adc-bits", 5)
NOISY = ("--device", "rram_65nm", "--sigma", 0.3)


@pytest.fixture
def chips(command, example, tmp_path):
    """Two chips with strong noise."""
    folder = tmp_path / "chips"
    assert command("map", example, *NOISY, "--simulate", 2, "-o", folder, "-q").code == 0
    return folder


def costed(command, example, tmp_path, *options):
    out = tmp_path / "cost.json"
    ran = command("cost", example, *CIRCUITS, *options, "-o", out, "-q")
    assert ran.code == 0, ran.err
    return json.loads(out.read_text()), ran.out


def test_they_take_what_the_same_simulated_chips_take(command, example, tmp_path, chips):
    """Written and read back, a chip has the energy that it has where it is drawn; the options are its own."""
    drawn, _ = costed(command, example, tmp_path, *NOISY, "--energy-chips", 2)
    read, text = costed(command, example, tmp_path, "--device", "rram_65nm", "--chip", chips)
    assert read["totals"] == drawn["totals"]
    found = [chip["energy_j"] for chip in read["measured_chips"]]
    np.testing.assert_allclose(found, drawn["chips"]["values"], rtol=1e-6)
    assert found[0] != found[1]
    for chip in read["measured_chips"]:
        assert chip["change"] == pytest.approx(chip["energy_j"] / read["totals"]["energy_j"] - 1)
    assert "Chips that were read back" in text
    tables = tmp_path / "chips.csv"
    words = ("--device", "rram_65nm", "--chip", chips, "--csv", tables, "--csv-table", "measured_chips", "-q")
    assert command("cost", example, *CIRCUITS, *words).code == 0
    with tables.open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["chip-0", "chip-1"]


def test_what_contradicts_the_chips_is_refused(command, example, tmp_path, chips):
    """Another mapping than theirs is named; devices in levels need conductances."""
    ran = command("cost", example, *CIRCUITS, "--device", "rram_65nm", "--chip", chips, "--cell-bits", 2)
    assert (ran.code, "--cell-bits" in ran.err) == (2, True)
    folder = tmp_path / "levels"
    assert command("map", example, "--device", "fefet1", "--simulate", 1, "-o", folder, "-q").code == 0
    ran = command("cost", example, *CIRCUITS, "--device", "fefet1", "--chip", folder)
    assert (ran.code, "--chip: fefet1 does not say what devices conduct" in " ".join(ran.err.split())) == (
        2,
        True,
    )
    more = ("--g-max-us", 100, "--on-off", 50)
    read, _ = costed(command, example, tmp_path, "--device", "fefet1", "--chip", folder, *more)
    assert abs(read["measured_chips"][0]["change"]) < 0.05
