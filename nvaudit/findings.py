"""The table of `inspect` and of the report: what is mapped, with its devices, and what is not, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nvaudit.device import DeviceProfile, OperatingPoint
from nvaudit.mapping.conductance import Array, Encoding, layout
from nvaudit.mapping.crossbar import Crossbar, crossbars
from nvaudit.mapping.select import Decision
from nvaudit.model import Weight
from nvaudit.perturb.moments import Moments, code_moments
from nvaudit.perturb.workload import TensorFile
from nvaudit.report.sections import TensorDecision


def tensor_rows(
    decisions: Sequence[Decision],
    mapped: Mapping[str, TensorFile],
    point: OperatingPoint,
    size: Crossbar,
) -> list[TensorDecision]:
    """One row per initializer and constant; mapped ones with their noise at an operating point."""
    known: dict[Array, Moments] = {}
    rows = []
    for decision in decisions:
        weight = decision.constant.weight
        if not decision.mapped or weight is None:
            rows.append(_row(decision))
            continue
        tensor = mapped[weight.key]
        array = tensor.array
        if array not in known:
            known[array] = code_moments(point, array)
        peak = max(tensor.peak_code, 1)
        rows.append(
            _row(
                decision,
                array,
                size,
                scale=float(np.max(tensor.scale, initial=0.0)),
                weight_sigma=known[array].rms(tensor.code.open()) / peak,
            )
        )
    return rows


def inspect_rows(
    decisions: Sequence[Decision],
    profile: DeviceProfile,
    size: Crossbar,
    bits: int,
    cell_bits: int | None,
    encoding: Encoding | None,
) -> list[TensorDecision]:
    """Like :func:`tensor_rows` without reading any weight."""
    rows = []
    for decision in decisions:
        weight = decision.constant.weight
        if not decision.mapped or weight is None:
            rows.append(_row(decision))
            continue
        own = stored_bits(decision.constant.dtype) if weight.is_integer else bits
        rows.append(_row(decision, layout(profile, bits=own, cell_bits=cell_bits, encoding=encoding), size))
    return rows


def stored_bits(dtype: str) -> int:
    """Bits of an integer element type such as ``uint8``; 8 for a float that the graph itself quantises."""
    digits = "".join(c for c in dtype if c.isdigit())
    return int(digits) if "int" in dtype and digits else 8


def _row(
    decision: Decision,
    array: Array | None = None,
    size: Crossbar | None = None,
    scale: float | None = None,
    weight_sigma: float | None = None,
) -> TensorDecision:
    constant = decision.constant
    weight: Weight | None = constant.weight
    ops = ", ".join(constant.uses) or None
    common: dict[str, Any] = {
        "name": constant.name,
        "path": constant.path,
        "reason": decision.reason,
        "shape": list(constant.shape),
        "dtype": constant.dtype,
    }
    if array is None or size is None or weight is None:
        return TensorDecision(decision="digital", op=ops, **common)
    matrix = weight.matrix
    return TensorDecision(
        decision="mapped",
        op=weight.op,
        bits=array.bits,
        slices=array.slices,
        devices=constant.size * array.slices * array.polarities,
        crossbars=crossbars(matrix.groups, matrix.rows, matrix.cols, array, size),
        scale=scale,
        weight_sigma=weight_sigma,
        **common,
    )
