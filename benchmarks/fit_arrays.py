"""Draw crossbars from bundled profiles, fit them, and say what is found again.

    python benchmarks/fit_arrays.py --results FILE.jsonl [--repeats 200] [--crossbars 4 16 64] [PROFILE …]
    python benchmarks/fit_arrays.py --results FILE.jsonl --table

What a fit of arrays finds again of bundled profiles, and how often its 95 % intervals hold what devices were
drawn with. Of each profile and number of crossbars (``--side`` square, chips of four, analog
devices programmed to ``--levels`` levels): which law is chosen; how far the spreads of the fitted law are
from the true ones, root mean square over levels; and how often intervals hold the truth, of the mean and the
spread of each level as drawn, and of what is added in further repeats: components of chips, crossbars, rows
and columns, and stuck devices. Drifting profiles also give exponents from two times. What FILE holds is not
run again.
"""

import argparse
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit.device import load_profile, operating_point, profile_names
from nvaudit.device.fit_arrays import ArrayFit, fit_arrays
from nvaudit.device.fit_samples import CrossbarSample, Estimated
from nvaudit.mapping.conductance import DeviceArray, layout, one_device
from nvaudit.perturb.chip import MappedTensor, TensorLaw, blocks

ADDED = {"chip": 0.10, "crossbar": 0.15, "row": 0.12, "column": 0.12}
"""Standard deviations of what devices have in common, in spreads of the widest level."""
STUCK = {"stuck_low": 0.004, "stuck_high": 0.002}
OF_A_CHIP = 4
TIMES = (0.0, 3600.0, 86400.0)
_TRUTH = 1 << 19
"""Devices of each level that the true mean and spread are taken from."""


def drawn(name: str, code: np.ndarray, array: DeviceArray, seed: int, time_s: float) -> np.ndarray:
    """Conductances of devices that are programmed to some levels."""
    tensor = MappedTensor("crossbar", code, np.float32(1), array, array.top)
    point = operating_point(load_profile(name), time_s=time_s or None)
    law = TensorLaw(tensor, point, every_device=True, keep_tables=False)
    g, streams = np.empty(code.shape), law.streams(seed, 0)
    for _, block, _ in blocks(code, law.tensor.scale):
        for device in law.devices(code[block], block, streams):
            g[block] = device.conductance
    return g


