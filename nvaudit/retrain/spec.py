"""What the user asked for: the full specification of a hardening, as it stands in its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, JsonValue

from nvaudit.declare import Option, Options
from nvaudit.one_point import OnePoint
from nvaudit.option_texts import read_numbers, write_numbers
from nvaudit.options import (
    Bits,
    BoundedCount,
    ChipOptions,
    CodeOptions,
    ConverterBits,
    ConverterOptions,
    DataOptions,
    DeviceOptions,
    Encodable,
    Finite,
    LossOptions,
    MappingOptions,
    MetricOptions,
    ModelOptions,
    OutlierOptions,
    Positive,
    RoughnessOptions,
    RunOptions,
    TimeOptions,
    each_once,
    path_option,
)
from nvaudit.spec import QuestionOptions, RunSpec, make_spec
from nvaudit.task_options import TaskOptions
from nvaudit.technology_options import TechnologyOptions

if TYPE_CHECKING:
    from nvaudit.perturb.crossbar import ConverterSpec

HardenMethod = Literal[
    "best", "trice", "gaussian", "rc", "lc", "rt", "lt", "lognormal", "device", "none", "correctnet",
    "stability-vat",
]  # fmt: skip
METHODS: tuple[HardenMethod, ...] = get_args(HardenMethod)

TRICE_EPOCHS = 100
EPOCHS = 20
TH = 2.0
WARM = 5
TRAIN_TRIALS = 300
"""Of T, section IV-B: th = 2, ep = 100, warm = 5, N_train = 300."""

VAT_SIGMAS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Of S, section 5: σ_train from 0.1 to 0.5."""

CROSSBAR = (256, 256)
"""Of S, section 6.1; groups are as long as a crossbar has rows."""

# Training is done in float32, where a larger number is infinite.
Positive32 = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
NotNegative32 = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]


def read_bits(text: str) -> int | str:
    """Read magnitude bits, or ``ternary``."""
    return text if text == "ternary" else int(text)


class HeldOutOptions(Options):
    """What is held out of the data, and what the audits see."""

    title: ClassVar[str] = "Data"

    val_split: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | None,
        Option("Share of the data that is held out to validate on.", unset="0.2", metavar="SHARE"),
    ] = None
    val_data: Annotated[
        Encodable | None,
        path_option("Data to validate on.", unset="--val-split of --data"),
    ] = None
    test_data: Annotated[
        Encodable | None,
        path_option("Data of the audits before and after.", unset="the validation data"),
    ] = None
    audit_images: Annotated[BoundedCount, Option("Samples of the audits, spread evenly.", metavar="I")] = 1000


class MethodOptions(Options):
    """How a model is hardened: trained, or remapped."""

    title: ClassVar[str] = "Method"

    method: Annotated[
        HardenMethod | Literal["remap"],
        Option(
            "best: the audited device's noise, weights clipped, a gentle second training where the first "
            "one costs accuracy without noise; trice: Algorithm 3 of the TRICE paper; gaussian, rc, lc, "
            "rt, lt (right/left censored/truncated), lognormal, device: that noise; none: "
            "quantisation-aware only; correctnet: Lipschitz regularisation; stability-vat: the least "
            "rough of several spreads; remap: no training.",
            short="-m",
        ),
    ] = "best"


