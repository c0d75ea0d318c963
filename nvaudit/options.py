"""The options that several commands share, in parts of which their specifications are composed.

Each stands here once. A new one is a field, and the line that uses it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from nvaudit.declare import Option, Options, one_of_several
from nvaudit.option_texts import (
    MAX_SWEEP,
    listed,
    parse_time,
    read_path,
    read_share,
    read_size,
    read_sweep,
    read_whole,
)
from nvaudit.task_options import TaskOptions

Encoding = Literal["sign_magnitude", "sign_per_device", "differential", "offset"]
TopSlice = Literal["window", "lowest"]
OffsetZero = Literal["lower", "upper"]
ScaleGranularity = Literal["per_tensor", "per_channel"]
SigmaUnit = Literal["level", "full_scale", "weight_max"]
Provider = Literal["cpu", "cuda", "tensorrt", "rocm", "openvino", "coreml", "dml"]

MAX_QUESTIONS = 100
RAREST = 1e-9
"""Least percentile, one chip in a hundred billion: a thousandth of what --trials can be."""

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?"
_UNIT = "level|full_scale|relative|us|na"

STUCK_AT = rf"^({_NUMBER}),({_NUMBER})$"
READ_NOISE = rf"^({_NUMBER})({_UNIT})?$"
CORRELATED = rf"^({_NUMBER})({_UNIT})?(?::(chip|tensor|([1-9]\d{{0,5}})x([1-9]\d{{0,5}})))?$"
"""Regular expressions whose groups are the parts."""

DEFAULT_UNIT = "full_scale"
"""Of noise that is added without one."""

ADC_RANGE = r"^(max|full_scale|percentile:(100|[5-9]\d(\.\d+)?))$"


CODE = r"^(slices|auto(:(powers|integers))?|[1-9]\d{0,4}(,[1-9]\d{0,4})*)$"


def _encodable(text: str) -> str:
    try:
        text.encode()  # ONNX Runtime and JSON know no other names
    except UnicodeEncodeError:
        raise ValueError from None
    return text


def _not_too_rare(percentile: float) -> float:
    if percentile < RAREST:
        raise ValueError(f"{RAREST:g} at least")
    return percentile


def each_once(values: tuple[float, ...]) -> tuple[float, ...]:
    """Drop what is asked twice, in the order of the first; −0 becomes 0."""
    return tuple(dict.fromkeys(value + 0.0 for value in values))


Encodable = Annotated[str, AfterValidator(_encodable)]
Percentile = Annotated[float, Field(gt=0, lt=100), AfterValidator(_not_too_rare)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
BoundedCount = Annotated[int, Field(ge=1, le=100_000_000)]
Bits = Annotated[int, Field(ge=1, le=14)]
CellBits = Annotated[int, Field(ge=1, le=8)]
ConverterBits = Annotated[int, Field(ge=2, le=16)]


def path_option(help_: str, unset: str, metavar: str = "PATH", name: str = "") -> Option:
    """Declare the path of something to read; in a configuration file it is relative to the file's folder."""
    return Option(help_, unset=unset, metavar=metavar, name=name, wanted="a path, in UTF-8", read=read_path)


class ModelOptions(Options):
    """What is audited."""

    model: Annotated[
        Encodable, Option("An ONNX file.", name="MODEL", wanted="the path of an ONNX file, in UTF-8")
    ]


