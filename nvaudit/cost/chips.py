"""The energy of single chips, simulated or measured: devices conduct more or less than they were meant to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.cost.crossbars import Conductances, ReadCycle, conductances, power_per_siemens, read_of
from nvaudit.cost.design import DesignPoint
from nvaudit.cost.workload import CostLayer, ModelWorkload, QuantisedCodes, drive_of_rows, quantised
from nvaudit.device import OperatingPoint
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import DeviceArray, Held, held_levels
from nvaudit.model.layout import matrix_layout
from nvaudit.perturb.cells import draw_cells, refuse_noise_on_weights
from nvaudit.perturb.chip import MappedTensor, TensorLaw
from nvaudit.technology import Technology

AnyLevels: TypeAlias = NDArray[np.floating] | NDArray[np.integer]


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
    refuse_noise_on_weights(operating, "--energy-chips")
    devices = _Devices(workload, technology, point, operating, "--energy-chips")
    energies = np.empty(chips)
    for trial in range(chips):
        energies[trial] = energy_j + devices.more(one.drawn(seed, trial) for one in devices.layers)
        if each is not None:
            each(trial + 1)
    return energies


def measured_energies(
    workload: ModelWorkload,
    technology: Technology,
    point: DesignPoint,
    operating: OperatingPoint,
    energy_j: float,
    chips: Sequence[Mapping[str, NDArray[np.floating]]],
) -> Floats:
    """Energy of an inference on chips whose conductances were read back.

    Parameters
    ----------
    energy_j : float
        Of the devices as programmed, with everything else.
    chips : sequence of mapping of str to ndarray, shape (device, *weight)
        By the key of the weight: conductances in the unit of the device's window.

    Returns
    -------
    ndarray, float64, shape (chips,)
        Joules.

    Raises
    ------
    OptionError
        If it is not known what levels are in siemens.
    """
    devices = _Devices(workload, technology, point, operating, "--chip")
    return np.array([energy_j + devices.more(one.read(chip) for one in devices.layers) for chip in chips])


class _Devices:
    """All layers, and what their devices take on a chip beyond what they take as programmed."""

    def __init__(
        self,
        workload: ModelWorkload,
        technology: Technology,
        point: DesignPoint,
        operating: OperatingPoint,
        option: str,
    ) -> None:
        mode = point.input_mode or technology.input_mode
        read = read_of(technology, point.crossbar, mode, point.input_bits, point.adc_bits)
        levels = conductances(point.device, technology, point.g_max_us, point.on_off)
        watts = power_per_siemens(technology)
        if levels is None or watts is None:
            whose = point.device.name if levels is None else technology.name
            raise OptionError(
                f"{option}: {whose} does not say what devices conduct, so no chip differs from another"
            )
        self.joules = watts * read.conducts
        self.layers = [
            _LayerDevices(
                layer, quantised(workload, layer, point.device, point.placement), point, operating, levels,
                read,
            )
            for layer in workload.layers
        ]  # fmt: skip
        self.aimed = self._summed(None for _ in self.layers)

    def more(self, levels: Iterable[Sequence[AnyLevels] | None]) -> float:
        """Joules beyond those as programmed, of devices at the levels of each layer."""
        return self.joules * (self._summed(levels) - self.aimed)

    def _summed(self, levels: Iterable[Sequence[AnyLevels] | None]) -> float:
        return sum(one.layer.vectors * one.summed(at) for one, at in zip(self.layers, levels, strict=True))


class _LayerDevices:
    """The devices of one layer."""

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

    def drawn(self, seed: int, trial: int) -> list[AnyLevels]:
        """Levels of the devices of a simulated chip."""
        drawn = draw_cells(self.law, seed, trial).levels
        # Drawn levels have the sign with which a column adds them up; of the device itself it is off.
        signs = [held.sign if isinstance(held.sign, np.ndarray) else 1.0 for held in self._held()]
        return [level * sign for level, sign in zip(drawn, signs, strict=True)]

    def read(self, chip: Mapping[str, NDArray[np.floating]]) -> list[AnyLevels]:
        """Levels of the devices of a chip that was read back."""
        return [(device - self.array.g_min) / self.array.step for device in chip[self.layer.key]]

    def _held(self) -> list[Held]:
        return list(held_levels(self.code, self.array))

    def summed(self, levels: Sequence[AnyLevels] | None) -> float:
        """``Σ_i m_i Σ_j G_ij`` of devices at given levels; None: as programmed."""
        layout = matrix_layout(self.code.shape, self.law.tensor.lines.axes)
        total = 0.0
        for level in [held.level for held in self._held()] if levels is None else levels:
            g = self.levels.of_level(level, self.array)
            if self.law.skipped is not None:
                g[self.law.skipped] = 0.0
            matrix = layout.apply(g)
            if self.drive.shape[1] > 1:
                sums = matrix.reshape(matrix.shape[0], self.drive.shape[1], -1).sum(axis=2)
                total += float((sums * self.drive).sum())
            else:
                total += float(matrix.sum(axis=1) @ np.broadcast_to(self.drive[:, 0], matrix.shape[0]))
        return total
