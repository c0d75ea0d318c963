"""Accuracy and cost of audits on crossbars with converters, over ADC bits and crossbar sizes.

    python benchmarks/crossbar.py MODEL.onnx DATA.npz --resume sweep.jsonl [--device rram]
        [--adc-bits 3 4 5 6 7 8] [--sizes 64 128 256 512] [--dac-bits 8] [--adc-range max]
        [--chips 50] [--limit 500] [--workers 2]

Prints one Markdown row per setting, the plain audit first. Every setting sees the same chips (same seed,
same devices). The cost is the ratio of medians of a chip on crossbars and the same chip without, in processor
time, measured in turn in this process on one core. The floor is the devices of a weight times a plain chip:
its products take no less. Finished settings are kept in the file of ``--resume`` and not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from nvaudit import audit
from nvaudit.mapping.tiling import device_columns
from nvaudit.perturb.engine import Engine
from nvaudit.session import prepare, settle_metric
from nvaudit.spec import make_spec

COLUMNS = (
    "crossbar", "ADC bits", "quantised", "mean", "std", "KPP 1 %", "crossbars", "clipped, worst layer",
    "s per chip", "over plain", "over the floor",
)  # fmt: skip


def main() -> None:
    """Print one Markdown row per setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--resume", type=Path, required=True, help="keeps finished settings")
    parser.add_argument("--device", default="rram")
    parser.add_argument("--sigma", type=float)
    parser.add_argument("--encoding")
    parser.add_argument("--adc-bits", type=int, nargs="+", default=[3, 4, 5, 6, 7, 8])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--dac-bits", type=int, default=8, help="0: ideal inputs")
    parser.add_argument("--adc-range", default="max")
    parser.add_argument("--chips", type=int, default=50)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="chips timed with and without crossbars")
    options = parser.parse_args()
    kept = Rows(options.resume)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    settings: list[tuple[int, int] | None] = [None]
    settings += [(size, bits) for size in options.sizes for bits in options.adc_bits]
    for setting in settings:
        print(row(kept.of(setting, options)), flush=True)


class Rows:
    """Finished settings, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.found = {line["key"]: line for line in map(json.loads, lines)}

    def of(self, setting: tuple[int, int] | None, options: argparse.Namespace) -> dict[str, Any]:
        """Find a setting, or measure and keep it."""
        spec = chosen(setting, options)
        key = json.dumps({**spec, "repeats": options.repeats}, sort_keys=True, default=str)
        if key not in self.found:
            self.found[key] = {"key": key, **measure(spec, options)}
            with self.path.open("a") as file:
                file.write(json.dumps(self.found[key]) + "\n")
        return self.found[key]


def chosen(setting: tuple[int, int] | None, options: argparse.Namespace) -> dict[str, Any]:
    """The specification of a setting; None is the plain audit."""
    spec: dict[str, Any] = {
        "model": str(options.model), "data": str(options.data),
        "device": options.device, "limit": options.limit,
        "sigmas": () if options.sigma is None else (options.sigma,), "encoding": options.encoding,
    }  # fmt: skip
    if setting is None:
        return spec
    size, bits = setting
    spec |= {"crossbar": (size, size), "adc_bits": bits, "adc_range": options.adc_range}
    return spec | ({"dac_bits": options.dac_bits} if options.dac_bits else {})


def measure(spec: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Audit a setting, and time it."""
    report = audit(**spec, trials=options.chips, workers=options.workers, roughness=False, exhaustive=True)
    info = report.crossbar
    found: dict[str, Any] = {
        "size": None if info is None else info.rows,
        "bits": None if info is None else info.adc_bits,
        "quantised": report.quantised,
        "mean": report.trials.mean,
        "std": report.trials.std,
        "kpp": report.kpp[0].value,
        "crossbars": sum(t.crossbars or 0 for t in report.tensors) if info is None else info.crossbars,
        "clipped": None if info is None else max(layer.clipped or 0.0 for layer in info.layers),
    }
    return found | cost(spec, options.repeats)


def cost(spec: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Median seconds of a chip, over the same chip without crossbars, and over the floor, in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        session = prepare(make_spec(**spec, workers=0), Path(scratch))
        engines = [Engine(session.workload)]
        if session.crossbar is not None:
            engines.append(Engine(session.crossbar.plain))
        metric = settle_metric(session, engines[0].probe())
        times: list[list[float]] = [[] for _ in engines]
        for trial in range(repeats + 1):
            for engine, taken in zip(engines, times, strict=True):
                begin = time.process_time()
                engine.chip(metric, None, 0, trial)
                taken.append(time.process_time() - begin)
        devices = [device_columns(tensor.array) for tensor in session.workload.tensors]
    medians = [statistics.median(taken[1:]) for taken in times]
    ratio = medians[0] / medians[-1]
    return {"seconds": medians[0], "ratio": ratio, "over_floor": ratio / max(devices)}


def row(found: dict[str, Any]) -> str:
    """One Markdown row."""
    size = "not split" if found["size"] is None else f"{found['size']}×{found['size']}"
    cells = (
        size, "ideal" if found["bits"] is None else str(found["bits"]),
        *(f"{100 * found[key]:.2f} %" for key in ("quantised", "mean", "std", "kpp")),
        f"{found['crossbars']:,}",
        "" if found["clipped"] is None else f"{100 * found['clipped']:.2g} %",
        f"{found['seconds']:.3f}", f"{found['ratio']:.2f}",
        "" if found["size"] is None else f"{found['over_floor']:.2f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