class DeviceOptions(Options):
    """The device, its operating point, and the noise it has."""

    title: ClassVar[str] = "Device"

    device: Annotated[
        Encodable,
        Option(
            "Bundled profile (see `nvaudit devices list`) or a profile file.",
            short="-d",
            metavar="PROFILE",
            wanted="the name of a profile or the path of one, in UTF-8",
            sweep=one_of_several,
        ),
    ] = "rram"
    sigmas: Annotated[
        tuple[Finite, ...],
        Field(max_length=MAX_SWEEP),
        AfterValidator(each_once),
        Option(
            "Device variation in the profile's unit; repeatable, or a sweep: 0,0.1,0.2 or 0.1:0.4:0.1.",
            unset="the profile's",
            name="--sigma",
            metavar="S,…|A:B:STEP",
            read=read_sweep,
            repeatable=True,
        ),
    ] = ()
    sigma_unit: Annotated[
        SigmaUnit | None,
        Option(
            "Unit of --sigma: level spacings of the cells in use, the conductance window, or max|W| (no "
            "slicing).",
            unset="the profile's; level spacings are then those of its own cells, whatever --cell-bits says",
        ),
    ] = None
    time_s: Annotated[
        NotNegative | None,
        Option(
            "Time since programming, e.g. 90s, 5min, 1h, 1d, 10y.",
            unset="the profile's",
            name="--time",
            metavar="TIME",
            wanted="a finite number of seconds, 0 or more",
            read=parse_time,
            sweep=listed(parse_time),
        ),
    ] = None
    enable: Annotated[
        tuple[str, ...],
        Option(
            "Switch a noise term on; repeatable.",
            unset="as in the profile",
            metavar="TERM",
            wanted="a list of names of noise terms",
        ),
    ] = ()
    disable: Annotated[
        tuple[str, ...],
        Option(
            "Switch a noise term off; repeatable.",
            unset="as in the profile",
            metavar="TERM",
            wanted="a list of names of noise terms",
        ),
    ] = ()
    stuck_at: Annotated[
        Annotated[str, Field(pattern=STUCK_AT)] | None,
        Option(
            "Add devices stuck at the lowest and at the highest conductance, with these probabilities.",
            unset="as in the profile",
            metavar="P_LOW,P_HIGH",
            wanted="P_LOW,P_HIGH, two probabilities such as 0.001,0.0005",
            sweep=one_of_several,
        ),
    ] = None
    read_noise: Annotated[
        Annotated[str, Field(pattern=READ_NOISE)] | None,
        Option(
            "Add normal noise of every read: a share of the window of conductances, or with a unit, "
            "0.02relative.",
            unset="as in the profile",
            metavar="S[UNIT]",
            wanted="S with an optional unit (level, full_scale, relative, us, na), e.g. 0.01 or 0.02relative",
            sweep=listed(str),
        ),
    ] = None
    correlated: Annotated[
        Annotated[str, Field(pattern=CORRELATED)] | None,
        Option(
            "Add variation that all devices of a chip share, or those of a tensor or a tile, such as "
            "0.02:tensor or 0.02:128x128.",
            unset="as in the profile",
            metavar="S[UNIT][:SCOPE]",
            wanted="S with an optional unit and an optional scope (chip, tensor, or a tile's "
            "ROWSxCOLUMNS), such as 0.02 or 0.1level:128x128",
            sweep=listed(str),
        ),
    ] = None
    write_verify: Annotated[
        NotNegative | None,
        Option(
            "Write devices again until the error is within T, in the unit of sigma.",
            unset="as in the profile",
            metavar="T",
            sweep=listed(float),
        ),
    ] = None
    drift_compensation: Annotated[
        bool, Option("Multiply each tensor by its total conductance before it drifted over that after.")
    ] = False


class MappingOptions(Options):
    """How weights lie in devices, and which do."""

    title: ClassVar[str] = "Mapping"

    bits: Annotated[
        Bits | None,
        Option("Magnitude bits of a weight.", unset="the profile's", metavar="H", sweep=read_whole),
    ] = None
    cell_bits: Annotated[
        CellBits | None,
        Option("Bits per device.", unset="the profile's", metavar="B", sweep=read_whole),
    ] = None
    encoding: Annotated[
        Encoding | None, Option("How signs are stored.", unset="the profile's", sweep=listed(str))
    ] = None
    top_slice: Annotated[
        TopSlice | None,
        Option(
            "Levels of a top slice that holds fewer bits than a device: spread over the window, or only the "
            "lowest.",
            unset="window",
            sweep=listed(str),
        ),
    ] = None
    offset_zero: Annotated[
        OffsetZero | None,
        Option(
            "Stored value of a zero weight on slices with the offset encoding: lower, 2^H − 1, as in the "
            "papers, or upper, 2^H, which is one top digit and zeros.",
            unset="lower",
        ),
    ] = None
    scale: Annotated[
        ScaleGranularity,
        Option("One quantisation scale per tensor or per output channel.", sweep=listed(str)),
    ] = "per_tensor"
    layers: Annotated[
        tuple[str, ...],
        Option(
            "Map only weights whose name matches; repeatable.",
            unset="all",
            metavar="GLOB",
            wanted="a list of globs",
        ),
    ] = ()
    digital: Annotated[
        tuple[str, ...],
        Option(
            "Keep weights whose name matches digital; repeatable.",
            unset="none",
            metavar="GLOB",
            wanted="a list of globs",
        ),
    ] = ()


