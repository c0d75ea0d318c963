"""The glossary: each word once, and where it says that something is defined, there is something."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def test_places_exist():
    """Every file and folder of the package that the page names is there."""
    named = set(re.findall(r"`(nvaudit/[\w/.]+)`", PAGE))
    assert len(named) > 20
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_words_are_defined_once():
    """No word has two entries, in the first column or in bold within another entry."""
    words = [word.lower() for row in re.findall(r"^\| (\*\*.*?) \|", PAGE, re.MULTILINE)
             for word in re.findall(r"\*\*(.+?)\*\*", row)]  # fmt: skip
    assert len(words) > 40
    assert sorted(words) == sorted(set(words))
    assert {"chip", "trial", "sample", "kpp", "gate", "race", "trice", "roughness"} <= set(words)


def test_the_page_is_linked():
    """Readers of the documentation and contributors find it."""
    for page, link in (("docs/README.md", "(glossary.md)"), ("CONTRIBUTING.md", "(docs/glossary.md)")):
        assert link in (ROOT / page).read_text(encoding="utf-8")
