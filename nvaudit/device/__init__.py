"""Devices: profiles, their laws and noise terms, and the operating point at which one is simulated."""

from nvaudit.device.fit import fit_profile
from nvaudit.device.law import Law, evaluate
from nvaudit.device.load import (
    dump_profile,
    load_profile,
    parse_profile,
    profile_digest,
    profile_names,
    profile_schema,
)
from nvaudit.device.override import ADDED_TERMS, add_terms, override_profile
from nvaudit.device.point import OperatingPoint, operating_point
from nvaudit.device.profile import DeviceProfile, Scale, SigmaKnob, Source, TimeKnob, Window
from nvaudit.device.terms import (
    Clip,
    Drift,
    LogDecay,
    Lognormal,
    NoiseTerm,
    Normal,
    OneOverF,
    Read,
    Shared,
    StuckAt,
    TableLevel,
    TableTerm,
    log_decay_at,
    one_over_f_factor,
)

__all__ = [
    "ADDED_TERMS",
    "Clip",
    "DeviceProfile",
    "Drift",
    "Law",
    "LogDecay",
    "Lognormal",
    "NoiseTerm",
    "Normal",
    "OneOverF",
    "OperatingPoint",
    "Read",
    "Scale",
    "Shared",
    "SigmaKnob",
    "Source",
    "StuckAt",
    "TableLevel",
    "TableTerm",
    "TimeKnob",
    "Window",
    "add_terms",
    "dump_profile",
    "evaluate",
    "fit_profile",
    "load_profile",
    "log_decay_at",
    "one_over_f_factor",
    "operating_point",
    "override_profile",
    "parse_profile",
    "profile_digest",
    "profile_names",
    "profile_schema",
]
