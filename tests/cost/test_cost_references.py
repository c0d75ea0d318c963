"""Ours beside published numbers: NeuroSim's, ISAAC's, a chip's."""

import pytest
from reference_network import as_neurosim, reference_device, reference_workload

from nvaudit.cost.design import DesignPoint, HardwareCost
from nvaudit.cost.estimate import cost_of
from nvaudit.mapping.tiling import Crossbar
from nvaudit.technology import Technology

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
