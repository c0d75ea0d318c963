"""A command with ``--max-minutes`` ends in good order with what it has, and says how far it came."""

import math
import shutil
import time
from dataclasses import replace

import pytest

from nvaudit.jobs import attributing, measuring, several
from nvaudit.jobs.auditing import audit, run_audit
from nvaudit.jobs.comparing import compare
from nvaudit.jobs.landscaping import landscape
from nvaudit.jobs.remapping import remap
from nvaudit.jobs.rooflining import roofline
from nvaudit.perturb.stop import TimeLimit
from nvaudit.report.kinds import document_of
from nvaudit.report.render.markdown import markdown_document
from nvaudit.report.sections import TimeBox
from nvaudit.session import prepare
from nvaudit.spec import make_spec
from nvaudit.stats.binomial import trials_for_bound

NO_TIME = 1e-6
FEW = {"limit": 16, "workers": 0}


def test_a_landscape_has_the_pairs_that_are_whole(example):
    """At least one pair; these are the first of a run without a limit, to the last bit."""
    boxed = landscape(example, pairs=4, grid=3, images=8, max_minutes=NO_TIME, **FEW)
    whole = landscape(example, pairs=4, grid=3, images=8, **FEW)
    pairs = len(boxed.fits)
    assert 1 <= pairs < 4
    assert boxed.surface.losses == whole.surface.losses[:pairs]
    assert boxed.roughness.pairs == boxed.time_boxed.done == pairs
    assert boxed.time_boxed.wanted == 4
    assert f"{pairs} of 4 direction pairs were done" in markdown_document(document_of(boxed))
    assert whole.time_boxed is None


def test_an_attribution_has_whole_chips(example):
    """All variants of its first chips, at least of one, as in an attribution of so many chips."""
    options = {"model": example, "trials": 4, "roughness": False, "attribute": ("tensors",), **FEW}
    spec = make_spec(**options, attribution_trials=3000, max_minutes=0.05)
    begin = time.monotonic()
    boxed = run_audit(spec)
    chips = boxed.attribution_detail.tensors.chips
    assert 1 <= chips < 3000
    assert time.monotonic() - begin < 60
    again = run_audit(make_spec(**options, attribution_trials=chips))
    assert again.attribution_detail.tensors == boxed.attribution_detail.tensors
    notes = boxed.attribution_detail.notes
    assert any(note.startswith(f"attribution: Time-boxed: {chips} of 3,000 chips") for note in notes)


@pytest.mark.parametrize("gate", [None, 0.5])
def test_models_that_are_compared_share_the_time(example, tmp_path, gate):
    """Each has at least a chip; the report says of how many chips; a gate on every chip ends too."""
    other = tmp_path / "other.onnx"
    shutil.copy(example, other)
    shutil.copy(example.with_suffix(".npz"), other.with_suffix(".npz"))
    found = compare(
        [example, other], trials=50_000, max_minutes=NO_TIME, roughness=False, min_kpp=gate, **FEW
    )
    assert all(1 <= model.trials < 50_000 for model in found.models)
    assert found.time_boxed.done == sum(model.trials for model in found.models)
    assert found.time_boxed.wanted == 100_000
    assert found.notes[0] == found.time_boxed.text
    assert not any("max minutes" in note for note in found.notes)


def test_a_kept_report_of_too_little_time_is_not_taken(example, tmp_path):
    """The same comparison with more time goes on from the chips."""
    other = tmp_path / "other.onnx"
    shutil.copy(example, other)
    shutil.copy(example.with_suffix(".npz"), other.with_suffix(".npz"))
    options = {"trials": 40, "roughness": False, "resume": tmp_path / "kept", **FEW}
    first = compare([example, other], max_minutes=NO_TIME, **options)
    assert first.time_boxed is not None
    second = compare([example, other], **options)
    assert second.time_boxed is None
    assert {model.trials for model in second.models} == {40}


def test_levels_of_a_roofline_share_the_time(example, monkeypatch):
    """Every level that there was time for is there, on its chips; the others are named."""
    with monkeypatch.context() as patch:
        patch.setattr(TimeLimit, "left_s", math.inf)
        found = roofline(example, cell_bits=(1, 2), trials=50_000, max_minutes=NO_TIME, **FEW)
    assert [level.levels for level in found.levels] == [2, 4]
    assert all(1 <= level.device.trials < 50_000 for level in found.levels)
    assert found.time_boxed.wanted == 100_000
    assert found.time_boxed.text in found.notes
    short = roofline(example, cell_bits=(1, 2), trials=50_000, max_minutes=NO_TIME, **FEW)
    assert [level.levels for level in short.levels] == [2]
    assert [(one.levels, one.reason) for one in short.skipped] == [(4, "the time was over (--max-minutes)")]


