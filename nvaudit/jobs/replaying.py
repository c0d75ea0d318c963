"""Write one simulated chip of a report as an ordinary ONNX model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nvaudit.errors import DataError, EngineError, OptionError
from nvaudit.files import check_inputs, check_product, holding_inputs
from nvaudit.keywords import takes_old
from nvaudit.model import Template, filled_model, reseed_read_noise
from nvaudit.model.draws import listed
from nvaudit.model.layout import UNMOVED
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.outcome import Probe
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.workload import GraphFile, Workload
from nvaudit.report.result import AuditReport
from nvaudit.rng import ChipAddress, MovedChip, read_address
from nvaudit.session import Session, prepare, prepare_again, settle_metric
from nvaudit.spec import make_spec


@dataclass(frozen=True)
class Replayed:
    """A chip that was written.

    Attributes
    ----------
    path : Path
        The ONNX file.
    reported : float or None
        The chip's metric in the report; None for a chip that was stopped early.
    measured : float or None
        The metric of the written file on the report's data; None if it was not checked.
    """

    path: Path
    trial: int | None
    sigma: float
    reported: float | None
    measured: float | None


@takes_old(output="out")
def replay(
    report: AuditReport,
    out: Path,
    *,
    trial: int | None = None,
    rare: float | None = None,
    sigma: float | None = None,
    check: bool = True,
) -> Replayed:
    """Draw one chip of a report again and write it.

    Parameters
    ----------
    report : AuditReport
        Names the model, the data, the device and the seed.
    out : Path
        The ONNX file to write.
    trial : int, optional
        Which chip; by default the worst.
    rare : float, optional
        Instead of a trial: one of the probabilities of rare chips; the chip nearest to its value is written.
    sigma : float, optional
        Which point of a sweep; by default the largest.
    check : bool
        Run the written file on the report's data and compare.

    Raises
    ------
    OptionError
        If there is no such trial or point, the model, data or device is not the report's, or the file to
        write is one of them.
    EngineError
        If the written file does not reach the reported value.
    """
    spec = make_spec(**report.run)
    sigma = report.operating_point.sigma if sigma is None else sigma
    if trial is not None and rare is not None:
        raise OptionError("--trial and --rare: choose one")
    chip: ChipAddress
    chip, reported = _chip(report, sigma, trial) if rare is None else _rare_chip(report, rare)
    data = spec.data if spec.data is not None else str(Path(spec.model).with_suffix(".npz"))
    check_product(out, {"the model": spec.model, "the data": data, "the device profile": spec.device})
    with scratch_folder() as folder, holding_inputs():
        session = prepare(spec, folder)
        _same(session, report)
        engine = Engine(session.workload)
        probe = engine.probe()
        if session.rebatching_failed(probe):
            session = prepare_again(session, probe)
            engine = Engine(session.workload)
        point = next((i for i, p in enumerate(session.points) if p.sigma == sigma), None)
        if point is None:
            raise DataError(
                f"the report has sigma {sigma:g} and its run has not; give a report as it was written"
            )
        check_inputs()  # before anything is written, too
        write_chip(session.workload, engine, out, point, chip)
        measured = _measure(session, engine, probe, out) if check else None
    if measured is not None and reported is not None and measured != reported:
        reason = "another version of ONNX Runtime or another processor rounds otherwise"
        if session.loaded.draws:
            named = listed(session.loaded.draws)
            reason = f"results of {named} follow a seed only in one version of ONNX Runtime and of nvaudit"
        raise EngineError(
            f"{out}: written, but it measures {measured!r} where the report has {reported!r}; {reason}"
        )
    return Replayed(out, None if isinstance(chip, MovedChip) else chip, sigma, reported, measured)


def _chip(report: AuditReport, sigma: float, trial: int | None) -> tuple[int, float | None]:
    """The chip that is asked for, by default the worst, and what the report has for it."""
    at = {point.sigma: point.trials.values for point in report.sweep or ()}
    at = at or {report.operating_point.sigma: report.trials.values}
    if sigma not in at:
        only = "only " if len(at) == 1 else ""
        raise OptionError(f"--sigma {sigma:g}: the report has {only}{', '.join(f'{s:g}' for s in at)}")
    values = at[sigma]
    if trial is None:
        worst = np.nanargmin if report.metric_info.higher_is_better else np.nanargmax
        trial = int(worst(np.asarray(values, dtype=np.float64)))  # null becomes NaN
    if not 0 <= trial < len(values):
        raise OptionError(f"--trial {trial}: the report has trials 0 … {len(values) - 1}")
    return trial, values[trial]


def _rare_chip(report: AuditReport, probability: float) -> tuple[MovedChip, float]:
    """The chip nearest to the value of a probability, and its metric."""
    for one in report.rare:
        if math.isclose(one.probability, probability) and one.chip is not None:
            if one.value is None:
                raise OptionError(f"--rare {probability:g}: the report has no such chip: {one.note}")
            moves = tuple((move.keep, move.towards) for move in one.chip.moves)
            return MovedChip(one.chip.start, moves), one.chip.value
    there = (
        ", ".join(f"{one.probability:g}" for one in report.rare) or "none; ask an audit for them with --rare"
    )
    raise OptionError(f"--rare {probability:g}: rare chips of the report: {there}")


def _same(session: Session, report: AuditReport) -> None:
    """Refuse a model, data, device or mapping file that is not the report's."""
    for what, digest in session.hashes().items():
        wanted = getattr(report.hashes, what)
        if wanted is not None and digest != wanted:  # reports from before it was kept have no mapping
            digest_text = "none" if digest is None else f"SHA-256 {digest[:12]}"
            raise OptionError(
                f"the {what} is not the one of the report: {digest_text} instead of {wanted[:12]}; "
                "put back what was audited, or audit again"
            )


def write_chip(workload: Workload, engine: Engine, output: Path, point: int, chip: ChipAddress) -> None:
    """Fill the template with the chip's weights and write it as a model of its own."""
    arrays = {slot.name: array for slot, array in engine.fill(point, chip)}
    proto = Path(workload.template.path).read_bytes()
    if workload.read_noise:
        proto = reseed_read_noise(proto, workload.seed, read_address(chip))
    slots = tuple(replace(slot, transform=UNMOVED) for slot in workload.slots)
    digital = {name: file.open() for name, file in workload.template.digital.items()}
    filled_model(Template(proto, slots, digital, {}), arrays, output)


def _measure(session: Session, engine: Engine, probe: Probe, output: Path) -> float:
    """The report's metric of the written file on the report's data."""
    metric = settle_metric(session, probe)
    keep = session.reference_file(metric)
    workload = session.workload
    if keep is not None:
        engine.nominal(metric, keep, workload.ideal)
    return engine.score_graph(metric, keep, GraphFile(str(output), {}, workload.template.batch))
