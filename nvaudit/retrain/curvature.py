"""How much the loss minds an error of a weight: the diagonal of the Gauss-Newton matrix.

SWIM ranks weights by the second derivative of the loss. Its propagation needs a rule for every operator
and drops what lies off the diagonal at every layer. Here the diagonal is estimated without that: for random
signs ``ξ`` and a square root ``S`` of the loss's second derivative at the outputs, the gradient of
``Σ ξ·S·output`` is a vector ``v`` with ``E[v²] = diag(Jᵀ S Sᵀ J)``, since signs of different samples do not
correlate. One backward pass of any graph gives one such vector for all weights. For a cross-entropy this is
also the Fisher information: it needs no labels, and it is never negative.

References: Z. Yan, X. S. Hu, Y. Shi, DAC 2022, arXiv:2202.08395; N. N. Schraudolph, Neural Computation 14
(2002) 1723 (the Gauss-Newton matrix); C. Bekas, E. Kokiopoulou, Y. Saad, Appl. Numer. Math. 57 (2007) 1214
(the diagonal from random signs).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.errors import OptionError
from nvaudit.retrain.feed import Batch
from nvaudit.retrain.loss import TrainingLoss
from nvaudit.retrain.noise import torch_generator
from nvaudit.retrain.train import evaluating

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nvaudit.retrain.executor.module import Executor


def curvature(
    executor: Executor,
    points: Iterable[tuple[Mapping[str, NDArray[Any]], Batch]],
    loss: TrainingLoss,
    output: str,
    batch_axis: int | None = 0,
    *,
    probes: int = 1,
    seed: int = 0,
) -> dict[str, Floats]:
    """Estimate the second derivative of the mean loss with respect to each weight.

    Parameters
    ----------
    points : iterable of (mapping of str to ndarray, Batch)
        Where: the values of the weights on the array, by key, in their primary layouts; and a batch of
        samples. Small ones: every batch gives ``probes`` estimates, and many make the mean sharp.
    loss : TrainingLoss
        Which loss the outputs belong to; labels are not used.
    output : str
        The output that the loss reads.
    batch_axis : int or None
        Of that output; None where it has none, which is possible for batches of one sample.
    probes : int
        Draws of signs for each batch.

    Returns
    -------
    dict of str to ndarray, float64
        By key, 0 or more; a weight that the output does not depend on has 0.

    Raises
    ------
    OptionError
        If there are no samples, or there is no gradient, or it is not finite.
    """
    import torch

    total: dict[str, Floats] = {}
    rows = 0
    # `evaluating` switches gradients off; the statistics of batch normalisations stay what they are.
    with evaluating(executor), torch.enable_grad(), _one_thread():
        for number, (values, batch) in enumerate(points):
            weights = {
                key: torch.tensor(np.asarray(value, np.float32), requires_grad=True)
                for key, value in values.items()
            }
            scores = executor(batch.inputs, weights)[output]
            parts, count = _outputs(loss, batch.own(batch_first(scores, batch_axis)))
            if not parts.requires_grad:
                raise OptionError(
                    f"--ranking swim: the output {output!r} has no gradient with respect to any weight (a "
                    "whole number, or a rounded one); choose another with --output-name, or --ranking "
                    "magnitude"
                )
            rows += count
            generator = torch_generator("cpu", seed, "curvature", number)
            for key, square in _squares(parts, weights, probes, generator).items():
                total[key] = total[key] + square if key in total else square
    if rows == 0:
        raise OptionError("the ranking by sensitivity needs samples; got none: give some --data")
    # The loss is a mean over `rows` terms, and E[v²] of a probe is the sum over the terms of its batch:
    # summed over batches and probes it is rows · probes times the diagonal of the mean.
    means = {key: value / (rows * probes) for key, value in total.items()}
    for key, value in means.items():
        if not np.isfinite(value).all():
            raise OptionError(
                f"--ranking swim: the loss has no finite gradient with respect to {key!r}; use --ranking "
                "magnitude"
            )
    return means


def _squares(
    parts: Tensor, weights: Mapping[str, Tensor], probes: int, generator: torch.Generator
) -> dict[str, Floats]:
    """Squared gradients of sums of the parts with random signs, added up over the probes."""
    import torch

    total = {key: np.zeros(tuple(weight.shape)) for key, weight in weights.items()}
    for probe in range(probes):
        # With ξ = ±1 independent, v = Jᵀ Sᵀ ξ has E[v_w²] = Σ_ij (SJ)_iw (SJ)_jw E[ξ_i ξ_j] = Σ_i (SJ)_iw²:
        # the mixed terms vanish on average, and with signs every square is exact, so the variance is least.
        signs = torch.randint(0, 2, parts.shape, generator=generator).to(parts) * 2 - 1
        grads = torch.autograd.grad(
            (signs * parts).sum(), list(weights.values()), retain_graph=probe + 1 < probes, allow_unused=True
        )
        for key, grad in zip(weights, grads, strict=True):
            if grad is not None:
                total[key] += grad.double().square().numpy()
    return total


def batch_first(output: Tensor, batch_axis: int | None) -> Tensor:
    """Bring the batch axis to the front, or make one for an output of one sample that has none."""
    return output[None] if batch_axis is None else output.movedim(batch_axis, 0)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Passes of a few samples gain nothing from threads, and wait for them where the machine is busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _outputs(loss: TrainingLoss, output: Tensor) -> tuple[Tensor, int]:
    """What is multiplied by random signs, and over how many terms the loss is a mean.

    With p a class's probability, held fixed, ``√p · ln p`` of every class: ``Σ p ∇ln p ∇ln pᵀ`` is the second
    derivative of the cross-entropy through a linear map. For squared errors ``√2 · output``.
    """
    import torch

    if loss.kind == "values":
        return 2**0.5 * output.float(), output.numel()
    if loss.kind == "classes":
        logs = loss.log_prob(output)
        logs = logs.reshape(-1, logs.shape[-1])
    else:
        flat = output.float().reshape(-1)
        if loss.scale == "logit":
            both = torch.nn.functional.logsigmoid(flat), torch.nn.functional.logsigmoid(-flat)
        else:
            inner = flat.clamp(1e-7, 1 - 1e-7)
            both = inner.log(), (1 - inner).log()
        logs = torch.stack(both, -1)
    # p only weights the squared gradients of ln p: it is a factor of the sum, no part of the derivative.
    return logs.detach().exp().sqrt() * logs, len(logs)
