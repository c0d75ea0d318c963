"""The documentation's tables of options are those of the commands."""

from pathlib import Path

from nvaudit.cli.option_table import options_text
from nvaudit.declare import fields_of
from nvaudit.spec import RunSpec

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_tables_are_current():
    """`docs/options.md` is what `python -m nvaudit.cli.option_table` writes today."""
    assert PAGE.read_text(encoding="utf-8") == options_text()


def test_no_option_of_an_audit_is_missing():
    """Every field of its specification has a row with what may be given."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `--")]
    for name, field in fields_of(RunSpec).items():
        row = next((row for row in rows if row.startswith(f"| `{field.flag}`") and "audit" in row), "")
        assert row or name == "model", name
        assert field.switch or field.wanted.replace("|", "\\|") in row or name == "model", name


def test_defaults_stand_in_one_table():
    """No other page has a table of options with their defaults or limits: it would age."""
    others = [page for page in PAGE.parent.glob("*.md") if page != PAGE]
    tables = [
        f"{page.name}: {line}"
        for page in others
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("| option") and any(word in line for word in ("default", "decides"))
    ]
    assert len(others) > 10
    assert tables == []
