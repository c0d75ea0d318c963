"""`nvaudit audit --plan`: what a run would say and cost, without the run."""

import json

import pytest

from nvaudit.report.plan.result import AuditPlan

PLAN = ("--plan", "-j", 0, "--limit", 32)


def test_a_plan_is_printed_and_nothing_is_audited(command, example, tmp_path, monkeypatch):
    """Exit code 0 with the trials that are needed and how many chips were timed; no file is made."""
    monkeypatch.chdir(tmp_path)
    ran = command("audit", example, *PLAN, "-n", 100_000_000, "--min-kpp", 0.99)
    assert ran.code == 0
    assert ran.err == ""
    first, *rest = ran.out.splitlines()
    assert first == "PLAN (nothing was audited): top1 on rram, 100,000,000 chips, 32 images"
    rows = [" ".join(row.split()) for row in rest]
    assert any(row.startswith("this run 100,000,000 3,200,000,000 ") for row in rows)
    assert any(row.startswith("an interval with a bound on the worst side 368 11,776 ") for row in rows)
    assert any(row.startswith("a gate that passes with 0 failing chips 299 9,568 ") for row in rows)
    assert any(row.startswith("Times are estimated from ") for row in rows)
    assert "verdict" not in ran.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plan_as_json(command, example, tmp_path, workers):
    """`-o FILE` writes it, `-o -` prints it alone; the timing is of the real workers."""
    path = tmp_path / "plan.json"
    options = ("--plan", "-j", workers, "--limit", 32, "-k", 1, "-k", 5, "--sigma", 0.1, "--sigma", 0.2)
    ran = command("audit", example, *options, "-o", path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith(f"report: {path}\n")
    plan = AuditPlan.model_validate_json(path.read_text())
    assert (plan.trials, plan.points, plan.images, plan.timing.workers) == (1000, 2, 32, workers)
    assert plan.given.images == 2 * 1000 * 32
    assert plan.timing.chips >= 2 * max(1, workers)
    assert 1e-5 < plan.timing.seconds_per_chip < 1
    expected = plan.timing.seconds_before_chips + 2000 * plan.timing.seconds_per_chip
    assert plan.given.seconds == pytest.approx(expected)
    assert [item.interval.trials for item in plan.percentiles] == [368, 72]


def test_a_plan_can_be_piped(command, example):
    """`-o -` gives pure JSON; the text moves to standard error."""
    ran = command("audit", example, *PLAN, "-o", "-")
    assert ran.code == 0
    assert json.loads(ran.out)["kind"] == "plan"
    assert ran.err.startswith("PLAN (nothing was audited): ")


def test_without_labels_the_plan_says_so(command, unlabelled):
    """The first line says what the audit would be."""
    ran = command("audit", unlabelled, *PLAN)
    assert ran.code == 0
    assert ran.out.startswith("LABEL-FREE PLAN (nothing was audited): agreement on rram")
    assert "standard error" not in ran.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--resume", "d"), "--plan and --resume: choose one; a plan keeps no chips"),
        (("--min-kpp", 90), "--min-kpp 90: top1 is a fraction from 0 to 1; for 90 % write 0.9"),
    ],
)
def test_what_makes_no_sense_is_refused(command, example, tmp_path, monkeypatch, options, said):
    """A plan finds out what the run would refuse."""
    monkeypatch.chdir(tmp_path)
    ran = command("audit", example, *PLAN, *options)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"nvaudit: error: {said}\n"
    assert list(tmp_path.iterdir()) == []
