"""How the stored layout of a weight, which training uses, is made from its primary one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nvaudit.model import LoadedModel, Weight, build_template
from nvaudit.model.layout import UNMOVED, Layout

if TYPE_CHECKING:
    from torch import Tensor


def stored_layouts(
    loaded: LoadedModel, weights: Sequence[Weight], clean: Mapping[str, Tensor]
) -> dict[str, Layout]:
    """Find the steps from each weight's primary layout to the one it is trained in.

    Parameters
    ----------
    loaded : LoadedModel
    weights : sequence of Weight
    clean : mapping of str to Tensor
        The weights as the network has them.

    Returns
    -------
    dict of str to Layout
        Without a weight whose layout is neither: it has no channels of its own.
    """
    template = build_template(loaded, [weight.key for weight in weights])
    offered: dict[str, list[Layout]] = {}
    for slot in template.slots:
        offered.setdefault(slot.weight_key, []).append(slot.transform)
    found: dict[str, Layout] = {}
    for weight in weights:
        there = clean[weight.key].detach().cpu().numpy()
        values = weight.load().values
        turned = tuple(range(values.ndim))[::-1]
        for steps in (*offered.get(weight.key, []), UNMOVED, Layout([("transpose", turned)])):
            here = steps.apply(values)
            # A layout is right if it gives the numbers, up to the rounding of a grid's arithmetic.
            if here.shape == there.shape and np.allclose(here, there, rtol=1e-4, atol=1e-6):
                found[weight.key] = steps
                break
    return found
