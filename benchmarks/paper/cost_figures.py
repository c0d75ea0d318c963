"""Figures 7 and 9 of the stability paper: what ResNet-20 costs on 65 nm crossbars.

    python benchmarks/paper/cost_figures.py cifar_resnet20.onnx [--data cifar_resnet20.npz]

Figure 7: energy-delay product over sparsity (groups of one output in one crossbar pruned, the smallest
first), precision (8 bits, ternary) and crossbar size. Figure 9: energy at ADCs of 5 and 8 bits over the
number of levels, as ADC, buffers and the rest, without leakage. The curves in the paper cannot be read off,
so what its text and captions say is checked, word for word (:func:`claims_7`, :func:`claims_9`), under what
the text leaves open: whether an ADC steps over columns that hold nothing (Figure 7), and the kind of ADC
(Figure 9). docs/papers.md has which claims hold where.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np

from nvaudit.cost.design import DesignPoint
from nvaudit.cost.estimate import cost_of
from nvaudit.cost.workload import CostLayer, ModelWorkload, measure_workload
from nvaudit.data import load_dataset
from nvaudit.device import load_profile, override_profile
from nvaudit.mapping.quantize import quantize
from nvaudit.mapping.select import select
from nvaudit.mapping.tiling import Crossbar, Lines, row_starts
from nvaudit.model import Weight, analyse_batch, constants, load_model
from nvaudit.model.layout import matrix_layout
from nvaudit.session import input_specs
from nvaudit.technology import Technology, load_technology
from nvaudit.technology.adc import SarAdc, SurveyAdc

SPARSITIES = (0.0, 0.3, 0.6, 0.9)
SIZES = ((72, 64), (128, 128), (256, 256))
"""Crossbars that the paper names: of its pruning, of the caption of Figure 7, of all other experiments."""

CELLS = (1, 2, 4)
TERNARY = 0.7
"""Weights below this times the mean magnitude become 0 (Li et al., ternary weight networks)."""

EdpTable: TypeAlias = dict[tuple[bool, tuple[int, int], float], float]
"""Joule seconds by ternary, crossbar and sparsity."""

Shares: TypeAlias = dict[tuple[int, int], tuple[float, float, float]]
"""Joules of ADCs, of buffers and of the rest, by ADC bits and cell bits."""


def main() -> None:
    """Print both figures, and which claims hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    workload = measured(options.model, options.data)
    for scan in ("all", "used"):
        edp = figure_7(workload, with_scan(load_technology("cmos_65nm_siam"), scan))
        print(f"\nFigure 7: EDP of ResNet-20, nJ·s; ADCs step through {scan} columns\n")
        print(f"{'precision':9} {'crossbar':>8} " + " ".join(f"{100 * s:7.0f} %" for s in SPARSITIES))
        for ternary in (False, True):
            for size in SIZES:
                row = " ".join(f"{1e9 * edp[ternary, size, s]:9.2f}" for s in SPARSITIES)
                print(f"{'ternary' if ternary else '8 bits':9} {size[0]:>4}×{size[1]:<3} {row}")
        print_claims(claims_7(edp))
    for name, technology in adc_kinds().items():
        energies = figure_9(workload, technology)
        print(f"\nFigure 9: energy of an inference, µJ; ADC: {name}\n")
        print("ADC bits  levels     ADC  buffer   other  ADC share")
        for (bits, cells), parts in energies.items():
            shown = "  ".join(f"{1e6 * part:6.2f}" for part in parts)
            print(f"{bits:8}  {2**cells:6}  {shown}  {100 * adc_share(parts):7.1f} %")
        print_claims(claims_9(energies))


def print_claims(claims: dict[str, bool]) -> None:
    """Print which hold."""
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'does NOT hold'}: {claim}")


def measured(model: Path, data: Path | None) -> ModelWorkload:
    """The model with what its layers take."""
    loaded = load_model(model)
    rebatch = analyse_batch(loaded.model)
    decisions = select(constants(loaded))
    with tempfile.TemporaryDirectory() as scratch:
        dataset = None
        if data is not None:
            dataset = load_dataset(
                data, input_specs(loaded, rebatch), model_path=model, scratch=Path(scratch)
            )
        return measure_workload(loaded, rebatch, decisions, dataset)


def compressed(workload: ModelWorkload, sparsity: float, *, ternary: bool, rows: int) -> ModelWorkload:
    """Prune the groups of least norm, and make the rest ternary where asked for."""
    layers = [compressed_layer(layer, sparsity, ternary=ternary, rows=rows) for layer in workload.layers]
    return replace(workload, layers=tuple(layers), cache={})


def compressed_layer(layer: CostLayer, sparsity: float, *, ternary: bool, rows: int) -> CostLayer:
    """One layer, as codes."""
    assert isinstance(layer.weight, Weight)
    values = np.asarray(layer.weight.load().values, np.float32)
    matrix = matrix_layout(values.shape, layer.lines.axes).apply(values)
    lines = Lines((1,), layer.matrix.rows, layer.matrix.cols, layer.matrix.kernel)
    starts = row_starts(len(matrix), lines, rows)
    norm = np.sqrt(np.add.reduceat(np.square(matrix), starts, axis=0))
    gone = np.zeros(norm.shape, bool)
    gone.reshape(-1)[np.argsort(norm, axis=None)[: round(sparsity * norm.size)]] = True
    kept = ~np.repeat(gone, np.diff([*starts, len(matrix)]), axis=0)
    if ternary:
        code = np.where(np.abs(matrix) > TERNARY * np.abs(matrix).mean(), np.sign(matrix), 0)
    else:
        code = quantize(matrix, 8).code
        code = np.where(code == 0, 1, code)  # what is kept is not to count as a group of zeros
    return replace(layer, weight=(code * kept).astype(np.int16), lines=lines)


