"""Samples that calibrate chips are none of those that are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvaudit import audit
from nvaudit.data import InputSpec, load_dataset
from nvaudit.data.split import unseen
from nvaudit.errors import DataError, OptionError


def test_samples_of_a_part_are_known_in_the_whole(tmp_path: Path) -> None:
    """By what they hold: the files differ, and so do the places."""
    x = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    np.savez(tmp_path / "whole.npz", x=x)
    np.savez(tmp_path / "part.npz", x=x[[7, 2, 5]])
    spec = (InputSpec("x", "float32", ("N", 3), 0),)
    whole, part = (
        load_dataset(tmp_path / f"{name}.npz", spec, model_path=tmp_path / "m.onnx", scratch=tmp_path)
        for name in ("whole", "part")
    )
    assert unseen(whole, part).tolist() == [0, 1, 3, 4, 6, 8, 9, 10, 11]
    assert unseen(part, whole).tolist() == []


def test_calibration_samples_are_not_scored(example: Path) -> None:
    """A limit makes other data of one file; its first samples do not calibrate nevertheless."""
    data = example.with_suffix(".npz")
    how: dict[str, Any] = {"limit": 20, "trials": 2, "roughness": False, "calibrate_data": str(data)}
    count = len(np.load(data)["y"])
    found = audit(example, "rram", data, calibrate_chips=count - 20, **how)
    assert found.calibrated is not None
    with pytest.raises(DataError, match=f"{count} samples, of which 20 are scored"):
        audit(example, "rram", data, calibrate_chips=count - 19, **how)
    with pytest.raises(OptionError, match="these are the samples that are scored"):
        audit(example, "rram", data, calibrate_chips=5, **{**how, "limit": None})
