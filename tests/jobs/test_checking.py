"""A matrix of audits: which audits it has, what they share, and what it says together."""

from pathlib import Path

import pytest

import nvaudit
from nvaudit import session
from nvaudit.errors import OptionError
from nvaudit.jobs import several
from nvaudit.jobs.checking import CheckOptions, check, plan_check, run_check
from nvaudit.perturb.stop import TimeLimit
from nvaudit.perturb.workers import WorkerPool
from nvaudit.report.check.result import CheckReport

FEW = {"trials": 20, "limit": 40, "workers": 0}


def plan(example, *, options=None, **more):
    """A plan over the example network."""
    given = {"models": [str(example)], "devices": ["rram"], "conditions": [], **more}
    return plan_check(**given, general={**FEW, "min_kpp": 0.5}, options=CheckOptions(**(options or {})))


def names(found) -> list[str]:
    """Names of the audits."""
    return [named.name.text for named in found.audits]


def test_names(example):
    """Each model on each device under each condition; without conditions there is one, without a name."""
    found = plan(
        example,
        models=[{"path": str(example), "name": "a"}, {"path": str(example), "name": "b"}],
        devices=["rram", "pcm"],
    )
    assert names(found) == ["a / rram", "a / pcm", "b / rram", "b / pcm"]
    found = plan(example, conditions=[{"name": "x"}, {"name": "y", "sigmas": (0.2,)}])
    assert names(found) == [f"{example.stem} / rram / x", f"{example.stem} / rram / y"]
    assert [named.spec.sigmas for named in found.audits] == [(), (0.2,)]


def test_whose_options_win(example):
    """Those of a model over those of all, a device's over a model's, a condition's over a device's."""
    axes = {
        "models": [{"path": str(example), "trials": 21, "seed": 1, "bits": 3, "limit": 10}],
        "devices": [{"profile": "rram", "seed": 2, "bits": 4, "limit": 11}],
        "conditions": [{"name": "c", "bits": 5, "limit": 12}],
        "exceptions": [{"condition": "c", "limit": 13}],
    }
    spec = plan(example, **axes).audits[0].spec
    assert (spec.trials, spec.seed, spec.bits, spec.limit, spec.min_kpp) == (21, 2, 5, 13, 0.5)
    forced = plan_check(**axes, general=FEW, forced={"limit": 7}).audits[0].spec
    assert forced.limit == 7


def test_left_out(example):
    """An exception and --only leave audits out, and the plan names them, each with its reason."""
    found = plan(
        example,
        devices=["rram", "pcm", "fefet1"],
        exceptions=[{"device": ["pcm"], "skip": True}],
        options={"only": ("* / rram", "* / pcm")},
    )
    assert names(found) == [f"{example.stem} / rram"]
    assert found.skipped == (f"{example.stem} / pcm",)
    assert found.left_out == (f"{example.stem} / fefet1",)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"models": []}, "models: there is none"),
        ({"devices": [{"name": "x"}]}, "devices: {'name': 'x'}: has no profile"),
        ({"devices": ["rram", "rram"]}, "devices: 'rram' is given twice"),
        ({"exceptions": [{"device": "pcm"}]}, "exceptions: device 'pcm' is none of rram"),
        ({"conditions": [{"name": "c", "bits": 99}]}, "digits_cnn / rram / c: --bits: got 99"),
        ({"conditions": [{"name": "c", "sigmas": (9e9,)}]}, "digits_cnn / rram / c: "),
        ({"devices": ["no such"]}, "digits_cnn / no such: "),
        ({"options": {"only": ("x",)}}, "no audit is left to run"),
        ({"conditions": [{"name": "c", "exhaustive": True}], "options": {"total_minutes": 1.0}},
         "--total-minutes and --exhaustive"),
    ],
)  # fmt: skip
def test_refused(example, more, said):
    """What makes no sense is refused before anything runs, with the audit where it is one's."""
    with pytest.raises(Exception, match=said.replace("(", r"\(").replace("[", r"\[")) as caught:
        plan(example, **more)
    assert isinstance(caught.value, nvaudit.errors.NvauditError)


def test_same_as_an_audit_alone(example):
    """An audit of a matrix finds what one with the same options finds, though the ideal run is shared."""
    report = check(
        [str(example)], ["rram", "fefet1"], [{"name": "a"}, {"name": "b", "seed": 5}], min_kpp=0.6, **FEW
    )
    assert isinstance(report, CheckReport)
    for named, (device, seed) in zip(
        report.audits, [("rram", 0), ("rram", 5), ("fefet1", 0), ("fefet1", 5)], strict=True
    ):
        alone = nvaudit.audit(example, device, seed=seed, min_kpp=0.6, roughness=False, **FEW)
        assert named.report is not None
        assert named.report.headline == alone.headline
        assert named.report.trials == alone.trials
        assert named.report.nominal == alone.nominal


