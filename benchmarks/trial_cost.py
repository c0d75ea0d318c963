"""Cost of a trial over a plain ONNX Runtime pass on the same images, in the same run.

Claim backed: a simulated chip (draw every weight, build the session, run the whole evaluation set, score it)
costs at most 1.05 of a plain pass; and an audit that perturbs and evaluates is faster than a torch loop.

    python benchmarks/trial_cost.py MODEL.onnx DATA.npz [--device rram] [--repeats 15] [--batch-size 64]

Per model two ratios of medians, measured in turn (plain, trial, plain, trial, …):
  one core     one chip in one worker / one pass of a session with one thread
  all cores    seconds per chip of an audit on all cores / one pass of a session with ONNX Runtime's own
               threading on all cores
Models exported for batch 1 are compared with the plain pass of the re-batched model.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from nvaudit.perturb.engine import Engine
from nvaudit.perturb.metrics import resolve_metric
from nvaudit.perturb.montecarlo import ChipRunner
from nvaudit.perturb.workers import WorkerPool
from nvaudit.session import prepare
from nvaudit.spec import default_workers, make_spec


def main() -> None:
    """Print one Markdown row per model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", metavar="MODEL.onnx DATA.npz", type=Path)
    parser.add_argument("--device", default="rram")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    print("| model | images | plain pass 1 core [s] | trial / plain, one core | plain pass all cores [s] | "
          "per chip / plain, all cores |")  # fmt: skip
    print("|---|---|---|---|---|---|", flush=True)
    for model, data in zip(options.pairs[::2], options.pairs[1::2], strict=True):
        print(row(model, data, options), flush=True)


def row(model: Path, data: Path, options: argparse.Namespace) -> str:
    """Measure one model."""
    spec = make_spec(model=model, data=data, device=options.device, batch_size=options.batch_size)
    with tempfile.TemporaryDirectory() as scratch:
        workload = prepare(spec, Path(scratch)).workload
        engine = Engine(workload)
        labels = workload.labels
        assert labels is not None
        metric = resolve_metric(None, engine.probe().output, labels.open(), "class")
        plain_1, plain_all = (plain_pass(engine, threads) for threads in (1, 0))
        trial = iter(range(10**6))
        one = paired(plain_1, lambda: engine.chip(metric, None, 0, next(trial)), options.repeats)
        cores = default_workers()
        with WorkerPool(cores, workload) as pool:

            def audit() -> None:
                ChipRunner(pool, metric, None, 1, 2 * cores).full(0, range(2 * cores))

            audit()  # workers started, caches warm
            many = paired(plain_all, audit, options.repeats)
    per_chip = [seconds / (2 * cores) for seconds in many[1]]
    medians = [statistics.median(times) for times in (*one, many[0], per_chip)]
    return (
        f"| {model.stem} | {workload.count} | {medians[0]:.4f} | {medians[1] / medians[0]:.3f} | "
        f"{medians[2]:.4f} | {medians[3] / medians[2]:.3f} |"
    )


def plain_pass(engine: Engine, threads: int) -> Callable[[], None]:
    """A pass of plain ONNX Runtime over the same images in the same batches; no scoring."""
    workload, ideal = engine._w, engine._w.ideal  # the benchmark looks inside on purpose
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if ideal.digital:
        fills = {name: file.open() for name, file in ideal.digital.items()}
        options.add_external_initializers(
            list(fills), [ort.OrtValue.ortvalue_from_numpy(array) for array in fills.values()]
        )
    session = ort.InferenceSession(ideal.path, options, providers=["CPUExecutionProvider"])
    size = ideal.batch or workload.batch

    def run() -> None:
        for start in range(0, workload.count, size):
            feeds = engine._feeds(start, min(start + size, workload.count), ideal.batch)
            session.run([workload.output], feeds)

    return run


def paired(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> tuple[list[float], list[float]]:
    """Time both in turn, after one warm-up each."""
    first()
    second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, into in zip((first, second), times, strict=True):
            begin = time.perf_counter()
            run()
            into.append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    main()
