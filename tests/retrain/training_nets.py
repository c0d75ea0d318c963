"""A hand-written network with the protocol that training needs, and small data for it."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from nvaudit.data import Dataset
from nvaudit.device import load_profile, operating_point
from nvaudit.mapping.conductance import layout
from nvaudit.perturb.metrics import Metric
from nvaudit.retrain.device_noise import DeviceNoise
from nvaudit.retrain.feed import Feed
from nvaudit.retrain.loss import TrainingLoss
from nvaudit.retrain.quant import ArrayPlace
from nvaudit.retrain.score import Scorer
from nvaudit.retrain.train import Recipe, Task

TOP1 = Metric("top1", "top_k", class_axis=1)
CROSS_ENTROPY = TrainingLoss("classes", 1, "logit", 0.0, "cross-entropy")


class Net(torch.nn.Module):
    """Two fully connected layers, with a batch normalisation between them if wanted."""

    def __init__(self, norm: bool = False, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.weights = torch.nn.ParameterDict(
            {
                "w1": torch.nn.Parameter(torch.randn(16, 8, generator=rng) * 0.5),
                "b1": torch.nn.Parameter(torch.zeros(16)),
                "w2": torch.nn.Parameter(torch.randn(3, 16, generator=rng) * 0.3),
            }
        )
        self.norm = torch.nn.BatchNorm1d(16) if norm else None

    def clean(self, keys: Any = None) -> dict[str, torch.Tensor]:
        return {key: self.weights[key] for key in (keys or self.weights)}

    def seed(self, seed: int) -> None:
        """Nothing is drawn here."""

    def recalibrate(self, batches: Any, weights: Any = None) -> int:
        count = 0
        if self.norm is not None:
            self.norm.reset_running_stats()
            self.norm.momentum = None  # cumulative
        self.train()
        with torch.no_grad():
            for batch in batches:
                self(batch, weights)
                count += 1
        if self.norm is not None:
            self.norm.momentum = 0.1
        return count

    def forward(self, inputs: Any, weights: Any = None) -> dict[str, torch.Tensor]:
        chosen = {**self.weights, **(weights or {})}
        hidden = F.linear(inputs["x"], chosen["w1"], chosen["b1"])
        if self.norm is not None:
            hidden = self.norm(hidden)
        return {"y": F.linear(hidden.relu(), chosen["w2"])}


def place(key: str, bits: int = 4, profile: str = "rram", **rest: Any) -> ArrayPlace:
    array = layout(load_profile(profile), bits=bits)
    return ArrayPlace(key, array, rest.get("scale_axes", ()), (0,), rest.get("fan_in", 8), rest.get("grid"))


PLACES = (place("w1"), place("w2", fan_in=16))


def blobs(count: int = 240, seed: int = 0) -> Dataset:
    """Three clouds of points in eight dimensions."""
    rng = np.random.Generator(np.random.SFC64(seed))
    label = rng.integers(0, 3, count)
    centre = np.random.Generator(np.random.SFC64(99)).normal(size=(3, 8))
    x = (centre[label] + 0.8 * rng.normal(size=(count, 8))).astype(np.float32)
    return Dataset({"x": x}, frozenset({"x"}), {"x": 0}, label, "class", count, "blobs", "0" * 64)


def task(norm: bool = False, **rest: Any) -> Task:
    data = blobs()
    return Task(Net(norm), PLACES, Feed(data, np.arange(data.count)), CROSS_ENTROPY, "y", **rest)


def recipe(**rest: Any) -> Recipe:
    defaults = {
        "epochs": 4, "batch_size": 32, "optimiser": "adam", "lr": 0.01, "weight_decay": 0.0,
        "schedule": "cosine", "clip_gradient": None, "clip_weights": None, "augment": "none", "draws": 1,
        "seed": 0,
    }  # fmt: skip
    return Recipe(**{**defaults, **rest})


def point(profile: str = "rram", sigma: float | None = 0.3) -> Any:
    return operating_point(load_profile(profile), sigma)


def scorer(of: Task, trials: int = 20, profile: str = "rram", percentile: float = 1.0) -> Scorer:
    data = blobs(60, seed=1)
    feed = Feed(data, np.arange(data.count))
    return Scorer(of, feed, TOP1, DeviceNoise(point(profile)), trials, percentile, 0)
