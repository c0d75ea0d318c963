"""Rare chips in an audit: what stands in the report, that it goes on after an interrupt, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from nvaudit import audit
from nvaudit.errors import OptionError
from nvaudit.jobs.auditing import run_audit
from nvaudit.jobs.replaying import replay
from nvaudit.perturb.stop import Stop
from nvaudit.report.result import AuditReport
from nvaudit.spec import make_spec
from tests.conftest import EXAMPLE

SMALL: dict[str, Any] = {
    "device": "fefet1", "sigma": 0.3, "limit": 40, "trials": 100, "roughness": False, "workers": 0,
    "rare": (0.02,), "rare_runs": 4, "rare_chips": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def small() -> AuditReport:
    return audit(EXAMPLE, **SMALL)


def test_the_report_has_rare_chips(small: AuditReport) -> None:
    """A rare chip is worse than the mean, its interval holds it, and how it was found stands beside it."""
    (rare,) = small.rare
    assert rare.value is not None
    assert rare.low <= rare.value <= rare.high
    assert rare.value < small.trials.mean
    assert (rare.runs, rare.probability) == (4, 0.02)
    assert rare.note.startswith("too few sampled chips to compare with; the same at twice the moves")
    assert small.rare_tail is not None
    values = [point.value for point in small.rare_tail.points]
    assert values == sorted(values, reverse=True)


def test_a_rare_chip_is_replayed(small: AuditReport, tmp_path: Path) -> None:
    """The chip of a report is written as a model and measures what the report says of it."""
    done = replay(small, tmp_path / "rare.onnx", rare=0.02)
    assert done.measured == done.reported == small.rare[0].chip.value  # type: ignore[union-attr]
    data = np.load(EXAMPLE.with_suffix(".npz"))
    session = onnxruntime.InferenceSession(tmp_path / "rare.onnx")
    name = session.get_inputs()[0].name
    (logits,) = session.run(None, {name: data[name][:40]})
    assert (logits.argmax(axis=1) == data["y"][:40]).mean() == pytest.approx(done.measured)


def test_a_chip_without_an_estimate_is_not_replayed(small: AuditReport, tmp_path: Path) -> None:
    """A report that gives no value for a probability names its reason instead of a chip."""
    refused = small.rare[0].model_copy(
        update={"value": None, "low": None, "high": None, "note": "no estimate: because"}
    )
    with pytest.raises(OptionError, match="no such chip: no estimate: because"):
        replay(small.model_copy(update={"rare": (refused,)}), tmp_path / "rare.onnx", rare=0.02)


def test_a_run_that_was_cut_off_goes_on(small: AuditReport, tmp_path: Path) -> None:
    """What was evaluated before an interrupt is not evaluated again; the result is the same to the bit."""
    stop, seen = Stop(), []

    def interrupting(what: str, done: int, total: int) -> None:
        if what == "rare chips":
            seen.append(done)
            if done == 100:
                stop.interrupt()

    spec = make_spec(model=EXAMPLE, sigmas=(0.3,), **{k: v for k, v in SMALL.items() if k != "sigma"})
    cut = run_audit(spec, interrupting, resume=tmp_path / "run", stop=stop)
    assert cut.rare == ()
    assert any("rare chips were not estimated: the run was interrupted" in note for note in cut.notes)
    size = (tmp_path / "run" / "chips.record").stat().st_size
    whole = run_audit(spec, resume=tmp_path / "run")
    assert whole.rare == small.rare
    evaluated = ((tmp_path / "run" / "chips.record").stat().st_size - size) // 52
    assert evaluated <= small.rare[0].evaluations - 100


def test_workers_change_nothing(small: AuditReport) -> None:
    """Two workers give the same rare chips."""
    assert audit(EXAMPLE, **{**SMALL, "workers": 2}).rare == small.rare


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sigma": (0.1, 0.2)}, "--rare is for one operating point; give one --sigma"),
        ({"rare_runs": 5}, "--rare-runs 5: give an even number"),
        (
            {"rare": (), "rare_runs": 4, "rare_chips": 500, "rare_moves": 3},
            "--rare-runs is for rare chips; give a probability with --rare",
        ),
        ({"rare": (0.5,)}, "--rare"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], words: str) -> None:
    """Each refusal names the option."""
    with pytest.raises(OptionError, match=words):
        audit(EXAMPLE, **{**SMALL, **options})


def test_read_noise_is_part_of_a_chip(tmp_path: Path) -> None:
    """With read noise at every inference the rare chip measures the same again when it is replayed."""
    with_reads = {**SMALL, "device": "pcm", "sigma": 1.0, "bits": 4, "limit": 20}
    report = audit(EXAMPLE, **with_reads)
    done = replay(report, tmp_path / "rare.onnx", rare=0.02)
    assert done.measured == done.reported
