"""How a specification is trained, apart from the noise; ``best`` has a second, gentle way."""

from __future__ import annotations

from dataclasses import replace

from nvaudit.retrain.spec import HardenSpec
from nvaudit.retrain.train import Recipe

BEST_CLIP = 1.0
"""Standard deviations at which --method best clips weights."""

GENTLE_LR = 3e-4
GENTLE_CLIP = 2.5
"""Of the second training of --method best: few weights are changed at the beginning, and none goes far."""

BOLD, GENTLE = "bold", "gentle"


def recipes_of(spec: HardenSpec) -> tuple[tuple[str, Recipe], ...]:
    """Give the ways to train in the order in which they are tried, with their names.

    There is a second one only for ``best`` with its own learning rate and clipping.
    """
    clip = spec.clip_weights
    if clip is None and spec.method == "best":
        clip = BEST_CLIP
    first = Recipe(
        epochs=spec.run_epochs,
        batch_size=spec.step_samples,
        optimiser=spec.optimiser,
        lr=spec.rate,
        weight_decay=spec.weight_decay,
        schedule=spec.schedule,
        clip_gradient=spec.clip_gradient,
        clip_weights=clip,
        augment=spec.augment,
        draws=spec.draws,
        seed=spec.seed,
    )
    chosen_by_user = spec.lr is not None or spec.clip_weights is not None or spec.optimiser != "adam"
    if spec.method != "best" or chosen_by_user:
        return ((BOLD, first),)
    return (BOLD, first), (GENTLE, replace(first, lr=GENTLE_LR, clip_weights=GENTLE_CLIP))
