"""Torch is loaded with threads that wait asleep."""

from __future__ import annotations

import os

import pytest

from nvaudit.retrain.available import PATIENT, require_torch


def test_threads_wait_asleep(monkeypatch):
    """OpenMP is told so where the environment says nothing."""
    for name in PATIENT:
        monkeypatch.delenv(name, raising=False)
    require_torch("best")
    assert {name: os.environ[name] for name in PATIENT} == PATIENT


@pytest.mark.parametrize("name", PATIENT)
def test_the_environment_is_obeyed(monkeypatch, name):
    """What the user has set stays."""
    monkeypatch.setenv(name, "ACTIVE")
    require_torch("best")
    assert os.environ[name] == "ACTIVE"
