"""Rms error of weights on codes, by device, number of devices and family: the table of docs/mapping.md.

    python benchmarks/codes.py cifar_resnet20.onnx

For each device the slices of the default, and the best code of each family on 4, 6 and 8 devices per weight,
as shares of max|W|. No chips are drawn; those are drawn by ``nvaudit audit --code …``.
"""

from __future__ import annotations

import argparse
import time

from nvaudit.device import load_profile, operating_point, override_profile
from nvaudit.mapping.code_search import CodeFamily, CodeSearch, WeightDistribution, code_error
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.quantize import peak_of
from nvaudit.mapping.select import select
from nvaudit.model import constants, load_model
from nvaudit.options import Encoding
from nvaudit.perturb.choose_codes import ANALOG_LEVELS, level_variance

DEVICES: dict[str, float | None] = {
    "rram": None,
    "fefet1": None,
    "fefet2": None,
    "pcm": 86400.0,
    "rram_65nm": None,
    "hermes_1device": None,
}
FAMILIES: list[tuple[str, Encoding, CodeFamily]] = [
    ("powers of two", "sign_magnitude", "powers"),
    ("whole numbers", "sign_magnitude", "integers"),
    ("powers, sign per device", "sign_per_device", "powers"),
    ("whole numbers, sign per device", "sign_per_device", "integers"),
    ("powers, differential pairs", "differential", "powers"),
    ("powers, offset", "offset", "powers"),
]


def spread_of(path: str) -> WeightDistribution:
    """The distribution of the mapped weights of a model, each relative to the max|W| of its tensor."""
    decisions = select(constants(load_model(path)), (), ())
    weights = [d.constant.weight for d in decisions if d.mapped and d.constant.weight is not None]
    values = [weight.load().values for weight in weights]
    return WeightDistribution.of((one, peak_of(one, ())) for one in values)


def main() -> None:
    """Print the table as Markdown, a row at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--devices", type=int, nargs="+", default=[4, 6, 8])
    asked = parser.parse_args()
    weights = spread_of(asked.model)
    print("| device | family | " + " | ".join(f"{n} devices" for n in asked.devices) + " | seconds |")
    print("|---|---|" + "---|" * (len(asked.devices) + 1))
    for name, time_s in DEVICES.items():
        profile = load_profile(name)
        bits = profile.cell_bits or (ANALOG_LEVELS - 1).bit_length()
        plain = override_profile(profile, cell_bits=bits, encoding="sign_magnitude")
        point = operating_point(plain, time_s=time_s)
        slices = layout(plain, bits=plain.weight_bits)
        own = level_variance(point, slices.code.levels)
        error = code_error(slices.code, own, weights, rounded_by=None).total
        print(f"| {name} | slices {slices.code.text} on {slices.slices} | {error:.4f} |")
        variance = level_variance(point, 2**bits)
        for family, encoding, members in FAMILIES:
            search, cells, begin = CodeSearch(variance, encoding, weights, members), [], time.perf_counter()
            for n in asked.devices:
                found = search.best(n)
                cells.append(f"{found.error.total:.4f} ({found.code.text})")
            print(f"| | {family} | {' | '.join(cells)} | {time.perf_counter() - begin:.1f} |", flush=True)


if __name__ == "__main__":
    main()
