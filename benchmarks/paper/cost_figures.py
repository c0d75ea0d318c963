"""Figures 7 and 9 of the stability paper: what ResNet-20 costs on 65 nm crossbars.

    python benchmarks/paper/cost_figures.py cifar_resnet20.onnx [--data cifar_resnet20.npz]

Figure 7: energy-delay product over sparsity (groups of one output in one crossbar pruned, the smallest
first), precision (8 bits, ternary) and crossbar size. The text says: higher sparsity and lower precision
give a lower EDP; the largest one is at 0 % and 128 × 128. At 90 % hardly anything is left that depends on
precision: there the two are not compared.

Figure 9: energy at ADCs of 5 and 8 bits over the number of levels, as ADC, buffers and the rest, without
leakage. The text says: the ADC dominates at 8 bits (here: it takes more than any other component), the total
falls at 5, and the ADC's part falls with more levels.

The curves in the paper cannot be read off, so order and shape are compared; the script ends with 1 if one of
these statements does not hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from nvaudit.cost.design import DesignPoint, HardwareCost
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
from nvaudit.technology import load_technology

SPARSITIES = (0.0, 0.3, 0.6, 0.9)
SIZES = (64, 128, 256)
TERNARY = 0.7
"""Weights below this times the mean magnitude become 0 (Li et al., ternary weight networks)."""


def main() -> int:
    """Print both figures; 1 if they differ from what the paper says of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    workload = measured(options.model, options.data)
    wrong = [*figure_7(workload), *figure_9(workload)]
    for statement in wrong:
        print(f"does not hold: {statement}")
    return 1 if wrong else 0


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


def figure_7(workload: ModelWorkload) -> list[str]:
    """EDP by sparsity, precision and crossbar size."""
    technology, device = load_technology("cmos_65nm_siam"), load_profile("rram_65nm")
    edp: dict[tuple[bool, int, float], float] = {}
    print("Figure 7: EDP of ResNet-20, nJ·s\n")
    print(f"{'precision':9} {'crossbar':>8} " + " ".join(f"{100 * s:7.0f} %" for s in SPARSITIES))
    for ternary in (False, True):
        for size in SIZES:
            for sparsity in SPARSITIES:
                some = compressed(workload, sparsity, ternary=ternary, rows=size)
                cells = override_profile(
                    device, weight_bits=1 if ternary else 8, cell_bits=1 if ternary else 2
                )
                point = DesignPoint(cells, Crossbar(size, size), 5, skip_zero_groups=True)
                edp[ternary, size, sparsity] = cost_of(some, technology, point).edp_js
            row = " ".join(f"{1e9 * edp[ternary, size, s]:9.1f}" for s in SPARSITIES)
            print(f"{'ternary' if ternary else '8 bits':9} {size:>4}² {row}")
    wrong = []
    for ternary in (False, True):
        for size in SIZES:
            curve = [edp[ternary, size, s] for s in SPARSITIES]
            if any(later >= earlier for earlier, later in pairwise(curve)):
                wrong.append(f"EDP falls with sparsity ({size}, {'ternary' if ternary else '8 bits'})")
    if any(edp[True, size, s] >= edp[False, size, s] for size in SIZES for s in SPARSITIES[:-1]):
        wrong.append("ternary is below 8 bits")
    if max(edp, key=lambda key: edp[key] if key[1] >= 128 else 0.0) != (False, 128, 0.0):
        wrong.append("of 128 and 256 the largest EDP is at 8 bits, 0 % and 128 x 128")
    return wrong


def figure_9(workload: ModelWorkload) -> list[str]:
    """Energy by ADC bits and levels."""
    technology, device = load_technology("cmos_65nm_siam"), load_profile("rram_65nm")
    shares: dict[tuple[int, int], float] = {}
    totals: dict[tuple[int, int], float] = {}
    largest: dict[tuple[int, int], str] = {}
    print("\nFigure 9: energy of an inference, µJ\n")
    print("ADC bits  levels     ADC  buffer   other   total  ADC share")
    for bits in (8, 5):
        for cells in (1, 2, 4):
            point = DesignPoint(override_profile(device, cell_bits=cells), Crossbar(256, 256), bits)
            cost = cost_of(workload, technology, point)
            adc, buffer, total = split(cost)
            shares[bits, cells], totals[bits, cells] = adc / total, total
            parts = {name: part.energy_j for name, part in cost.components.items() if name != "static"}
            largest[bits, cells] = max(parts, key=lambda name: parts[name])
            print(
                f"{bits:8}  {2**cells:6}  {1e6 * adc:6.2f}  {1e6 * buffer:6.2f}  "
                f"{1e6 * (total - adc - buffer):6.2f}  {1e6 * total:6.2f}  {100 * adc / total:8.1f} %  "
                f"most in {largest[bits, cells]}"
            )
    wrong = []
    if any(largest[8, cells] != "adc" for cells in (1, 2, 4)):
        wrong.append("the ADC dominates at 8 bits")
    if any(totals[5, cells] >= totals[8, cells] for cells in (1, 2, 4)):
        wrong.append("the total falls from 8 to 5 bits")
    for bits in (8, 5):
        if not shares[bits, 1] > shares[bits, 2] > shares[bits, 4]:
            wrong.append(f"the share of the ADC falls with more levels ({bits} bits)")
    return wrong


def split(cost: HardwareCost) -> tuple[float, float, float]:
    """Joules of ADCs, of buffers, and of everything: what is read and moved, without leakage."""
    dynamic = cost.energy_j - cost.components["static"].energy_j
    return cost.components["adc"].energy_j, cost.components["buffer"].energy_j, dynamic


if __name__ == "__main__":
    sys.exit(main())
