"""Whether a forward pass fits into memory, told before it runs: ONNX Runtime allocates until none is left."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nvaudit.errors import DataError, ModelError

if TYPE_CHECKING:
    from nvaudit.model import LoadedModel, Rebatch

SAMPLE_BYTES = 1 << 30
"""Memory that activations of one sample may take where no batch size is given: a network for images takes
some ten megabytes, a segmentation of volumes of 128³ voxels less than a gigabyte."""

_MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


def check_pass(loaded: LoadedModel, rebatch: Rebatch, batch: int, chosen: bool) -> None:
    """Refuse a pass whose activations cannot fit, or which a small file inflates beyond all bounds.

    Parameters
    ----------
    rebatch : Rebatch
        As analysed.
    batch : int
        Samples of a pass.
    chosen : bool
        Whether the user gave the size of a batch, and so takes the memory of a sample for what it is.

    Raises
    ------
    ModelError
        If one sample takes more than :data:`SAMPLE_BYTES` and no size was given.
    DataError
        If the pass takes more memory than the machine has left.
    """
    from nvaudit.model import activation_bytes  # loads onnx_ir, and watching a call needs none

    one = activation_bytes(loaded.model, rebatch, 1)
    if one > SAMPLE_BYTES and not chosen:
        raise ModelError(
            f"{loaded.path}: the activations of one {'sample' if rebatch.batch_axes else 'pass'} take "
            f"{one / 2**30:.3g} GiB, more than {SAMPLE_BYTES >> 30} GiB: an operator makes much of little; "
            "if that is meant, say how many samples run at a time (--batch-size)"
        )
    free = available_bytes()
    if one * batch <= free:
        return
    need = activation_bytes(loaded.model, rebatch, batch)
    if need > free:
        raise DataError(
            f"{loaded.path}: the activations of {batch} samples take {need / 2**30:.3g} GiB and "
            f"{free / 2**30:.3g} GiB of memory are free; use a smaller --batch-size"
        )


def resident_bytes() -> int:
    """Memory that this process holds; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def available_bytes() -> int:
    """Memory that this process may still take, as far as the system says."""
    known = [sys.maxsize]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        known.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with contextlib.suppress(OSError, ValueError):
        known.append(int(_MEMORY_MAX.read_text(encoding="ascii")))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            known.append(max(0, limit - used * os.sysconf("SC_PAGE_SIZE")))
    return min(known)
