"""Training noise that is ramped, above the deployed one, or judged by the worst of several draws (CVaR).

Question: does `harden --method best` gain from another schedule of its noise, on slices and on a code? The
answer is in docs/harden.md; none of the schedules pays, so the product has none of them.

    python benchmarks/training_noise.py MODEL TRAIN TEST --results FILE.jsonl --sigma 0.4 [--device fefet1]
        [--variants as_it_is ramp …] [--mappings slices 8,4,2,1] [--seeds 0 1 2] [--epochs 5] [--samples 4000]
        [--trials 200] [--images 500]
    python benchmarks/training_noise.py --results FILE.jsonl --table

Noise of a step is multiplied by r(t), t being the share of the training that is over; CVaR takes the gradient
of the mean loss on the worst of several chips that a step draws (Rockafellar and Uryasev 2000). All variants
of a seed see the same samples in the same order and are audited on the same chips.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import nvaudit
from nvaudit.jobs.hardening import harden
from nvaudit.retrain import run
from nvaudit.retrain.train import Trainer, clip_weights


@dataclass(frozen=True)
class Variant:
    """How noise is drawn at a step.

    Attributes
    ----------
    factor : callable
        r(t): what the noise is multiplied by.
    draws, worst : int
        Chips of a step, and how many of the worst of them count.
    """

    factor: Callable[[float], float] = lambda over: 1.0
    draws: int = 1
    worst: int = 1


VARIANTS = {
    "as_it_is": Variant(),
    "ramp": Variant(lambda over: over),
    "ramp_half": Variant(lambda over: min(1.0, 2 * over)),
    "ramp_from_half": Variant(lambda over: 0.5 + 0.5 * over),
    "ramp_above": Variant(lambda over: 1.5 * over),
    "above": Variant(lambda over: 1.5),
    "mean_of_4": Variant(draws=4, worst=4),
    "worst_2_of_4": Variant(draws=4, worst=2),
    "worst_1_of_4": Variant(draws=4, worst=1),
}


def trainer_of(variant: Variant) -> type[Trainer]:
    """Make a trainer that draws noise in a variant's way."""

    class VariantTrainer(Trainer):
        """As :class:`Trainer` but for the noise of a step."""

        _over = 0.0

        def _set_rate(self, step: int) -> None:
            super()._set_rate(step)
            self._over = step / (self._steps * self.recipe.epochs)

        def _step(self, batch: Any, noise: Any, generator: torch.Generator) -> float:
            factor = variant.factor(self._over)
            task = self.task
            self._optimiser.zero_grad(set_to_none=True)
            with torch.no_grad():
                teacher = None if task.teacher is None else task.scores(task.teacher, batch)

            def scaled(place: Any, weight: Any, draw: torch.Generator) -> torch.Tensor:
                return factor * noise(place, weight, draw)

            losses = torch.stack(
                [
                    task.loss(task.noisy_scores(batch, scaled, generator), batch.labels, teacher)
                    for _ in range(variant.draws)
                ]
            )
            loss = losses.topk(variant.worst).values.mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(task.network.parameters()), self.recipe.clip_gradient)
            if math.isfinite(float(loss.detach())):
                self._optimiser.step()
            clip_weights(task, self._edges)
            return float(losses.detach().mean())

    return VariantTrainer


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("train", nargs="?", type=Path)
    parser.add_argument("test", nargs="?", type=Path)
    parser.add_argument("--results", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--device", default="fefet1")
    parser.add_argument("--sigma", type=float, default=0.1)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--mappings", nargs="+", default=["slices", "8,4,2,1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--images", type=int, default=500)
    given = parser.parse_args()
    if not given.table:
        for seed in given.seeds:
            for mapping in given.mappings:
                for name in given.variants:
                    one(given, name, mapping, seed)
    print(table(lines(given.results)))


def lines(path: Path) -> list[dict[str, Any]]:
    """What a results file holds."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def one(given: argparse.Namespace, name: str, mapping: str, seed: int) -> None:
    """Train and audit one network, unless the results have it."""
    cell = {
        "model": given.model.stem, "device": given.device, "sigma": given.sigma, "mapping": mapping,
        "variant": name, "seed": seed, "epochs": given.epochs, "samples": given.samples,
        "chips": given.trials, "images": given.images,
    }  # fmt: skip
    if any(cell.items() <= row.items() for row in lines(given.results)):
        return
    begin = time.perf_counter()
    run.Trainer = trainer_of(VARIANTS[name])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "hardened.onnx"
        report = harden(
            given.model, given.device, given.train, out=out, sigma=given.sigma, code=mapping,
            seed=seed, limit=given.samples, epochs=given.epochs, trials=2, audit_images=50, roughness=False,
        )  # fmt: skip
        trained = time.perf_counter() - begin
        after = nvaudit.audit(
            out, given.device, given.test, sigmas=(given.sigma,), trials=given.trials, limit=given.images,
            exhaustive=True, roughness=False, **({"code": "slices"} if mapping == "slices" else {}),
        )  # fmt: skip
    attempts = [attempt.name for attempt in report.training.attempts]
    found = {
        "ideal": after.nominal, "kpp": after.kpp[0].value, "mean": after.trials.mean,
        "kept": None if report.training.kept_attempt is None else attempts[report.training.kept_attempt],
        "seconds": round(trained, 1),
    }  # fmt: skip
    with given.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell | found) + "\n")
    print(f"{mapping} {name} seed {seed}: {found}", file=sys.stderr, flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """KPP 1 % and mean over seeds with their standard deviations, and seconds."""
    text = "| model | σ | mapping | noise | seeds | ideal | KPP 1 % | mean | s |\n" + "|---" * 9 + "|\n"
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("model", "sigma", "mapping", "variant"))
        groups.setdefault(key, []).append(row)
    for key, group in groups.items():
        cells = [_spread([100 * row[name] for row in group]) for name in ("ideal", "kpp", "mean")]
        seconds = statistics.median(row["seconds"] for row in group)
        text += f"| {' | '.join(map(str, key))} | {len(group)} | {' | '.join(cells)} | {seconds:.0f} |\n"
    return text


def _spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
