"""The header: what every report says of itself, whatever command wrote it."""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from nvaudit.files import write_text_atomic
from nvaudit.report.codes import CodesInfo
from nvaudit.report.jsontext import to_json
from nvaudit.report.sections import (
    DataInfo,
    InputHashes,
    MetricInfo,
    ModelInfo,
    OperatingPointInfo,
    ReportPart,
    Run,
    RuntimeInfo,
)

_LIBRARIES = ("numpy", "scipy", "onnx", "onnxruntime", "torch")


def library_versions(names: tuple[str, ...] = _LIBRARIES[:-1]) -> dict[str, str]:
    """Give the versions of what numbers come from; of what is not installed none.

    Whether it is imported already does not matter: a resumed run may not have needed it.
    """
    versions = ((name, _version(name)) for name in names)
    return {name: version for name, version in versions if version}


def _version(name: str) -> str:
    module = sys.modules.get(name)
    if module is not None:
        return str(getattr(module, "__version__", "unknown"))
    for distribution in (name, f"{name}-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return ""


def versions_with_torch() -> dict[str, str]:
    """As :func:`library_versions`, of a command that trains."""
    return library_versions(_LIBRARIES)


class Header(ReportPart):
    """What every report says of itself; a kind of report adds what it found.

    A kind narrows ``kind`` to its own name, and to what is always there those of the fields that may be null.
    They are null where a kind has none or several (the models of a comparison), and in files of a version
    that did not write them.
    """

    kind: str = Field(description="Which report this is; see its own schema.")
    schema_version: Literal[1] = 1
    nvaudit_version: str
    libraries: dict[str, str] = Field(
        default_factory=library_versions,
        description="Versions of the libraries that numbers come from; empty in older files.",
    )
    headline: str = Field(description="The result in one line; begins LABEL-FREE without labels.")
    label_free: bool = False
    metric: str | None = None
    metric_info: MetricInfo | None = None
    model: ModelInfo | None = None
    data: DataInfo | None = None
    device: dict[str, JsonValue] | None = Field(
        default=None, description="The full device profile; in older files of some kinds only its name."
    )
    operating_point: OperatingPointInfo | None = None
    codes: CodesInfo | None = Field(default=None, description="Null: weights are slices.")
    runtime: RuntimeInfo | None = Field(default=None, description="Null in reports from before it was kept.")
    run: Run = Field(
        default_factory=dict,
        description="The full specification of the run; empty where each part of the report has its own.",
    )
    hashes: InputHashes | None = None
    timing: dict[str, float] = Field(default_factory=dict, description="Seconds.")
    events: tuple[str, ...] = Field(default=(), description="What happened on the way: a worker replaced …")
    notes: tuple[str, ...] = ()

    @property
    def device_name(self) -> str:
        """Name of the device's profile."""
        return str((self.device or {}).get("name", "unnamed device"))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.headline}>"

    def __str__(self) -> str:
        return self.headline

    def _repr_html_(self) -> str:
        """Show headline, numbers and the first figure below a cell of a notebook."""
        return str(_forms().notebook_of(self))

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, whole or not at all; :func:`nvaudit.load` and `nvaudit report` read it.

        Raises
        ------
        NvauditError
            If it cannot be written there.
        """
        write_text_atomic(path, to_json(self) + "\n")

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables, for :meth:`to_dataframe`; the main one first."""
        return tuple(_forms().tables_of(self))

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures, for :meth:`plot` and :meth:`figure`, in the order of the page."""
        return tuple(figure.name for figure in _forms().document_of(self).figures)

    def to_dataframe(self, table: str | None = None) -> Any:
        """Give a table as a pandas data frame: the rows and columns of ``--csv``.

        Parameters
        ----------
        table : str, optional
            One of :attr:`tables`; by default the main one. Numbers that are missing are NaN.

        Raises
        ------
        OptionError
            If pandas is not installed, or there is no such table in this report.
        """
        return _forms().dataframe_of(self, table)

    def plot(self, name: str | None = None) -> Any:
        """Give a figure of the page, to be looked at: one of plotly.

        Parameters
        ----------
        name : str, optional
            One of :attr:`figures`; by default the first.

        Raises
        ------
        OptionError
            If plotly is not installed, or there is no such figure in this report.
        """
        return _forms().drawn(self, name)

    def figure(self, name: str | None = None, width: float = 3.5, height: float | None = None) -> Any:
        """Give a figure for a paper, one of matplotlib: ``report.figure("yield").savefig("yield.pdf")``.

        Parameters
        ----------
        name : str, optional
            As :meth:`plot`.
        width, height : float
            Inches; a column of a journal with two is 3.5 wide. None: as high as its contents need.

        Raises
        ------
        OptionError
            As :meth:`plot`, and if matplotlib is not installed.
        """
        return _forms().paper_figure_of(self, name, width, height)


def _forms() -> Any:
    """What makes other forms of a report; loaded when one is wanted, and it needs this file."""
    return import_module(f"{__package__}.kinds")
