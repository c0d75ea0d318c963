"""Figures 5, 6 and 8 of the TRICE paper as tables: KPP 1 % over the spread, by method.

    python benchmarks/paper/trice_figures.py 6 mnist_lenet_keras.onnx train.npz test.npz -o DIR
    python benchmarks/paper/trice_figures.py 8 mnist_lenet_keras.onnx train.npz test.npz -o DIR
    python benchmarks/paper/trice_figures.py 5 cifar_resnet20.onnx train.npz test.npz -o DIR [--fine-tune]

5: a network on CIFAR-10 with H = 6 (the paper: VGG-8 and ResNet-18); 6: LeNet on FeFET1 and FeFET2; 8: what
noise to train with, at σ 0.25. The paper prints no numbers for these figures; what it claims in words stands
under each table. Options are those of ``trice_table1.py``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace

from cells import Setting, arguments, audited, points, setting_of, trained


@dataclass(frozen=True)
class Figure:
    """What one figure shows."""

    sigmas: tuple[float, ...]
    methods: tuple[str, ...]
    bits: int
    devices: tuple[str, ...]
    claim: str


FIGURES = {
    "5": Figure(
        (0.05, 0.1, 0.15, 0.2), ("none", "gaussian", "trice", "best"), 6, ("rram",),
        "TRICE up to 25.1 points (VGG-8) and 26.0 points (ResNet-18) above Gaussian",
    ),
    "6": Figure(
        (0.05, 0.1, 0.15, 0.2, 0.25), ("none", "gaussian", "trice", "best"), 4, ("fefet1", "fefet2"),
        "TRICE up to 15.6 points (FeFET1) and 12.3 points (FeFET2) above Gaussian",
    ),
    "8": Figure(
        (0.25,), ("gaussian", "rc", "lc", "rt", "lt", "best"), 4, ("rram",),
        "right-censored at least 8.8 points above the others; both truncated ones below Gaussian",
    ),
}  # fmt: skip


def main() -> None:
    """Print one figure's table for each of its devices."""
    if len(sys.argv) < 2 or sys.argv[1] not in FIGURES:
        raise SystemExit(f"the first argument is the figure: one of {', '.join(FIGURES)}")
    figure = FIGURES[sys.argv[1]]
    parser = arguments(__doc__, sigmas=list(figure.sigmas), methods=list(figure.methods), bits=figure.bits)
    parser.add_argument("--devices", nargs="+", default=list(figure.devices))
    given = parser.parse_args(sys.argv[2:])
    for device in given.devices:
        setting = setting_of(given, device)
        setting.options.setdefault("activation_bits", figure.bits)
        table(replace(setting, folder=setting.folder / device), given)
    print(f"\nThe paper: {figure.claim}.")


def table(setting: Setting, given: argparse.Namespace) -> None:
    """Print KPP and accuracy without noise, by spread and method."""
    found: dict[tuple[float, str], list[dict[str, float]]] = {}
    for seed in given.seeds:
        for sigma in given.sigmas:
            for method in given.methods:
                found.setdefault((sigma, method), []).append(cell(setting, method, sigma, seed))
    for title, key in (("KPP 1 %", "kpp"), ("mean of the chips", "mean"), ("clean, quantised", "quantised")):
        print(f"\n{setting.device}: {title}\n\n| σ | " + " | ".join(given.methods) + " |")
        print("|---" * (len(given.methods) + 1) + "|")
        for sigma in given.sigmas:
            cells = (points([one[key] for one in found[sigma, method]]) for method in given.methods)
            print(f"| {sigma:g} | " + " | ".join(cells) + " |", flush=True)


def cell(setting: Setting, method: str, sigma: float, seed: int) -> dict[str, float]:
    """Numbers of one cell; without noise one network serves all spreads."""
    if method == "none":
        return audited(setting, trained(setting, "none", "none", 0.1, seed, keep="last"), sigma)
    keep = {} if method in ("trice", "best") else {"keep": "last"}
    return audited(setting, trained(setting, f"{method}-{sigma:g}", method, sigma, seed, **keep), sigma)


if __name__ == "__main__":
    main()
