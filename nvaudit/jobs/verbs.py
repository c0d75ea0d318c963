"""Commands of one step as functions: their options as keywords, files where the command has files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvaudit.device.fit import TableUnit
from nvaudit.files import check_folder, check_product
from nvaudit.jobs import chip_calibrating, deploying, describing, fitting, inspecting, planning, reassembling
from nvaudit.jobs.chip_calibrating import Method
from nvaudit.keywords import takes_options
from nvaudit.mapping.manifest import names_written
from nvaudit.mapping.spec import MapOptions
from nvaudit.options import OF_A_MAPPING, DataOptions, DeviceOptions, Encoding, MappingOptions
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.report.deployment.calibration import CalibrateReport
from nvaudit.report.deployment.fit import FitReport
from nvaudit.report.deployment.result import MapReport
from nvaudit.report.device.result import DeviceReport, ProfileList
from nvaudit.report.inspection.result import InspectReport
from nvaudit.report.plan.result import AuditPlan
from nvaudit.report.technology.result import TechnologyList, TechnologyReport
from nvaudit.spec import INSPECTED, RunSpec, make_spec
from nvaudit.technology import load_technology

_OF_DATA = (*DataOptions.model_fields, "provider")
_SHOWN = (*DeviceOptions.model_fields, *MappingOptions.model_fields)
_OF_TECHNOLOGY = ("device", "bits", "cell_bits", "encoding", "crossbar", "adc_bits", "dac_bits")
_CALIBRATED = ("limit", "output_name", "class_axis", "metric", "seed", "provider")


@takes_options(RunSpec)
def plan(
    model: str | Path,
    device: str | Path = "rram",
    data: str | Path | None = None,
    *,
    progress: Progress = quiet,
    **options: Any,
) -> AuditPlan:
    """Say what the chips of an audit can tell, and what an interval or a gate costs, before it runs.

    Parameters
    ----------
    model, device, data, progress
        As of :func:`nvaudit.audit`.
    **options
        The options of `nvaudit audit`.
    """
    return planning.plan_audit(make_spec(model=model, device=device, data=data, **options), progress)


@takes_options(RunSpec, only=INSPECTED)
def inspect(
    model: str | Path,
    device: str | Path = "rram",
    *,
    write_mapping: str | Path | None = None,
    **options: Any,
) -> InspectReport:
    """List what of a model is mapped to the array, and what stays digital and why.

    Parameters
    ----------
    model, device
        As of :func:`nvaudit.audit`.
    write_mapping : str or Path, optional
        A mapping file for the codes that were chosen.
    **options
        The options of `nvaudit inspect`.
    """
    spec = make_spec(model=model, device=device, **options)
    return inspecting.inspect(spec, None if write_mapping is None else Path(write_mapping))


@takes_options(deploying.MapSpec, only=(*MapOptions.model_fields, *OF_A_MAPPING, *_OF_DATA))
def map_model(
    model: str | Path,
    device: str | Path = "rram",
    data: str | Path | None = None,
    *,
    out: str | Path,
    overwrite: bool = False,
    progress: Progress = quiet,
    **options: Any,
) -> MapReport:
    """Write what every device is to hold, crossbar by crossbar: `nvaudit map`.

    Parameters
    ----------
    model, device, data, progress
        As of :func:`nvaudit.audit`.
    out : str or Path
        The folder of the arrays; made whole or not at all.
    overwrite : bool
        Replace a folder that this has written.
    **options
        The options of `nvaudit map`.
    """
    spec = deploying.MapSpec.validated({"model": model, "device": device, "data": data, **options})
    check_folder(Path(out), overwrite, names_written, "out")
    return deploying.map_model(spec, Path(out), progress)


@takes_options(RunSpec, only=_OF_DATA)
def check_mapping(
    folder: str | Path,
    model: str | Path | None = None,
    *,
    progress: Progress = quiet,
    **options: Any,
) -> MapReport:
    """Put the arrays of a mapping together, and compare with the quantised model: `nvaudit map --check`.

    Parameters
    ----------
    folder : str or Path
        What :func:`nvaudit.map_model` wrote.
    model : str or Path, optional
        By default that of the mapping.
    progress
        As of :func:`nvaudit.audit`.
    **options
        Options of the data.
    """
    path = None if model is None else Path(model)
    return reassembling.check_mapping(Path(folder), path, progress=progress, **options)


@takes_options(RunSpec, only=_CALIBRATED)
def calibrate(
    model: str | Path,
    chip: str | Path,
    out: str | Path,
    data: str | Path | None = None,
    test_data: str | Path | None = None,
    *,
    name: str | None = None,
    samples: int = 100,
    method: Method = "least_squares",
    progress: Progress = quiet,
    **options: Any,
) -> CalibrateReport:
    """Correct one chip that was read back digitally, and write it as an ordinary ONNX model.

    Parameters
    ----------
    model, progress
        As of :func:`nvaudit.audit`.
    chip : str or Path
        The folder of chips that were read back.
    out : str or Path
        The ONNX file of the corrected chip.
    data : str or Path, optional
        Unlabelled samples to correct by; without it some of the test data, which are then not scored.
    test_data : str or Path, optional
        What the chip is scored on; without it ``MODEL.npz`` beside the model.
    name : str, optional
        Which chip of the folder; without it the only one.
    samples : int
        Samples to correct by.
    method : {"least_squares", "moments"}
    **options
        The options of `nvaudit calibrate`.
    """
    check_product(Path(out), {"the model": model, "the data": data, "the test data": test_data}, "out")
    samples_from, scored = (None if path is None else str(path) for path in (data, test_data))
    return chip_calibrating.calibrate_chip(
        model, Path(chip), Path(out), data=samples_from, test_data=scored, samples=samples, method=method,
        name=name, progress=progress, **options,
    )  # fmt: skip


def fit_device(
    mapping: str | Path,
    measured: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    name: str | None = None,
    trials: int | None = None,
    data: str | Path | None = None,
    technology: str | None = None,
    citation: str | None = None,
    progress: Progress = quiet,
) -> FitReport:
    """Make a device profile from whole arrays that were read back: `nvaudit devices fit`.

    Parameters
    ----------
    mapping : str or Path
        What :func:`nvaudit.map_model` wrote.
    measured : str or Path, or a sequence of such
        Folders of chips that were read back.
    out : str or Path
        The profile, a JSON file.
    name : str, optional
        Of the profile; without it that of the file.
    trials : int, optional
        Chips that are simulated with the new profile, among which the measured ones are placed.
    data : str or Path, optional
        For these.
    technology, citation : str, optional
        What the device is, and where the measurement is published.
    progress : callable
        As of :func:`nvaudit.audit`.
    """
    folders = [measured] if isinstance(measured, str | Path) else measured
    return fitting.fit_chips(
        Path(mapping), [Path(folder) for folder in folders], Path(out), name=name,
        trials=trials, data=None if data is None else str(data), technology=technology, citation=citation,
        progress=progress,
    )  # fmt: skip


def fit_table(
    csv: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    unit: TableUnit | None = None,
    levels: Sequence[int] | None = None,
    window: tuple[float, float] | None = None,
    technology: str | None = None,
    citation: str | None = None,
    encoding: Encoding = "sign_magnitude",
    weight_bits: int = 8,
) -> DeviceReport:
    """Make a device profile from a table of levels, and show it: `nvaudit devices fit` of a CSV file.

    Parameters
    ----------
    csv : str or Path
        The measured conductances of each level.
    out : str or Path
        The profile, a JSON file.
    name : str, optional
        Of the profile; without it that of the file.
    unit, levels, window, technology, citation, encoding, weight_bits
        As of :func:`nvaudit.device.fit_profile`.
    """
    fitting.fit_table(
        Path(csv), Path(out), name=name, unit=unit, levels=levels, window=window, technology=technology,
        citation=citation, encoding=encoding, weight_bits=weight_bits,
    )  # fmt: skip
    return show_device(out)


@takes_options(RunSpec, only=_SHOWN)
def show_device(device: str | Path, **options: Any) -> DeviceReport:
    """Show a profile: σ and law of every level, and what it makes of a weight.

    Parameters
    ----------
    device : str or Path
        Name of a bundled profile, or a profile file.
    **options
        The options of `nvaudit devices show`.
    """
    return describing.describe_device(make_spec(model="-", device=device, **options))


def list_devices() -> ProfileList:
    """List the bundled device profiles with what each has: `nvaudit devices list`."""
    return describing.list_profiles()


@takes_options(RunSpec, only=_OF_TECHNOLOGY)
def show_technology(technology: str | Path, **options: Any) -> TechnologyReport:
    """Show every number of a technology with its source.

    Parameters
    ----------
    technology : str or Path
        Name of a bundled technology, or a technology file.
    **options
        The options of `nvaudit technology show`.
    """
    return describing.describe_technology(load_technology(technology), make_spec(model="-", **options))


def list_technologies() -> TechnologyList:
    """List the bundled technologies: `nvaudit technology list`."""
    return describing.list_technologies()
