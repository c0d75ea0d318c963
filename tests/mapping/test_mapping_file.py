"""Mapping files: what is written is read back, and what contradicts itself is refused with its place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvaudit import audit
from nvaudit.errors import OptionError
from nvaudit.mapping.codes import least_noisy_code, slice_code
from nvaudit.mapping.mapping_file import (
    MappingFile,
    mapping_beside,
    mapping_data,
    read_mapping,
    write_mapping,
)
from nvaudit.model import load_model
from nvaudit.options import Encoding

FEFET1 = (0.01, 0.16, 0.16, 0.01)
ENCODINGS: tuple[Encoding, ...] = ("sign_magnitude", "sign_per_device", "differential", "offset")


def some_mapping(**changes: Any) -> MappingFile:
    """Two codes of three weights."""
    codes = {
        "a": least_noisy_code([8, 4, 2, 1], np.array(FEFET1), "sign_magnitude"),
        "b": slice_code(8, 2, "sign_magnitude"),
        "c": least_noisy_code([8, 4, 2, 1], np.array(FEFET1), "sign_magnitude"),
    }
    data = mapping_data(codes, model_sha256="0" * 64, device="fefet1", sigma=0.1, variance=FEFET1)
    return data.model_copy(update=changes)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_codes_come_back_as_they_were(tmp_path: Path, encoding: Encoding) -> None:
    """Of every encoding, and of slices; equal codes are written once."""
    codes = {
        "a": least_noisy_code([4, 2, 1], np.array(FEFET1), encoding),
        "b": slice_code(8, 2, encoding),
        "c": least_noisy_code([4, 2, 1], np.array(FEFET1), encoding),
    }
    written = mapping_data(codes, model_sha256="0" * 64, device="fefet1", sigma=0.1, variance=FEFET1)
    assert len(written.codes) == 2
    write_mapping(tmp_path / "m.json", written)
    again = read_mapping(tmp_path / "m.json")
    assert again == written
    assert again.of("m.json") == codes


def changed(path: list[str | int], value: Any) -> dict[str, Any]:
    """The file with one value changed."""
    data: Any = json.loads(some_mapping().model_dump_json())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return dict(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["kind"], "report", "kind"),
        (["model_sha256"], "12", "model_sha256"),
        (["rounding"], "up", "rounding"),
        (["codes", 0, "table", 0, 5], 9, "levels must lie in 0 … 3"),
        (["codes", 0, "table", 0, 5], -1, "levels must lie in 0 … 3"),
        (["codes", 0, "table"], [[0, 1]], "1 rows; give 4"),
        (["codes", 0, "table", 0, 0], 1, "do not add up"),
        (["codes", 0, "zero"], 4, "zero: got 4"),
        (["codes", 0, "levels"], 8, "make them equal"),
        (["codes", 0, "significances", 0], 0, "significances"),
        (["tensors", 1, "code"], 7, "there are 2"),
        (["tensors", 1, "name"], "a", "twice"),
        (["level_variance", 0], -1.0, "level_variance"),
        (["more"], 1, "more"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, path: list[str | int], value: Any, message: str) -> None:
    """The message names the file and the key."""
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(OptionError, match=message) as caught:
        read_mapping(file).of(str(file))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kind": NaN}'])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    """Other JSON, or none."""
    file = tmp_path / "wrong.json"
    file.write_text(text)
    with pytest.raises(OptionError, match=r"wrong\.json"):
        read_mapping(file)


def test_an_audit_uses_the_mapping_beside_its_model(example: Path, tmp_path: Path) -> None:
    """It gives the chips of the code itself; the file of another model is named and left out."""
    model = tmp_path / "H.onnx"
    shutil.copy(example, model)
    shutil.copy(example.with_suffix(".npz"), tmp_path / "H.npz")
    how: dict[str, Any] = {
        "trials": 3,
        "limit": 20,
        "roughness": False,
        "workers": 0,
        "metric": "cross_entropy",
    }
    given = audit(model, "fefet1", code="8,4,2,1", **how)
    assert given.codes is not None
    code = least_noisy_code([8, 4, 2, 1], np.array(given.codes.level_sigma) ** 2, "sign_magnitude")
    digest = load_model(model).digest
    codes = {layer.name: code for layer in given.codes.layers}
    variance = tuple(np.square(given.codes.level_sigma))
    data = mapping_data(codes, model_sha256=digest, device="fefet1", sigma=0.1, variance=variance)
    write_mapping(mapping_beside(model), data)
    found = audit(model, "fefet1", **how)
    assert found.trials.values == given.trials.values
    assert found.run["mapping"] == str(mapping_beside(model))
    plain = audit(model, "fefet1", code="slices", **how)
    assert plain.codes is None
    assert plain.trials.values != given.trials.values
    write_mapping(mapping_beside(model), data.model_copy(update={"model_sha256": "1" * 64}))
    other = audit(model, "fefet1", **how)
    assert other.trials.values == plain.trials.values
    assert any("another model" in note for note in other.notes)
    with pytest.raises(OptionError, match="another model"):
        audit(model, "fefet1", mapping=mapping_beside(model), **how)
