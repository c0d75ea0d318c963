"""What a failing gate suggests: the number that another code would give, and when there is none."""

from pathlib import Path

import pytest

from nvaudit import audit
from nvaudit.jobs import suggesting
from nvaudit.report.audit.record import remedy_section
from nvaudit.report.cases import checks
from nvaudit.report.document import CodeBlock, Paragraph

MODEL = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"
FAST = {"limit": 80, "workers": 0, "roughness": False, "data": MODEL.with_suffix(".npz"), "seed": 3}
FAILING = {**FAST, "sigmas": (0.4,), "min_kpp": 0.97}


@pytest.mark.parametrize("more", [{}, {"adc_bits": 6, "crossbar": (64, 64)}])
def test_the_number_is_that_of_an_audit_with_the_code(more):
    """The same chips on the same samples, whole; as many devices per weight, through the same converters."""
    failed = audit(MODEL, "fefet1", **FAILING, **more)
    assert failed.verdict == "fail"
    found = failed.remedy
    coded = audit(MODEL, "fefet1", **FAST, sigmas=(0.4,), code="auto", exhaustive=True, trials=16, **more)
    assert found.chips.values == coded.trials.values[: len(found.chips.values)]
    assert len(found.chips.values) >= suggesting.FEW
    assert found.chips.worst == min(found.chips.values)
    assert found.chips.missed == sum(value < 0.97 for value in found.chips.values)
    assert found.chips.samples == 80
    (code,) = coded.codes.codes
    assert (found.code, found.devices_per_weight) == (code.text, 4)
    assert (found.errors, found.slices) == (code.errors, coded.codes.slices.errors)
    assert found.chips.mean > failed.trials.mean


def test_every_form_of_the_report_says_it_with_its_command():
    """The section beside the headline has both commands, and the failing check has the sentence."""
    failed = audit(MODEL, "fefet1", **FAILING)
    section = remedy_section(failed)
    plain, coded = (block.text for block in section.blocks if isinstance(block, CodeBlock))
    assert "--code" not in plain
    assert "--code auto" in coded
    said = [block.text for block in section.blocks if isinstance(block, Paragraph)][-1]
    chips = failed.remedy.chips
    assert f"the worst of {len(chips.values)} chips has {100 * chips.worst:.2f} %" in said
    assert "with slices" in said
    assert said.rstrip(".") in checks(failed)[0].lines


def test_of_a_sweep_it_is_for_the_point_that_the_command_names():
    """The smallest sigma that fails."""
    failed = audit(MODEL, "fefet1", **{**FAILING, "sigmas": (0.4, 0.01, 0.35)}, max_trials=300)
    assert failed.remedy.sigma == 0.35
    assert "--sigma 0.35" in next(b.text for b in remedy_section(failed).blocks if isinstance(b, CodeBlock))


def test_nothing_is_measured_where_nothing_is_to_be_suggested():
    """A gate that holds, weights on a code already, a share gate that fails by itself, --no-suggest."""
    assert audit(MODEL, "fefet1", **{**FAILING, "min_kpp": 0.1}, trials=10).remedy is None
    assert audit(MODEL, "fefet1", **{**FAILING, "min_kpp": 1.0}, code="8,4,2,1").remedy is None
    assert audit(MODEL, "fefet1", **FAST, sigmas=(0.4,), trials=3, require_mapped=1.0).remedy is None
    quiet = audit(MODEL, "fefet1", **FAILING, suggest=False)
    assert (quiet.verdict, quiet.remedy) == ("fail", None)


def test_where_there_is_too_little_time_it_is_predicted_or_left_open(monkeypatch):
    """The prediction is the error expected of weights, and says what it is; no chip is made up."""
    monkeypatch.setattr(suggesting, "LEAST_S", 1.5)
    monkeypatch.setattr(suggesting, "SHARE", 0.0)
    coded = audit(MODEL, "fefet1", **FAST, sigmas=(0.4,), trials=1, code="auto")
    monkeypatch.setattr(suggesting, "_fitting", lambda session, room, chip: (session.dataset.count, 0))
    predicted = audit(MODEL, "fefet1", **FAILING).remedy
    assert (predicted.chips, predicted.code) == (None, coded.codes.codes[0].text)
    assert predicted.errors.total < predicted.slices.total
    assert "a part of this run's time" in predicted.why_not
    monkeypatch.setattr(suggesting, "LEAST_S", 0.5)
    failed = audit(MODEL, "fefet1", **FAILING)
    assert (failed.remedy.code, failed.remedy.errors, failed.remedy.chips) == (None, None, None)
    section = remedy_section(failed)
    assert len([block for block in section.blocks if isinstance(block, CodeBlock)]) == 1


def test_fewer_samples_are_taken_before_fewer_chips():
    """Time for four chips on a part of the samples gives four chips on that part."""

    class Dataset:
        count, together = 1000, 0

    class Session:
        dataset = Dataset

    fitting = suggesting._fitting
    assert fitting(Session, 4.0, 1.0) == (1000, 4)
    assert fitting(Session, 100.0, 1.0) == (1000, suggesting.CHIPS)
    assert fitting(Session, 1.0, 1.0) == (250, 4)
    assert fitting(Session, 0.1, 1.0)[1] == 0
    Dataset.together = 1000
    assert fitting(Session, 1.0, 1.0)[1] == 0
