"""Chips as conductances: what a simulated chip would be read back as, and the weights that a real one makes.

Conductances are added up in the precision that their file has. Of chips that are drawn device by device in
single precision the same operations follow on the same numbers, so that the weights are the same bit for bit.
Where one normal is drawn for each weight, devices are drawn on the condition that they add up to it, which
rounding only nearly keeps; they are then given in double precision, with what is left over, a few units in
the last place of single precision, on the device that counts least.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import OperatingPoint
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import held_levels
from nvaudit.mapping.tiling import device_columns
from nvaudit.perturb.cells import Cells, cells_of, draw_cells, refuse_noise_on_weights, without_skipped
from nvaudit.perturb.chip import Device, DrawnWeights, TensorLaw, added_up, blocks
from nvaudit.perturb.common import BlockIndex
from nvaudit.perturb.workload import ReadBack
from nvaudit.rng import ChipAddress

HeldConductances = NDArray[np.floating]

_ROUNDS = 3
"""Each takes what is left over to the rounding of the sum before it; the second finds nothing, as a rule."""


def check_devices(point: OperatingPoint, option: str) -> None:
    """Refuse what conductances of devices cannot express.

    Raises
    ------
    OptionError
        Naming the option.
    """
    if point.drift_compensation:
        raise OptionError(
            f"{option} and --drift-compensation: choose one; the factor needs the conductances before they "
            "drifted, and `nvaudit calibrate` finds one from samples"
        )
    refuse_noise_on_weights(point, option)


def simulated_conductances(
    law: TensorLaw, seed: int, trial: ChipAddress, converters: bool
) -> HeldConductances:
    """Draw chip ``trial`` as conductances, without the noise of reading them.

    Parameters
    ----------
    converters : bool
        Whether column sums are converted: then devices are exactly those that the converters see, else they
        add up exactly to the weights.

    Returns
    -------
    ndarray, shape (device, *weight)
        float32 where an audit draws device by device, float64 where it draws weights.
    """
    tensor, array = law.tensor, law.tensor.array
    if law.collapsed is None:
        streams = law.streams(seed, trial)
        out = np.empty((device_columns(array), *tensor.code.shape), np.float32)
        for _, block, _ in blocks(tensor.code, tensor.scale):
            for d, device in enumerate(law.devices(tensor.code[block], block, streams)):
                out[(d, *block)] = device.conductance
        return out
    g = draw_cells(law, seed, trial).levels.astype(np.float64)
    if array.encoding != "differential":  # there the levels of both columns are positive already
        for _, block, _ in blocks(tensor.code, tensor.scale):
            for d, held in enumerate(held_levels(tensor.code[block], array)):
                g[(d, *block)] *= held.sign
    g = array.g_min + g * array.step
    if not converters:
        weights = law.draw(seed, trial).weights.astype(np.float64)
        for _, block, scale in blocks(tensor.code, tensor.scale):
            _settle(law, g[(slice(None), *block)], block, weights[block], scale.astype(np.float64))
    return g


def _settle(
    law: TensorLaw,
    g: NDArray[np.float64],
    block: BlockIndex,
    weights: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> None:
    """Give the device that counts least what the devices of a weight fall short of it; ``g`` is changed."""
    code, array = law.tensor.code[block], law.tensor.array
    # W = s (c + Σ ± f_d Δg_d / step), so Δg_0 ← Δg_0 ± (W/s − c − Σ …) step / f_0.
    wanted = weights / np.where(scale > 0, scale, 1.0) - code
    first = next(iter(held_levels(code, array)))
    per_value = first.sign * array.step / first.significance
    for _ in range(_ROUNDS):
        deviation, _ = added_up(_devices(law, g, None, block), code.shape, array, np.float64)
        g[0] += np.where(scale > 0, (wanted - deviation) * per_value, 0.0)


def _devices(
    law: TensorLaw, g: HeldConductances, variance: HeldConductances | None, block: BlockIndex
) -> Iterator[Device]:
    """Devices of a block of weights, from its conductances, shape (device, *block)."""
    target = law.setting.target.astype(g.dtype)
    for number, held in enumerate(held_levels(law.tensor.code[block], law.tensor.array)):
        there = np.asarray(g[number])
        reads = law.read_spreads(held.level, there) if variance is None else [np.sqrt(variance[number])]
        yield Device(held, there, there - target[held.level], reads)


def weights_of(law: TensorLaw, chip: ReadBack, seed: int, trial: ChipAddress) -> DrawnWeights:
    """Give the weights that the devices of a tensor add up to.

    Parameters
    ----------
    law : TensorLaw
        Says what was to be programmed, and of one read the noise.
    seed, trial : int
        Of reads that are frozen: drawn once, where the graph cannot draw them.
    """
    g, variance = chip.conductance.open(), None if chip.variance is None else chip.variance.open()

    def drawn(block: BlockIndex) -> tuple[HeldConductances, HeldConductances]:
        part = (slice(None), *block)
        devices = _devices(law, g[part], None if variance is None else variance[part], block)
        return added_up(devices, law.tensor.code[block].shape, law.tensor.array, g.dtype.type)

    draw = law.read(drawn, variance is not None or law.has_reads, seed, trial)
    if law.skipped is not None:
        draw.weights[law.skipped] = 0
        if draw.read_variance is not None:
            draw.read_variance[law.skipped] = 0
    return draw


def cells_on(law: TensorLaw, chip: ReadBack) -> Cells:
    """Give the devices of a tensor as converters see them."""
    g, variance = chip.conductance.open(), None if chip.variance is None else chip.variance.open()

    def devices(block: BlockIndex) -> Iterator[Device]:
        part = (slice(None), *block)
        return _devices(law, g[part], None if variance is None else variance[part], block)

    return without_skipped(law, cells_of(law, devices, g.dtype.type))
