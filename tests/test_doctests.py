"""What examples in docstrings say is what they give."""

import doctest
import importlib
from pathlib import Path

import pytest

import nvaudit

ROOT = Path(nvaudit.__path__[0]).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.glob("nvaudit/**/*.py")
    if ">>> " in path.read_text("utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    """Each module with examples, by itself."""
    if ".retrain" in name:
        pytest.importorskip("torch")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_are_found():
    """The list is not empty because something moved."""
    assert len(MODULES) > 20
