"""The worker process: reads calls from its standard input, answers on its standard output."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback

from nvaudit.errors import EngineError, NvauditError
from nvaudit.perturb.own_metric import prints_aside
from nvaudit.perturb.workers import PRINTED, host_of, receive, send


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
            prints_aside.kept = io.StringIO()
            try:
                # Made with the first call, inside the try: what fails in making it is then answered like a
                # failed call.
                host = host or host_of(setup)
                answer: tuple[str, object] = ("ok", host.call(method, args))
            except NvauditError as error:
                answer = ("error", error)
            except MemoryError:
                advice = "use fewer --workers, a smaller --batch-size or --limit"
                answer = ("error", EngineError(f"a worker ran out of memory; {advice}"))
            except Exception as error:
                traceback.print_exc()  # kept by the parent, for NVAUDIT_DEBUG
                answer = ("crash", f"{type(error).__name__}: {error}")
            if printed := prints_aside.kept.getvalue():
                send(pipe_out, (PRINTED, printed))
            send(pipe_out, answer)
    except EOFError:
        return
