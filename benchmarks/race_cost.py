"""What a raced chip costs over plain inference of the images that it looked at.

Claim backed: races cost little more than their images. Prints processor seconds of this thread, so that other
work on the machine hardly moves them: of races (draw the chip, make its session, order and run its images,
bet), and, after each of them, of a plain ONNX Runtime session on as many images in the same batches.

    python benchmarks/race_cost.py MODEL.onnx DATA.npz [--device fefet1] [--sigma 0.2] [--chips 300]

The digest covers estimate, images and gap of every chip: it must not change with the speed.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from nvaudit.perturb.difficulty import estimate_difficulty
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.race import RACED_SHARE, Band, Edge, RaceTask
from nvaudit.session import prepare, settle_metric
from nvaudit.spec import make_spec

PILOTS = 16


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--device", default="fefet1")
    parser.add_argument("--sigma", type=float, default=0.2)
    parser.add_argument("--chips", type=int, default=300)
    options = parser.parse_args()
    # Chips of an audit run beside the main thread, which waits for signals.
    thread = threading.Thread(target=measure, args=(options,))
    thread.start()
    thread.join()


def measure(options: argparse.Namespace) -> None:
    """Race chips against a band about the worst pilots, each followed by plain inference."""
    spec = make_spec(
        model=options.model, data=options.data, device=options.device, sigmas=(options.sigma,), workers=0
    )
    with tempfile.TemporaryDirectory() as folder:
        session = prepare(spec, Path(folder))
        workload = session.workload
        engine = Engine(workload)
        metric = settle_metric(session, engine.probe())
        pilots = [engine.chip_scores(metric, None, 0, trial) for trial in range(PILOTS)]
        errors = 1 - np.array([scores for _, scores in pilots], np.float64)
        difficulty = estimate_difficulty(errors, engine.margins(metric, None))
        difficulty.save(file := Path(folder) / "difficulty")
        low, high = np.sort([outcome.value for outcome, _ in pilots])[:2]
        band = Band((Edge(low, 1e-5),), (Edge(high, 1e-5),))
        task = RaceTask("kpp", str(file), difficulty.digest, (band,), int(RACED_SHARE * workload.count))
        plain, batch = engine._open(workload.ideal), workload.ideal.batch or workload.batch
        feeds = {
            name: np.ascontiguousarray(file.open()[:batch]) for name, file in workload.inputs.items()
        }  # the benchmark looks inside on purpose
        raced = reference = 0.0
        images, found = 0, []
        for trial in range(PILOTS, PILOTS + options.chips):
            begin = time.thread_time()
            outcome = engine.race(metric, None, 0, trial, task)
            middle = time.thread_time()
            looked_at = outcome.images + (0 if outcome.rest is None else outcome.rest.images)
            for _ in range(-(-looked_at // batch)):
                plain.run([workload.output], feeds)
            raced, reference = raced + middle - begin, reference + time.thread_time() - middle
            images += looked_at
            found.append((outcome.value, outcome.images, outcome.gap))
    digest = hashlib.blake2b(repr(found).encode(), digest_size=8).hexdigest()
    print(
        f"{options.chips} chips, {images / options.chips:.0f} images each: race "
        f"{1e3 * raced / options.chips:.2f} ms a chip, plain {1e3 * reference / options.chips:.2f} ms, "
        f"ratio {raced / reference:.2f}; digest {digest}"
    )


if __name__ == "__main__":
    main()
