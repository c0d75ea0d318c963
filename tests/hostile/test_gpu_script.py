"""The check of a GPU (benchmarks/gpu.py): all of it but the device runs on the processor."""

import importlib
import sys
from pathlib import Path

import onnxruntime
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = [str(ROOT / "examples" / f"digits_cnn.{ending}") for ending in ("onnx", "npz")]


@pytest.fixture(scope="module")
def gpu():
    pytest.importorskip("torch")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("gpu")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_a_dry_run_on_the_processor_measures_and_compares_all(gpu, capsys):
    """Every part runs; the processor differs from itself by nothing, which only less than nothing forbids."""
    assert gpu.main([*EXAMPLE, "--provider", "cpu", "--small", "--tolerance=-1"]) == 1
    out = capsys.readouterr().out
    assert "outputs apart by 0 of the largest; metric of a chip by 0.0000 at most" in out
    assert "audit of 8 chips on cpu" in out
    assert "trained models apart by 0.0000 without noise" in out
    assert out.count("beyond its tolerance") == 1
    assert "metric of a chip apart by 0, allowed -1" in out


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="ONNX Runtime has CUDA here"
)
def test_without_a_gpu_it_says_what_is_missing(gpu, capsys):
    """Exit code 2, one line that names the provider and what to do, and no figures."""
    assert gpu.main(EXAMPLE) == 2
    found = capsys.readouterr()
    assert "--provider cuda" in found.err
    assert "Traceback" not in found.err
    assert not found.out
