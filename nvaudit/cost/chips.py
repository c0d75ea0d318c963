"""The energy of simulated chips: their devices conduct more or less than they were meant to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.cost.crossbars import Conductances, ReadCycle, conductances, power_per_siemens, read_of
from nvaudit.cost.design import DesignPoint
from nvaudit.cost.workload import CostLayer, ModelWorkload, QuantisedCodes, drive_of_rows, quantised
from nvaudit.device import OperatingPoint
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import DeviceArray, held_levels
from nvaudit.model.layout import matrix_layout
from nvaudit.perturb.cells import draw_cells, refuse_noise_on_weights
from nvaudit.perturb.chip import MappedTensor, TensorLaw
from nvaudit.technology import Technology


def chip_energies(
    workload: ModelWorkload,
    technology: Technology,
    point: DesignPoint,
    operating: OperatingPoint,
    energy_j: float,
    *,
    chips: int,
    seed: int = 0,
    each: Callable[[int], None] | None = None,
) -> Floats:
    """Energy of an inference on each of the first chips of an audit.

    Only devices differ between chips: what they take on one, by the conductances that were drawn, replaces
    what they take as programmed.

    Parameters
    ----------
    operating : OperatingPoint
        What chips are drawn from.
    energy_j : float
        Of the devices as programmed, with everything else (:func:`nvaudit.cost.estimate.cost_of`).
    each : callable, optional
        Called with the number of chips that are done.

    Returns
    -------
    ndarray, float64, shape (chips,)
        Joules.

    Raises
    ------
    OptionError
        If conductances are not known, or noise is stated for weights and not for devices.
    """
    mode = point.input_mode or technology.input_mode
    read = read_of(technology, point.crossbar, mode, point.input_bits, point.adc_bits)
    levels = conductances(point.device, technology, point.g_max_us, point.on_off)
    watts = power_per_siemens(technology)
    if levels is None or watts is None:
        whose = point.device.name if levels is None else technology.name
        raise OptionError(
            f"--energy-chips: {whose} does not say what devices conduct, so no chip differs from another"
        )
    refuse_noise_on_weights(operating, "--energy-chips")
    drawn = [
        _Drawn(
            layer, quantised(workload, layer, point.device, point.placement), point, operating, levels, read
        )
        for layer in workload.layers
    ]
    aimed = sum(one.layer.vectors * one.sum_of(None, seed) for one in drawn)
    energies = np.empty(chips)
    for trial in range(chips):
        summed = sum(one.layer.vectors * one.sum_of(trial, seed) for one in drawn)
        energies[trial] = energy_j + watts * read.conducts * (summed - aimed)
        if each is not None:
            each(trial + 1)
    return energies


class _Drawn:
    """One layer, to be drawn again and again."""

    def __init__(
        self,
        layer: CostLayer,
        one: QuantisedCodes,
        point: DesignPoint,
        operating: OperatingPoint,
        levels: Conductances,
        read: ReadCycle,
    ) -> None:
        self.layer, self.levels = layer, levels
        self.array: DeviceArray = one.array(point.device)
        code = one.codes(point.device)
        skip = point.crossbar.rows if point.skip_zero_groups else None
        tensor = MappedTensor(
            layer.key, code, np.float32(1) * np.ones((), np.float32), self.array, one.peak, layer.lines, skip
        )
        self.law = TensorLaw(tensor, operating, keep_tables=False)
        self.code = code
        self.drive = drive_of_rows(layer, layer.inputs.drive(read.mode, read.input_bits))

    def sum_of(self, trial: int | None, seed: int) -> float:
        """``Σ_i m_i Σ_j G_ij`` on one chip; None: as programmed."""
        drawn = None if trial is None else draw_cells(self.law, seed, trial).levels
        skipped = self.law.skipped
        layout = matrix_layout(self.code.shape, self.law.tensor.lines.axes)
        total = 0.0
        for number, held in enumerate(held_levels(self.code, self.array)):
            level: NDArray[np.floating] | NDArray[np.integer] = held.level
            if drawn is not None:
                # Drawn levels have the sign with which a column adds them up; of the device itself it is off.
                sign = held.sign if isinstance(held.sign, np.ndarray) else 1.0
                level = drawn[number] * sign
            g = self.levels.of_level(level, self.array)
            if skipped is not None:
                g[skipped] = 0.0
            matrix = layout.apply(g)
            if self.drive.shape[1] > 1:
                sums = matrix.reshape(matrix.shape[0], self.drive.shape[1], -1).sum(axis=2)
                total += float((sums * self.drive).sum())
            else:
                total += float(matrix.sum(axis=1) @ np.broadcast_to(self.drive[:, 0], matrix.shape[0]))
        return total
