"""The tables of docs/deploy.md are those of the measured results."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_of_deployment_are_current():
    """docs/deploy.md and results/deploy.md hold what `benchmarks/deploy_tables.py` writes today."""
    words = [sys.executable, str(ROOT / "benchmarks" / "deploy_tables.py"), "--check"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or "run python benchmarks/deploy_tables.py"
    assert "<!-- table: calibrated -->" in (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
