"""The table of `inspect` and of the report: what is mapped, with its devices, and what is not, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nvaudit.device import DeviceProfile, OperatingPoint
from nvaudit.mapping.conductance import DeviceArray, code_layout, layout
from nvaudit.mapping.groups import saved
from nvaudit.mapping.quantize import keeps_grid
from nvaudit.mapping.select import Decision
from nvaudit.mapping.tiling import Crossbar, device_columns, tiling_of, tiling_of_split
from nvaudit.model import Weight
from nvaudit.options import Encoding
from nvaudit.perturb.choose_codes import ChosenCodes, CodeUse
from nvaudit.perturb.crossbar import CrossbarRun, WeightOnCrossbars
from nvaudit.perturb.moments import Moments, code_moments
from nvaudit.perturb.workload import TensorFile
from nvaudit.report.codes import CodeEntry, CodeErrors, CodeLayer, CodesInfo, MadeFor
from nvaudit.report.crossbar import CrossbarInfo, CrossbarLayer, NotSplit
from nvaudit.report.groups import ZeroGroups, ZeroGroupsLayer, zero_groups_info
from nvaudit.report.sections import TensorDecision
from nvaudit.report.wording import duration_text


def tensor_rows(
    decisions: Sequence[Decision],
    mapped: Mapping[str, TensorFile],
    point: OperatingPoint,
    size: Crossbar,
) -> list[TensorDecision]:
    """One row per initializer and constant; mapped ones with their noise at an operating point."""
    known: dict[DeviceArray, Moments] = {}
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
        peak, code = max(tensor.peak_code, 1), tensor.code.open()
        digital = None if tensor.outliers is None else tensor.outliers[0].open()
        if digital is not None:  # no device holds them
            code = np.delete(code.reshape(-1), digital)
        row = _row(
            decision,
            array,
            size,
            scale=float(np.max(tensor.scale, initial=0.0)),
            weight_sigma=known[array].rms(code) / peak,
        )
        rows.append(row if digital is None else row.model_copy(update={"outliers": len(digital)}))
    return rows


def crossbar_info(run: CrossbarRun, quantised_ideal: float) -> CrossbarInfo:
    """What the report holds about crossbars with converters.

    Parameters
    ----------
    quantised_ideal : float
        Metric of the quantised weights with ideal converters.
    """
    how = run.how
    layers = tuple(_crossbar_layer(layer, run) for layer in run.layers)
    total = sum(layer.weights or 0 for layer in layers)
    split = sum(layer.weights or 0 for layer in layers if layer.reason is None)
    return CrossbarInfo(
        weights=total,
        weights_split=split,
        share_of_weights=split / total if total else None,
        not_split=tuple(
            NotSplit(name=layer.name, reason=layer.reason, weights=layer.weights)
            for layer in layers
            if layer.reason is not None
        ),
        rows=how.rows,
        cols=how.cols,
        adc_bits=how.adc_bits,
        dac_bits=how.dac_bits,
        adc_range=how.method,
        samples=run.samples,
        crossbars=sum(layer.crossbars for layer in layers),
        quantised_ideal=quantised_ideal,
        layers=layers,
    )


def _crossbar_layer(layer: WeightOnCrossbars, run: CrossbarRun) -> CrossbarLayer:
    split, dac, adc = layer.split, layer.converters.dac, layer.converters.adc
    tiling = tiling_of_split(split, layer.array, Crossbar(run.how.rows, run.how.cols))
    unit = (1.0 if dac is None else dac.step) * (1.0 if adc is None else adc.step)
    return CrossbarLayer(
        name=split.key,
        reason=split.reason,
        weights=layer.weights,
        scaling=split.scaling,
        crossbars=0 if split.reason else tiling.crossbars,
        matrices=split.groups,
        rows=tiling.rows,
        columns=tiling.columns,
        utilisation=None if split.reason else tiling.utilisation,
        signed_inputs=layer.signed,
        dac_step=None if dac is None else dac.step,
        dac_codes=None if dac is None else (dac.low, dac.high),
        adc_step=None if adc is None else unit,
        adc_codes=None if adc is None else (adc.low, adc.high),
        adc_range=None if adc is None else (adc.low * unit, adc.high * unit),
        clipped=layer.clipped,
    )


def codes_info(chosen: ChosenCodes | None, sizes: Mapping[str, int], asked: str) -> CodesInfo | None:
    """What the report holds about codes; None where weights are slices.

    Parameters
    ----------
    sizes : mapping of str to int
        Weights of each tensor on the array, by key.
    asked : str
        The option that asked for them.
    """
    if chosen is None:
        return None
    place, made_for = {use.code: i for i, use in enumerate(chosen.used)}, chosen.made_for
    keys = [key for key in sizes if key in chosen.of]
    devices = sum(sizes[key] * chosen.of[key].devices for key in keys)
    return CodesInfo(
        asked=asked,
        sigma=None if chosen.point is None else chosen.point.sigma,
        level_sigma=tuple(np.sqrt(chosen.variance).tolist()),
        slices=None if chosen.slices is None else _code_entry(chosen.slices),
        codes=tuple(map(_code_entry, chosen.used)),
        layers=tuple(
            CodeLayer(
                name=key,
                code=place[chosen.of[key]],
                weights=sizes[key],
                errors=CodeErrors(**asdict(chosen.errors[key])),
            )
            for key in keys
        ),
        devices_per_weight=devices / max(1, sum(sizes[key] for key in keys)),
        tried=chosen.tried,
        made_for=None if made_for is None else MadeFor(device=made_for[0], sigma=made_for[1]),
    )


def _code_entry(use: CodeUse) -> CodeEntry:
    code = use.code
    return CodeEntry(
        significances=tuple(reversed(code.significances)),
        encoding=code.encoding,
        levels=code.levels,
        devices=code.devices,
        largest=code.top,
        zero=code.zero,
        errors=CodeErrors(**asdict(use.error)),
        noise_of_level=tuple(use.noise_of_level.tolist()),
    )


def measured_late(profile: DeviceProfile) -> list[str]:
    """Say that a spread holds more than verifying reduces, if it was measured some time after programming."""
    if profile.measured_after_s is None:
        return []
    return [
        f"the spread of {profile.name!r} was measured {duration_text(profile.measured_after_s)} after "
        "programming: what happened since is in it and is taken for verified too, so the result flatters"
    ]


def zero_groups_found(mapped: Iterable[TensorFile], size: Crossbar) -> ZeroGroups:
    """What the report holds about groups of zeros."""
    layers = []
    for tensor in mapped:
        counts = saved(tensor.code.open(), tensor.lines, tensor.array, size)
        layers.append(
            ZeroGroupsLayer(
                name=tensor.key,
                groups=counts.groups,
                zero_groups=counts.zero_groups,
                weights=counts.weights,
                zero_weights=counts.zero_weights,
                crossbars=counts.crossbars,
                saved=counts.crossbars - counts.kept,
            )
        )
    return zero_groups_info(size.rows, size.cols, layers)


def without_zero_groups(
    rows: Sequence[TensorDecision], keys: Sequence[str], info: ZeroGroups
) -> list[TensorDecision]:
    """Rows with the devices and crossbars that are left without groups of zeros.

    Parameters
    ----------
    keys : sequence of str
        The weight's key of each row, empty where it has none.
    """
    by_name = {layer.name: layer for layer in info.layers}
    made = []
    for row, key in zip(rows, keys, strict=True):
        layer = by_name.get(key)
        if layer is not None and row.devices is not None:
            each = row.devices // max(layer.weights, 1)
            left = {"devices": row.devices - each * layer.zero_weights,
                    "crossbars": layer.crossbars - layer.saved}  # fmt: skip
            row = row.model_copy(update=left)
        made.append(row)
    return made


def with_crossbars(
    rows: Sequence[TensorDecision], keys: Sequence[str], info: CrossbarInfo
) -> list[TensorDecision]:
    """Rows with the crossbars that were filled, where layers were split over them.

    Parameters
    ----------
    keys : sequence of str
        The weight's key of each row, empty where it has none.
    """
    filled = {layer.name: layer.crossbars for layer in info.layers if layer.reason is None}
    return [
        row.model_copy(update={"crossbars": filled[key]}) if key in filled else row
        for row, key in zip(rows, keys, strict=True)
    ]


def inspect_rows(
    decisions: Sequence[Decision],
    profile: DeviceProfile,
    size: Crossbar,
    bits: int,
    cell_bits: int | None,
    encoding: Encoding | None,
    codes: ChosenCodes | None = None,
) -> list[TensorDecision]:
    """Like :func:`tensor_rows`, from what is declared of weights and their codes."""
    rows = []
    for decision in decisions:
        weight = decision.constant.weight
        if not decision.mapped or weight is None:
            rows.append(_row(decision))
            continue
        if codes is not None and weight.key in codes.of:
            rows.append(_row(decision, code_layout(profile, codes.of[weight.key]), size))
            continue
        own = (weight.grid_bits or bits) if keeps_grid(weight.grid_bits) else bits
        rows.append(_row(decision, layout(profile, bits=own, cell_bits=cell_bits, encoding=encoding), size))
    return rows


def _row(
    decision: Decision,
    array: DeviceArray | None = None,
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
    if math.prod(constant.shape) != constant.size:  # several weights in one stored byte
        common["shape"] = list(weight.shape)
    return TensorDecision(
        decision="mapped",
        op=weight.op,
        bits=array.bits if array.code_is_slices else None,
        slices=array.slices,
        devices=constant.size * device_columns(array),
        crossbars=tiling_of(weight.matrix, array, size).crossbars,
        scale=scale,
        weight_sigma=weight_sigma,
        **common,
    )
