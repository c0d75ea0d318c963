"""Groups of zeros that are left out of the array: what the report holds about them."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from nvaudit.report.sections import ReportPart
from nvaudit.report.wording import count_text, share_text


class ZeroGroupsLayer(ReportPart):
    """The groups of one mapped tensor. A group is what one crossbar holds of one output."""

    name: str
    groups: int = Field(ge=0)
    zero_groups: int = Field(ge=0, description="Groups of zeros: no devices, no noise.")
    weights: int = Field(ge=0)
    zero_weights: int = Field(ge=0, description="Weights in groups of zeros.")
    crossbars: int = Field(ge=0, description="Crossbars if every group had devices.")
    saved: int = Field(ge=0, description="Crossbars fewer without the groups of zeros.")


class ZeroGroups(ReportPart):
    """Groups of zeros that are left out of the array."""

    rows: int = Field(ge=1, description="Of a crossbar; a group has at most as many weights.")
    cols: int = Field(ge=1)
    groups: int = Field(ge=0)
    zero_groups: int = Field(ge=0)
    sparsity: float = Field(ge=0, le=1, description="Share of the mapped weights that lie in such groups.")
    crossbars: int = Field(ge=0, description="If every group had devices.")
    saved: int = Field(ge=0)
    layers: tuple[ZeroGroupsLayer, ...]


def zero_groups_info(rows: int, cols: int, layers: Iterable[ZeroGroupsLayer]) -> ZeroGroups:
    """Add layers up.

    Parameters
    ----------
    rows, cols : int
        Of a crossbar.
    """
    each = tuple(layers)
    weights = sum(layer.weights for layer in each)
    return ZeroGroups(
        rows=rows,
        cols=cols,
        groups=sum(layer.groups for layer in each),
        zero_groups=sum(layer.zero_groups for layer in each),
        sparsity=sum(layer.zero_weights for layer in each) / max(weights, 1),
        crossbars=sum(layer.crossbars for layer in each),
        saved=sum(layer.saved for layer in each),
        layers=each,
    )


def zero_groups_text(info: ZeroGroups) -> str:
    """Say in a sentence what groups of zeros save."""
    return (
        f"{info.zero_groups:,} of {count_text(info.groups, 'group')} hold zeros only "
        f"({share_text(info.sparsity)} of the mapped weights): they have no devices and no noise, which "
        f"saves {info.saved:,} of {count_text(info.crossbars, 'crossbar')} of {info.rows} × {info.cols}"
    )
