"""The ResNet-20 that NeuroSim V1.3 was run on: synthetic weights and inputs, seed 0, without padding."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit.cost.inputs import InputStatistics
from nvaudit.cost.workload import CostLayer, ModelWorkload
from nvaudit.device import DeviceProfile, parse_profile
from nvaudit.mapping.tiling import Lines
from nvaudit.model.roles import CrossbarMatrix
from nvaudit.technology import Technology, load_technology, parse_technology

ROOT = Path(__file__).parents[2]
NET = [
    (32, 3, 3, 16, 1),
    *[(32, 16, 3, 16, 1)] * 6,
    (32, 16, 3, 32, 2),
    *[(16, 32, 3, 32, 1)] * 5,
    (16, 32, 3, 64, 2),
    *[(8, 64, 3, 64, 1)] * 5,
    (1, 64, 1, 10, 1),
]
"""Size, input channels, kernel, output channels, stride."""


def reference_workload(bits: int = 8) -> ModelWorkload:
    """The network as NeuroSim took it: no padding, ⌊(H − k + 1)/s⌋² positions, codes round(127.5 (w + 1))."""
    rng = np.random.default_rng(0)
    layers = []
    for number, (size, channels, kernel, outputs, stride) in enumerate(NET):
        rows, positions = channels * kernel * kernel, (size // stride) ** 2
        weights = np.clip(rng.normal(0, 0.25, (rows, outputs)), -1, 1)
        weights = np.round(weights * 127) / 128
        if number == 0:
            inputs = rng.integers(0, 128, (rows, positions))
        else:
            inputs = rng.integers(0, 64, (rows, positions)) * (rng.random((rows, positions)) < 0.5)
        vectors = ((size - kernel + 1) // stride) ** 2
        code = np.round(127.5 * (np.round(weights, 5) + 1)) - 127
        density = np.stack([((inputs >> k) & 1).mean(axis=1) for k in range(bits)], axis=-1)[None]
        share = inputs / 255
        layers.append(
            CostLayer(
                f"layer{number}", "Conv", code.astype(np.int16), CrossbarMatrix(1, rows, outputs),
                Lines((1,), rows, outputs), vectors, vectors * rows * outputs,
                InputStatistics(
                    {bits: density}, np.square(share).mean(axis=1)[None], share.mean(axis=1)[None]
                ),
            )
        )  # fmt: skip
    operations = 2.0 * sum(layer.products for layer in layers)
    return ModelWorkload(tuple(layers), {}, {}, (), operations, 32 * 32 * 16, (), (bits,), 1)


def reference_device() -> DeviceProfile:
    """2-bit devices of 100 kΩ and 10 MΩ; 8-bit codes shifted above zero."""
    data: dict[str, Any] = json.loads((ROOT / "devices" / "rram_65nm.json").read_text(encoding="utf-8"))
    data |= {
        "window": {"unit": "us", "min": 0.1, "max": 10.0},
        "noise": [], "sigma": None, "cell_bits": 2, "weight_bits": 7, "encoding": "offset",
    }  # fmt: skip
    return parse_profile(json.dumps(data), "reference")


def as_neurosim(**numbers: float) -> Technology:
    """The 22 nm technology as NeuroSim builds a chip: an H-tree over all of it, no reference column.

    Parameters
    ----------
    **numbers : float
        Of another node, by path with ``__`` for dots; each becomes the only valid value.
    """
    data: dict[str, Any] = load_technology("cmos_22nm_neurosim").model_dump(mode="json")
    data |= {"noc": None, "digital": None}
    data["hierarchy"]["reference_column"] = False
    for path, value in numbers.items():
        place = data
        for step in path.split("__"):
            place = place[step]
        place |= {"value": value, "valid": [value, value]}
    return parse_technology(json.dumps(data), "as NeuroSim")
