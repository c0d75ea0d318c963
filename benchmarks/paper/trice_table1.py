"""Table I of the TRICE paper: LeNet on MNIST, H = 4, B = 2, KPP 1 % of five methods under nine spreads.

    python benchmarks/paper/trice_table1.py mnist_lenet_keras.onnx train.npz test.npz -o DIR
        [--seeds 0 1 2] [--epochs 100] [--limit N] [--trials 10000] [--images 10000] [--units]

Every method is trained from new weights, as in the paper, with 4-bit weights and activations; ``rc`` is the
paper's RC-Manual with th = 2 and the device's own spread. One row per spread; ours, mean over seeds ± 95 %
interval (t), and the paper's figure. ``--methods`` also takes ``best``. ``--units`` prints instead the column
"w/o noise" for each unit that the paper's σ_d may have.
"""

from __future__ import annotations

from dataclasses import replace

from cells import Setting, arguments, audited, measured, points, setting_of, trained

SIGMAS = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
METHODS = ["none", "correctnet", "gaussian", "rc", "trice"]
PAPER = {
    "none": [99.01, 93.31, 70.72, 38.15, 19.81, 11.95, 8.58, 6.89, 6.05],
    "correctnet": [97.99, 97.56, 90.66, 67.70, 39.54, 22.26, 14.26, 10.83, 9.23],
    "gaussian": [98.86, 97.45, 95.59, 87.60, 66.04, 40.27, 23.09, 14.38, 10.38],
    "rc": [98.88, 96.89, 95.47, 90.43, 75.47, 50.14, 28.56, 16.83, 11.61],
    "trice": [98.94, 98.08, 95.99, 90.58, 77.82, 54.12, 38.51, 25.29, 17.94],
}
"""Table I, in percent."""


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__, sigmas=SIGMAS, methods=METHODS, bits=4)
    parser.add_argument("--units", action="store_true")
    given = parser.parse_args()
    setting = setting_of(given)
    setting.options.setdefault("activation_bits", 4)
    if given.units:
        units(setting, given.sigmas, given.seeds)
    else:
        table(setting, given.sigmas, given.methods, given.seeds)


def table(setting: Setting, sigmas: list[float], methods: list[str], seeds: list[int]) -> None:
    """Print KPP by spread and method; all methods of one seed are trained before the next seed's."""
    found: dict[tuple[float, str], list[dict[str, float]]] = {}
    for seed in seeds:
        for sigma in sigmas:
            for method in methods:
                numbers = cell(setting, method, sigma, seed)
                if numbers is not None:
                    found.setdefault((sigma, method), []).append(numbers)
    for title, key in (("KPP 1 %", "kpp"), ("clean, quantised", "quantised")):
        print(f"\n{title}\n\n| σ | " + " | ".join(f"{method} (paper)" for method in methods) + " |")
        print("|---" * (len(methods) + 1) + "|")
        for sigma in sigmas:
            row = []
            for method in methods:
                numbers = [one[key] for one in found.get((sigma, method), [])]
                theirs = paper(method, sigma) if key == "kpp" else ""
                row.append((points(numbers) if numbers else "—") + theirs)
            print(f"| {sigma:g} | " + " | ".join(row) + " |")


def paper(method: str, sigma: float) -> str:
    """The paper's figure in brackets, if there is one."""
    if method not in PAPER or sigma not in SIGMAS:
        return ""
    return f" ({PAPER[method][SIGMAS.index(sigma)]:.1f})"


def cell(setting: Setting, method: str, sigma: float, seed: int) -> dict[str, float] | None:
    """KPP of one cell; None where the method does not exist without noise."""
    if method == "none":  # does not depend on the spread
        return measured(setting, "none", "none", SIGMAS[4], seed, sigma)
    if sigma == 0 and method in ("trice", "best", "rc"):
        return None
    keep = {} if method in ("trice", "best") else {"keep": "last"}
    return measured(setting, f"{method}-{sigma:g}", method, sigma, seed, sigma, **keep)


def units(setting: Setting, sigmas: list[float], seeds: list[int]) -> None:
    """Print the column without noise for every unit of σ_d."""
    names = ("level", "full_scale", "weight_max")
    print("| σ | paper | " + " | ".join(names) + " |\n" + "|---" * (2 + len(names)) + "|")
    for sigma in sigmas:
        row = []
        for name in names:
            other = replace(setting, sigma_unit=name)
            paths = [trained(setting, "none", "none", SIGMAS[4], seed) for seed in seeds]
            row.append(points([audited(other, path, sigma)["kpp"] for path in paths]))
        theirs = PAPER["none"][SIGMAS.index(sigma)]
        print(f"| {sigma:g} | {theirs:.1f} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