class CodeOptions(Options):
    """Which levels the devices of a weight hold."""

    title: ClassVar[str] = "Mapping"

    code: Annotated[
        Annotated[str, Field(pattern=CODE)] | None,
        Option(
            "What the devices of a weight count for: slices of bits, significances such as 8,4,2,1 (each "
            "weight then has its least noisy representation), or auto, which searches for the code of least "
            "error on this device; auto:integers also tries other than powers of two.",
            unset="slices",
            metavar="slices|auto[:integers]|F,F,…",
            wanted="slices, auto, auto:integers, or significances between commas such as 8,4,2,1",
            sweep=one_of_several,
        ),
    ] = None
    devices_per_weight: Annotated[
        Annotated[float, Field(ge=1, le=64)] | None,
        Option(
            "With --code auto: devices of a weight; on average with --allocate.",
            unset="as many as slices have",
            metavar="N",
            sweep=listed(float),
        ),
    ] = None
    allocate: Annotated[
        Literal["devices", "crossbars"] | None,
        Option(
            "With --code auto: share devices out between layers, so that those where noise weighs most have "
            "more; counted one by one, or as whole crossbars of --crossbar size.",
            unset="all layers alike",
        ),
    ] = None
    mapping: Annotated[
        Encodable | None,
        Option(
            "Mapping file: the code of every weight of this very model.",
            unset="MODEL.mapping.json beside the model, if it was made for it; --code slices leaves it out",
            metavar="FILE",
            wanted="the path of a mapping file, in UTF-8",
            read=read_path,
        ),
    ] = None


class ConverterOptions(Options):
    """The crossbars that the mapped layers lie on, and their converters."""

    title: ClassVar[str] = "Crossbars and converters"

    crossbar: Annotated[
        tuple[Count, Count],
        Option(
            "Crossbar size: what crossbars are counted by, and with --adc-bits what layers are split over.",
            metavar="RxC",
            wanted="rows and columns, whole numbers, 1 or more, such as 256x256",
            read=read_size,
            write=lambda size: "x".join(map(str, size)),
            sweep=listed(read_size),
        ),
    ] = (256, 256)
    adc_bits: Annotated[
        ConverterBits | None,
        Option(
            "Split mapped layers over crossbars of --crossbar size and convert every column sum to N bits.",
            unset="ideal, not split",
            metavar="N",
            sweep=read_whole,
        ),
    ] = None
    dac_bits: Annotated[
        ConverterBits | None,
        Option(
            "With --adc-bits: convert the inputs of crossbars to N bits.",
            unset="ideal",
            metavar="N",
            sweep=read_whole,
        ),
    ] = None
    adc_range: Annotated[
        Annotated[str, Field(pattern=ADC_RANGE)],
        Option(
            "With --adc-bits: what the converters of a layer reach up to on the calibration samples.",
            metavar="max|percentile:P|full_scale",
            wanted="max, full_scale, or percentile:P with P from 50 to 100",
            sweep=listed(str),
        ),
    ] = "max"


class SimulationOptions(Options):
    """What of a chip is simulated."""

    title: ClassVar[str] = "Mapping"

    skip_zero_groups: Annotated[
        bool,
        Option(
            "Leave out what one crossbar holds of one output where all of it is zero: such a group has no "
            "devices and no noise."
        ),
    ] = False
    every_device: Annotated[bool, Option("Draw every device even where one draw per weight is exact.")] = (
        False
    )


class OutlierOptions(Options):
    """What the hardware computes beside the array."""

    title: ClassVar[str] = "Mapping"

    digital_outliers: Annotated[
        Annotated[float, Field(gt=0, le=0.5)] | None,
        Option(
            "Keep this share of each tensor's weights, the largest, digital, if the hardware can: they are "
            "exact, and max|W| is that of the others.",
            unset="none",
            metavar="SHARE",
            wanted="a share above 0, up to a half, such as 0.01 or 1%",
            read=read_share,
            sweep=listed(read_share),
        ),
    ] = None


class DataOptions(Options):
    """What the model is run on, and which of its outputs is read."""

    title: ClassVar[str] = "Data"

    data: Annotated[
        Encodable | None,
        path_option(
            "Evaluation data: .npz, x.npy with y.npy beside it or their folder, an image folder, or ONNX "
            "test_data_set folders.",
            unset="MODEL.npz beside the model; without it the audit is label-free",
        ),
    ] = None
    limit: Annotated[Count | None, Option("Use only the first N samples.", unset="all", metavar="N")] = None
    output_name: Annotated[
        str | None,
        Option(
            "Which output is scored.",
            unset="the first",
            was=("--output",),
            metavar="NAME",
            wanted="the name of an output",
        ),
    ] = None
    class_axis: Annotated[
        Annotated[int, Field(ge=-64, le=63)] | None,
        Option("Axis of the class scores.", unset="read from the shapes", metavar="AXIS"),
    ] = None
    ignore_labels: Annotated[
        tuple[Annotated[int, Field(ge=-(2**31), lt=2**31)], ...],
        Field(max_length=16),
        Option(
            'A label that stands for "not labelled", such as 255: what has it is not scored; repeatable.',
            unset="-1 and -100",
            name="--ignore-label",
            metavar="V",
            wanted="at most 16 whole numbers",
        ),
    ] = ()


