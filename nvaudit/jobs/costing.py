"""The use case: what a model costs in hardware, by itself or beside an audit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit._version import __version__
from nvaudit.cost.chips import chip_energies, measured_energies
from nvaudit.cost.design import DesignPoint, HardwareCost, Part
from nvaudit.cost.estimate import cost_of
from nvaudit.cost.workload import ModelWorkload, measure_workload
from nvaudit.data import Dataset, load_dataset
from nvaudit.device import DeviceProfile, OperatingPoint, profile_digest
from nvaudit.errors import ModelError, NvauditError, OptionError
from nvaudit.files import holding_inputs
from nvaudit.jobs.measured import load_chips, with_manifest
from nvaudit.keywords import takes_options
from nvaudit.mapping.select import Decision, select
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import LoadedModel, Rebatch, analyse_batch, constants, load_model
from nvaudit.options import ConverterOptions
from nvaudit.perturb.choose_codes import ChosenCodes
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.settle_codes import find_mapping, notes_on_codes, settle_codes
from nvaudit.report.cost.result import (
    ChipEnergies,
    CostBand,
    CostDesign,
    CostInfo,
    CostPart,
    CostReport,
    CostTotals,
    LayerCostInfo,
    MeasuredEnergy,
    totals_text,
)
from nvaudit.report.sections import InputHashes
from nvaudit.session import Session, input_specs, point_info, prepare, settle_device
from nvaudit.spec import RunSpec, make_spec
from nvaudit.technology import Technology, change_technology, load_technology, technology_names
from nvaudit.technology_options import TechnologyOptions, check_technology

_NO_COST = {name: field.default for name, field in TechnologyOptions.model_fields.items()}

INPUT_BITS = 8
"""Of inputs whose resolution is not given."""


@takes_options(RunSpec)
def estimate_cost(
    model: str | Path,
    device: str | Path = "rram",
    technology: str | Path | None = None,
    data: str | Path | None = None,
    *,
    progress: Progress = quiet,
    **options: Any,
) -> CostReport:
    """Work out energy, latency and area of an ONNX model on crossbars.

    Parameters
    ----------
    model, device, progress
        As of :func:`nvaudit.audit`.
    technology : str or Path
        Name of a bundled technology, or a technology file.
    data : str or Path, optional
        Samples that inputs of layers are measured on; without it ``MODEL.npz`` beside the model, else an
        assumption is stated.
    **options
        The fields of :class:`nvaudit.spec.RunSpec`.

    Raises
    ------
    NvauditError
        If anything about the input is wrong.
    """
    return run_cost(
        make_spec(model=model, device=device, technology=technology, data=data, **options), progress
    )


def settle_technology(spec: RunSpec) -> Technology:
    """The technology of a specification, with the numbers that are set.

    Raises
    ------
    OptionError
        If none is named.
    """
    if spec.technology is None:
        raise OptionError(f"--technology: missing; give one of {', '.join(technology_names())}, or a file")
    technology = load_technology(spec.technology)
    changes = []
    for text in spec.technology_set:
        path, _, number = text.partition("=")
        try:
            changes.append((path, float(number)))
        except ValueError:
            raise OptionError(f"--technology-set {text}: {number!r} is no number") from None
    return change_technology(technology, changes) if changes else technology


def design_point(spec: RunSpec, profile: DeviceProfile, codes: ChosenCodes | None) -> DesignPoint:
    """The design point that a specification describes."""
    assert spec.adc_bits is not None
    return DesignPoint(
        device=profile,
        crossbar=Crossbar(*spec.crossbar),
        adc_bits=spec.adc_bits,
        input_bits=spec.dac_bits or INPUT_BITS,
        input_mode=spec.input_mode,
        per_channel=spec.scale == "per_channel",
        skip_zero_groups=spec.skip_zero_groups,
        codes=codes,
        digital_outliers=spec.digital_outliers,
        copies=spec.copies or 1,
        pipelined=spec.pipelined,
        g_max_us=spec.g_max_us,
        on_off=spec.on_off,
    )


def run_cost(spec: RunSpec, progress: Progress = quiet) -> CostReport:
    """Run a specification; as :func:`cost`."""
    begin = time.perf_counter()
    mapped = None
    if spec.chip is not None:
        mapped, spec = _as_the_chip(spec)
    technology = settle_technology(spec)
    check_technology(spec, spec.adc_bits, audited=False)
    profile, points = settle_device(spec)
    if len(points) > 1:
        raise OptionError(f"--sigma: cost one operating point at a time, got {len(points)}")
    with scratch_folder() as folder, holding_inputs():
        progress("reading model and data", 0, 1)
        loaded = load_model(spec.model)
        rebatch = analyse_batch(loaded.model)
        decisions = select(constants(loaded), spec.layers, spec.digital)
        if not any(decision.mapped for decision in decisions):
            raise ModelError(
                f"{loaded.path}: no tensor would be mapped to the array, so there is nothing to cost; "
                "`nvaudit inspect` lists every tensor with its reason"
            )
        spec, notes = find_mapping(spec, loaded)
        codes = settle_codes(spec, points, decisions)
        notes += notes_on_codes(codes, decisions)
        dataset = _dataset(spec, loaded, rebatch, folder)
        point = design_point(spec, profile, codes)
        progress("measuring the inputs of the layers", 0, 1)
        workload = _workload(loaded, rebatch, decisions, dataset, point, spec)
        measured = time.perf_counter()
        worth = cost_of(workload, technology, point)
        timing = {"measure": measured - begin, "cost": time.perf_counter() - measured}
        chips = _chips(workload, technology, point, points[0], worth, spec, progress)
        measured_chips: tuple[MeasuredEnergy, ...] = ()
        if mapped is not None:
            measured_chips = _measured(mapped, workload, technology, point, worth, folder / "chips", progress)
    info = cost_info(worth, workload, technology, point, chips).model_copy(
        update={"measured_chips": measured_chips}
    )
    timing["total"] = time.perf_counter() - begin
    return CostReport(
        nvaudit_version=__version__,
        headline=f"{loaded.path.name} on {profile.name} with {technology.name}: {totals_text(info)}",
        model={**loaded.facts(), "batching": rebatch.reason},  # type: ignore[arg-type]
        device=profile.model_dump(mode="json"),
        operating_point=point_info(points[0]),
        hashes=InputHashes(
            model=loaded.digest, data=dataset.digest if dataset is not None and workload.images else None,
            device=profile_digest(profile),
        ),
        run=spec.model_dump(mode="json"),
        timing=timing,
        notes=(*notes, *loaded.notes, *(dataset.notes if dataset is not None and workload.images else ())),
        **{name: getattr(info, name) for name in CostInfo.model_fields},
    )  # fmt: skip


def _as_the_chip(spec: RunSpec) -> tuple[RunSpec, RunSpec]:
    """Take how chips are mapped from their manifest.

    Returns
    -------
    tuple of RunSpec
        What they are read back with, and what is costed: other converters do not move what devices hold.
    """
    plain = {field: RunSpec.model_fields[field].default for field in ConverterOptions.model_fields}
    del plain["crossbar"]
    given = {name: getattr(spec, name) for name in plain if getattr(spec, name) != plain[name]}
    mapped = with_manifest(spec.model_copy(update=plain))
    return mapped, mapped.model_copy(update=given)


def _measured(
    mapped: RunSpec,
    workload: ModelWorkload,
    technology: Technology,
    point: DesignPoint,
    worth: HardwareCost,
    folder: Path,
    progress: Progress,
) -> tuple[MeasuredEnergy, ...]:
    """Energy on the chips that were read back."""
    folder.mkdir()
    session = prepare(mapped.model_copy(update=_NO_COST), folder)
    chips = load_chips(session, progress)
    keys = [tensor.key for tensor in session.workload.tensors]
    devices = [
        {key: device.conductance.open() for key, device in zip(keys, chip.devices, strict=True)}
        for chip in chips
    ]
    energies = measured_energies(workload, technology, point, session.points[0], worth.energy_j, devices)
    return tuple(
        MeasuredEnergy(name=chip.source.name, energy_j=energy, change=energy / worth.energy_j - 1)
        for chip, energy in zip(chips, energies.tolist(), strict=True)
    )


def session_cost(
    session: Session,
    operating: OperatingPoint,
    values: Sequence[float | None] = (),
    progress: Progress = quiet,
) -> CostInfo:
    """What the model of an audit costs, with inputs as the audit simulates them.

    Parameters
    ----------
    operating : OperatingPoint
        What the chips of ``--energy-chips`` are drawn from.
    values : sequence of float or None
        Their metric, for its correlation with their energy; None where it is not known exactly.
    """
    spec = session.spec
    technology = settle_technology(spec)
    point = replace(design_point(spec, session.profile, session.codes), input_mode="parallel")
    workload = _workload(session.loaded, session.rebatch, session.decisions, session.dataset, point, spec)
    worth = cost_of(workload, technology, point)
    chips = _chips(workload, technology, point, operating, worth, spec, progress, values)
    return cost_info(worth, workload, technology, point, chips)


def _dataset(spec: RunSpec, loaded: LoadedModel, rebatch: Rebatch, folder: Path) -> Dataset | None:
    """Samples: without any, one that is made up shows sizes that the model does not state."""
    specs = input_specs(loaded, rebatch)

    def load(path: Path | None, limit: int | None) -> Dataset:
        return load_dataset(path, specs, model_path=loaded.path, limit=limit, seed=spec.seed, scratch=folder)

    if spec.data is not None or loaded.path.with_suffix(".npz").is_file():
        return load(None if spec.data is None else Path(spec.data), spec.limit)
    try:
        return load(None, 1)
    except (NvauditError, MemoryError):  # a model that cannot be fed has the sizes that it states
        return None


def _workload(
    loaded: LoadedModel,
    rebatch: Rebatch,
    decisions: Sequence[Decision],
    dataset: Dataset | None,
    point: DesignPoint,
    spec: RunSpec,
) -> ModelWorkload:
    return measure_workload(
        loaded, rebatch, decisions, dataset, input_bits=(point.input_bits,), provider=spec.provider
    )


def _chips(
    workload: ModelWorkload,
    technology: Technology,
    point: DesignPoint,
    operating: OperatingPoint,
    worth: HardwareCost,
    spec: RunSpec,
    progress: Progress,
    values: Sequence[float | None] = (),
) -> ChipEnergies | None:
    """Energy over the chips, where it is asked for."""
    count = spec.energy_chips
    if count is None:
        return None
    energies = chip_energies(
        workload, technology, point, operating, worth.energy_j, chips=count, seed=spec.seed,
        each=lambda done: progress("chips' energy", done, count),
    )  # fmt: skip
    known = [value for value in values[:count] if value is not None]
    correlation = None
    if len(known) == count and np.std(known) > 0 and np.std(energies) > 0:
        correlation = float(np.corrcoef(energies, np.asarray(known, np.float64))[0, 1])
    return ChipEnergies(
        values=tuple(energies.tolist()),
        mean=float(energies.mean()),
        std=float(energies.std(ddof=1)),
        low=float(energies.min()),
        high=float(energies.max()),
        correlation=correlation,
    )


def cost_info(
    worth: HardwareCost,
    workload: ModelWorkload,
    technology: Technology,
    point: DesignPoint,
    chips: ChipEnergies | None = None,
) -> CostInfo:
    """What a report holds about a cost."""
    totals = (worth.energy_j, worth.latency_s, worth.area_m2)
    factor = worth.factor
    return CostInfo(
        technology=technology.model_dump(mode="json"),
        design=_design(technology, point),
        totals=CostTotals(
            energy_j=totals[0],
            latency_s=totals[1],
            area_m2=totals[2],
            **{
                name: getattr(worth, name)
                for name in CostTotals.model_fields
                if name not in CostPart.model_fields
            },
        ),
        components={name: _part(part) for name, part in worth.components.items()},
        layers={
            layer.name: LayerCostInfo(
                op=layer.op,
                **_part(layer.total).model_dump(),
                edp_js=layer.total.energy_j * layer.total.latency_s,
                crossbars=layer.crossbars,
                tiles=layer.tiles,
                copies=layer.copies,
                conversions=layer.conversions,
                utilisation=layer.utilisation,
                components={name: _part(part) for name, part in layer.components.items()},
            )
            for layer in worth.layers
        },
        band=CostBand(
            factor=factor,
            ranking=worth.ranking,
            energy_j=(totals[0] / factor, totals[0] * factor),
            latency_s=(totals[1] / factor, totals[1] * factor),
            area_m2=(totals[2] / factor, totals[2] * factor),
        ),
        chips=chips,
        images=workload.images,
        not_modelled=worth.not_modelled,
        assumptions=worth.assumptions,
        warnings=worth.warnings,
    )


def _part(part: Part) -> CostPart:
    return CostPart(energy_j=part.energy_j, latency_s=part.latency_s, area_m2=part.area_m2)


def _design(technology: Technology, point: DesignPoint) -> CostDesign:
    device = point.device
    return CostDesign(
        crossbar=(point.crossbar.rows, point.crossbar.cols),
        adc_bits=point.adc_bits,
        input_bits=point.input_bits,
        input_mode=point.input_mode or technology.input_mode,
        weight_bits=device.weight_bits,
        cell_bits=device.cell_bits,
        encoding=device.encoding,
        copies=point.copies,
        pipelined=point.pipelined,
        skip_zero_groups=point.skip_zero_groups,
    )
