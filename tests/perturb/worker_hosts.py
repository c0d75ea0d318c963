"""What the workers of the tests run: a host without a model, importable by the worker processes."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nvaudit.errors import DataError, ModelError


@dataclass(frozen=True)
class Setup:
    """Sent to each worker once."""

    folder: str
    broken: bool = False

    def host(self):
        if self.broken:
            raise RuntimeError("this host cannot be made")
        return Host(Path(self.folder))


class Host:
    """Calls that answer, fail, print, hang or end their process."""

    def __init__(self, folder):
        self._folder = folder

    def call(self, method, args):
        return getattr(self, method)(*args)

    def double(self, number):
        return 2 * number

    def pid(self, seconds=0.0):
        time.sleep(seconds)
        return os.getpid()

    def die_until(self, deaths, answer):
        """End this process by SIGKILL the first ``deaths`` times, then answer."""
        mark = self._folder / f"died-{answer}"
        died = len(mark.read_bytes()) if mark.exists() else 0
        if died < deaths:
            with mark.open("ab") as file:
                file.write(b"x")
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    def leave(self):
        sys.stderr.write("going away now\n")
        sys.stderr.flush()
        os._exit(7)

    def chatter(self):
        """Print on standard output, which carries the messages."""
        sys.stdout.write("x" * 100_000 + "\n")
        sys.stdout.flush()
        os.write(1, b"native noise\n" * 1000)
        return "quiet"

    def model_error(self):
        raise ModelError("the model is wrong")

    def data_error(self):
        raise DataError("the data is wrong")

    def bug(self):
        return {}["missing"]

    def environment(self, name):
        return os.environ.get(name)

    def large(self, size):
        return b"\x00" * size