class MetricOptions(Options):
    """What is measured on a chip."""

    title: ClassVar[str] = "Data"

    metric: Annotated[
        str | None,
        Option(
            "top1, topK, cross_entropy (loss), mse, agreement, multilabel, f1, f1_micro, miou, perplexity, "
            "cer, wer, map, map50, or one of your own, file.py:function or module:function.",
            unset="top1 with class labels, mse with reference outputs; without labels agreement where the "
            "outputs are class scores, else mse",
            metavar="METRIC",
            wanted="top1, topK (e.g. top5), cross_entropy, mse, agreement, multilabel, f1, f1_micro, miou, "
            "perplexity, cer, wer, map, map50, or module:function",
        ),
    ] = None


class ChipOptions(Options):
    """How many chips are simulated, and what is said of them."""

    title: ClassVar[str] = "Chips"

    trials: Annotated[BoundedCount, Option("Simulated chips.", short="-n", metavar="N")] = 1000
    percentiles: Annotated[
        tuple[Percentile, ...],
        Field(min_length=1, max_length=MAX_QUESTIONS),
        AfterValidator(each_once),
        Option("Percentile of the KPP; repeatable.", name="--percentile", short="-k", metavar="P"),
    ] = (1.0,)
    confidence: Annotated[
        Annotated[float, Field(gt=0.5, lt=1)], Option("Of every interval and gate.", metavar="SHARE")
    ] = 0.95


class RunOptions(Options):
    """How it is run."""

    title: ClassVar[str] = "Run"

    seed: Annotated[Annotated[int, Field(ge=0, lt=2**63)], Option("Same seed, same chips.", metavar="N")] = 0
    batch_size: Annotated[
        Count | None,
        Option(
            "Samples at a time; with --adc-bits at most, fewer where column sums are large.",
            unset="64; all of them where samples influence each other",
            metavar="N",
        ),
    ] = None
    provider: Annotated[Provider, Option("ONNX Runtime execution provider.")] = "cpu"
    workers: Annotated[
        Annotated[int, Field(ge=0, le=4096)],
        Option("Worker processes; 0 runs in this one.", unset="all cores", short="-j", metavar="W"),
    ] = 0


class TimeOptions(Options):
    """How long a run may take."""

    title: ClassVar[str] = "Run"

    max_minutes: Annotated[
        Positive | None,
        Option(
            "Time of the whole run, which then reports what is done.",
            unset="no limit",
            metavar="M",
        ),
    ] = None


class ClusterOptions(Options):
    """Other machines that help."""

    title: ClassVar[str] = "Run"

    dask: Annotated[
        str | None,
        Option(
            "Run chips on the Dask cluster of this scheduler (its address, or its scheduler file).",
            unset="worker processes on this machine",
            metavar="ADDRESS",
            wanted="the address of a scheduler, or its scheduler file",
        ),
    ] = None


class LossOptions(Options):
    """What a hardened model may lose."""

    title: ClassVar[str] = "Result"

    max_clean_loss: Annotated[
        Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)] | None,
        Option(
            "What the result may lose without noise, in the metric's unit (0.015: 1.5 points of top1); "
            "for remap, clipping, codes for noise and correcting means.",
            unset="with remap 0.005, or a tenth of what noise costs if that is more; else no limit",
            metavar="LOSS",
        ),
    ] = None


class RoughnessOptions(Options):
    """What is measured besides chips."""

    title: ClassVar[str] = "More in the report"

    roughness: Annotated[bool, Option("Measure the roughness of the loss landscape, or leave it out.")] = True


OF_A_CHIP = (
    *(DeviceOptions, MappingOptions, CodeOptions, ConverterOptions, SimulationOptions, OutlierOptions),
    *(DataOptions, MetricOptions, TaskOptions, RunOptions),
)
"""The parts that the value of a chip depends on, but for inputs and workers."""

OF_A_MAPPING = (
    *(
        name
        for part in (
            *(DeviceOptions, MappingOptions, CodeOptions, ConverterOptions, SimulationOptions),
            OutlierOptions,
        )
        for name in part.model_fields
    ),
    "seed",
)
"""Names of the options that say how weights lie on devices and what these do; with converters also those of
the data, by which their ranges are set."""
