"""The worker process: reads calls from its standard input, answers on its standard output."""

from __future__ import annotations

import os
import signal
import sys
import traceback

from nvaudit.errors import NvauditError
from nvaudit.perturb.workers import receive, send


def main() -> None:
    """Serve calls until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    pipe_in = sys.stdin.buffer
    # What libraries print must not get between the messages: give them standard error instead.
    pipe_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        setup = receive(pipe_in)
        host = None
        while True:
            method, args = receive(pipe_in)
            try:
                host = host or setup.host()
                answer: tuple[str, object] = ("ok", host.call(method, args))
            except NvauditError as error:
                answer = ("error", error)
            except Exception as error:
                detail = traceback.format_exc(limit=-3)
                answer = ("error", f"{type(error).__name__}: {error}\n{detail}")
            send(pipe_out, answer)
    except EOFError:
        return