def test_shared_work(example, monkeypatch):
    """The model is read once for the matrix, and its ideal run is made once for each set of inputs."""
    asked, loads = [], []
    submit, load = WorkerPool.submit, session.load_model
    monkeypatch.setattr(
        WorkerPool,
        "submit",
        lambda self, what, method, *a: asked.append(method) or submit(self, what, method, *a),
    )
    monkeypatch.setattr(session, "load_model", lambda *a: loads.append(a) or load(*a))
    check([str(example)], ["rram", "fefet1"], [{"name": "a"}, {"name": "fewer", "limit": 30}], **FEW)
    assert len(loads) == 1
    assert asked.count("nominal") == 2


def test_nothing_is_timed_that_nobody_is_told(example, monkeypatch):
    """From Python no model is prepared for words that would be thrown away."""
    timed, told = [], []
    monkeypatch.setattr(several, "sample_seconds", lambda workload: timed.append(workload) or 0.01)
    found = plan(example)
    run_check(found)
    assert not timed
    run_check(found, on_estimate=told.append)
    assert len(timed) == len(told) == 1


def test_verdict_is_the_worst(example):
    """One audit that fails fails the matrix; the headline counts."""
    report = check(
        [str(example)], ["rram"], [{"name": "low", "min_kpp": 0.01}, {"name": "high", "min_kpp": 0.999}],
        all_trials=True, percentiles=(10.0,), **{**FEW, "trials": 60},
    )  # fmt: skip
    assert [named.verdict for named in report.audits] == ["pass", "fail"]
    assert report.verdict == "fail"
    assert report.headline == "FAIL: of 2 audits, 1 fails, 1 passes (1 model, 1 device, 2 conditions)"
    assert CheckReport.model_validate_json(report.model_dump_json()) == report


def test_no_gate(example):
    """A matrix that demands nothing has no verdict."""
    report = check([str(example)], **FEW)
    assert report.verdict is None
    assert report.headline.startswith("NO GATE: of 1 audit, 1 has no gate")


def test_fail_fast(example):
    """The rest is not run once an audit fails, and says so."""
    conditions = [{"name": str(at), "min_kpp": threshold} for at, threshold in enumerate((0.999, 0.1))]
    report = check([str(example)], ["rram"], conditions, fail_fast=True, **{**FEW, "trials": 400})
    assert report.audits[0].verdict == "fail"
    assert report.audits[1].report is None
    assert "has failed (--fail-fast)" in report.audits[1].why_not
    assert report.verdict == "fail"


def test_total_minutes(example, monkeypatch):
    """Audits that the time does not reach are undecided, which is no pass."""
    report = check([str(example)], min_kpp=0.1, total_minutes=1e-9, **FEW)
    assert report.audits[0].why_not == "the time was over (--total-minutes)"
    assert report.verdict == "undecided"


def test_share_of_the_time(example, monkeypatch):
    """Every audit has its share of what is left, at most what it has of its own."""
    given = []
    run = several.run_audit
    monkeypatch.setattr(TimeLimit, "spent", property(lambda self: 0.0))
    monkeypatch.setattr(
        several, "run_audit", lambda spec, *rest: given.append(spec.max_minutes) or run(spec, *rest)
    )
    conditions = [{"name": "a"}, {"name": "b", "max_minutes": 1.5}, {"name": "c"}]
    check([str(example)], ["rram"], conditions, min_kpp=0.1, total_minutes=6, **FEW)
    assert given == [2.0, 1.5, 6.0]


def test_bad_data_of_the_last_model(example, tmp_path, unlabelled):
    """A model that cannot be run is found before the first audit runs."""
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"nothing")
    told = []
    with pytest.raises(nvaudit.errors.DataError, match=r"^b / rram: "):
        check(
            [{"path": str(example), "name": "a"}, {"path": str(example), "name": "b", "data": str(broken)}],
            progress=lambda what, done, total: told.append(what), **FEW,
        )  # fmt: skip
    assert not any("chips" in what or "trial" in what for what in told)


def test_resume(example, tmp_path):
    """Finished chips of each audit are kept in a folder of its own and are not run again."""
    kept = tmp_path / "kept"
    first = check([str(example)], ["rram", "fefet1"], resume=kept, **FEW)
    again = check([str(example)], ["rram", "fefet1"], resume=kept, **FEW)
    assert len(list(kept.iterdir())) == 2
    for one, other in zip(first.audits, again.audits, strict=True):
        assert one.report is not None
        assert other.report is not None
        assert one.report.trials == other.report.trials
        assert any("were read from" in event for event in other.report.events)


def test_python_refuses_a_wrong_option(example):
    """An option that an audit does not have is refused."""
    with pytest.raises(OptionError, match="there is no such option"):
        check([str(example)], sigmaa=3, **FEW)


def test_is_a_verb():
    """`nvaudit.check` is there, and a path is a model."""
    assert nvaudit.check is check
    assert Path(nvaudit.jobs.checking.__file__).name == "checking.py"
