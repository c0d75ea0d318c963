"""The tables of docs/deploy.md and results/deploy.md, written from `results/`.

    python benchmarks/deploy_tables.py [--check]

With ``--check`` nothing is written, and the exit code is 1 where a table differs.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from calibrate import PERCENTILE
from tables import DOCS, RESULTS, Row, lines, markdown, write_tables

from nvaudit.stats.kpp import kpp_index
from nvaudit.stats.paired import Estimate, kpp_difference, mean_difference

SHOWN = ("mnist_lenet_keras", "mnist_lstm_keras", "mnist_fc_256x6", "cifar_resnet20",
         "cifar_resnet20_qdq_int8", "cifar_resnet56", "imp_silero_v4")  # fmt: skip
"""Models of the short table."""
LARGE = 10**9
"""Weights of the model that is made."""


def mapped(short: bool) -> str:
    """Mapping and check, model by model."""
    rows = []
    measured = lines(RESULTS / "deploy.jsonl")
    for row in sorted(measured, key=lambda row: (row["weights"] >= LARGE, row["model"])):
        large = row["weights"] >= LARGE
        if short and row["model"] not in SHOWN and not large:
            continue
        said = f"{row['outputs']:,} outputs alike" if row["holds"] else "; ".join(row["faults"]) or "differs"
        name = f"{row['weights'] / 1e9:.2g} billion weights" if large else f"`{row['model']}`"
        rows.append(
            [name, f"{row['weights']:,}", f"{row['devices']:,}", f"{row['crossbars']:,}",
             *(f"{row[key]:,.1f}" for key in ("map_s", "check_s", "mib")), f"{row['peak_gib']:.2f}", said]
        )  # fmt: skip
    head = ["model", "weights", "devices", "crossbars", "map, s", "check, s", "MiB", "peak, GiB", "outputs"]
    return markdown(head, rows)


def truth(profile: str) -> set[str]:
    """The law of a profile, by the names that a fit gives it; of four levels several are the same."""
    from nvaudit.device import load_profile

    loaded = load_profile(profile)
    term = next(one for one in loaded.noise if one.kind in ("normal", "lognormal"))
    law: Any = term.sigma
    if term.kind == "lognormal":
        return {"lognormal, spread a number for each level"}
    if law.kind == "constant":
        return {"normal, spread constant"}
    if law.kind == "saturating":
        return {"normal, spread saturating"}
    if law.kind == "levels":  # 1, 4, 4, 1 lie on a parabola
        return {"normal, spread polynomial of degree 2", "normal, spread a number for each level"}
    return {f"normal, spread polynomial of degree {len(law.coefficients) - 1}"}


def laws() -> str:
    """How often the law of each profile is chosen, and how far its spread is off."""
    found: dict[str, dict[int, Row]] = {}
    for row in fits():
        found.setdefault(row["profile"], {})[row["crossbars"]] = row
    sizes = sorted({size for of in found.values() for size in of})
    rows = []
    for profile, of in sorted(found.items()):
        cells = []
        for size in sizes:
            if size not in of:
                cells += ["–", "–"]
                continue
            # A mean shift is chosen apart; the law is named by its spread.
            names: Counter[str] = Counter()
            for name, times in of[size]["laws"].items():
                names[name.partition(", shift")[0]] += times
            right, (most, often) = sum(names[name] for name in truth(profile)), names.most_common(1)[0]
            other = "" if most in truth(profile) else f" ({plain(most)} {often / of[size]['repeats']:.0%})"
            cells += [f"{right / of[size]['repeats']:.0%}{other}", f"{of[size]['off']:.1%}"]
        rows.append([f"`{profile}`", plain(sorted(truth(profile))[-1]), *cells])
    head = ["profile", "its law"]
    for size in sizes:
        repeats = sorted({of[size]["repeats"] for of in found.values() if size in of})
        head += [f"chosen, {size} crossbars ({' or '.join(map(str, repeats))} draws)", "off by"]
    return markdown(head, rows)


def plain(law: str) -> str:
    """The name of a law, shorter."""
    kind, _, spread = law.partition(", spread ")
    spread = spread.replace("polynomial of degree ", "degree ")
    return spread if kind == "normal" else f"{kind}, {spread}"


def fits() -> list[Row]:
    """Fits of arrays."""
    return lines(RESULTS / "fit_arrays.jsonl")


def coverage() -> str:
    """How often intervals hold what devices were drawn with, over all profiles."""
    total: dict[str, dict[int, list[int]]] = {}
    for row in fits():
        for what, (inside, count) in row["held"].items():
            at = total.setdefault(what, {}).setdefault(row["crossbars"], [0, 0])
            at[0] += inside
            at[1] += count
    sizes = sorted({size for of in total.values() for size in of})
    rows = [
        [INTERVALS[what], *(share(of.get(size)) for size in sizes)]
        for what, of in sorted(total.items(), key=lambda at: list(INTERVALS).index(at[0]))
    ]  # fmt: skip
    return markdown(["95 % interval of", *(f"{size} crossbars" for size in sizes)], rows)


def share(counts: list[int] | None) -> str:
    """What holds, of how many."""
    return "–" if counts is None else f"{counts[0] / counts[1]:.1%} of {counts[1]:,}"


INTERVALS = {
    "level mean": "the mean of a level",
    "level spread": "the spread of a level",
    "row": "what rows have in common",
    "column": "what columns have in common",
    "crossbar": "what crossbars have in common",
    "chip": "what chips have in common",
    "no row": "the same of rows, where it is none",
    "no column": "of columns, where it is none",
    "no crossbar": "of crossbars, where it is none",
    "no chip": "of chips, where it is none",
    "stuck_low": "devices that are stuck low",
    "stuck_high": "devices that are stuck high",
    "drift mean": "the mean drift exponent",
    "drift spread": "the spread of drift exponents",
    "drift t0": "the time that drift is counted from",
}


def calibrated() -> str:
    """KPP 5 % with and without a correction of each chip, paired."""
    found: dict[tuple[str, str], dict[int, Row]] = {}
    for row in lines(RESULTS / "calibrate.jsonl"):
        found.setdefault((row["model"], row["device"]), {})[row["samples"]] = row
    sizes = (50, 100, 400)
    rows = []
    for (model, device), of in sorted(
        found.items(), key=lambda at: (MODELS.index(at[0][0]), DEVICES.index(at[0][1]))
    ):
        first = next(iter(of.values()))
        before = 100 * np.array(first["before"], np.float64)
        cells = []
        for size in sizes:
            if size not in of:
                cells.append("–")
                continue
            after = 100 * np.array(of[size]["after"], np.float64)
            cells.append(change(kpp_difference(before, after, PERCENTILE, 0.95, True)))
        corrected = of.get(100, first)["after"]
        mean = mean_difference(before, 100 * np.array(corrected, np.float64), 0.95)
        ideal = f"{100 * first['ideal']:.1f}"
        kpp = np.sort(before)[kpp_index(PERCENTILE, before.size)]
        rows.append(
            [f"`{model}`", f"`{device}`", f"{first['chips']}, {first['images']}", ideal, f"{kpp:.1f}", *cells,
             change(mean), f"{before.min():.1f} → {100 * min(corrected):.1f}"]
        )  # fmt: skip
    head = ["model", "device", "chips, images", "ideal", "KPP 5 %"]
    head += [*(f"by {size} samples" for size in sizes), "mean, by 100"]
    return markdown([*head, "worst chip, by 100"], rows)


MODELS = ["mnist_lenet_keras", "mnist_cnn_pt_opset14", "cifar_resnet8_mlperf", "cifar_cnn_keras",
          "cifar_resnet20", "mnist_lstm_keras"]  # fmt: skip
DEVICES = ["rram", "fefet1", "pcm"]


def change(one: Estimate) -> str:
    """A difference with its interval."""
    between = "" if one.low is None or one.high is None else f" ({one.low:+.1f} … {one.high:+.1f})"
    return f"{one.value:+.1f}{between}".replace("+0.0", "0.0").replace("-", "−")


if __name__ == "__main__":
    write_tables(
        str(__doc__),
        [DOCS / "deploy.md", RESULTS / "deploy.md"],
        {
            "mapped": lambda: mapped(short=True),
            "every model mapped": lambda: mapped(short=False),
            "laws": laws,
            "intervals": coverage,
            "calibrated": calibrated,
        },
    )
