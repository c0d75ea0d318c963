"""Two Dask workers against one: seconds per chip, bytes that travel, and what a task costs the scheduler.

Claim backed: on a machine with two cores, two single-threaded Dask workers are at least 1.8 × faster than
one, and every value is bit for bit that of a run without Dask.

    python benchmarks/dask_scaling.py MODEL.onnx DATA.npz [--device rram] [--sigma 0.35] [--chips 60]
                                      [--rounds 5] [--limit N]

Starts two clusters on this machine, one with one Dask worker and one with two (one thread each, started with
`--nthreads 1`), and measures in turn: chips on one worker, on two, on one, … A chip runs in a single-threaded
session on every sample. Every worker has its processes running and has drawn a chip before time is taken.
The load of the machine is printed: what else runs on the same cores takes most from two workers.

The cost of a task is the processor time of scheduler, Dask worker and this process for calls that do nothing,
each in a task of its own; in a run, chips share tasks of at least half a second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from nvaudit.perturb.dask import queue
from nvaudit.perturb.dask.pool import DaskPool
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.pools import open_pool
from nvaudit.perturb.workers import Pool
from nvaudit.session import Session, prepare, settle_metric
from nvaudit.spec import make_spec

_TASKS = 400


@dataclass(frozen=True)
class Idle:
    """A setup whose calls do nothing."""

    def host(self) -> Idle:
        """Serve as the host too."""
        return self

    def call(self, method: str, args: tuple[Any, ...]) -> None:
        """Do nothing."""


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Start a scheduler and Dask workers; give the scheduler file and the processes, the scheduler first."""
    folder.mkdir()
    address = str(folder / "scheduler.json")
    # Idle comes from this file: Dask workers must be able to import it.
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parent))
    common = ["--scheduler-file", address, "--host", "127.0.0.1", "--no-dashboard"]
    commands = [["scheduler", "--port", "0"]]
    commands += [["worker", "--nthreads", "1", "--local-directory", str(folder), "--no-nanny"]] * workers
    processes = []
    try:
        for command in commands:
            line = [sys.executable, "-m", "dask", *command, *common]
            processes.append(subprocess.Popen(line, stderr=subprocess.DEVNULL, env=environment))
        while not os.path.exists(address):
            time.sleep(0.05)
        yield address, processes
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def run_chips(pool: Pool, metric: Metric, keep: str | None, chips: range) -> tuple[list[float], float]:
    """Run chips; give their metrics and the seconds."""
    begin = time.perf_counter()
    futures = [pool.submit(f"trial {trial}", "chip", metric, keep, 0, trial) for trial in chips]
    values = [future.result().value for future in futures]
    return values, time.perf_counter() - begin


def begin_run(pool: Pool, session: Session, workers: int) -> tuple[Metric, str | None]:
    """Run the unmodified model, and chips until every worker has had one."""
    probe = pool.submit("the first batch", "probe").result()
    metric = settle_metric(session, probe)
    keep = session.reference_file(metric)
    pool.submit("the unmodified model", "nominal", metric, keep, session.workload.ideal).result()
    while pool.width < workers:
        time.sleep(0.1)
    run_chips(pool, metric, keep, range(4 * workers))
    return metric, keep


def compare(session: Session, one: str, two: str, options: argparse.Namespace) -> None:
    """Print seconds per chip in turn, the speed-up, and whether the values agree."""
    workload, chips = session.workload, range(options.chips)
    with open_pool(0, None, workload, workload.folder) as local:
        metric, keep = begin_run(local, session, 1)
        wanted, alone = run_chips(local, metric, keep, chips)
    print(f"without Dask, in one process: {alone / options.chips:.4f} s a chip")
    with (
        DaskPool(one, workload, workload.folder) as single,
        DaskPool(two, workload, workload.folder) as double,
    ):
        begin_run(single, session, 1)
        begin_run(double, session, 2)
        print(f"bytes sent: {single.bytes_sent} and {double.bytes_sent} (the Dask workers see our files)")
        ratios = []
        for number in range(options.rounds):
            values, slow = run_chips(single, metric, keep, chips)
            others, quick = run_chips(double, metric, keep, chips)
            assert values == others == wanted, "the values differ"
            ratios.append(slow / quick)
            per_chip = f"{slow / options.chips:.4f} and {quick / options.chips:.4f} s a chip"
            load = os.getloadavg()[0]
            print(f"round {number}: {per_chip}, {ratios[-1]:.3f} ×, load {load:.1f}", flush=True)
    print(
        f"speed-up of two Dask workers over one: median {statistics.median(ratios):.3f} × "
        f"(from {min(ratios):.3f} to {max(ratios):.3f}); all values identical to those without Dask"
    )


def price(address: str, processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Print what a task costs, in processor time."""

    def times() -> list[float]:
        found = []
        for process in (psutil.Process(p.pid) for p in (processes[0], processes[1])):
            spent = process.cpu_times()
            found.append(spent.user + spent.system)
        return [*found, time.process_time()]

    # Tasks of one call each, as if every call were long; two wait on each Dask worker.
    queue.GROUP_S, before = 0.0, queue.GROUP_S
    queue.GROUP_S_PER_THREAD, per_thread = 1e-6, queue.GROUP_S_PER_THREAD
    with DaskPool(address, Idle(), str(folder)) as pool:
        pool.submit("first", "nothing").result()
        spent, begin = times(), time.perf_counter()
        for future in [pool.submit("a task", "nothing") for _ in range(_TASKS)]:
            future.result()
        wall = (time.perf_counter() - begin) / _TASKS
        scheduler, worker, client = (1000 * (b - a) / _TASKS for a, b in zip(spent, times(), strict=True))
    queue.GROUP_S, queue.GROUP_S_PER_THREAD = before, per_thread
    print(
        f"a task: {1000 * wall:.1f} ms from call to call on one Dask worker; processor time: scheduler "
        f"{scheduler:.1f} ms, Dask worker {worker:.1f} ms, this process {client:.1f} ms"
    )


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=Path)
    parser.add_argument("data", metavar="DATA.npz", type=Path)
    parser.add_argument("--device", default="rram")
    parser.add_argument("--sigma", type=float)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--chips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    spec = make_spec(
        model=options.model,
        data=options.data,
        device=options.device,
        sigmas=() if options.sigma is None else (options.sigma,),
        limit=options.limit,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "run").mkdir()
        session = prepare(spec, folder / "run")
        print(f"{options.model.name}, {session.dataset.count} samples, {os.cpu_count()} cores")
        with cluster(folder / "one", 1) as (one, processes), cluster(folder / "two", 2) as (two, _):
            compare(session, one, two, options)
            price(one, processes, folder / "run")


if __name__ == "__main__":
    # Under its own name, so that what is pickled here is found there.
    from dask_scaling import main as run

    run()
