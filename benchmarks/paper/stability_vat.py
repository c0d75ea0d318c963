"""Tables 5 and 6 of the stability paper: conventional against optimal variation-aware training.

    python benchmarks/paper/stability_vat.py MODEL.onnx train.npz test.npz -o DIR
        [--device rram_65nm] [--sigmas 0.1 … 0.5] [--train-sigmas 0.1 0.2 0.3 0.4 0.5] [--seeds 0 1 2]
        [--bits 8 | --ternary] [--sparsity 0.8] [--crossbar 72x64] [--epochs N] [--trials N] [--images N]
        [--adc-bits 5 --adc-range percentile:99.9 [--no-hardware-aware]]

One network for each σ_train and seed, each from the same start and with the noise of the device at that σ:
what they are trained with does not depend on σ_test, so one set of networks serves every row. Conventional is
the network with σ_train = σ_test; optimal the one of lowest roughness among ``--train-sigmas``, measured on
the training file; best is the one of best KPP, which only an audit at σ_test tells.
Spreads are in the unit of the profile. What is in DIR is not run again: one folder for each model, data and
compression.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cells import Setting, arguments, audited, points, setting_of, trained

import nvaudit

SIGMAS = [0.1, 0.2, 0.3, 0.4, 0.5]
PAPER = {0.1: (87.9, 88.5), 0.2: (84.8, 87.7), 0.3: (81.2, 85.8), 0.4: (64.9, 83.9), 0.5: (64.6, 80.0)}
"""Table 5: VGG-16 on CIFAR-10, ternary, 82.3 % sparse; conventional and optimal, in percent."""


@dataclass(frozen=True)
class Network:
    """One trained network.

    Attributes
    ----------
    sigma : float
        σ_train.
    path : Path
    roughness : float
    spread : float or None
    """

    sigma: float
    path: Path
    roughness: float
    spread: float | None


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__, sigmas=SIGMAS, sigma_unit=None, epochs=20, bits=None)
    parser.add_argument("--device", default="rram_65nm")
    parser.add_argument("--train-sigmas", nargs="+", type=float, default=SIGMAS)
    parser.add_argument("--ternary", action="store_true", help="ternary weights, instead of --bits")
    parser.add_argument("--sparsity", type=float, help="share that is pruned")
    parser.add_argument("--crossbar", default="256x256", help="its rows bound the groups that are pruned")
    parser.add_argument(
        "--adc-bits", type=int, help="audits, and training, on crossbars with such converters"
    )
    parser.add_argument("--adc-range", default="max")
    parser.add_argument("--no-hardware-aware", action="store_true", help="training without converters")
    parser.add_argument("--landscape-images", type=int, default=64)
    given = parser.parse_args()
    setting = setting_of(given, given.device)
    setting.options["keep"] = "last"
    audit: dict[str, Any] = {**setting.audit}
    if given.ternary:
        setting = replace(setting, bits="ternary")
        audit |= {"bits": 1, "cell_bits": 1}
    if given.sparsity is not None:
        setting.options.update(sparsity=given.sparsity, crossbar=size_of(given))
        audit |= {"crossbar": size_of(given), "skip_zero_groups": True}
    if given.adc_bits is not None:
        audit |= {"adc_bits": given.adc_bits, "adc_range": given.adc_range, "crossbar": size_of(given)}
        if not given.no_hardware_aware:
            setting.options.update(
                adc_bits=given.adc_bits, adc_range=given.adc_range, crossbar=size_of(given)
            )
    study(replace(setting, audit=audit), given)


def size_of(given: Any) -> tuple[int, ...]:
    """Rows and columns of a crossbar."""
    return tuple(int(part) for part in given.crossbar.split("x"))


def study(setting: Setting, given: Any) -> None:
    """Train, measure and print seed by seed; a study that is cut off has printed whole seeds."""
    found = {}
    for seed in given.seeds:
        found[seed] = networks(setting, given, seed)
        show(setting, given, found)


def networks(setting: Setting, given: Any, seed: int) -> list[Network]:
    """All networks of one seed."""
    made = []
    for sigma in sorted({*given.train_sigmas, *given.sigmas} - {0.0}):
        path = trained(setting, f"device-{sigma:g}", "device", sigma, seed)
        value, spread = roughness(path, setting.train, seed, given.landscape_images)
        made.append(Network(sigma, path, value, spread))
    return made


def roughness(path: Path, data: Path, seed: int, images: int) -> tuple[float, float | None]:
    """Roughness of a network and its spread over pairs of directions, or what was measured before."""
    kept = path.with_name(f"{path.stem}@landscape-{images}.json")
    if not kept.exists():
        print(f"{time.strftime('%H:%M:%S')} {path.stem}: roughness", file=sys.stderr, flush=True)
        report = nvaudit.landscape(path, data, seed=seed, images=images)
        numbers = [report.roughness.value, report.roughness.spread]
        kept.write_text(json.dumps(numbers) + "\n", encoding="utf-8")
    value, spread = json.loads(kept.read_text(encoding="utf-8"))
    return value, spread


def show(setting: Setting, given: Any, found: dict[int, list[Network]]) -> None:
    """Print the tables of the seeds so far."""
    print(f"\n## {len(found)} of {len(given.seeds)} seeds\n")
    print("| σ_train | roughness ×10⁻³, seed by seed |\n|---|---|")
    for sigma in given.train_sigmas:
        cells = [f"{1e3 * one.roughness:.3g} ± {1e3 * (one.spread or 0):.2g}" for one in at(found, sigma)]
        print(f"| {sigma:g} | {'; '.join(cells)} |")
    print(
        "\n| σ_test | σ_train of the optimal | conventional mean | optimal mean | best mean "
        "| conventional KPP | optimal KPP | best KPP | paper, Table 5 |\n" + "|---" * 9 + "|"
    )
    wins = beats = total = 0
    for sigma in given.sigmas:
        row, won, beat = compared(setting, given, found, sigma)
        wins, beats, total = wins + won, beats + beat, total + len(found)
        print(row)
    print(
        f"\nThe network of lowest roughness had the best KPP of all candidates in {wins} of {total} cases, "
        f"and at least the conventional one's in {beats} of {total}.",
        flush=True,
    )


def compared(
    setting: Setting, given: Any, found: dict[int, list[Network]], sigma: float
) -> tuple[str, int, int]:
    """One row: a test spread, all seeds; and how often the lowest roughness won."""
    columns: dict[str, list[dict[str, float]]] = {"conventional": [], "optimal": [], "best": []}
    chosen, wins, beats = [], 0, 0
    for made in found.values():
        candidates = [one for one in made if one.sigma in given.train_sigmas]
        optimal = min(candidates, key=lambda one: one.roughness)
        numbers = {one.sigma: audited(setting, one.path, sigma) for one in candidates}
        best = max(numbers, key=lambda key: numbers[key]["kpp"])
        own = next((one for one in made if one.sigma == sigma), None)
        columns["optimal"].append(numbers[optimal.sigma])
        columns["best"].append(numbers[best])
        chosen.append(optimal.sigma)
        wins += numbers[optimal.sigma]["kpp"] >= numbers[best]["kpp"]
        if own is not None:  # without noise there is no conventional training
            conventional = numbers.get(sigma) or audited(setting, own.path, sigma)
            columns["conventional"].append(conventional)
            beats += numbers[optimal.sigma]["kpp"] >= conventional["kpp"]
    cells = [
        points([one[key] for one in values]) if values else "–"
        for key in ("mean", "kpp")
        for values in columns.values()
    ]
    theirs = " / ".join(f"{value:g}" for value in PAPER[sigma]) if sigma in PAPER else "–"
    taken = f"{statistics.mean(chosen):.3g} ({', '.join(f'{one:g}' for one in chosen)})"
    return f"| {sigma:g} | {taken} | {' | '.join(cells)} | {theirs} |", wins, beats


def at(found: dict[int, list[Network]], sigma: float) -> list[Network]:
    """The networks of one σ_train, seed by seed."""
    return [one for made in found.values() for one in made if one.sigma == sigma]


if __name__ == "__main__":
    main()
