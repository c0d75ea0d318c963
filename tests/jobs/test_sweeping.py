"""A sweep: every combination of several values, as one report."""

import math

import numpy as np
import pytest

import nvaudit
from nvaudit.errors import NvauditError, OptionError
from nvaudit.jobs import several
from nvaudit.jobs.sweeping import axes_of, plan_sweep, sweep
from nvaudit.perturb.stop import TimeLimit
from nvaudit.perturb.workers import WorkerPool
from nvaudit.report.kinds import csv_of, junit_of
from nvaudit.stats.paired import kpp_difference

FEW = {"trials": 20, "limit": 40, "workers": 0}


def plan(example, **options):
    """A plan over the example network."""
    return plan_sweep({"model": str(example), **FEW, **options})


def test_every_combination(example):
    """The last axis is the fastest; of one value there is no axis."""
    found = plan(example, adc_bits=(4, 6), crossbar=((32, 32), (64, 64)), bits=(7,))
    assert [axis.name for axis in found.axes] == ["crossbar", "adc_bits"]
    assert [(spec.crossbar, spec.adc_bits, spec.bits) for _, spec in found.audits] == [
        ((32, 32), 4, 7), ((32, 32), 6, 7), ((64, 64), 4, 7), ((64, 64), 6, 7)
    ]  # fmt: skip
    assert found.audits[1][0] == {"crossbar": "32x32", "adc_bits": 6}


def test_sigma_is_an_axis_beside_another_one_only():
    """Several sigmas alone are one audit at several points, as before."""
    assert axes_of({"sigmas": (0.1, 0.2), "crossbar": (64, 64)}) == (
        {},
        {"sigmas": (0.1, 0.2), "crossbar": (64, 64)},
    )
    axes, fixed = axes_of({"sigmas": (0.1, 0.2), "device": ("rram", "pcm"), "bits": (4, 4)})
    assert axes == {"sigmas": (0.1, 0.2), "device": ("rram", "pcm")}
    assert fixed == {"bits": 4}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crossbar": ((32, 32), (64, 64))}, "without --adc-bits all of these are the same chips"),
        ({"adc_bits": (1, 4)}, "ADC bits 1: --adc-bits: got 1; use a whole number from 2 to 16"),
        ({"time_s": (0.0, 86400.0)}, "time 1 d: time: 86400 s: profile 'rram' does not change with time"),
        ({"device": ("rram", "nope")}, "device nope: device: 'nope' is not a bundled profile"),
        ({"adc_bits": (None, 4), "dac_bits": (4, 5)}, "ADC bits ideal, DAC bits 4: --dac-bits is for"),
        ({"bits": (4, 5), "attribute": ("all",)}, "--attribute and several values of --bits: choose one"),
        ({"bits": (4, 5), "sigmas": tuple(range(400))}, "the sweep has 800 combinations"),
        ({"bits": (4, 5), "max_minutes": 1.0, "exhaustive": True, "min_kpp": 0.5},
         "--max-minutes and --exhaustive: choose one"),
    ],
)  # fmt: skip
def test_refused(example, options, said):
    """What makes no sense is refused before anything runs, with the combination."""
    with pytest.raises(NvauditError) as caught:
        plan(example, **options)
    assert said in str(caught.value)


def test_ideal_converters_among_others(example):
    """What is for converters alone is left out of the combination without any."""
    found = plan(example, adc_bits=(None, 6), adc_range="full_scale")
    assert [(spec.adc_bits, spec.adc_range) for _, spec in found.audits] == [(None, "max"), (6, "full_scale")]


def test_same_as_audits_alone_and_paired(example):
    """Each combination finds what an audit of it finds; differences are those of the same chips."""
    many = {**FEW, "trials": 440, "limit": 15}
    report = sweep(example, "fefet1", bits=[7, 4], sigma=0.3, **many)
    alone = [
        nvaudit.audit(example, "fefet1", bits=bits, sigma=0.3, roughness=False, **many) for bits in (7, 4)
    ]
    assert [audit.settings for audit in report.audits] == [{"bits": 7}, {"bits": 4}]
    for audit, other in zip(report.audits, alone, strict=True):
        assert audit.report.trials == other.trials
        assert audit.report.nominal == other.nominal
    first, second = report.audits
    assert first.to_first is None
    expected = kpp_difference(*(np.array(one.trials.values) for one in alone), 1.0, 0.95, True)
    found = second.to_first.kpp
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    assert found.low is not None