def with_scan(technology: Technology, scan: str) -> Technology:
    """The same with ADCs that step through all or only the used columns."""
    return technology.model_copy(update={"mux": technology.mux.model_copy(update={"scan": scan})})


def figure_7(workload: ModelWorkload, technology: Technology) -> EdpTable:
    """EDP by sparsity, precision and crossbar size."""
    device = load_profile("rram_65nm")
    edp: EdpTable = {}
    for ternary, size, sparsity in itertools.product((False, True), SIZES, SPARSITIES):
        some = compressed(workload, sparsity, ternary=ternary, rows=size[0])
        cells = override_profile(device, weight_bits=1 if ternary else 8, cell_bits=1 if ternary else 2)
        point = DesignPoint(cells, Crossbar(*size), 5, skip_zero_groups=True)
        edp[ternary, size, sparsity] = cost_of(some, technology, point).edp_js
    return edp


def claims_7(edp: EdpTable) -> dict[str, bool]:
    """What section 6.2.1 and the caption say of Figure 7, and whether it is so."""
    curves = {
        (ternary, size): [edp[ternary, size, s] for s in SPARSITIES]
        for ternary in (False, True)
        for size in SIZES
    }
    falls = {key: [math.log(a / b) for a, b in pairwise(curve)] for key, curve in curves.items()}
    exponential = {key for key, fall in falls.items() if all(b >= a for a, b in pairwise(fall))}
    largest = max(edp, key=lambda key: edp[key])
    square = max((key for key in edp if key[1][0] == key[1][1]), key=lambda key: edp[key])
    return {
        "a higher sparsity leads to lower EDP": all(fall > 0 for curve in falls.values() for fall in curve),
        "a lower precision leads to lower EDP": all(
            edp[True, size, s] < edp[False, size, s] for size in SIZES for s in SPARSITIES
        ),
        "at higher rates of sparsity the EDP reduces exponentially (by a larger factor at each step)": (
            exponential == set(curves)
        ),
        "the same on 72 × 64": {(False, SIZES[0]), (True, SIZES[0])} <= exponential,
        "the largest value is at 0 % sparsity with 128 × 128": largest == (False, (128, 128), 0.0),
        "the same among the square crossbars": square == (False, (128, 128), 0.0),
    }


def adc_kinds() -> dict[str, Technology]:
    """The 65 nm technology with ADCs of several kinds; its own are those of SIAM."""
    own = load_technology("cmos_65nm_siam")
    sar = load_technology("cmos_22nm_neurosim").adc.model_dump()
    for name, value in (("power_per_bit", 3.7506), ("power", 25.844), ("area", 1084.0)):
        sar[name] |= {"value": value, "valid": (value / 2, value * 2)}
    rate = {"value": 1.0, "unit": "GHz", "source": "judgement", "evidence": "estimated", "valid": (0.1, 10)}
    survey = {"kind": "survey", "bits": (4, 16), "source": "arXiv 2404.06553", "node_nm": 65, "rate": rate}
    return {
        "flash, NeuroSim at 65 nm": own,
        "SAR, NeuroSim at 65 nm": own.model_copy(update={"adc": SarAdc.model_validate(sar)}),
        "the best of a survey, at 65 nm and 1 GHz": own.model_copy(
            update={"adc": SurveyAdc.model_validate(survey)}
        ),
    }


def figure_9(workload: ModelWorkload, technology: Technology) -> Shares:
    """Energy by ADC bits and levels: what is read and moved, without leakage."""
    device, energies = load_profile("rram_65nm"), {}
    for bits, cells in itertools.product((8, 5), CELLS):
        point = DesignPoint(override_profile(device, cell_bits=cells), Crossbar(256, 256), bits)
        cost = cost_of(workload, technology, point)
        adc, buffer = (cost.components[name].energy_j for name in ("adc", "buffer"))
        dynamic = cost.energy_j - cost.components["static"].energy_j
        energies[bits, cells] = (adc, buffer, dynamic - adc - buffer)
    return energies


def adc_share(parts: tuple[float, float, float]) -> float:
    """Of the ADCs in the energy."""
    return parts[0] / sum(parts)


def claims_9(energies: Shares) -> dict[str, bool]:
    """What section 6.3.1 and the caption say of Figure 9, and whether it is so."""

    def dominates(bits: int) -> bool:
        return all(energies[bits, cells][0] > max(energies[bits, cells][1:]) for cells in CELLS)

    return {
        "the energy is dominated by the ADC (the largest of the three parts) at 8 bits and every number of "
        "levels": dominates(8),
        "the same at 2 levels": energies[8, 1][0] > max(energies[8, 1][1:]),
        "the ADC dominates at 5 bits too": dominates(5),
        "a lower precision reduces the ADC's part and the total": all(
            energies[5, cells][0] < energies[8, cells][0]
            and sum(energies[5, cells]) < sum(energies[8, cells])
            for cells in CELLS
        ),
        "with more levels the ADC takes less": all(
            energies[bits, more][0] < energies[bits, few][0]
            for bits in (8, 5)
            for few, more in pairwise(CELLS)
        ),
        "with more levels its portion reduces": all(
            adc_share(energies[bits, more]) < adc_share(energies[bits, few])
            for bits in (8, 5)
            for few, more in pairwise(CELLS)
        ),
    }


if __name__ == "__main__":
    main()
