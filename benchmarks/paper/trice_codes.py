"""Table I of the TRICE paper on codes: trained as there, the same devices with other significances.

    python benchmarks/paper/trice_codes.py mnist_lenet_keras.onnx train.npz test.npz -o DIR
        --sigmas 0.1 0.2 0.4 --methods none best trice --seeds 0 [--results FILE.jsonl]

Networks are trained as by ``trice_table1.py``, on noise of σ_d · max|W|. For the audit σ is the one, in level
spacings, with which the paper's slices (H = 4, B = 2: significances 4 and 1) make just that noise:
σ_d = σ · √(4² + 1²) / 15. Then the same devices hold codes: as many devices, or twice as many.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from cells import Setting, arguments, points, setting_of, trained

import nvaudit
from nvaudit.device import load_profile

SLICES = math.sqrt(4**2 + 1) / 15
"""Spread of a weight on slices 4,1 of four levels, as a share of max|W|, at one level."""

MAPPINGS = {
    "slices 4,1": {"bits": 4},
    "auto, 2 devices": {"code": "auto", "devices_per_weight": 2},
    "auto, 4 devices": {"code": "auto", "devices_per_weight": 4},
}


def main() -> None:
    """Print KPP 1 % by spread, method and mapping."""
    given = arguments(__doc__, sigmas=[0.05, 0.1, 0.2, 0.3, 0.4], methods=["none", "best", "trice"], bits=4)
    asked = given.parse_args()
    setting = setting_of(asked)
    setting.options.setdefault("activation_bits", 4)
    device = wide_range(asked.folder, max(asked.sigmas) / SLICES)
    print("| σ_d | method | " + " | ".join(MAPPINGS) + " |\n" + "|---" * (2 + len(MAPPINGS)) + "|")
    for sigma in asked.sigmas:
        for method in asked.methods:
            cells = [
                points([kpp(setting, device, method, sigma, seed, name) for seed in asked.seeds])
                for name in MAPPINGS
            ]
            print(f"| {sigma:g} | {method} | {' | '.join(cells)} |", flush=True)


def wide_range(folder: Path, most: float) -> str:
    """Write the profile `rram` with a range of σ that reaches as far as the table does."""
    profile = load_profile("rram").model_dump(mode="json", exclude_none=True)
    profile["name"] = "rram_wide"
    profile["sigma"]["max"] = most
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rram_wide.json"
    path.write_text(json.dumps(profile), encoding="utf-8")
    return str(path)


def kpp(setting: Setting, device: str, method: str, sigma: float, seed: int, mapping: str) -> float:
    """KPP 1 % of one network on one mapping, from the results if they have it."""
    cell = {
        "cell": f"{setting.model.stem} {method}-{sigma:g} seed {seed} on {mapping}", "chips": setting.trials,
        "images": setting.images, "options": setting.options,
    }  # fmt: skip
    if setting.results is not None and setting.results.exists():
        for line in setting.results.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if all(row[key] == value for key, value in cell.items()):
                return float(row["kpp"])
    if method == "none":  # does not depend on the spread
        path = trained(setting, "none", "none", 0.2, seed)
    else:
        path = trained(setting, f"{method}-{sigma:g}", method, sigma, seed)
    report = nvaudit.audit(
        path, device, setting.test, sigmas=(sigma / SLICES,), trials=setting.trials,
        limit=setting.images, roughness=False, **MAPPINGS[mapping],
    )  # fmt: skip
    found = {
        "ideal": report.nominal,
        "quantised": report.quantised,
        "kpp": report.kpp[0].value,
        "codes": [] if report.codes is None else [code.text for code in report.codes.codes],
    }
    if setting.results is not None:
        with setting.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(cell | found) + "\n")
    return report.kpp[0].value


if __name__ == "__main__":
    main()
