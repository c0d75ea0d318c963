"""Audits and training on a GPU against the processor: seconds, and whether they give the same.

Claim to back: `--provider cuda` gives what the processor gives, within the tolerances below, and is faster.
No figures are kept yet: no machine with a GPU was at hand. Without one this script ends with exit code 2.

    python benchmarks/gpu.py LENET.onnx LENET.npz RESNET.onnx RESNET.npz [--provider cuda] [--small]

For each model, in one run: plain ONNX Runtime on the provider and on the processor, the same chips on every
sample on both, an audit with races of all chips on the provider; then training of one epoch on both.
`--small` takes few chips and samples; with `--provider cpu` it tries everything up to the device.

Tolerances: a GPU adds in another order, and multiplies in TF32 where ONNX Runtime is told nothing else, so
outputs may differ by `--output-tolerance` of the largest one, and samples on the edge of a decision fall to
its other side: the metric of one chip may differ by `--tolerance`. Trained apart, models drift further apart:
their metrics without noise may differ by `--training-tolerance`. Beyond any it ends with exit code 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit import audit, harden
from nvaudit.errors import EXIT_FAILURE, EXIT_GATE, EXIT_OK, NvauditError
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.session import open_session
from nvaudit.retrain.available import require_device
from nvaudit.session import prepare
from nvaudit.spec import make_spec

SIGMA = {"device": "fefet1", "sigmas": (0.1,)}


def main(words: list[str] | None = None) -> int:
    """Print what was measured; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="MODEL.onnx DATA.npz")
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--chips", type=int, nargs="+", default=[10_000, 1_000], help="of each model's audit")
    parser.add_argument("--tolerance", type=float, default=0.002)
    parser.add_argument("--output-tolerance", type=float, default=0.01)
    parser.add_argument("--training-tolerance", type=float, default=0.02)
    options = parser.parse_args(words)
    if len(options.files) % 2:
        parser.error("give a data file after every model")
    pairs = list(zip(options.files[::2], options.files[1::2], strict=True))
    chips = [*options.chips, *[options.chips[-1]] * len(pairs)]
    beyond: list[str] = []
    try:
        require_device(options.provider)
        open_session(pairs[0][0], {}, options.provider)
        for (model, data), count in zip(pairs, chips, strict=False):
            print(model.name, flush=True)
            beyond += [f"{model.name}: {text}" for text in measure(model, data, count, options)]
    except NvauditError as error:
        print(f"benchmarks/gpu.py: {error}", file=sys.stderr)
        return error.exit_code if error.exit_code != EXIT_GATE else EXIT_FAILURE
    for text in beyond:
        print(f"beyond its tolerance: {text}", flush=True)
    return EXIT_GATE if beyond else EXIT_OK


def measure(model: Path, data: Path, chips: int, options: argparse.Namespace) -> list[str]:
    """Measure one model; gives what is beyond its tolerance."""
    few, limit, workers = (4, 64, 0) if options.small else (50, None, 1)
    common: dict[str, Any] = {
        **SIGMA, "model": model, "data": data, "limit": limit, "workers": workers, "roughness": False,
    }  # fmt: skip
    providers, names = (options.provider, "cpu"), (options.provider, "processor")
    plain = [plain_pass(common, provider) for provider in providers]
    per_image = [seconds for seconds, _ in plain]
    outputs = [output for _, output in plain]
    apart = float(np.abs(outputs[0] - outputs[1]).max() / max(np.abs(outputs[1]).max(), 1e-30))
    show("plain inference, µs an image", names, [1e6 * seconds for seconds in per_image])

    whole = [
        timed(partial(audit, **common, provider=provider, trials=few, exhaustive=True))
        for provider in providers
    ]
    values = [np.array(report.trials.values, float) for report, _ in whole]
    drift = float(np.abs(values[0] - values[1]).max())
    show(f"audit of {few} chips on every image, s a chip", names, [s / few for _, s in whole])
    print(f"  outputs apart by {apart:.2g} of the largest; metric of a chip by {drift:.4f} at most")

    count = 2 * few if options.small else chips
    raced, seconds = timed(lambda: audit(**common, provider=options.provider, trials=count))
    images = raced.trials.images_evaluated
    print(
        f"  audit of {count} chips on {options.provider}: {seconds:.1f} s, {images} images, "
        f"{seconds / (images * per_image[0]):.2f} of plain inference of as many; "
        f"KPP {raced.kpp[0].value:.4f}",
        flush=True,
    )

    with tempfile.TemporaryDirectory() as folder:
        trained = [
            timed(
                partial(
                    harden,
                    **{name: common[name] for name in ("model", "data", "device", "sigmas", "limit")},
                    provider=provider,
                    method="gaussian",
                    epochs=1,
                    trials=few,
                    workers=workers,
                    out=Path(folder) / f"{number}.onnx",
                )
            )
            for number, provider in enumerate(providers)
        ]
    after = [report.after.nominal for report, _ in trained]
    show("harden, one epoch and its audits, s", names, [s for _, s in trained])
    print(f"  trained models apart by {abs(after[0] - after[1]):.4f} without noise", flush=True)
    found = (
        ("outputs", apart, options.output_tolerance),
        ("metric of a chip", drift, options.tolerance),
        ("metric after training", abs(after[0] - after[1]), options.training_tolerance),
    )
    return [f"{what} apart by {by:.4g}, allowed {most:g}" for what, by, most in found if not by <= most]


def plain_pass(common: dict[str, Any], provider: str) -> tuple[float, np.ndarray]:
    """Seconds of an image in a plain session that is kept open, and the model's outputs."""
    spec = make_spec(**common, provider=provider)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(prepare(spec, Path(folder)).workload)
        workload, graph = engine._w, engine._w.ideal  # the benchmark looks inside on purpose
        session = engine._open(graph)
        list(engine._outputs(session, graph, min(workload.count, workload.batch)))  # warm
        begin = time.perf_counter()
        parts = [np.array(output) for _, _, output in engine._outputs(session, graph, workload.count)]
        return (time.perf_counter() - begin) / workload.count, np.concatenate(parts).astype(np.float64)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


def show(what: str, names: tuple[str, str], values: list[float]) -> None:
    """Print one line for both, with the ratio."""
    told = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, values, strict=True))
    print(f"  {what}: {told} ({values[1] / values[0]:.2f} ×)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
