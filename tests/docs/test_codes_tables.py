"""The tables of codes in the documentation are those of the measured results."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_are_current():
    """docs/mapping.md and docs/mapping-models.md hold what `benchmarks/codes_tables.py` writes today."""
    words = [sys.executable, str(ROOT / "benchmarks" / "codes_tables.py"), "--check"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or "run python benchmarks/codes_tables.py"
    assert "<!-- table: bars -->" in (ROOT / "docs" / "mapping.md").read_text(encoding="utf-8")
