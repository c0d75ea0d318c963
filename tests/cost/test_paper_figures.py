"""Figures 7 and 9 of the stability paper, made anew: which of the paper's claims hold, and which do not."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "paper"))

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def resnet20(shared_data: Path, tmp_path_factory: pytest.TempPathFactory):
    """ResNet-20 with what its layers take of 64 CIFAR-10 images."""
    from cost_figures import measured

    spec = importlib.util.spec_from_file_location("reference_load", shared_data / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    feeds, labels = module.load("cifar_resnet20", n=64, here=shared_data)
    data = tmp_path_factory.mktemp("figures") / "images.npz"
    np.savez(data, y=labels, **feeds)
    return measured(shared_data / "models" / "cifar_resnet20.onnx", data)


@pytest.mark.parametrize(
    ("scan", "fails"),
    [
        ("all", {"a lower precision leads", "at higher rates", "the largest value"}),
        ("used", {"at higher rates", "the largest value"}),
    ],
)
def test_what_the_paper_says_of_figure_7(resnet20, scan: str, fails: set[str]) -> None:
    """With unused columns skipped ternary is below 8 bits at every sparsity; without, it is not at 90 %."""
    from cost_figures import claims_7, figure_7, with_scan

    from nvaudit.technology import load_technology

    edp = figure_7(resnet20, with_scan(load_technology("cmos_65nm_siam"), scan))
    claims = claims_7(edp)
    assert len(claims) == 6
    assert unmet(claims, fails) == []
    size = (72, 64)
    if scan == "used":
        assert edp[False, size, 0.9] / edp[False, size, 0.0] == pytest.approx(0.09, abs=0.02)
        assert edp[True, size, 0.0] / edp[False, size, 0.0] == pytest.approx(0.17, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "fails"),
    [
        ("flash", {"the energy is dominated", "the ADC dominates at 5"}),
        ("SAR", {"the energy is dominated", "the same at 2", "the ADC dominates at 5"}),
        ("survey", {"the ADC dominates at 5"}),
    ],
)
def test_what_the_paper_says_of_figure_9(resnet20, kind: str, fails: set[str]) -> None:
    """Whether the ADC dominates depends on its kind; that its part falls with bits and levels does not."""
    from cost_figures import adc_kinds, adc_share, claims_9, figure_9

    technology = next(value for name, value in adc_kinds().items() if kind in name)
    energies = figure_9(resnet20, technology)
    claims = claims_9(energies)
    assert len(claims) == 6
    assert unmet(claims, fails) == []
    if kind == "flash":
        shares = [adc_share(energies[8, cells]) for cells in (1, 2, 4)]
        assert shares == [pytest.approx(value, abs=0.04) for value in (0.56, 0.45, 0.31)]


def unmet(claims: dict[str, bool], fails: set[str]) -> list[str]:
    """Claims that are not as stated; each beginning in ``fails`` must name one that does not hold."""
    named = {begin: [claim for claim in claims if claim.startswith(begin)] for begin in fails}
    assert all(len(some) == 1 for some in named.values()), named
    expected = {some[0] for some in named.values()}
    return [claim for claim, holds in claims.items() if holds == (claim in expected)]