class Trial:
    """Crossbars of one profile, drawn and fitted again and again."""

    def __init__(self, name: str, crossbars: int, side: int, levels: int) -> None:
        self.name, self.crossbars, self.side = name, crossbars, side
        self.profile = load_profile(name)
        bits = max(1, (levels - 1).bit_length()) if self.profile.cell_bits is None else 8
        self.array = one_device(layout(self.profile, bits=bits, encoding="sign_magnitude"))
        every = np.repeat(np.arange(self.array.top + 1, dtype=np.int16)[:, None], _TRUTH, axis=1)
        error = drawn(name, every, self.array, 1, 0.0) - self.array.g_min
        error = error / self.array.step - every
        self.mean, self.spread = error.mean(axis=1), error.std(axis=1)

    def samples(self, repeat: int, added: bool, times: tuple[float, ...]) -> list[CrossbarSample]:
        """Read crossbars back."""
        array, side = self.array, self.side
        # Other draws for each profile, so that what is counted over all of them is of independent ones.
        own = zlib.crc32(self.name.encode())
        generator = np.random.default_rng([repeat, self.crossbars, own])
        code = generator.integers(0, array.top + 1, (self.crossbars * side, side)).astype(np.int16)
        row, column = (index.ravel() for index in np.indices((side, side)))
        made = []
        for time_s in times:
            g = drawn(self.name, code, array, own + repeat, time_s).reshape(self.crossbars, -1)
            if added:
                g = self._added(g, generator, row, column)
            made += [
                CrossbarSample(
                    f"chip-{number // OF_A_CHIP}", time_s if len(times) > 1 else None,
                    code[number * side : (number + 1) * side].ravel().astype(np.intp), g[number], row, column,
                    None, str(number),
                )
                for number in range(self.crossbars)
            ]  # fmt: skip
        return made

    def _added(
        self, g: np.ndarray, generator: np.random.Generator, row: np.ndarray, column: np.ndarray
    ) -> np.ndarray:
        """Add what devices have in common, and stuck devices."""
        unit = self.spread.max() * self.array.step
        number, g = np.arange(self.crossbars), g.copy()
        for part, index, count in (
            ("chip", number[:, None] // OF_A_CHIP, self.crossbars),
            ("crossbar", number[:, None], self.crossbars),
            ("row", number[:, None] * self.side + row, self.crossbars * self.side),
            ("column", number[:, None] * self.side + column, self.crossbars * self.side),
        ):
            g += unit * ADDED[part] * generator.standard_normal(count)[index]
        chance = generator.random(g.shape)
        g[chance < STUCK["stuck_low"]] = self.array.g_min
        g[chance > 1 - STUCK["stuck_high"]] = self.array.g_max
        return g

    def fit(self, repeat: int, *, added: bool = False, times: tuple[float, ...] = (0.0,)) -> ArrayFit:
        """Draw and fit."""
        window = (self.array.g_min, self.array.g_max)
        levels = None if self.profile.cell_bits is None else 2**self.profile.cell_bits
        terms = self.profile.noise
        t0 = next((term.t0_s for term in terms if term.kind == "drift"), None)
        samples = self.samples(repeat, added, times)
        return fit_arrays(samples, self.array.top_level, window, levels, t0_s=t0)

    def off(self, fit: ArrayFit) -> float:
        """How far the spreads of the chosen law are from the true ones, relative, rms over levels."""
        law, x = fit.laws[0], np.arange(self.array.top + 1) / self.array.top
        spread = law.spread.at(law.spread_parameters, x)
        if law.kind != "normal":
            # Of a log-normal g with median m: √(exp(σ²) − 1) · exp(σ²/2) m; the mean of r or of g moves m.
            target = self.array.g_min / self.array.step + np.arange(self.array.top + 1)
            moved = {"lognormal, mean resistance kept": 1, "lognormal, mean conductance kept": -1}
            median = target * np.exp(moved.get(law.kind, 0) * spread**2 / 2)
            spread = median * np.exp(spread**2 / 2) * np.sqrt(np.expm1(spread**2))
        seen = [one.level for one in fit.levels if one.clipped <= 0.01]
        ratio = spread[seen] / np.maximum(self.spread[seen], 1e-3)
        return float(np.sqrt(np.mean((ratio - 1) ** 2)))


def run(trial: Trial, repeats: int) -> dict[str, Any]:
    """Fit many times."""
    held: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    chosen: Counter[str] = Counter()
    off = []

    def count(what: str, one: Estimated, truth: float) -> None:
        held[what][0] += int(one.low <= truth <= one.high)
        held[what][1] += 1

    for repeat in range(repeats):
        fit = trial.fit(repeat)
        chosen[fit.laws[0].name] += 1
        off.append(trial.off(fit))
        for one in fit.levels:
            if one.clipped <= 0.01:
                count("level mean", one.mean, float(trial.mean[one.level]))
                count("level spread", one.spread, float(trial.spread[one.level]))
        for part, estimate in fit.components.items():
            count(f"no {part}", estimate, 0.0)
        fit = trial.fit(repeat, added=True)
        for part, estimate in fit.components.items():
            count(part, estimate, ADDED[part] * float(trial.spread.max()))
        for part in STUCK:
            count(part, getattr(fit, part), STUCK[part])
    found = {"laws": dict(chosen.most_common()), "off": float(np.median(off)), "held": held}
    if any(term.kind == "drift" for term in trial.profile.noise):
        drift(trial, repeats, count)
    return found


def drift(trial: Trial, repeats: int, count: Callable[[str, Estimated, float], None]) -> None:
    """Exponents; the truth is the mean of all repeats, each of other devices."""
    fits = [trial.fit(repeat, times=TIMES).drift for repeat in range(repeats)]
    known = [one for one in fits if one is not None]
    for what in ("mean", "spread"):
        estimates = [getattr(one, what) for one in known]
        truth = float(np.mean([one.value for one in estimates]))
        for one in estimates:
            count(f"drift {what}", one, truth)
    t0 = next(term.t0_s for term in trial.profile.noise if term.kind == "drift")
    for fit in known:
        if fit.t0 is not None:
            count("drift t0", fit.t0, t0)


def main() -> None:
    """Fit what is asked for, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("profiles", nargs="*", default=profile_names())
    parser.add_argument("--results", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--crossbars", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--levels", type=int, default=16)
    given = parser.parse_args()
    text = given.results.read_text(encoding="utf-8") if given.results.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    for crossbars in () if given.table else given.crossbars:
        for name in given.profiles:
            cell = {"profile": name, "crossbars": crossbars, "repeats": given.repeats}
            if any(all(row[key] == value for key, value in cell.items()) for row in rows):
                continue
            found = run(Trial(name, crossbars, given.side, given.levels), given.repeats)
            rows.append(cell | found)
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Laws of each profile, and coverage of each parameter over all profiles."""
    out = ["| profile | crossbars | law | spreads off by | mean | spread |", "|---|---|---|---|---|---|"]
    total: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        law, times = next(iter(row["laws"].items()))
        held = row["held"]
        shown = [
            f"{held[what][0] / held[what][1]:.1%}" if what in held else "—"
            for what in ("level mean", "level spread")
        ]
        out.append(
            f"| `{row['profile']}` | {row['crossbars']} | {law} ({times} of {row['repeats']}) "
            f"| {row['off']:.1%} | {' | '.join(shown)} |"
        )
        for what, (inside, count) in held.items():
            total[row["crossbars"], what][0] += inside
            total[row["crossbars"], what][1] += count
    sizes = sorted({row["crossbars"] for row in rows})
    whats = list(dict.fromkeys(what for _, what in total))
    out += ["", "| interval of | " + " | ".join(f"{size} crossbars" for size in sizes) + " |"]
    out.append("|---" * (len(sizes) + 1) + "|")
    for what in whats:
        pairs = [total.get((size, what)) for size in sizes]
        cells = ["—" if one is None else f"{one[0] / one[1]:.1%} of {one[1]:,}" for one in pairs]
        out.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(out)


if __name__ == "__main__":
    main()