def test_a_chip_that_takes_too_long_is_of_fewer_samples(example, monkeypatch):
    """Where not one chip could be done on all samples; a note says so. A gate keeps its samples."""
    monkeypatch.setattr(measuring, "sample_seconds", lambda workload: 1.0)
    options = {"model": example, "trials": 5, "limit": 100, "workers": 0, "roughness": False}
    found = audit(**options, max_minutes=1.0)
    # Of 100 samples the first batch, the unmodified, the quantised model and a chip take 400 s.
    assert found.data.count == 16
    assert found.trials.images_evaluated == found.trials.count * found.data.count
    assert any(note.startswith("the first 16 of 100 samples: there was no time") for note in found.notes)
    assert audit(**options, max_minutes=1.0, min_kpp=0.1).data.count == 100
    assert audit(**options).data.count == 100
    # In a comparison all have the same samples.
    assert run_audit(make_spec(**options, max_minutes=1.0)).data.count == 100


def test_default_samples_of_a_large_model(example, monkeypatch, tmp_path):
    """Without a number there are fewer: a power of two, more with labels; who gives a number has it."""
    monkeypatch.setattr(measuring, "sample_seconds", lambda workload: 0.1)
    monkeypatch.setattr(measuring, "DEFAULT_S", 60.0)

    def fitting(name, **options):
        (tmp_path / name).mkdir()
        spec = make_spec(model=example, percentiles=(10.0,), **options)
        return measuring.fitting_samples(prepare(spec, tmp_path / name), math.inf)

    count, note = fitting("labelled")
    assert count == 256
    assert note.startswith("the first 256 of 597 samples: 36 chips on all of them would take about ")
    assert fitting("limited", limit=300) is fitting("numbered", trials=4) is None
    monkeypatch.setattr(measuring, "DEFAULT_S", 2000.0)
    assert fitting("quick") is None
    bare = tmp_path / "bare.onnx"
    shutil.copy(example, bare)
    monkeypatch.setattr(measuring, "DEFAULT_S", 100.0)
    spec = make_spec(model=bare, percentiles=(10.0,))
    count, _ = measuring.fitting_samples(prepare(spec, tmp_path), math.inf)
    assert count == 32  # 2000 samples in 200 s, by 39 passes, are 51


def test_a_remapping_is_compared_on_the_chips_that_both_have(example, tmp_path):
    """Calibration has its share of the time, the audits what is left; the model is written."""
    found = remap(example, out=tmp_path / "out.onnx", trials=50_000, max_minutes=0.02, **FEW)
    assert (tmp_path / "out.onnx").is_file()
    assert found.difference is not None
    assert 2 <= found.time_boxed.done < found.time_boxed.wanted == 100_000
    assert found.notes[0] == found.time_boxed.text


def test_what_more_time_would_give():
    """The time of the whole run by its pace, and how much narrower intervals get."""
    box = TimeBox(minutes=1, done=25, wanted=100, whole_minutes=4.0)
    assert box.text.endswith("All would take about 4 min, and make intervals about 2.0 times narrower")
    assert TimeBox(minutes=1, done=3, wanted=10, what="epoch").text.startswith("Time-boxed: 3 of 10 epochs")


def test_defaults_of_a_large_model(example, monkeypatch):
    """Where chips take long there are fewer, enough for an interval; who gives a number has it."""
    monkeypatch.setattr(measuring, "DEFAULT_S", 1e-6)
    monkeypatch.setattr(attributing, "DEFAULT_S", 1e-6)
    options = {"model": example, "roughness": False, "workers": 0, "percentiles": (10.0,)}
    spec = make_spec(**options, attribute=("tensors",))
    found = run_audit(spec)
    assert found.trials.count == found.run["trials"] == trials_for_bound(10.0, 0.95, sided=2)
    assert found.kpp[0].low is not None
    assert any("chips instead of 1,000" in note for note in found.notes)
    assert found.attribution_detail.tensors.chips == 20
    given = run_audit(make_spec(**options, trials=50))
    assert given.trials.count == 50


def test_an_estimate_of_several_audits(example, monkeypatch):
    """By the seconds of a sample: three passes without noise, then the chips of each audit."""
    monkeypatch.setattr(several, "sample_seconds", lambda workload: 0.01)
    audits = [
        several.OneOfSeveral(f"{bits}", make_spec(model=example, trials=5, limit=20, workers=0, bits=bits))
        for bits in (4, 5, 6)
    ]
    told = several.estimate(audits, None, lambda *step: None)
    # (3 + 5) · 20 samples · 0.01 s = 1.6 s for each.
    assert told == "3 audits of 5 chips: about 5 s (by a few samples; gates end sooner)"
    assert "of which 0.01 min are given" in several.estimate(audits, 0.01, lambda *step: None)
    rows = [replace(audit, spec=audit.spec.model_copy(update={"workers": 2})) for audit in audits]
    assert "about 4 s" in several.estimate(rows, None, lambda *step: None)
