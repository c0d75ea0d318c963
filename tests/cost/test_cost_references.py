"""Ours beside published numbers: NeuroSim's, ISAAC's, a chip's."""

import pytest
from reference_network import as_neurosim, reference_device, reference_workload

from nvaudit.cost.design import DesignPoint, HardwareCost
from nvaudit.cost.estimate import cost_of
from nvaudit.cost.peak import peaks_of
from nvaudit.device import load_profile, override_profile
from nvaudit.mapping.tiling import Crossbar
from nvaudit.technology import Technology, load_technology

MICRO = 1e-6
AT_45_NM = {
    "supply": 1.0, "cell__area": 0.0972, "cell__wordline_capacitance": 163, "read__sense__power": 0.1002,
    "row_driver__energy": 20.6, "row_driver__area": 7.88, "row_driver__level_shifter": 50.4,
    "mux__area": 5.44, "mux__select_area": 6.30, "adc__power_per_bit": 2.1691, "adc__power": 16.693,
    "adc__area": 520, "shift_add__add": 4.56, "shift_add__register_bit": 9.09,
    "shift_add__weight_area": 83.5, "shift_add__input_area": 150, "buffer__read": 18.9,
    "buffer__write": 2.62, "buffer__area": 5.21, "htree__bit": 68.2,
}  # fmt: skip
"""NeuroSim's own circuits at 45 nm."""


def neurosim(technology: Technology) -> HardwareCost:
    """The reference network on crossbars of 64 × 64 with 5-bit ADCs."""
    return cost_of(reference_workload(), technology, DesignPoint(reference_device(), Crossbar(64, 64), 5))


def energies(cost: HardwareCost) -> dict[str, float]:
    return {name: part.energy_j / MICRO for name, part in cost.components.items()}


def test_a_resnet20_takes_what_neurosim_says() -> None:
    """Reference 2: ADC group and accumulation within 5 %, interconnect within 25 %, at 22 nm."""
    cost = neurosim(as_neurosim())
    found = energies(cost)
    assert found["crossbar"] + found["adc"] == pytest.approx(1.066, rel=0.05)
    assert found["shift_add"] + found["accumulator"] == pytest.approx(0.795, rel=0.05)
    assert found["driver"] == pytest.approx(0.828, rel=0.05)
    assert found["buffer"] == pytest.approx(0.223, rel=0.05)
    assert found["htree"] == pytest.approx(1.657, rel=0.25)
    assert sum(found.values()) - found["static"] == pytest.approx(4.564, rel=0.05)
    assert cost.area_m2 * 1e6 == pytest.approx(3.140, rel=0.05)


def test_a_resnet20_at_45_nm_takes_what_neurosim_says() -> None:
    """Reference 3: energy and area within 10 %."""
    cost = neurosim(as_neurosim(**AT_45_NM))
    found = energies(cost)
    assert sum(found.values()) - found["static"] == pytest.approx(14.90, rel=0.1)
    assert cost.area_m2 * 1e6 == pytest.approx(14.45, rel=0.1)


def test_isaac_all_in_use_takes_what_its_table_says() -> None:
    """Reference 1: PE (its IMA), tile and chip within 0.5 %; 16-bit inputs, weights of 8 slices."""
    device = override_profile(load_profile("rram"), weight_bits=8, cell_bits=1)
    pe, tile, chip = peaks_of(load_technology("cmos_32nm_isaac"), device, Crossbar(128, 128), 8, 16)
    assert (pe.power_w, pe.area_m2) == (
        pytest.approx(24.08e-3, rel=5e-3),
        pytest.approx(0.01312e-6, rel=5e-3),
    )
    assert (tile.power_w, tile.area_m2) == (pytest.approx(0.330, rel=5e-3), pytest.approx(0.372e-6, rel=5e-3))
    assert (chip.power_w, chip.area_m2) == (pytest.approx(65.8, rel=5e-3), pytest.approx(85.4e-6, rel=5e-3))
    assert chip.operations_per_s / chip.power_w == pytest.approx(627.5e9, rel=5e-3)
