"""How much of a model's arithmetic is on the array: products counted on the data, and what was decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nvaudit.data import Dataset
from nvaudit.errors import NvauditError
from nvaudit.mapping.select import Decision
from nvaudit.model import LoadedModel, Rebatch, build_template
from nvaudit.model.macs.find import ProductCount, Products, Seen, find_products
from nvaudit.model.probe import expose_sizes
from nvaudit.perturb.prepare import original_batch
from nvaudit.perturb.session import feed_samples, open_session, run_session
from nvaudit.report.mapped import MappedShare, OffProduct
from nvaudit.report.sections import TensorDecision

_MOST_UNCOUNTED = 100


@dataclass(frozen=True)
class Coverage:
    """What is on the array.

    Attributes
    ----------
    by_constant : dict of int to (int or None)
        Products with each constant, by its place in the decisions; None where some cannot be counted.
    """

    share: MappedShare
    by_constant: dict[int, int | None]

    def rows(self, rows: Sequence[TensorDecision]) -> list[TensorDecision]:
        """Say of each tensor how many products it takes part in; rows are in the order of the decisions."""
        return [
            row.model_copy(update={"products": self.by_constant[i]}) if i in self.by_constant else row
            for i, row in enumerate(rows)
        ]


def count_coverage(
    loaded: LoadedModel, rebatch: Rebatch, decisions: Sequence[Decision], dataset: Dataset
) -> Coverage:
    """Count products on the sizes of the data, of one sample or of the batch that the model is fixed to.

    Parameters
    ----------
    decisions : sequence of Decision
        Of every constant of the model.

    Returns
    -------
    Coverage
        One sample is run only where sizes depend on more than those of the inputs.
    """
    return _coverage(*count_products(loaded, rebatch, decisions, dataset), decisions)


def count_products(
    loaded: LoadedModel,
    rebatch: Rebatch,
    decisions: Sequence[Decision],
    dataset: Dataset | None,
    *,
    with_steps: bool = False,
) -> tuple[Products, int]:
    """Find all products on the sizes of the data, or without data on those that the model declares.

    Parameters
    ----------
    with_steps : bool
        Look at everything else that runs too.

    Returns
    -------
    tuple of Products and int
        Of one run of so many samples: one, or the batch that the model is fixed to.
    """
    free = rebatch.status == "rebatched"
    samples = (None if free else original_batch(loaded, rebatch)) or 1
    if dataset is None:
        sizes = _declared_sizes(loaded, rebatch, samples)
        return _find(loaded, decisions, sizes, with_steps=with_steps), samples
    first = np.arange(samples).clip(max=dataset.count - 1)
    feeds = feed_samples(dataset.inputs, dataset.batch_axes, first, samples, None)
    sizes = {name: array.shape for name, array in feeds.items()}
    products = _find(loaded, decisions, sizes, with_steps=with_steps)
    if products.sizes or products.branches:
        seen = _look(loaded, products, feeds, free)
        products = _find(loaded, decisions, sizes, seen, with_steps=with_steps)
    return products, samples


def _declared_sizes(loaded: LoadedModel, rebatch: Rebatch, samples: int) -> dict[str, tuple[int, ...]]:
    """Sizes of the inputs as the model states them, where it states all."""
    sizes = {}
    for spec in loaded.inputs:
        axis = rebatch.batch_axes.get(spec.name)
        dims = [samples if i == axis else size for i, size in enumerate(spec.shape or ())]
        if spec.shape is not None and all(isinstance(size, int) for size in dims):
            sizes[spec.name] = tuple(size for size in dims if isinstance(size, int))
    return sizes


def declared_coverage(
    loaded: LoadedModel, rebatch: Rebatch, decisions: Sequence[Decision]
) -> tuple[Coverage, bool]:
    """Count products on the sizes that the model declares, without data and without running it.

    Returns
    -------
    tuple of Coverage and bool
        Whether a run on data would count more of them.
    """
    products, samples = count_products(loaded, rebatch, decisions, None)
    return _coverage(products, samples, decisions), bool(products.sizes or products.branches)


def _find(
    loaded: LoadedModel,
    decisions: Sequence[Decision],
    sizes: Mapping[str, tuple[int, ...]],
    seen: Seen | None = None,
    *,
    with_steps: bool = False,
) -> Products:
    constants = [decision.constant for decision in decisions]
    return find_products(loaded, constants, sizes, seen, with_steps=with_steps)


def _look(loaded: LoadedModel, wanted: Products, feeds: Mapping[str, np.ndarray], free: bool) -> Seen:
    """Run the model once and look at sizes and conditions; empty where that does not work.

    On the CPU, whatever the audit runs on: sizes are the same. A size that stays unknown is no failure, its
    products are then said not to be counted.
    """
    try:
        template = build_template(loaded, [], batch="free" if free else "keep")
        proto, sizes, conditions = expose_sizes(template.proto, wanted.sizes, wanted.branches)
        asked = [*sizes.values(), *conditions.values()]
        given = dict(
            zip(asked, run_session(open_session(proto, template.digital), asked, feeds), strict=True)
        )
    except NvauditError:
        return Seen()
    return Seen(
        {name: tuple(int(size) for size in given[output]) for name, output in sizes.items()},
        {name: bool(np.all(given[output])) for name, output in conditions.items()},
    )


@dataclass
class _Weight:
    """A weight, which several operators may take."""

    numbers: int
    mapped: bool = False


def _coverage(products: Products, samples: int, decisions: Sequence[Decision]) -> Coverage:
    """Add up what is on the array and what is not."""
    on, off, between = _Sum(), _Sum(), _Sum()
    weights: dict[object, _Weight] = {}
    offenders: list[OffProduct] = []
    by_constant: dict[int, int | None] = {}
    uncounted: list[str] = []
    for product in products.entries:
        if product.products is None:
            uncounted.append(f"{product.op} '{product.name}'")
        if not product.weight:
            between.add(product.products)
            continue
        served = next((i for i in product.on_array if decisions[i].mapped), None)
        owner = served if served is not None else _owner(product, decisions)
        key = product.weight if owner is None else owner
        size = product.weights if served is None else _numbers(decisions[served])
        weight = weights.setdefault(key, _Weight(size))
        if owner is not None:
            by_constant[owner] = _plus(by_constant.get(owner, 0), product.products)
        if served is None:
            off.add(product.products)
            offenders.append(_off(product, decisions))
        else:
            on.add(product.products)
            weight.mapped, weight.numbers = True, size
    for i, decision in enumerate(decisions):  # a weight of an operator whose products nobody counts
        if decision.mapped and i not in weights:
            on.add(None)
            uncounted.append(f"the operator of {decision.constant.name}")
            weights[i] = _Weight(_numbers(decision), True)
    offenders.sort(key=lambda item: (-(item.products or 0), -item.weights))
    return Coverage(_share(on, off, between, weights, samples, uncounted, offenders), by_constant)


def _numbers(decision: Decision) -> int:
    """Numbers of a mapped weight, as its operator takes it: several may be packed into one that is stored."""
    weight = decision.constant.weight
    return decision.constant.size if weight is None else math.prod(weight.shape)


def _share(
    on: _Sum, off: _Sum, between: _Sum, weights: Mapping[object, _Weight], samples: int,
    uncounted: Sequence[str], offenders: Sequence[OffProduct],
) -> MappedShare:  # fmt: skip
    total = _plus(on.total, off.total)
    everything = sum(weight.numbers for weight in weights.values())
    mapped = sum(weight.numbers for weight in weights.values() if weight.mapped)
    share: float | None = None
    if not off.terms or not on.terms:  # all or nothing, however many they are
        share = float(bool(on.terms)) if weights else None
    elif total and on.total is not None:
        share = on.total / total
    return MappedShare(
        products=None if total is None else on.total,
        products_total=total,
        share_of_products=share,
        weights=mapped,
        weights_total=everything,
        share_of_weights=mapped / everything if everything else None,
        activation_products=between.total,
        samples=samples,
        uncounted=tuple(uncounted[:_MOST_UNCOUNTED]),
        off=tuple(offenders),
    )


@dataclass
class _Sum:
    """Products added up; None as soon as one of them is not counted."""

    total: int | None = 0
    terms: int = 0

    def add(self, products: int | None) -> None:
        """Add the products of an operator."""
        self.total, self.terms = _plus(self.total, products), self.terms + 1


def _plus(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def _owner(product: ProductCount, decisions: Sequence[Decision]) -> int | None:
    """The stored tensor that a weight off the array is counted under: the largest one that makes it."""
    return max(product.constants, key=lambda i: decisions[i].constant.size, default=None)


def _off(product: ProductCount, decisions: Sequence[Decision]) -> OffProduct:
    """Describe products off the array; what the user keeps digital says so."""
    owner = _owner(product, decisions)
    served = product.on_array[0] if product.on_array else None
    reason = product.obstacle
    if served is not None:
        reason = decisions[served].reason
    elif not reason and owner is not None:
        reason = decisions[owner].reason
    return OffProduct(
        name=product.name,
        op=product.op,
        weight=product.weight,
        products=product.products,
        weights=product.weights,
        reason=reason or "this form of the operator is not mapped",
    )