class InjectedNoiseOptions(Options):
    """The noise that is injected while training."""

    title: ClassVar[str] = "Training"

    train_sigma: Annotated[
        NotNegative32 | None,
        Option(
            "Spread of the injected noise as a fraction of max|W| (lognormal, correctnet: σ of the "
            "exponent).",
            unset="what the device makes of a weight",
            metavar="S",
        ),
    ] = None
    th: Annotated[NotNegative32, Option("Where noise is censored or truncated, in its σ.", metavar="TH")] = TH
    trice_start: Annotated[NotNegative32, Option("TRICE: start of the search, in max|W|.", metavar="S")] = 0.0
    trice_end: Annotated[
        Positive32 | None,
        Option("TRICE: its end.", unset="twice what the device makes of a weight", metavar="S"),
    ] = None
    warm: Annotated[Annotated[int, Field(ge=0)], Option("Epochs without scores.", metavar="N")] = WARM
    train_trials: Annotated[BoundedCount, Option("Chips of a score while training.", metavar="N")] = (
        TRAIN_TRIALS
    )
    score_images: Annotated[
        BoundedCount | None,
        Option(
            "Validation samples of a score, spread evenly.",
            unset="training samples / --train-trials, at least 100",
            metavar="I",
        ),
    ] = None
    vat_sigmas: Annotated[
        tuple[NotNegative32, ...],
        Field(max_length=100),
        AfterValidator(each_once),
        Option(
            "stability-vat: spreads of the device to train at, in the profile's unit.",
            metavar="S,S,…",
            wanted="1 to 100 finite numbers, 0 or more, such as 0.1,0.2,0.3",
            read=read_numbers,
            write=write_numbers,
        ),
    ] = VAT_SIGMAS
    vat_keep: Annotated[
        Literal["roughness", "kpp"],
        Option(
            "stability-vat: keep the least rough candidate, as the paper does, or that of the best KPP on "
            "the audited device."
        ),
    ] = "roughness"
    clip_weights: Annotated[
        Positive32 | None,
        Option(
            "Keep weights within K standard deviations of what their tensor is at the beginning.",
            unset="1 with best, 2.5 in its second training, else not",
            metavar="K",
        ),
    ] = None
    lipschitz: Annotated[
        NotNegative32, Option("correctnet: weight of the regularisation.", metavar="BETA")
    ] = 1e-3
    draws: Annotated[
        Annotated[int, Field(ge=1, le=1000)], Option("Noise draws per step, averaged.", metavar="N")
    ] = 1


class TrainOptions(Options):
    """How it is trained."""

    title: ClassVar[str] = "Training"

    epochs: Annotated[
        Annotated[int, Field(ge=0, le=1_000_000)] | None,
        Option("Passes over the data.", unset="100 with trice, else 20", metavar="N"),
    ] = None
    optimiser: Annotated[Literal["adam", "sgd"], Option("AdamW, or SGD with Nesterov momentum 0.9.")] = "adam"
    lr: Annotated[
        Positive32 | None,
        Option(
            "Learning rate.",
            unset="0.001 with adam, 0.003 with adam and best, 0.0003 in its second training, 0.01 with sgd",
            metavar="RATE",
        ),
    ] = None
    weight_decay: Annotated[NotNegative32, Option("Of the weights on the array.", metavar="W")] = 0.0
    schedule: Annotated[Literal["cosine", "constant"], Option("Of the learning rate.")] = "cosine"
    clip_gradient: Annotated[Positive32 | None, Option("Largest norm of the gradient.", metavar="NORM")] = 5.0
    augment: Annotated[
        Literal["none", "flip", "crop", "flip+crop"], Option("Of images: left-right flips, shifts.")
    ] = "none"
    distill: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Option(
            "Share of the loss that is the distance to the given model's outputs.",
            unset="0.5 with best, else 0; 1 without labels",
            metavar="SHARE",
        ),
    ] = None
    activation_bits: Annotated[
        ConverterBits | None, Option("Round activations while training.", unset="not", metavar="A")
    ] = None
    reset: Annotated[bool, Option("Begin with new weights, instead of fine-tuning.")] = False
    keep: Annotated[
        Literal["best", "better", "last"] | None,
        Option(
            "The result: the network with the best KPP of all epochs, the given one among them; the "
            "better of the last and the given one (what is lost without noise beyond 1.5 points counts "
            "against the KPP); or the last.",
            unset="best with trice, better with best or --max-clean-loss, else last",
        ),
    ] = None


class CompressionOptions(Options):
    """A smaller result."""

    title: ClassVar[str] = "Compression"

    sparsity: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | None,
        Option(
            "Prune this share of the weights on the array, in groups: what one crossbar holds of one output.",
            unset="not",
            metavar="SHARE",
        ),
    ] = None
    dense: Annotated[
        tuple[str, ...],
        Option(
            "With --sparsity: weights whose name matches stay whole, as the last one does; repeatable.",
            unset="only the last one",
            metavar="GLOB",
            wanted="a list of globs",
        ),
    ] = ()
    prune_lambda: Annotated[
        NotNegative32,
        Option(
            "With --sparsity: weight of the clipped penalty; with 1 a group of mean size goes to zero before "
            "groups are cut, unless the loss holds it.",
            metavar="L",
        ),
    ] = 3.0