def test_lists_and_texts(example):
    """Keywords take lists, one value, and what is typed; audit() refers to sweep()."""
    report = sweep(example, ["rram", "fefet1"], bits="4:5", cell_bits=2, **FEW)
    assert [audit.text for audit in report.audits] == [
        "device rram, bits of a weight 4", "device rram, bits of a weight 5",
        "device fefet1, bits of a weight 4", "device fefet1, bits of a weight 5",
    ]  # fmt: skip
    assert {audit.report.device["cell_bits"] for audit in report.audits} == {2}
    with pytest.raises(OptionError, match="no option has several values"):
        sweep(example, **FEW)
    with pytest.raises(OptionError, match=r"several values are a sweep: nvaudit\.sweep"):
        nvaudit.audit(example, bits=[4, 5], **FEW)


def test_tables(example):
    """One table holds every combination with its numbers and its difference from the first."""
    report = sweep(example, ["rram", "fefet1"], min_kpp=0.1, **FEW)
    header, *rows = csv_of(report).splitlines()
    columns = header.split(",")
    assert columns[0] == "device"
    assert [row.split(",")[0] for row in rows] == ["rram", "fefet1"]
    for name in ("kpp", "kpp_low", "mean", "kpp_to_first", "mean_to_first_low", "verdict"):
        assert name in columns
    chips = csv_of(report, "chips").splitlines()
    assert len(chips) == 1 + 2 * FEW["trials"]
    assert "device fefet1: KPP 1 %" in junit_of(report)


def test_one_pool(example, monkeypatch):
    """Worker processes and the ideal run are made once for all combinations."""
    opened, asked = [], []
    init, submit = WorkerPool.__init__, WorkerPool.submit
    monkeypatch.setattr(WorkerPool, "__init__", lambda self, *a: opened.append(a) or init(self, *a))
    monkeypatch.setattr(
        WorkerPool,
        "submit",
        lambda self, what, method, *a: asked.append(method) or submit(self, what, method, *a),
    )
    report = sweep(example, cell_bits=[1, 2, 4], **{**FEW, "workers": 1, "trials": 3})
    assert len(opened) == 1
    assert asked.count("nominal") == 1
    assert len(report.ran) == 3


def test_resume(example, tmp_path):
    """Finished chips of each combination are kept and not run again."""
    first = sweep(example, bits=[4, 5], resume=tmp_path, **FEW)
    again = sweep(example, bits=[4, 5], resume=tmp_path, **FEW)
    for one, other in zip(first.audits, again.audits, strict=True):
        assert one.report.trials == other.report.trials
        assert any("were read from" in event for event in other.report.events)


def test_minutes_are_those_of_all(example, monkeypatch):
    """--max-minutes is shared by the combinations; what it does not reach is named."""
    spent, given, run = iter([2.0, 7.0]), [], several.run_audit

    def audit(spec, *rest):
        given.append(spec.max_minutes)
        report = run(spec, *rest)
        now = next(spent)
        monkeypatch.setattr(TimeLimit, "spent", property(lambda self: now if self.minutes == 6 else 0.0))
        return report

    monkeypatch.setattr(TimeLimit, "spent", property(lambda self: 0.0))
    monkeypatch.setattr(several, "run_audit", audit)
    report = sweep(example, bits=[4, 5, 6], max_minutes=6, **FEW)
    assert given == [2.0, 2.0]
    assert report.audits[2].why_not == "the time was over (--max-minutes)"
    assert "2 of 3 audits" in report.headline


def test_a_headline_of_audits_that_share_nothing_has_no_gap(example):
    """With other devices at other sigmas only the share on the array is common."""
    report = sweep(example, ("rram", "fefet1"), sigma=[0.1, 0.2], **FEW)
    assert "4 audits, 20 chips each; 100 % of the products on the array" in report.headline


def test_headline_names_the_ends(example):
    """The headline says from which to which KPP, and where these are."""
    report = sweep(example, sigma=[0, 0.4], bits=[4, 7], **FEW)
    kpps = [audit.report.kpp[0].value for audit in report.audits]
    assert f"from {100 * min(kpps):.2f} %" in report.headline
    assert f"to {100 * max(kpps):.2f} %" in report.headline
    assert "over σ and bits of a weight: 4 audits, 20 chips each; on rram; 100 % of the" in report.headline
    assert math.isfinite(report.timing["total"])


@pytest.mark.parametrize(("device", "more"), [([], {}), ("rram", {"adc_bits": []})])
def test_empty_lists(example, device, more):
    """A list without a value is refused by its name; it does not stand for the default."""
    with pytest.raises(OptionError, match=rf"^{'adc_bits' if more else 'device'}: is an empty list"):
        nvaudit.sweep(example, device, seed=[1, 2], **more)
