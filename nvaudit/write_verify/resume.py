"""What `--resume` keeps of a plan: the chips, and the ranking that they follow.

Chips stand in the record of an audit (:mod:`nvaudit.perturb.record`), with the number of verified weights
where an audit has its operating point. The ranking by sensitivity is kept beside it: that spares its time,
and its last digits depend on how many threads torch has, while a chip belongs to one ranking only.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvaudit.data import Dataset
from nvaudit.files import write_bytes_atomic
from nvaudit.perturb.lock import LOCK_FILE
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.record import RECORD_FILE, Identity, Input, forgiven
from nvaudit.session import Session
from nvaudit.write_verify.spec import VerifySpec

RANKING_FILE = "ranking"
"""CRC-32 of the rest (little-endian), what the ranking rests on as a line of JSON, places as int32."""

KEPT_FILES = (RECORD_FILE, LOCK_FILE, RANKING_FILE)

_CRC = struct.Struct("<I")
_PLACE = np.dtype("<i4")

Places = list[NDArray[np.int32]]


def plan_identity(
    session: Session, spec: VerifySpec, metric: Metric, samples: Dataset | None, torch: str | None
) -> Identity:
    """Everything that the chips of a plan depend on, whatever their share.

    Parameters
    ----------
    samples : Dataset or None
        What the ranking looks at, if it looks at any.
    torch : str or None
        The version that ranks, if it does.
    """
    audit, own = session.identity(metric), spec.own
    names = ["ranking", "verify_sigma", "verify_terms"]
    inputs, versions = dict(audit.inputs), dict(audit.versions)
    if samples is not None:
        names.append("sensitivity_images")
        if own.sensitivity_data is not None:
            inputs["sensitivity data"] = Input(name=samples.source, sha256=samples.digest)
    versions["torch"] = "not used" if torch is None else torch
    options = {**audit.options, **own.given(names)}
    return Identity(inputs=inputs, options=options, versions=versions)


def ranking_task(places: Sequence[NDArray[np.int32]]) -> int:
    """Name a ranking in a record: 63 bits, never 0, which stands for a chip without."""
    digest = hashlib.blake2b(digest_size=8)
    for place in places:
        digest.update(np.ascontiguousarray(place, _PLACE).tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1 | 1  # a record has 63 bits for it


def load_ranking(folder: Path, shapes: Sequence[tuple[int, ...]]) -> tuple[Places, str] | None:
    """Read a ranking.

    Parameters
    ----------
    folder : Path
        Whose record is of this run.
    shapes : sequence of tuple of int
        Of the tensors.

    Returns
    -------
    tuple or None
        The place of each weight by tensor, and what the ranking rests on; None if it was not kept, or is
        damaged. Chips of another ranking do no harm: a record knows them by :func:`ranking_task`.
    """
    try:
        data = (folder / RANKING_FILE).read_bytes()
    except OSError:
        return None
    if len(data) < _CRC.size or _CRC.unpack_from(data)[0] != zlib.crc32(data[_CRC.size :]):
        return None
    basis, _, rest = data[_CRC.size :].partition(b"\n")
    sizes = [int(np.prod(shape)) for shape in shapes]
    if len(rest) != _PLACE.itemsize * sum(sizes):
        return None
    parts = np.split(np.frombuffer(rest, _PLACE).astype(np.int32), np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)], json.loads(basis)


def save_ranking(folder: Path, places: Sequence[NDArray[np.int32]], basis: str) -> None:
    """Keep a ranking; as :func:`load_ranking` gives it."""
    parts = (np.ascontiguousarray(place, _PLACE).tobytes() for place in places)
    data = json.dumps(basis).encode() + b"\n" + b"".join(parts)
    with forgiven(folder):
        write_bytes_atomic(folder / RANKING_FILE, _CRC.pack(zlib.crc32(data)) + data)