class HardwareAwareOptions(Options):
    """Whether training goes through the converters."""

    title: ClassVar[str] = "Crossbars and converters"

    hardware_aware: Annotated[
        bool | None,
        Option(
            "With --adc-bits: train through the crossbars and their converters, or only audit with them.",
            unset="train",
        ),
    ] = None


class PlanOptions(Options):
    """What is planned for the result."""

    title: ClassVar[str] = "More in the report"

    verify_plan: Annotated[
        bool,
        Option(
            "Add a write-verify plan of the hardened model to the report, as `nvaudit verify-plan` makes it."
        ),
    ] = False
    yield_at: Annotated[
        Finite | None,
        QuestionOptions.option(
            "yield_at",
            help="Share of the chips at or above A.",
            unset="the given model's accuracy less 2 points",
            repeatable=False,
        ),
    ] = None


_INPUTS = ("model", "device", "data", "labels", "alphabet", "val_data", "test_data", "mapping")
_OF_THE_AUDITS = (
    *(
        "audit_images",
        "trials",
        "confidence",
        "yield_at",
        "roughness",
        "workers",
        "verify_plan",
        "max_minutes",
    ),
    *TechnologyOptions.model_fields,
)


class HardenSpec(
    OnePoint,
    TechnologyOptions,
    TimeOptions,
    RunOptions,
    RoughnessOptions,
    PlanOptions,
    ChipOptions,
    LossOptions,
    HardwareAwareOptions,
    ConverterOptions,
    CompressionOptions,
    TrainOptions,
    InjectedNoiseOptions,
    OutlierOptions,
    CodeOptions,
    MappingOptions,
    DeviceOptions,
    HeldOutOptions,
    TaskOptions,
    MetricOptions,
    DataOptions,
    MethodOptions,
    ModelOptions,
):
    """One hardening, complete. The fields are the options of ``nvaudit harden``."""

    method: Annotated[HardenMethod, MethodOptions.option("method")] = "best"
    # As for an audit, but for words, limits and defaults.
    data: Annotated[
        Encodable | None,
        DataOptions.option(
            "data",
            help="Data to train on, in the forms that `audit` takes; without labels the given model's "
            "outputs are learned.",
            unset="MODEL.npz beside the model",
        ),
    ] = None
    limit: Annotated[
        BoundedCount | None, DataOptions.option("limit", help="Use only the first N samples of --data.")
    ] = None
    output_name: Annotated[
        str | None,
        DataOptions.option("output_name", was=(), help="Which output is trained and scored."),
    ] = None
    metric: Annotated[
        str | None,
        MetricOptions.option(
            "metric",
            help="As for `audit`; mse takes labels as numbers to learn, multilabel as 0 or 1 for each "
            "output.",
            unset="top1 with class labels",
        ),
    ] = None
    bits: Annotated[
        Literal["ternary"] | Bits | None,
        MappingOptions.option(
            "bits", metavar="H|ternary", wanted="a whole number from 1 to 14, or ternary", read=read_bits
        ),
    ] = None  # type: ignore[assignment]  # training knows more than an audit
    crossbar: Annotated[
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]],
        ConverterOptions.option(
            "crossbar",
            help="With --sparsity, --adc-bits or --allocate crossbars: size of a crossbar; a group that is "
            "pruned has at most as many weights as it has rows.",
        ),
    ] = CROSSBAR
    batch_size: Annotated[
        BoundedCount | None,
        RunOptions.option(
            "batch_size",
            help="Samples of a step.",
            unset="64; all of them where samples influence each other",
        ),
    ] = None
    max_minutes: Annotated[
        Positive | None,
        TimeOptions.option(
            "max_minutes",
            help="Time of the whole run: calibration or training ends early, and so do the audits; the "
            "report says how far they came.",
        ),
    ] = None
    trials: Annotated[
        BoundedCount,
        ChipOptions.option("trials", help="Chips of the audits before and after: the same ones."),
    ] = 500
    confidence: Annotated[
        Annotated[float, Field(gt=0.5, lt=1)], ChipOptions.option("confidence", help="Of every interval.")
    ] = 0.95

    @property
    def run_epochs(self) -> int:
        """Epochs, by the method where they are not given."""
        if self.epochs is not None:
            return self.epochs
        return TRICE_EPOCHS if self.method == "trice" else EPOCHS

    @property
    def rate(self) -> float:
        """Learning rate, by the optimiser and the method where it is not given."""
        if self.lr is not None:
            return self.lr
        if self.optimiser == "adam":
            return 3e-3 if self.method == "best" else 1e-3
        return 1e-2

    @property
    def step_samples(self) -> int:
        """Samples of a training step where they do not influence each other."""
        return 64 if self.batch_size is None else self.batch_size

    @property
    def split(self) -> float:
        """Share of the data that validates."""
        return 0.2 if self.val_split is None else self.val_split

    @property
    def ternary(self) -> bool:
        """Whether weights become −a, 0 or a."""
        return self.bits == "ternary"

    @property
    def compresses(self) -> bool:
        """Whether the result is to be smaller than the given model."""
        return self.ternary or self.sparsity is not None

    @property
    def converters(self) -> ConverterSpec | None:
        """What crossbars the audits run on; None: converters are ideal."""
        from nvaudit.perturb.crossbar import ConverterSpec  # loads onnx_ir, and options need none

        if self.adc_bits is None:
            return None
        return ConverterSpec(*self.crossbar, self.adc_bits, self.dac_bits, self.adc_range)

    @property
    def trained_through(self) -> ConverterSpec | None:
        """What crossbars the forward pass of training goes through."""
        return None if self.hardware_aware is False else self.converters

    @property
    def keeps(self) -> Literal["best", "better", "last"]:
        """Which network is the result, by the method where it is not given."""
        by_method: dict[str, Literal["best", "better", "last"]] = {"trice": "best", "best": "better"}
        if self.keep is not None:
            return self.keep
        return by_method.get(self.method, "last" if self.max_clean_loss is None else "better")

    def audit_spec(
        self, model: Path, data: str, yield_at: tuple[float, ...], *, given: bool = False
    ) -> RunSpec:
        """Specify the audit of the given or the hardened model: every chip on every sample.

        Parameters
        ----------
        given : bool
            Of the given model: it is not ternary, and has the profile's bits.
        """
        how: dict[str, object] = {"bits": self.bits, "cell_bits": self.cell_bits}
        if self.ternary:
            # One magnitude bit, and a cell of two levels: more would never be used.
            how = {"cell_bits": self.cell_bits}
            if not given:
                how = {"bits": 1, "cell_bits": self.cell_bits or 1}
        if self.allocate == "crossbars":
            how["crossbar"] = self.crossbar
        if self.sparsity is not None:
            how |= {"crossbar": self.crossbar, "skip_zero_groups": True}
        if self.adc_bits is not None:
            how |= {name: getattr(self, name) for name in ("crossbar", "adc_bits", "dac_bits", "adc_range")}
        own = {"batch_size", "limit", "bits", "cell_bits", *ConverterOptions.model_fields}
        own |= {
            "labels",
            "label_column",
            "label_kind",
            "max_minutes",
        }  # what is audited holds its labels itself
        shared = [
            name for name in RunSpec.model_fields if name in HardenSpec.model_fields and name not in own
        ]
        return make_spec(
            **{
                **{name: getattr(self, name) for name in shared},
                **how,
                "model": model,
                "data": data,
                "yield_at": yield_at,
                "exhaustive": True,
            }
        )

    def training_options(self) -> dict[str, JsonValue]:
        """Give every option that the trained weights depend on, by its name on the command line.

        Left out are the inputs, known by their contents, and what only the audit depends on.
        """
        unused = {*_INPUTS, *_OF_THE_AUDITS, "hardware_aware"}
        if self.trained_through is None:
            unused |= {"adc_bits", "dac_bits", "adc_range"}
        return self.given(name for name in HardenSpec.model_fields if name not in unused)
