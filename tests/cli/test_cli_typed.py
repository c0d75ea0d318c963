"""What people type that is not quite the form: percent signs, commas, capitals, a table for a profile."""

import json

import pytest

from nvaudit.device import load_profile
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_GATE, EXIT_OK, OptionError, ProfileError
from nvaudit.option_texts import read_sweep
from nvaudit.perturb.gating import GateQuestion, draw_until_decided
from nvaudit.report.summary import additions_text

FEW = ("-n", 2, "--limit", 20, "-j", 0, "-q")


def test_percent(command, example):
    """`--min-kpp 85%` is 0.85; so is `--require-mapped 95%`."""
    ran = command("audit", example, *FEW, "--min-kpp", "85%", "--require-mapped", "95%", "--json")
    run = json.loads(ran.out)["run"]
    assert (run["min_kpp"], run["require_mapped"]) == (0.85, 0.95)
    assert ran.code == EXIT_GATE
    assert command("audit", example, *FEW, "--min-kpp", "x%").code == EXIT_BAD_INPUT


def test_sigmas_between_commas():
    """`--sigma 0,1,2` is three values, and a sweep may be one of them."""
    assert read_sweep("0,1,2") == (0.0, 1.0, 2.0)
    assert read_sweep("0.5,0.1:0.2:0.1") == (0.5, 0.1, 0.2)
    with pytest.raises(OptionError, match="neither a finite number nor a sweep"):
        read_sweep("0,,1")


def test_capitals():
    """`--device RRAM` is rram."""
    assert load_profile("RRAM") == load_profile("rram")


def test_a_table_for_a_profile():
    """Measurements are no profile yet; the message says which command makes one."""
    with pytest.raises(ProfileError, match=r"nvaudit devices fit levels.csv -o PROFILE.json"):
        load_profile("levels.csv")


def test_one_chip(command, example):
    """One chip is one chip."""
    ran = command("audit", example, *FEW, "-n", 1)
    assert ran.code == EXIT_OK
    assert "1 chip;" in ran.out.partition("\n\n")[0].replace("\n", " ")


def test_time_and_additions_in_the_headline(command, example):
    """The headline states the time and what options add, with their values."""
    ran = command("audit", example, *FEW, "-d", "pcm", "--time", "1d", "--read-noise", "0.01")
    assert ran.code == EXIT_OK, ran.err
    first = " ".join(ran.out.partition("\n\n")[0].split())
    assert "1 d after programming, read noise 0.01, 2 chips" in first
    assert additions_text({"stuck_at": "0.1,0.2", "enable": ["drift"]}) == ("stuck at 0.1,0.2", "with drift")


def test_time_over_within_a_block():
    """Where a block is cut short because the time is over, that is why; not an interruption."""
    question = GateQuestion(0.5, (1.0,), 0.95, 100, 1e-9)
    count = draw_until_decided(question, lambda trials: [False] * 3)
    assert count.trials == 3
    assert "minutes are over (--max-minutes)" in count.stopped
