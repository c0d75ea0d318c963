"""What a point costs, by the equations of :mod:`nvaudit.cost`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nvaudit.cost.design import DesignPoint
from nvaudit.cost.estimate import cost_of
from nvaudit.cost.workload import ModelWorkload, measure_workload
from nvaudit.device import DeviceProfile
from nvaudit.errors import OptionError
from nvaudit.exploration.space import Settings
from nvaudit.exploration.spec import ExploreOptions
from nvaudit.mapping.tiling import Crossbar
from nvaudit.perturb.settle_codes import settle_codes
from nvaudit.report.explore.result import PointCost
from nvaudit.session import Session, settle_device
from nvaudit.spec import RunSpec
from nvaudit.technology import InputMode, Technology, load_technology

SIMULATED: InputMode = "parallel"
"""How inputs drive rows on the chips that are simulated: one voltage each, and one conversion of each sum."""


@dataclass
class TechnologyPricer:
    """Costs of points in a technology.

    Attributes
    ----------
    input_bits : int
        Of the inputs of crossbars, where no axis has them.
    g_max_us, on_off : float or None
        Of a device whose profile is in levels.
    """

    technology: Technology
    input_bits: int = 8
    pipelined: bool = False
    g_max_us: float | None = None
    on_off: float | None = None
    _session: Session | None = field(default=None, init=False)
    _workload: ModelWorkload | None = field(default=None, init=False)

    @classmethod
    def of(cls, asked: ExploreOptions) -> TechnologyPricer:
        """Take the options of an exploration."""
        technology = load_technology(asked.technology)
        return cls(technology, asked.input_bits, asked.pipelined, asked.g_max_us, asked.on_off)

    @property
    def name(self) -> str:
        """Name of the technology's profile."""
        return self.technology.name

    def prepare(self, session: Session, specs: Sequence[RunSpec]) -> None:
        """Look at the model and at the inputs of its layers, once for all points."""
        bits = {self.input_bits if spec.dac_bits is None else spec.dac_bits for spec in specs}
        self._session = session
        self._workload = measure_workload(
            session.loaded, session.rebatch, session.decisions, session.dataset, input_bits=sorted(bits)
        )

    def cost(self, spec: RunSpec, profile: DeviceProfile, settings: Settings) -> PointCost:
        """Work out the cost of a point.

        Raises
        ------
        OptionError
            If the technology cannot have it, or chips with such inputs are not simulated.
        """
        assert self._session is not None
        assert self._workload is not None
        assert spec.adc_bits is not None
        mode = settings.get("input_mode", SIMULATED)
        if mode != SIMULATED:
            raise OptionError(
                f"input_mode {mode}: the chips that are audited have {SIMULATED} inputs, and their accuracy "
                "is not that of others"
            )
        points = settle_device(spec)[1]
        cost = cost_of(
            self._workload,
            self.technology,
            DesignPoint(
                device=profile,
                crossbar=Crossbar(*spec.crossbar),
                adc_bits=spec.adc_bits,
                input_bits=self.input_bits if spec.dac_bits is None else spec.dac_bits,
                input_mode=SIMULATED,
                per_channel=spec.scale == "per_channel",
                skip_zero_groups=spec.skip_zero_groups,
                codes=settle_codes(spec, points, self._session.decisions),
                copies=settings.get("copies", 1),
                pipelined=self.pipelined,
                g_max_us=self.g_max_us,
                on_off=self.on_off,
            ),
        )
        return PointCost(
            energy_j=cost.energy_j,
            latency_s=cost.latency_s,
            area_m2=cost.area_m2,
            edp_js=cost.edp_js,
            crossbars=cost.crossbars,
            utilisation=cost.utilisation,
            energy_by_component={name: part.energy_j for name, part in cost.components.items()},
        )
