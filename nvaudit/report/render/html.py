"""A document as a page: one file, no request to anywhere, the same look."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from nvaudit.report.document import Block, Document, Section, for_medium
from nvaudit.report.plots import FONT, PALETTE, figure_data, plotly_library, swaps
from nvaudit.report.wording import clean

_MAX_TEXT = 4000
_HIDDEN = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def html_document(document: Document) -> str:
    """Make a page.

    Returns
    -------
    str
        HTML without any reference to other files. A browser that honours its content security policy runs
        only the page's own two scripts, and loads nothing.

    Raises
    ------
    OptionError
        If plotly is not installed.
    """
    figures = {figure.name: figure_data(figure.draw()) for figure in document.figures if figure.draw}
    libraries = [plotly_library()] if figures else []
    scripts = [_script(text) for text in (*libraries, _read("page.js"))]
    style = _variables() + _read("page.css")
    text = (
        _environment()
        .get_template("page.html")
        .render(
            page=document,
            sections=_sections(document),
            number={name: i for i, name in enumerate(figures, start=1)},
            height={name: data["layout"].get("height") for name, data in figures.items()},
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            policy=_policy(scripts),
            data=Markup(_data(figures)),
        )
    )
    return str(text)


def notebook_html(document: Document, picture: str) -> str:
    """Make what stands below a cell of a notebook: headline, numbers, and the first figure.

    Parameters
    ----------
    picture : str
        The figure as SVG; empty where nothing can draw it.
    """
    figure = next(iter(document.figures), None)
    template = _environment().get_template("notebook.html")
    return str(template.render(page=document, figure=figure, picture=Markup(picture)))


def _sections(document: Document) -> list[tuple[Section, list[Block]]]:
    """The sections of the page with their blocks; one without blocks is left out."""
    sections = [(s, for_medium(s.blocks, "page")) for s in for_medium(document.sections, "page")]
    return [(section, blocks) for section, blocks in sections if blocks]


def _environment() -> Environment:
    """Templates that escape everything; names from models are hostile input."""
    environment = Environment(
        loader=PackageLoader("nvaudit.report.render", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["exact"] = _exact
    environment.filters["breakable"] = _breakable
    return environment


def _shown(value: object) -> object:
    """Make text harmless in a line: no hidden marks, no endless names, no number parted from its unit."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = value if len(value) <= _MAX_TEXT else f"{value[:_MAX_TEXT]}…"
    return clean(text).replace(" %", "\N{NO-BREAK SPACE}%").replace("± ", "±\N{NO-BREAK SPACE}")


def _exact(text: str) -> Markup:
    """Make text harmless that is copied: nothing is cut or replaced by what looks alike."""
    return escape(clean(text))


def _breakable(text: str) -> Markup:
    """Let a name break behind its joints, and no number at its point or sign."""
    parts = re.split(r"(?<=[_/:])|(?<=\w[.-])(?!\d)", str(_shown(text)))
    return Markup("<wbr>").join(parts)


def _read(name: str) -> str:
    return files("nvaudit.report.render").joinpath(name).read_text(encoding="utf-8")


def _script(text: str) -> str:
    # An end tag would end the script, wherever it stands.
    return text.replace("</script", "<\\/script")


def _data(figures: dict[str, dict[str, Any]]) -> str:
    """Figures and colours as JSON that cannot end its element."""
    content: dict[str, Any] = {"figures": figures, "dark": swaps()}
    return json.dumps(content, separators=(",", ":")).translate(_HIDDEN)


def _policy(scripts: list[str]) -> str:
    """Say what the page may do: run these scripts, style itself, draw images that it made itself."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _variables() -> str:
    """Give the palette as CSS variables."""
    light = "".join(f"--{role}:{pair.light};" for role, pair in PALETTE.items())
    dark = "".join(f"--{role}:{pair.dark};" for role, pair in PALETTE.items())
    return (
        f":root{{color-scheme:light;--font:{FONT};{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{dark}}}}}\n"
    )
