"""A design point, and what a model costs there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nvaudit.device import DeviceProfile
from nvaudit.mapping.tiling import Crossbar
from nvaudit.perturb.choose_codes import ChosenCodes
from nvaudit.perturb.prepare import Placement
from nvaudit.technology import InputMode

COMPONENTS = (
    "crossbar", "driver", "mux", "adc", "shift_add", "accumulator", "buffer", "htree", "noc", "digital",
    "static",
)  # fmt: skip
"""``crossbar``: devices and word lines; ``static``: leakage and what is always on."""


@dataclass(frozen=True)
class DesignPoint:
    """One way to build the hardware.

    Attributes
    ----------
    device : DeviceProfile
        With the bits, cells and encoding that are asked for.
    input_mode : str or None
        How inputs drive rows; None: as the technology has it.
    copies : int
        Copies of the layer with most input vectors; others have as many as keep pace.
    pipelined : bool
        Whether layers work on different samples at a time.
    g_max_us, on_off : float or None
        Of a device whose profile is in levels.
    """

    device: DeviceProfile
    crossbar: Crossbar
    adc_bits: int
    input_bits: int = 8
    input_mode: InputMode | None = None
    per_channel: bool = False
    skip_zero_groups: bool = False
    codes: ChosenCodes | None = None
    digital_outliers: float | None = None
    copies: int = 1
    pipelined: bool = False
    g_max_us: float | None = None
    on_off: float | None = None

    @property
    def placement(self) -> Placement:
        """How weights are quantised."""
        device = self.device
        rows = self.crossbar.rows if self.skip_zero_groups else None
        return Placement(
            device.weight_bits,
            device.cell_bits,
            device.encoding,
            self.per_channel,
            rows,
            self.codes,
            self.digital_outliers,
        )


@dataclass
class Part:
    """Share of a component, or of a layer."""

    energy_j: float = 0.0
    latency_s: float = 0.0
    area_m2: float = 0.0

    def add(self, other: Part) -> None:
        """Add another one up."""
        self.energy_j += other.energy_j
        self.latency_s += other.latency_s
        self.area_m2 += other.area_m2


@dataclass(frozen=True)
class LayerCost:
    """One layer; that which is fed to the model before any layer is named ``(input)``.

    Attributes
    ----------
    crossbars, tiles, copies : int
        Of all copies together; copies.
    conversions : float
        Of its ADCs in one inference.
    utilisation : float
        Share of the devices of its crossbars that are in use.
    """

    name: str
    op: str
    crossbars: int
    tiles: int
    copies: int
    conversions: float
    utilisation: float
    components: Mapping[str, Part]

    @property
    def total(self) -> Part:
        """All components."""
        total = Part()
        for part in self.components.values():
            total.add(part)
        return total


@dataclass(frozen=True)
class HardwareCost:
    """What a model costs at a design point.

    Attributes
    ----------
    latency_s : float
        From a sample's input to its result.
    interval_s : float
        From one result to the next.
    operations : float
        2 × multiply-accumulates of an inference.
    factor, ranking : float
        Absolute numbers hold within ×/÷ the first, a ranking within the second.
    """

    layers: tuple[LayerCost, ...]
    components: Mapping[str, Part]
    latency_s: float
    interval_s: float
    operations: float
    crossbars: int
    tiles: int
    conversions: float
    utilisation: float
    factor: float
    ranking: float
    not_modelled: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def energy_j(self) -> float:
        """Of one inference."""
        return sum(part.energy_j for part in self.components.values())

    @property
    def area_m2(self) -> float:
        """Of the chip."""
        return sum(part.area_m2 for part in self.components.values())

    @property
    def edp_js(self) -> float:
        """Energy times latency."""
        return self.energy_j * self.latency_s

    @property
    def tops(self) -> float:
        """Operations a second, in 10¹²."""
        return self.operations / self.interval_s * 1e-12 if self.interval_s else 0.0

    @property
    def tops_per_w(self) -> float:
        """Operations a joule, in 10¹²."""
        return self.operations / self.energy_j * 1e-12 if self.energy_j else 0.0

    @property
    def tops_per_mm2(self) -> float:
        """Operations a second and square millimetre, in 10¹²."""
        return self.tops / (self.area_m2 * 1e6) if self.area_m2 else 0.0

    @property
    def power_w(self) -> float:
        """While inferences follow one another."""
        return self.energy_j / self.interval_s if self.interval_s else 0.0

    @property
    def inferences_per_s(self) -> float:
        """One after another."""
        return 1.0 / self.interval_s if self.interval_s else 0.0
