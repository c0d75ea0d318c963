"""Tables of pages, written from results: what `codes_tables.py` and `deploy_tables.py` have in common.

A table stands in a page between ``<!-- table: NAME -->`` and ``<!-- end of table -->``; its lines are made
anew from the results.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
MARKED = re.compile(r"(<!-- table: (.*?) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)

Row = dict[str, Any]


def lines(path: Path) -> list[Row]:
    """What a file of JSON lines holds; nothing where there is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    text = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join(text + [f"| {' | '.join(row)} |" for row in rows])


def write_tables(description: str, pages: Sequence[Path], tables: Mapping[str, Callable[[], str]]) -> None:
    """Write every table that pages have a place for; with ``--check`` exit 1 where one differs."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where a table differs")
    given = parser.parse_args()
    differ = False
    for page in pages:
        before = page.read_text(encoding="utf-8")
        after = MARKED.sub(lambda found: found[1] + tables[found[2]]() + "\n" + found[4], before)
        differ |= after != before
        if not given.check:
            page.write_text(after, encoding="utf-8")
    sys.exit(int(given.check and differ))
