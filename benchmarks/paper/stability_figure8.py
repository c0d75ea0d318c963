"""Figure 8 of the stability paper: what pruning and quantisation do to roughness and accuracy.

    python benchmarks/paper/stability_figure8.py MODEL.onnx train.npz test.npz -o DIR
        [--sparsity 0.29] [--crossbar 72x64] [--fine-tune] [--epochs N] [--seeds 0 1 2] [--trials N]

Three networks for each seed, trained in the same way and without noise: dense and pruned with 14-bit weights,
which stand for 32-bit ones, and pruned with 8-bit weights. The paper has it for a ResNet-20.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cells import Setting, arguments, audited, points, setting_of, trained
from stability_vat import roughness

PAPER = {"dense": (172, 92.35), "pruned": (192, 92.16), "pruned, 8 bits": (130, 92.62)}
"""Roughness ×10⁻³ and accuracy in percent."""

MANY_BITS = 14


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__, sigmas=[0.1], sigma_unit=None, epochs=20, bits=None)
    parser.add_argument("--device", default="rram_65nm")
    parser.add_argument("--sparsity", type=float, default=0.29)
    parser.add_argument("--crossbar", default="256x256", help="its rows bound the groups that are pruned")
    parser.add_argument("--landscape-images", type=int, default=64)
    given = parser.parse_args()
    base = setting_of(given, given.device)
    base.options["keep"] = "last"
    print("| | roughness ×10⁻³, seed by seed | (paper) | clean | (paper) | KPP 1 % | mean of the chips |")
    print("|---|---|---|---|---|---|---|")
    for name, setting in variants(base, given).items():
        rough, found = [], []
        for seed in given.seeds:
            path = trained(setting, name.replace(", ", "-").replace(" ", ""), "none", given.sigmas[0], seed)
            value, spread = roughness(path, setting.train, seed, given.landscape_images)
            rough.append(f"{1e3 * value:.3g} ± {1e3 * (spread or 0):.2g}")
            found.append(audited(setting, path, given.sigmas[0]))
        cells = [points([one[key] for one in found]) for key in ("quantised", "kpp", "mean")]
        print(
            f"| {name} | {'; '.join(rough)} | {PAPER[name][0]} | {cells[0]} | {PAPER[name][1]} "
            f"| {cells[1]} | {cells[2]} |",
            flush=True,
        )


def variants(base: Setting, given: Any) -> dict[str, Setting]:
    """The three ways to train."""
    size = tuple(int(part) for part in given.crossbar.split("x"))
    cut = {**base.options, "sparsity": given.sparsity, "crossbar": size}
    skip = {"crossbar": size, "skip_zero_groups": True}
    return {
        "dense": replace(base, bits=MANY_BITS),
        "pruned": replace(base, bits=MANY_BITS, options=cut, audit=skip),
        "pruned, 8 bits": replace(base, bits=8, options=cut, audit=skip),
    }


if __name__ == "__main__":
    main()
