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
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.schedule import quiet
from nvaudit.perturb.stop import Stop, TimeLimit
from nvaudit.perturb.variant import WHOLE, Variant
from nvaudit.report.kinds import document_of
from nvaudit.report.render.markdown import markdown_document
from nvaudit.report.result import AuditReport, boxed_together
from nvaudit.report.sections import Interrupted
from nvaudit.rng import MovedChip
from nvaudit.session import Session, prepared, settle_metric
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
    refused = small.rare[0].model_copy(update={"value": None, "low": None, "high": None, "note": "because"})
    with pytest.raises(OptionError, match="no such chip: because"):
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
    (missing,) = cut.rare
    needed = cut.interrupted.wanted
    done = missing.evaluations
    assert 100 <= done < 110  # those that were under way
    assert (missing.probability, missing.value) == (0.02, None)
    assert missing.note == f"the run was interrupted after {done} of {needed:,} rare chips"
    assert any(f"rare chips were not estimated: {missing.note}" in note for note in cut.notes)
    assert cut.interrupted == Interrupted(done=done, wanted=needed, what="rare chip")
    assert cut.headline.startswith("INTERRUPTED: KPP 1 % top1 ")
    assert f", 100 chips; no estimate of 1 chip in 50: {done} of {needed:,} rare chips" in cut.headline
    hero = document_of(cut).hero
    assert hero.lines[0].startswith(
        f"{done} of {needed:,} rare chips were done: there is no estimate of rare "
    )
    size = (tmp_path / "run" / "chips.record").stat().st_size
    whole = run_audit(spec, resume=tmp_path / "run")
    assert whole.rare == small.rare
    evaluated = ((tmp_path / "run" / "chips.record").stat().st_size - size) // 52
    assert evaluated <= small.rare[0].evaluations - 100


def test_a_time_that_is_over_before_the_estimate(
    small: AuditReport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The headline and an entry of the report say what has no answer and how far it came."""
    monkeypatch.setattr(TimeLimit, "share", lambda limit, part=1.0: 60.0)
    over = []

    def late(what: str, done: int, total: int) -> None:
        if what.startswith("rare chips") and done == 100:
            over.append(done)

    monkeypatch.setattr(Stop, "due", lambda stop, ahead_s=0.0: bool(over))
    spec = make_spec(
        model=EXAMPLE, sigmas=(0.3,), max_minutes=60, **{k: v for k, v in SMALL.items() if k != "sigma"}
    )
    cut = run_audit(spec, late, resume=tmp_path / "run")
    (missing,) = cut.rare
    assert missing.value is None
    done = missing.evaluations
    assert 100 <= done < 110
    assert missing.note.startswith(f"the time was over (--max-minutes) after {done} of ")
    assert f"; no estimate of 1 chip in 50: {done} of " in cut.headline
    assert " rare chips within 60 min" in cut.headline
    box = cut.time_boxed
    assert (box.done, box.what) == (done, "rare chip")
    assert "were done within 60 min (--max-minutes); there is no estimate of rare chips (--rare)" in box.text
    assert boxed_together(60, [cut]).done == 100 == small.trials.count
    monkeypatch.undo()
    assert run_audit(spec, resume=tmp_path / "run").rare == small.rare


def test_a_time_that_is_over_among_the_ordinary_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rare chips that are not even begun have an entry too."""
    over = []

    def late(what: str, done: int, total: int) -> None:
        if what.startswith("chips") and done >= 50:
            over.append(done)

    monkeypatch.setattr(Stop, "due", lambda stop, ahead_s=0.0: bool(over))
    spec = make_spec(
        model=EXAMPLE, sigmas=(0.3,), max_minutes=60, **{k: v for k, v in SMALL.items() if k != "sigma"}
    )
    cut = run_audit(spec, late)
    assert cut.trials.count < 100
    assert cut.rare[0].value is None
    assert cut.rare[0].note.startswith("the time was over (--max-minutes) after 0 of ")
    assert "of 100 chips; no estimate of 1 chip in 50 within 60 min" in cut.headline


def test_workers_change_nothing(small: AuditReport) -> None:
    """Two workers give the same rare chips."""
    assert audit(EXAMPLE, **{**SMALL, "workers": 2}).rare == small.rare


def test_rare_chips_are_attributed() -> None:
    """With --attribute tensors the report says what exchanging each tensor's devices does to rare chips."""
    report = audit(EXAMPLE, **{**SMALL, "attribute": ("tensors",), "attribution_trials": 2})
    found = report.rare_attribution
    assert found is not None
    assert (found.probability, found.chips) == (0.02, 4)
    assert found.rare == pytest.approx(report.rare[0].value, abs=0.05)
    assert found.ordinary == pytest.approx(np.mean(report.trials.values[:4]))
    assert {one.name for one in found.tensors} == {
        one.name for one in report.attribution_detail.tensors.items
    }  # type: ignore[union-attr]
    worst = found.tensors[0]
    assert worst.name == "fc2.weight"
    assert worst.given_back.value > 0 > worst.alone.value
    assert "What makes 1 chip in 50 bad, by tensor: 4 chips of about" in markdown_document(
        document_of(report)
    )


def test_a_tensor_of_another_chip_is_that_chips() -> None:
    """A chip whose every tensor is exchanged scores as the other chip; with none, as itself."""
    spec = make_spec(model=EXAMPLE, device="fefet1", sigmas=(0.3,), limit=40)

    def scores(session: Session) -> list[float]:
        engine = Engine(session.workload)
        metric = settle_metric(session, engine.probe())
        every = frozenset(range(len(session.workload.tensors)))
        moved = MovedChip("a").moved(0.5, "b")
        chips: list[tuple[int | MovedChip, Variant]] = [
            (7, WHOLE), (3, Variant(exchanged=(every, 7))), (moved, Variant(exchanged=(every, 7))),
            (moved, WHOLE), (7, Variant(exchanged=(every, moved))), (7, Variant(exchanged=(frozenset(), 3))),
        ]  # fmt: skip
        return [engine.chip(metric, None, 0, chip, variant).value for chip, variant in chips]

    seven, other, third, moved, exchanged, same = prepared(spec, quiet, scores)
    assert seven == other == third == same
    assert moved == exchanged != seven


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
