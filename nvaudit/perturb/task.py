"""From the options of a task to how labels and outputs of a model are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nvaudit.data import Dataset
from nvaudit.data.preprocess import guess_layout
from nvaudit.errors import OptionError
from nvaudit.model import LoadedModel
from nvaudit.perturb.boxes import BoxReader
from nvaudit.perturb.scores import Reading
from nvaudit.perturb.text import read_alphabet, split_alphabet
from nvaudit.task_options import TaskOptions

_ALPHABETS = ("character", "characters", "alphabet", "charset", "dictionary")
"""What model files call it in their metadata."""

_PARTS = (("box",), ("score", "conf"), ("label", "class"))
"""What the three outputs of a detector are called."""


def reads_boxes(metric: str | None, task: TaskOptions) -> bool:
    """Whether outputs are read as boxes."""
    return task.boxes is not None or metric in ("map", "map50")


def box_outputs(loaded: LoadedModel, wanted: str | None) -> tuple[str, ...]:
    """The outputs that boxes are read from: one, or boxes, scores and classes.

    Raises
    ------
    OptionError
        If those named are none.
    """
    names = [output.name for output in loaded.outputs]
    if wanted in names:
        return (str(wanted),)
    if wanted is not None:
        parts = tuple(part.strip() for part in wanted.split(","))
        strange = [part for part in parts if part not in names]
        if strange or len(parts) not in (1, 3):
            what = f"{strange[0]!r} is not an output" if strange else f"{len(parts)} outputs"
            raise OptionError(
                f"--output-name {wanted}: {what}; boxes are read from one output, or from boxes, scores and "
                f"classes in this order, with commas between them; the model has {', '.join(names)}"
            )
        return parts
    found = [[name for name in names if any(word in name.lower() for word in words)] for words in _PARTS]
    if all(len(part) == 1 for part in found) and len({part[0] for part in found}) == len(found):
        return tuple(part[0] for part in found)
    return (names[0],)


def box_reader(task: TaskOptions, dataset: Dataset) -> BoxReader:
    """Make what reads boxes; the size of the input is that of the samples."""
    for name, array in dataset.inputs.items():
        if name in dataset.batch_axes and array.ndim == 4:
            shape = array.shape
            high, wide = shape[1:3] if guess_layout(shape) == "NHWC" else shape[2:4]
            return BoxReader(task.boxes or "xyxy", (high, wide), task.min_score, task.nms_overlap)
    raise OptionError("--boxes: the model takes no images, [N, C, H, W] or [N, H, W, C]")


def with_alphabet(reading: Reading, loaded: LoadedModel, metric: str | None, task: TaskOptions) -> Reading:
    """Say what the classes of an output stand for, where it is asked for."""
    if task.alphabet is not None:
        return replace(
            reading, alphabet=read_alphabet(Path(task.alphabet)), alphabet_of=Path(task.alphabet).name
        )
    if metric not in ("cer", "wer"):
        return reading
    for key in _ALPHABETS:
        text = loaded.model.metadata_props.get(key)
        if text:
            return replace(
                reading, alphabet=split_alphabet(text), alphabet_of=f"the model's own list ({key})"
            )
    return reading


def check_task(metric: str | None, task: TaskOptions) -> None:
    """Refuse options that nothing would use.

    Raises
    ------
    OptionError
        Naming the first.
    """
    own = metric is not None and ":" in metric
    unused: Sequence[tuple[str, bool]] = (
        ("--alphabet is for --metric cer, wer or one of your own", task.alphabet is not None
         and not (own or metric in ("cer", "wer"))),
        ("--boxes is for --metric map, map50 or one of your own", task.boxes is not None
         and not (own or metric in ("map", "map50"))),
        ("--min-score and --nms-overlap are for boxes; see --boxes", not reads_boxes(metric, task)
         and (task.min_score, task.nms_overlap) != (0.001, 0.65)),
    )  # fmt: skip
    for text, wrong in unused:
        if wrong:
            raise OptionError(text)
