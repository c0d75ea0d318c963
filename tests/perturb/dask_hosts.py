"""What Dask workers of the tests run: a host without a model, importable by them, and a local cluster."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nvaudit.errors import ModelError
from nvaudit.perturb.workload import ArrayFile

HERE = Path(__file__).parent
BLIND = "import nvaudit.perturb.dask.files as files\nfiles.lies_there = lambda ref: False\n"
"""Preloaded, it keeps a Dask worker from seeing this machine's files, as if it were on another."""


@dataclass(frozen=True)
class Setup:
    """A setup with a folder and a file."""

    folder: str
    data: ArrayFile | None = None

    def host(self):
        return Host(self)


class Host:
    """Calls that answer, fail, read and write files, or end processes."""

    def __init__(self, setup):
        self._setup = setup

    def call(self, method, args):
        return getattr(self, method)(*args)

    def double(self, number):
        return 2 * number

    def nap(self, seconds, answer):
        time.sleep(seconds)
        return answer

    def who(self, seconds=0.0):
        """This process, and the Dask worker that started it."""
        time.sleep(seconds)
        return os.getpid(), os.getppid()

    def die_until(self, marks, deaths, whose):
        """End this process, or its Dask worker, the first few times; then answer."""
        path = Path(marks)
        died = len(path.read_bytes()) if path.exists() else 0
        if died < deaths:
            with path.open("ab") as file:
                file.write(b"x")
            os.kill(os.getppid() if whose == "dask worker" else os.getpid(), signal.SIGKILL)
            time.sleep(30)
        return died

    def where(self, seconds):
        """Where the setup's file is here, and what is in it."""
        time.sleep(seconds)
        return self._setup.data.path, tuple(self._setup.data.open().tolist())

    def nominal(self, path, text):
        """Make a file."""
        Path(path).write_text(text)
        return path

    def read(self, path):
        """A file that an argument names."""
        return path, Path(path).read_text()

    def model_error(self):
        raise ModelError("the model is wrong")

    def bug(self):
        return {}["missing"]

    def scored(self, metric):
        return np.__version__


@dataclass
class LocalCluster:
    """A scheduler and Dask workers, each a process of its own."""

    folder: Path
    processes: list[subprocess.Popen] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.folder / "scheduler.json")

    def start(self, *arguments: str, log: str) -> subprocess.Popen:
        environment = dict(
            os.environ, PYTHONPATH=str(HERE), DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL="2s"
        )
        with (self.folder / log).open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--scheduler-file", self.address],
                stderr=file, stdout=file, env=environment, cwd=self.folder,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def worker(self, name: str, *arguments: str) -> subprocess.Popen:
        return self.start(
            "worker", "--nthreads", "1", "--name", name, "--no-dashboard", "--host", "127.0.0.1",
            "--local-directory", str(self.folder / name), *arguments, log=f"{name}.log",
        )  # fmt: skip


@contextlib.contextmanager
def local_cluster(folder: Path, workers: Sequence[str] = ("seeing", "blind")) -> Iterator[LocalCluster]:
    """A scheduler with Dask workers; one named ``blind`` does not see this machine's files."""
    cluster = LocalCluster(folder)
    (folder / "blind.py").write_text(BLIND)
    try:
        cluster.start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", log="scheduler.log"
        )
        for name in workers:
            cluster.worker(
                name, *(("--preload", str(folder / "blind.py")) if name.startswith("blind") else ())
            )
        deadline = time.monotonic() + 60
        while not os.path.exists(cluster.address):
            assert time.monotonic() < deadline, (folder / "scheduler.log").read_text()
            time.sleep(0.05)
        yield cluster
    finally:
        for process in cluster.processes[::-1]:  # the scheduler last: Dask workers wait for it to say goodbye
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def array_like(output, labels):
    """A metric of the user's that both sides can import."""
    return labels
