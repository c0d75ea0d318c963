"""Cells of the papers' tables: train one network, audit it, and keep both so that a study can go on.

A cell is a method, a spread, a seed and options. Its hardened model and the numbers of its audit are kept in
a folder under the name of the cell; what is there already is not run again. Trained networks do not depend
on how they are audited, so several audits (spreads, devices) share one. With ``--results FILE`` the numbers
also go to a file that is small enough to be kept with the project: from it a study goes on on another
machine, and prints its table without running anything.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nvaudit
from nvaudit.jobs.hardening import harden


@dataclass(frozen=True)
class Setting:
    """What the cells of a study share.

    Attributes
    ----------
    model, train, test : Path
    folder : Path
        Results are kept here.
    options : dict
        For every hardening.
    device : str
    sigma_unit : str
    bits : int, "ternary" or None
    trials : int
        Chips of an audit.
    images : int
        Test images of an audit.
    audit : dict
        Further options of an audit; they come before those above.
    results : Path or None
        JSON lines of every cell.
    """

    model: Path
    train: Path
    test: Path
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    device: str = "rram"
    sigma_unit: str | None = "weight_max"
    bits: int | str | None = None
    trials: int = 1000
    images: int = 1000
    audit: dict[str, Any] = field(default_factory=dict)
    results: Path | None = None


def trained(setting: Setting, name: str, method: str, sigma: float, seed: int, **own: Any) -> Path:
    """Train a network, or find it trained.

    Parameters
    ----------
    setting : Setting
    name : str
        Of the file.
    method : str
    sigma : float
        Spread of the device that it is trained for, in the setting's unit.
    seed : int
    **own
        Options of this cell.

    Returns
    -------
    Path
        Of the ONNX file.
    """
    setting.folder.mkdir(parents=True, exist_ok=True)
    path = setting.folder / f"{name}-{seed}.onnx"
    if path.exists():
        return path
    print(f"{time.strftime('%H:%M:%S')} {path.stem}: training", file=sys.stderr, flush=True)
    report = harden(
        setting.model,
        setting.device,
        setting.train,
        out=path,
        method=method,
        sigma=sigma,
        sigma_unit=setting.sigma_unit,
        bits=setting.bits,
        seed=seed,
        trials=2,
        audit_images=50,
        roughness=False,
        **{**setting.options, **own},
    )
    path.with_suffix(".train.json").write_text(json.dumps(report.timing) + "\n", encoding="utf-8")
    return path


def audited(setting: Setting, path: Path, sigma: float) -> dict[str, float]:
    """Audit a network, or read the numbers of an earlier audit.

    Returns
    -------
    dict of str to float
        ``nominal``, ``quantised``, ``kpp``, ``low``, ``high``, ``mean``; all in 0 … 1.
    """
    unit = setting.sigma_unit or "own"
    adc = f"-adc{setting.audit['adc_bits']}" if "adc_bits" in setting.audit else ""
    kept = path.with_name(
        f"{path.stem}@{setting.device}-{sigma:g}-{unit}-{setting.trials}x{setting.images}{adc}.json"
    )
    if kept.exists():
        found: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    report = nvaudit.audit(
        path,
        setting.device,
        setting.test,
        sigmas=(sigma,),
        sigma_unit=setting.sigma_unit,
        trials=setting.trials,
        limit=setting.images,
        roughness=False,
        **{"bits": setting.bits, **setting.audit},
    )
    (band,) = report.kpp
    numbers = {
        "nominal": report.nominal,
        "quantised": report.quantised,
        "kpp": band.value,
        "low": math.nan if band.low is None else band.low,
        "high": math.nan if band.high is None else band.high,
        "mean": report.trials.mean,
    }
    kept.write_text(json.dumps(numbers) + "\n", encoding="utf-8")
    return numbers


def measured(
    setting: Setting, name: str, method: str, sigma: float, seed: int, audit_sigma: float, **own: Any
) -> dict[str, float]:
    """Train and audit one cell, or read its numbers from the results."""
    unit, options = setting.sigma_unit or "own", {**setting.options, **own}
    cell = {
        "cell": f"{setting.model.stem} {name} seed {seed}, {setting.device} {audit_sigma:g} {unit}",
        "chips": setting.trials,
        "images": setting.images,
        "bits": setting.bits,
        "options": options,
        "audit": setting.audit,
    }
    if setting.results is not None and setting.results.exists():
        for line in setting.results.read_text(encoding="utf-8").splitlines():
            row: dict[str, Any] = json.loads(line)
            if all(row[key] == value for key, value in cell.items()):
                numbers: dict[str, float] = row["numbers"]
                return numbers
    numbers = audited(setting, trained(setting, name, method, sigma, seed, **own), audit_sigma)
    if setting.results is not None:
        with setting.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**cell, "numbers": numbers}) + "\n")
    return numbers


def points(values: list[float]) -> str:
    """Mean in percent; with several, ± the half width of its 95 % t interval."""
    mean = f"{100 * statistics.mean(values):.1f}"
    if len(values) < 2:
        return mean
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {100 * half:.1f}"


def arguments(description: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Options that every study of the papers takes; ``defaults`` are this study's."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX file that gives the architecture")
    parser.add_argument("train", type=Path, help=".npz of training images")
    parser.add_argument("test", type=Path, help=".npz of test images; they take no part in any choice")
    parser.add_argument("-o", dest="folder", type=Path, required=True, help="folder of the results")
    parser.add_argument("--results", type=Path, metavar="FILE.jsonl", help="the numbers of finished cells")
    parser.add_argument("--sigmas", nargs="+", type=float, default=defaults.get("sigmas"))
    parser.add_argument("--methods", nargs="+", default=defaults.get("methods"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=defaults.get("epochs", 100))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--limit", type=int, help="training images, before a fifth is held out")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--bits", type=int, default=defaults.get("bits"))
    parser.add_argument("--sigma-unit", default=defaults.get("sigma_unit", "weight_max"))
    parser.add_argument("--train-trials", type=int, default=300)
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--fine-tune", action="store_true", help="from the given weights, not from new ones")
    return parser


def setting_of(given: argparse.Namespace, device: str = "rram") -> Setting:
    """The setting that a command line describes."""
    options: dict[str, Any] = {
        "epochs": given.epochs,
        "batch_size": given.batch_size,
        "limit": given.limit,
        "reset": not given.fine_tune,
        "train_trials": given.train_trials,
    }
    for pair in given.option:
        name, _, value = pair.partition("=")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    audit = {
        name: options[name] for name in ("scale",) if name in options
    }  # a model is audited as it is trained
    return Setting(
        given.model, given.train, given.test, given.folder, options, device, given.sigma_unit, given.bits,
        given.trials, given.images, audit, given.results,
    )  # fmt: skip
