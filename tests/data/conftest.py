"""How the tests of the data package load and describe things."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvaudit.data import Dataset, InputSpec, load_dataset


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Dataset]:
    """load_dataset with a model path and a scratch folder of the test's own."""

    def call(
        path: Path | None, *specs: InputSpec, limit: int | None = None, seed: int = 0, **more: Any
    ) -> Dataset:
        return load_dataset(
            path,
            specs,
            model_path=tmp_path / "model.onnx",
            limit=limit,
            seed=seed,
            scratch=tmp_path / "scratch",
            **more,
        )

    return call


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write PNG images into class subfolders and, unless it is None, nvaudit.json."""
    pil = pytest.importorskip("PIL.Image", reason="needs Pillow (pip install 'nvaudit[images]')")

    def make(classes: dict[str, list[np.ndarray]], settings: dict[str, object] | None) -> Path:
        root = tmp_path / "images"
        for name, images in classes.items():
            (root / name).mkdir(parents=True)
            for index, pixels in enumerate(images):
                pil.fromarray(pixels).save(root / name / f"{index}.png")
        if settings is not None:
            (root / "nvaudit.json").write_text(json.dumps(settings))
        return root

    return make
