"""The very noise of the audited device, for training and for scoring candidates.

Where a chip is one normal per weight (the exact collapse) this is a table over codes and one draw per
weight; otherwise the devices are drawn one by one by the code of the audit. Read noise is drawn once per
step or chip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import OperatingPoint
from nvaudit.mapping.tiling import Lines
from nvaudit.perturb.cells import draw_cells
from nvaudit.perturb.chip import MappedTensor, TensorLaw
from nvaudit.perturb.collapse import CodeLaw, collapse
from nvaudit.perturb.moments import code_moments
from nvaudit.perturb.terms import Setting, read_terms
from nvaudit.retrain.noise import relative_spread
from nvaudit.retrain.quant import ArrayPlace, Quantised
from nvaudit.rng import stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DeviceNoise:
    """Noise of one operating point; called as any other noise.

    Parameters
    ----------
    point : OperatingPoint
        Profile, sigma and time of the audit.
    """

    def __init__(self, point: OperatingPoint) -> None:
        self._point = point
        self._laws: dict[tuple[str, int], CodeLaw | None] = {}
        self._tables: dict[tuple[str, int, str], tuple[Tensor, Tensor]] = {}

    def __call__(self, place: ArrayPlace, weight: Quantised, generator: torch.Generator) -> Tensor:
        """One draw of the deviation."""
        return self.draw(place, weight, generator, 1)[0]

    def draw(self, place: ArrayPlace, weight: Quantised, generator: torch.Generator, count: int) -> Tensor:
        """Draw the deviation of a weight on several chips.

        Returns
        -------
        Tensor, shape (count, *weight)
        """
        peak = self._peak_code(place, weight)
        law = self._law(place, peak)
        if law is None:
            return self._devices(place, weight, generator, count, peak)
        import torch

        # Exact collapse: if all terms are normal the sum over a weight's devices is normal, with mean and
        # spread that depend on its code only. One draw per weight then has the law of one draw per device.
        code = weight.code
        mean, std = self._table(place, peak, law, code)
        z = torch.randn((count, *code.shape), generator=generator, dtype=code.dtype, device=code.device)
        # σ in units of the code times s: the law of a weight, s (m(c) + σ(c) z).
        if mean.ndim == 0:
            return z.mul_(std * weight.scale).add_(mean * weight.scale)
        # The tables run over codes −top … top in units of the code; the scale makes weight units of them.
        index = code.long() + law.top
        return z.mul_(std[index] * weight.scale).add_(mean[index] * weight.scale)

    def _peak_code(self, place: ArrayPlace, weight: Quantised) -> int:
        # A scale that follows the weights puts the largest at the top code; a code may take a quieter value.
        return place.top if place.follows_weights else int(weight.code.abs().amax())

    def _law(self, place: ArrayPlace, peak: int) -> CodeLaw | None:
        # Of the weights only the largest code enters a law (for spreads stated as shares of max|W|), so laws
        # are kept by it while all other codes change from step to step.
        key = (place.key, peak)
        if key not in self._laws:
            reads = read_terms(self._point, Setting.of(self._point, place.array))
            self._laws[key] = None if reads else collapse(self._point, place.array, peak)
        return self._laws[key]

    def _table(self, place: ArrayPlace, peak: int, law: CodeLaw, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread per code, as single numbers where all codes have the same."""
        import torch

        key = (place.key, peak, str(like.device))
        if key not in self._tables:
            flat = bool((law.std == law.std[0]).all() and (law.mean == law.mean[0]).all())
            tables = (law.mean[0], law.std[0]) if flat else (law.mean, law.std)
            mean, std = (torch.as_tensor(t, dtype=like.dtype, device=like.device) for t in tables)
            self._tables[key] = (mean, std)
        return self._tables[key]

    def _devices(
        self, place: ArrayPlace, weight: Quantised, generator: torch.Generator, count: int, peak: int
    ) -> Tensor:
        import torch

        seed = _seed(generator)
        law = self._chip_law(place, weight, peak)
        drawn = np.stack([law.draw(seed, trial).weights for trial in range(count)])
        return torch.as_tensor(drawn, device=weight.values.device).to(weight.values.dtype) - weight.values

    def levels(self, place: ArrayPlace, weight: Quantised, generator: torch.Generator) -> NDArray[np.float32]:
        """Draw every device of a weight on one chip, each from its own law; what is read once is drawn too.

        Returns
        -------
        ndarray, float32, shape (device, *weight)
            In level spacings above g_min, as :class:`nvaudit.perturb.cells.Cells` has them.
        """
        seed = _seed(generator)
        law = self._chip_law(place, weight, self._peak_code(place, weight))
        # Read noise has a law of its own per pass; frozen to one draw per step it is the noise of one read of
        # the whole batch, which is what a gradient step sees.
        drawn = draw_cells(law, seed, 0)
        if drawn.read_variance is None:
            return drawn.levels
        z = stream(seed, "read", 0, place.key).standard_normal(drawn.levels.shape, dtype=np.float32)
        return np.asarray(drawn.levels + np.sqrt(drawn.read_variance) * z, np.float32)

    def _chip_law(self, place: ArrayPlace, weight: Quantised, peak: int) -> TensorLaw:
        tensor = mapped_tensor(place, weight, peak)
        return TensorLaw(tensor, self._point, every_device=True, freeze_read=True, keep_tables=False)


def _seed(generator: torch.Generator) -> int:
    """A seed for the project's own streams."""
    import torch

    # Taken from the generator, which moves on by it: the next weight or step gets other devices, and a
    # training that is resumed gets the same ones.
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def mapped_tensor(place: ArrayPlace, weight: Quantised, peak: int | None = None) -> MappedTensor:
    """A weight on its grid, as the audit's code takes it."""
    code = weight.code.cpu().numpy().astype(np.int16)
    scale = weight.scale.float().cpu().numpy()
    peak = int(np.abs(code).max(initial=0)) if peak is None else peak
    return MappedTensor(place.key, code, scale, place.array, peak, Lines(place.channel_axes))


def device_sigma(point: OperatingPoint, where: Sequence[ArrayPlace], grids: Mapping[str, Quantised]) -> float:
    """Spread that the device makes of a weight, as a fraction of max|W|: root mean square over all weights.

    Parameters
    ----------
    grids : mapping of str to Quantised
        The weights on their grids.
    """
    spreads = []
    for place in where:
        grid = grids[place.key]
        held = grid.code if grid.digital is None else grid.code[~grid.digital]
        code = held.cpu().numpy().astype(np.int64)
        # With the values of a code s = max|W| / top even if the largest weight took a smaller value: max|W|
        # is top codes, not the largest code in use.
        peak = place.top if place.rounding is not None else max(1, int(np.abs(code).max(initial=0)))
        spreads.append((code_moments(point, place.array).rms(code) / peak, code.size))
    return relative_spread(spreads)
