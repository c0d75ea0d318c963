"""The notebook among the examples runs from its first cell to its last."""

import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat reads the notebook; pip install nbclient")
nbclient = pytest.importorskip("nbclient", reason="nbclient runs the notebook; pip install nbclient")
for name in ("ipykernel", "pandas", "matplotlib", "plotly"):
    pytest.importorskip(name, reason=f"the notebook needs {name}; pip install ipykernel 'nvaudit[notebook]'")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.filterwarnings("default")  # of the kernel and its client
def test_the_example_notebook_runs(tmp_path):
    """From a table of levels to a profile, its KPP over σ as the table that is committed, and a PDF."""
    for file in ("digits_cnn.onnx", "digits_cnn.npz", "levels.csv"):
        shutil.copy(EXAMPLES / file, tmp_path)
    kept = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    ran = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(ran, timeout=200, kernel_name="python3", resources=place).execute()
    _, shown, table, figure = ran.cells
    assert "<svg" in shown.outputs[0]["data"]["text/html"]
    rows = [cell.outputs[0]["data"]["text/plain"].splitlines() for cell in (table, kept.cells[2])]
    assert rows[0] == rows[1]
    assert "image/svg+xml" in figure.outputs[0]["data"]
    assert (tmp_path / "kpp-over-sigma.pdf").read_bytes().startswith(b"%PDF")
