"""The pytest plugin: the fixture ``assert_kpp`` and the option ``--nvaudit-report``.

It is loaded in every project where nvaudit is installed, so that it imports nothing heavy and does nothing
until it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nvaudit.report.result import AuditReport

_BEFORE = pytest.StashKey[str | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("nvaudit").addoption(
        "--nvaudit-report",
        metavar="DIR",
        help="Folder in which every assert_kpp leaves its report.json.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell :mod:`nvaudit.testing` where reports go."""
    folder = config.getoption("--nvaudit-report")
    if folder is None:
        return
    from nvaudit.testing import REPORTS

    path = config.invocation_params.dir / folder
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise pytest.UsageError(f"--nvaudit-report {folder}: cannot be made: {reason}") from error
    config.stash[_BEFORE] = os.environ.get(REPORTS)
    os.environ[REPORTS] = str(path)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the environment as it was."""
    if _BEFORE not in config.stash:
        return
    from nvaudit.testing import REPORTS

    before = config.stash[_BEFORE]
    if before is None:
        os.environ.pop(REPORTS, None)
    else:
        os.environ[REPORTS] = before


@pytest.fixture
def assert_kpp(request: pytest.FixtureRequest) -> Callable[..., AuditReport]:
    """Demand a worst-case accuracy; as :func:`nvaudit.testing.assert_kpp`.

    The numbers of a test that passes stand in pytest's own JUnit file too (``--junit-xml``).
    """

    def check(model: str | Path, **options: Any) -> AuditReport:
        __tracebackhide__ = True
        from nvaudit.testing import assert_kpp as demand

        report = demand(model, **options)
        # Not by record_property: that fixture warns of JUnit files in pytest's own default form.
        properties = request.node.user_properties
        properties.append(("nvaudit_headline", report.headline))
        properties += [(f"nvaudit_kpp_{kpp.percentile:g}", kpp.value) for kpp in report.kpp]
        return report

    return check
