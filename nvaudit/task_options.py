"""The options that say what labels are, and how outputs become what they are compared with."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nvaudit.declare import Option, Options
from nvaudit.option_texts import read_path

_Text = Annotated[str, Field(min_length=1)]


class TaskOptions(Options):
    """Labels in a file of their own, and what they mean."""

    title: ClassVar[str] = "Data"

    labels: Annotated[
        _Text | None,
        Option(
            "Labels in a file of their own: a table (.csv, .tsv) with the columns file and label, JSON lines "
            "(.jsonl), or COCO annotations (.json).",
            unset="those of the data",
            metavar="FILE",
            wanted="a path",
            read=read_path,
        ),
    ] = None
    label_column: Annotated[
        _Text | None,
        Option(
            "Which column of the table, or key of the lines, holds the labels.",
            unset="label, class, target, text, …",
            metavar="NAME",
            wanted="a name",
        ),
    ] = None
    label_kind: Annotated[
        Literal["class", "text", "boxes", "values"] | None,
        Option("What labels are.", unset="by the metric and by what they look like"),
    ] = None
    alphabet: Annotated[
        _Text | None,
        Option(
            "What each class of a CTC output stands for, a line for each but the blank, class 0; with it a "
            "metric of your own is given texts.",
            unset="for cer and wer the model's own list",
            metavar="FILE",
            wanted="a path",
            read=read_path,
        ),
    ] = None
    boxes: Annotated[
        Literal["xyxy", "tf", "yolox", "yolov5", "yolov8"] | None,
        Option(
            "How a detector's outputs are laid out; with it a metric of your own is given boxes. xyxy: rows "
            "x1, y1, x2, y2, score, class, or three outputs in --output-name BOXES,SCORES,CLASSES.",
            unset="for map and map50 xyxy",
        ),
    ] = None
    min_score: Annotated[
        Annotated[float, Field(ge=0, le=1)],
        Option("Least score of a box.", metavar="SHARE"),
    ] = 0.001
    nms_overlap: Annotated[
        Annotated[float, Field(gt=0, le=1)],
        Option(
            "yolo layouts: of two boxes of a class that overlap by more (intersection over union), the less "
            "sure one is dropped.",
            metavar="SHARE",
        ),
    ] = 0.65
