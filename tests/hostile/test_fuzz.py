"""A bounded part of the fuzz campaign (benchmarks/fuzz.py): no internal error, traceback, hang or memory."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def fuzz():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("fuzz")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def seeds(fuzz, tmp_path_factory):
    """Without ONNX's own node tests, and with the report of one audit."""
    cases = sys.modules["fuzz_cases"]
    folder = tmp_path_factory.mktemp("seeds")
    report = fuzz._nvaudit(
        [
            "audit",
            str(cases.EXAMPLE),
            "-n",
            "6",
            "-j",
            "0",
            "-q",
            "--limit",
            "8",
            "--no-roughness",
            "--sigma",
            "0.1:0.2:0.1",
            "--min-kpp",
            "0.2",
            "-o",
            f"{folder}/r.json",
        ]
    )
    assert report is not None
    models = [cases.EXAMPLE.read_bytes(), *(model.SerializeToString() for model in cases.own_models())]
    profiles = [path.read_bytes() for path in sorted((cases.REPO / "devices").glob("*m.json"))]
    return cases.Seeds(models, profiles, [(folder / "r.json").read_bytes()])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from /proc")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("kind", "count"),
    [("onnx", 40), ("json", 40), ("npz", 25), ("csv", 60), ("report", 20), ("technology", 40)],
)
def test_every_case_ends_well(fuzz, seeds, kind, count, seed):
    """With exit code 0, 1 or 2, and nothing of a library on standard error."""
    lines = list(fuzz.run_cases([(kind, number) for number in range(count)], seed, seeds))
    assert len(lines) == count
    assert [line for line in lines if line["fault"]] == []
    assert len({line["code"] for line in lines}) > 1 or kind == "csv"


def test_a_case_follows_from_its_number(fuzz, seeds):
    """The same seed, kind and number give the same files and the same command."""
    for kind in fuzz.KINDS:
        assert fuzz.case_of(kind, 3, 5, seeds) == fuzz.case_of(kind, 3, 5, seeds)
        assert fuzz.case_of(kind, 3, 5, seeds) != fuzz.case_of(kind, 4, 5, seeds)
