"""A loss landscape as one page that opens offline."""

from __future__ import annotations

from html import escape

import numpy as np

from nvaudit.report.landscape import LandscapeReport, roughness_text
from nvaudit.report.plots.figures import figure_html
from nvaudit.report.plots.landscape import contour_figure, surface_figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; color: #1a1a1a;
       background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; }
table { border-collapse: collapse; } th, td { text-align: right; padding: 0.2rem 0.8rem 0.2rem 0; }
figure { margin: 0 0 2rem; }
figure > div { height: 65vh; min-height: 20rem; }
figcaption { color: #555; }
"""


def landscape_html(report: LandscapeReport) -> str:
    """Make the page.

    Parameters
    ----------
    report : LandscapeReport

    Returns
    -------
    str
        HTML without any reference to other files.

    Raises
    ------
    OptionError
        If plotly is not installed.
    """
    axis, losses = np.array(report.surface.axis), np.array(report.surface.losses)
    names = [f"pair {i}: {roughness_text(fit.roughness)}" for i, fit in enumerate(report.fits)]
    loss = f"{report.loss.name.replace('_', '-')}, {report.loss.unit}"
    solid = figure_html(surface_figure(axis, losses, names, loss), library=True)
    flat = figure_html(contour_figure(axis, losses, names, loss), library=False)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.headline)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(report.headline)}</h1>
<p>{escape(_settings(report))}</p>
<h2>Loss around the trained weights</h2>
<figure>{solid}<figcaption>Height and colour: the loss. The trained weights are in the
middle.</figcaption></figure>
<h2>The same as contours</h2>
<figure>{flat}<figcaption>Seen from above; lines join points of equal loss.</figcaption></figure>
<h2>Direction pairs</h2>
{_table(report)}
</main>
</body>
</html>
"""


def _settings(report: LandscapeReport) -> str:
    found = report.roughness
    return (
        f"{report.model.path}: {found.grid} × {found.grid} points from −{found.span:g} to {found.span:g} "
        f"filter lengths along two random directions, {found.images} images, batch norm "
        f"{found.batch_norm}; loss of the unmodified model {report.loss.nominal:.4g}. "
        f"{'; '.join(report.loss.assumed)}."
    )


def _table(report: LandscapeReport) -> str:
    rows = "".join(
        f"<tr><td>{i}</td><td>{1e3 * fit.roughness:.4g}</td><td>{fit.lowest:.4g}</td>"
        f"<td>{fit.highest:.4g}</td></tr>"
        for i, fit in enumerate(report.fits)
    )
    head = "".join(
        f'<th scope="col">{title}</th>'
        for title in ("pair", "roughness ×10⁻³", "lowest loss", "highest loss")
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
