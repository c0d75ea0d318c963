"""Draw crossbars from bundled profiles, fit them, and say what is found again.

    python benchmarks/fit_arrays.py --repeats 200 --crossbars 4 16 64 rram fefet1 pcm

For each profile and number of crossbars: which law is chosen, and how often the 95 % intervals of the levels'
spreads hold the spread that the devices were drawn with.
"""

import argparse
from collections import Counter

import numpy as np

from nvaudit.device import load_profile, operating_point, profile_names
from nvaudit.device.fit_arrays import CrossbarSample, fit_arrays
from nvaudit.mapping.conductance import Array, layout, one_device
from nvaudit.perturb.chip import MappedTensor, TensorLaw, blocks

_REFERENCE = 400
"""Chips that the true spread of each level is taken from."""


def draw(law: TensorLaw, seed: int, chip: int) -> np.ndarray:
    """Conductances of one crossbar."""
    code = law.tensor.code
    g = np.empty(code.shape)
    streams = law.streams(seed, chip)
    for _, block, _ in blocks(code, law.tensor.scale):
        for device in law.devices(code[block], block, streams):
            g[block] = device.conductance
    return g


def law_of(name: str, code: np.ndarray, array: Array) -> TensorLaw:
    """What the devices of a crossbar are drawn from."""
    tensor = MappedTensor("crossbar", code, np.float32(1), array, array.top)
    return TensorLaw(tensor, operating_point(load_profile(name)), every_device=True)


def true_spread(name: str, array: Array) -> np.ndarray:
    """Spread of each level, in level spacings, from many devices."""
    code = np.repeat(np.arange(array.top + 1, dtype=np.int16)[:, None], 256, axis=1)
    law = law_of(name, code, array)
    chips = max(4, _REFERENCE * 256 // code.size)
    g = np.concatenate([draw(law, 1, chip) for chip in range(chips)], axis=1)
    return g.std(axis=1) / array.step


def run(name: str, crossbars: int, repeats: int, side: int) -> str:
    """One row."""
    profile = load_profile(name)
    array = one_device(layout(profile, bits=8))
    window = (array.g_min, array.g_max)
    levels = None if profile.cell_bits is None else 2**profile.cell_bits
    truth = true_spread(name, array)
    row, column = (index.ravel() for index in np.indices((side, side)))
    chosen: Counter[str] = Counter()
    held = total = 0
    for repeat in range(repeats):
        samples = []
        for number in range(crossbars):
            generator = np.random.default_rng([repeat, number])
            code = generator.integers(0, array.top + 1, (side, side)).astype(np.int16)
            g = draw(law_of(name, code, array), 100 + repeat, number)
            samples.append(
                CrossbarSample(
                    "chip", None, code.ravel().astype(np.intp), g.ravel(), row, column, None, str(number)
                )
            )
        fit = fit_arrays(samples, array.top_level, window, levels)
        chosen[fit.laws[0].name] += 1
        for one in fit.levels:
            if one.clipped <= 0.01:
                held += one.spread.low <= truth[one.level] <= one.spread.high
                total += 1
    best, times = chosen.most_common(1)[0]
    return (
        f"| `{name}` | {crossbars} | {best} ({times} of {repeats}) | {held / max(total, 1):.1%} of {total} |"
    )


def main() -> None:
    """Fit what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("profiles", nargs="*", default=profile_names())
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--crossbars", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    print("| profile | crossbars | law | spread within its interval |")
    print("|---|---|---|---|", flush=True)
    for name in arguments.profiles:
        for crossbars in arguments.crossbars:
            print(run(name, crossbars, arguments.repeats, arguments.side), flush=True)


if __name__ == "__main__":
    main()
