"""A made-up price list, so that what is tested of an exploration does not depend on a technology."""

from nvaudit.report.explore.result import PointCost


class MadeUpPrices:
    """Costs by a formula: larger with ADC bits and slices, and with smaller crossbars."""

    name = "made up"

    def prepare(self, session, specs) -> None:
        self.prepared = len(specs)

    def cost(self, spec, profile) -> PointCost:
        slices = -(-profile.weight_bits // (spec.cell_bits or profile.cell_bits))
        rows = spec.crossbar[0]
        energy = 1e-9 * slices * (1 + 2.0**spec.adc_bits / 64 + 16 / rows)
        copies = spec.copies or 1
        latency = 1e-6 * slices * (1 + rows / 256) / copies
        return PointCost(
            energy_j=energy, latency_s=latency, edp_js=energy * latency,
            area_m2=1e-6 * slices * copies / rows,
            crossbars=slices, energy_by_component={"adc": 0.7 * energy, "crossbar": 0.3 * energy},
        )  # fmt: skip
