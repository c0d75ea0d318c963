"""A loss landscape in documents: in 3-D, as contours, and in words."""

from __future__ import annotations

from functools import partial

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.report.document import MEDIA, PAGE, Figure, Sketch
from nvaudit.report.landscape.figures import contour_figure, surface_figure, surface_names
from nvaudit.report.sections import Roughness
from nvaudit.report.wording import count_text, roughness_text


def surface_figures(
    grid: Floats, losses: Floats, names: list[str], loss: str, sketch: Sketch | None = None, sketched: int = 0
) -> tuple[Figure, ...]:
    """Draw surfaces in 3-D and as contours, and one of them with characters.

    Parameters
    ----------
    grid : ndarray, float64, shape (a,)
        Coordinates along both directions.
    losses : ndarray, float64, shape (surface, a, a)
        First along x, then along y.
    names : list of str
        One for each surface.
    loss : str
        Name of the loss, with its unit.
    sketch : callable, optional
        Draws the surface number ``sketched`` where there are no pictures.

    Returns
    -------
    tuple of Figure
    """
    shown = surface_names(names)
    offers = tuple(shown) if len(shown) > 1 else ()
    words = _surface_words(grid, losses[0], shown[0] if offers else "")
    below = "Seen from above; lines join points of equal loss, the cross marks the trained weights."
    surface = partial(surface_figure, grid, losses, names, loss)
    contours = partial(contour_figure, grid, losses, names, loss)
    pictures = (
        Figure(
            "surface", f"{words}.", surface, tall=True, solid=True, offers=offers, media=PAGE,
            legend="Height and colour: the loss.",
        ),
        Figure("contours", f"{words}.", contours, tall=True, offers=offers, legend=below, media=PAGE),
    )  # fmt: skip
    if sketch is None:
        return pictures
    text = _surface_words(grid, losses[sketched], names[sketched] if len(names) > 1 else "")
    flat = Figure("map", f"{text}.", sketch=sketch, media=MEDIA - PAGE)
    return (*pictures, flat)


def _surface_words(grid: Floats, surface: Floats, name: str) -> str:
    """Say a surface, and which of several it is."""
    middle = int(np.argmin(np.abs(grid)))
    span = f"x and y from {grid.min():g} to {grid.max():g} filter lengths"
    low, high = surface.min(), surface.max()
    of = f" ({name})" if name else ""
    return (
        f"Loss over the plane of two random directions through the trained weights, which are in the middle "
        f"({span}): {surface[middle, middle]:.4g} there, from {low:.4g} to {high:.4g} over the plane{of}"
    )


def roughness_words(roughness: Roughness) -> str:
    """Say a roughness and its setting in sentences."""
    pairs = "one pair" if roughness.pairs == 1 else f"{roughness.pairs} pairs"
    error = "" if roughness.standard_error is None else " (mean and standard error over the pairs)"
    return (
        f"Roughness {roughness_text(roughness.value, roughness.standard_error)}{error}; lower is more "
        f"stable. {roughness.grid} × {roughness.grid} points from −{roughness.span:g} to {roughness.span:g} "
        f"filter lengths along {pairs} of random directions, {count_text(roughness.images, 'image')}, "
        f"{roughness.loss.replace('_', '-')} loss, batch norm {roughness.batch_norm}."
    )
