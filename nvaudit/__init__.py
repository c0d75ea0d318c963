"""Audit any ONNX model for non-volatile compute-in-memory hardware.

The commands as functions, one for each that makes a report: :func:`audit` and :func:`sweep`,
:func:`calibrate`, :func:`check`, :func:`compare`, :func:`estimate_cost`, :func:`explore`,
:func:`fit_device` and :func:`fit_table`, :func:`harden` and :func:`remap`, :func:`inspect`,
:func:`landscape`, :func:`list_devices`, :func:`list_technologies`, :func:`map_model` and
:func:`check_mapping`, :func:`plan`, :func:`replay`, :func:`roofline`, :func:`show_device`,
:func:`show_technology`, :func:`verify_plan`. They are loaded when first used, so that ``import nvaudit``
is light. :func:`load` reads a report of any of them. What is wrong with an input is raised as a
:class:`NvauditError`.
"""

from typing import TYPE_CHECKING, Any

from nvaudit._version import __version__

if TYPE_CHECKING:
    from nvaudit.errors import NvauditError
    from nvaudit.jobs.auditing import audit
    from nvaudit.jobs.checking import check
    from nvaudit.jobs.comparing import compare
    from nvaudit.jobs.costing import estimate_cost
    from nvaudit.jobs.exploring import explore
    from nvaudit.jobs.hardening import harden
    from nvaudit.jobs.landscaping import landscape
    from nvaudit.jobs.remapping import remap
    from nvaudit.jobs.replaying import replay
    from nvaudit.jobs.rooflining import roofline
    from nvaudit.jobs.sweeping import sweep
    from nvaudit.jobs.verbs import (
        calibrate,
        check_mapping,
        fit_device,
        fit_table,
        inspect,
        list_devices,
        list_technologies,
        map_model,
        plan,
        show_device,
        show_technology,
    )
    from nvaudit.jobs.verifying import verify_plan
    from nvaudit.report.check.result import CheckReport
    from nvaudit.report.comparison.result import ComparisonReport
    from nvaudit.report.explore.result import ExploreReport
    from nvaudit.report.hardening.result import HardenReport
    from nvaudit.report.kinds import load
    from nvaudit.report.landscape.result import LandscapeReport
    from nvaudit.report.remap.result import RemapReport
    from nvaudit.report.result import AuditReport
    from nvaudit.report.roofline.result import RooflineReport
    from nvaudit.report.sweep.result import SweepReport
    from nvaudit.report.write_verify.result import VerifyReport

__all__ = [
    "AuditReport",
    "CheckReport",
    "ComparisonReport",
    "ExploreReport",
    "HardenReport",
    "LandscapeReport",
    "NvauditError",
    "RemapReport",
    "RooflineReport",
    "SweepReport",
    "VerifyReport",
    "__version__",
    "audit",
    "calibrate",
    "check",
    "check_mapping",
    "compare",
    "estimate_cost",
    "explore",
    "fit_device",
    "fit_table",
    "harden",
    "inspect",
    "landscape",
    "list_devices",
    "list_technologies",
    "load",
    "map_model",
    "plan",
    "remap",
    "replay",
    "roofline",
    "show_device",
    "show_technology",
    "sweep",
    "verify_plan",
]

_HOME = {
    "audit": "nvaudit.jobs.auditing",
    "calibrate": "nvaudit.jobs.verbs",
    "check": "nvaudit.jobs.checking",
    "check_mapping": "nvaudit.jobs.verbs",
    "compare": "nvaudit.jobs.comparing",
    "estimate_cost": "nvaudit.jobs.costing",
    "explore": "nvaudit.jobs.exploring",
    "fit_device": "nvaudit.jobs.verbs",
    "fit_table": "nvaudit.jobs.verbs",
    "harden": "nvaudit.jobs.hardening",
    "inspect": "nvaudit.jobs.verbs",
    "landscape": "nvaudit.jobs.landscaping",
    "list_devices": "nvaudit.jobs.verbs",
    "list_technologies": "nvaudit.jobs.verbs",
    "load": "nvaudit.report.kinds",
    "map_model": "nvaudit.jobs.verbs",
    "plan": "nvaudit.jobs.verbs",
    "remap": "nvaudit.jobs.remapping",
    "replay": "nvaudit.jobs.replaying",
    "roofline": "nvaudit.jobs.rooflining",
    "show_device": "nvaudit.jobs.verbs",
    "show_technology": "nvaudit.jobs.verbs",
    "sweep": "nvaudit.jobs.sweeping",
    "verify_plan": "nvaudit.jobs.verifying",
    "NvauditError": "nvaudit.errors",
    "AuditReport": "nvaudit.report.result",
    "CheckReport": "nvaudit.report.check.result",
    "ComparisonReport": "nvaudit.report.comparison.result",
    "ExploreReport": "nvaudit.report.explore.result",
    "HardenReport": "nvaudit.report.hardening.result",
    "LandscapeReport": "nvaudit.report.landscape.result",
    "RemapReport": "nvaudit.report.remap.result",
    "RooflineReport": "nvaudit.report.roofline.result",
    "SweepReport": "nvaudit.report.sweep.result",
    "VerifyReport": "nvaudit.report.write_verify.result",
}


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'nvaudit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List what is public, loaded or not."""
    return sorted(set(__all__))
