"""What the user asked for: the full specification of a hardening, as it stands in its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from nvaudit.additions import (
    CORRELATED,
    CORRELATED_WANTED,
    READ_NOISE,
    READ_NOISE_WANTED,
    STUCK_AT,
    STUCK_AT_WANTED,
)
from nvaudit.perturb.crossbar import ConverterSpec
from nvaudit.spec import (
    ADC_RANGE,
    ADDITIONS,
    IGNORE_WANTED,
    METRIC_WANTED,
    MOST_WORKERS,
    WORKERS_WANTED,
    Encoding,
    IgnoreLabels,
    Provider,
    RunSpec,
    Scale,
    SigmaUnit,
    TopSlice,
    flag,
    make_spec,
)

Method = Literal[
    "best", "trice", "gaussian", "rc", "lc", "rt", "lt", "lognormal", "device", "none", "correctnet",
    "stability-vat",
]  # fmt: skip
METHODS: tuple[Method, ...] = get_args(Method)

WHOLE = "a whole number, 1 or more"
POSITIVE = "a finite number above 0, at most 1e30"
NOT_NEGATIVE = "a finite number, 0 or more, at most 1e30"

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
Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=100_000_000)]


class HardenSpec(BaseModel):
    """One hardening, complete. The fields are the options of ``nvaudit harden``."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    model: str = Field(description="the path of an ONNX file, in UTF-8")
    device: str = Field(description="the name of a profile or the path of one, in UTF-8")
    data: str | None = Field(default=None, description="a path, in UTF-8")
    method: Method = Field(default="best", description=f"one of {', '.join(METHODS)}")
    # What the noise is.
    train_sigma: NotNegative | None = Field(default=None, description=NOT_NEGATIVE)
    th: NotNegative = Field(default=TH, description=NOT_NEGATIVE)
    trice_start: NotNegative = Field(default=0.0, description=NOT_NEGATIVE)
    trice_end: Positive | None = Field(default=None, description=POSITIVE)
    warm: Annotated[int, Field(ge=0)] = Field(default=WARM, description="a whole number, 0 or more")
    train_trials: Count = Field(default=TRAIN_TRIALS, description="a whole number from 1 to 100000000")
    score_images: Count | None = Field(default=None, description=WHOLE)
    clip_weights: Positive | None = Field(default=None, description=POSITIVE)
    lipschitz: NotNegative = Field(default=1e-3, description=NOT_NEGATIVE)
    vat_sigmas: Annotated[tuple[NotNegative, ...], Field(max_length=100)] = Field(
        default=VAT_SIGMAS, description="1 to 100 finite numbers, 0 or more"
    )
    vat_keep: Literal["roughness", "kpp"] = Field(default="roughness", description="roughness or kpp")
    draws: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="a whole number from 1 to 1000"
    )
    # How it is trained.
    epochs: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="a whole number from 0 to 1000000"
    )
    batch_size: Count | None = Field(default=None, description=WHOLE)
    optimiser: Literal["adam", "sgd"] = Field(default="adam", description="adam or sgd")
    lr: Positive | None = Field(default=None, description=POSITIVE)
    weight_decay: NotNegative = Field(default=0.0, description=NOT_NEGATIVE)
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="cosine or constant")
    clip_gradient: Positive | None = Field(default=5.0, description=POSITIVE)
    augment: Literal["none", "flip", "crop", "flip+crop"] = Field(
        default="none", description="one of none, flip, crop, flip+crop"
    )
    distill: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="a number from 0 to 1"
    )
    activation_bits: Annotated[int, Field(ge=2, le=16)] | None = Field(
        default=None, description="a whole number from 2 to 16"
    )
    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="a number above 0 and below 1"
    )
    crossbar: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        default=CROSSBAR, description="rows and columns, whole numbers, 1 or more"
    )
    adc_bits: Annotated[int, Field(ge=2, le=16)] | None = Field(
        default=None, description="a whole number from 2 to 16"
    )
    dac_bits: Annotated[int, Field(ge=2, le=16)] | None = Field(
        default=None, description="a whole number from 2 to 16"
    )
    adc_range: Annotated[str, Field(pattern=ADC_RANGE)] = Field(
        default="max", description="max, full_scale, or percentile:P with P from 50 to 100"
    )
    hardware_aware: bool | None = Field(default=None, description="true or false")
    dense: tuple[str, ...] = Field(default=(), description="a list of globs")
    prune_lambda: NotNegative = Field(default=3.0, description=NOT_NEGATIVE)
    reset: bool = Field(default=False, description="true or false")
    keep: Literal["best", "better", "last"] | None = Field(
        default=None, description="one of best, better, last"
    )
    max_clean_loss: NotNegative | None = Field(default=None, description=NOT_NEGATIVE)
    # What is held out, and what it is audited on.
    val_split: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="a number above 0 and below 1"
    )
    val_data: str | None = Field(default=None, description="a path, in UTF-8")
    test_data: str | None = Field(default=None, description="a path, in UTF-8")
    audit_images: Count = Field(default=1000, description=WHOLE)
    limit: Count | None = Field(default=None, description=WHOLE)
    # The device and the audit, as for `nvaudit audit`.
    bits: Literal["ternary"] | Annotated[int, Field(ge=1, le=14)] | None = Field(
        default=None, description="a whole number from 1 to 14, or ternary"
    )
    cell_bits: Annotated[int, Field(ge=1, le=8)] | None = Field(
        default=None, description="a whole number from 1 to 8"
    )
    top_slice: TopSlice | None = Field(default=None, description="one of window, lowest")
    encoding: Encoding | None = Field(default=None, description="one of sign_magnitude, differential, offset")
    scale: Scale = Field(default="per_tensor", description="one of per_tensor, per_channel")
    sigma: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None, description="a finite number"
    )
    sigma_unit: SigmaUnit | None = Field(default=None, description="one of level, full_scale, weight_max")
    time_s: NotNegative | None = Field(default=None, description="a finite number of seconds, 0 or more")
    enable: tuple[str, ...] = Field(default=(), description="a list of names of noise terms")
    disable: tuple[str, ...] = Field(default=(), description="a list of names of noise terms")
    stuck_at: Annotated[str, Field(pattern=STUCK_AT)] | None = Field(
        default=None, description=STUCK_AT_WANTED
    )
    read_noise: Annotated[str, Field(pattern=READ_NOISE)] | None = Field(
        default=None, description=READ_NOISE_WANTED
    )
    correlated: Annotated[str, Field(pattern=CORRELATED)] | None = Field(
        default=None, description=CORRELATED_WANTED
    )
    write_verify: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="a finite number, 0 or more"
    )
    drift_compensation: bool = Field(default=False, description="true or false")
    layers: tuple[str, ...] = Field(default=(), description="a list of globs")
    digital: tuple[str, ...] = Field(default=(), description="a list of globs")
    trials: Count = Field(default=500, description="a whole number from 1 to 100000000")
    percentile: Annotated[float, Field(gt=0, lt=100)] = Field(
        default=1.0, description="a number above 0 and below 100"
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        default=0.95, description="a number above 0.5 and below 1"
    )
    roughness: bool = Field(default=True, description="true or false")
    verify_plan: bool = Field(default=False, description="true or false")
    yield_at: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None, description="a finite number"
    )
    metric: str | None = Field(default=None, description=METRIC_WANTED)
    ignore_labels: IgnoreLabels = Field(default=(), description=IGNORE_WANTED)
    output_name: str | None = Field(default=None, description="the name of an output")
    class_axis: Annotated[int, Field(ge=-64, le=63)] | None = Field(
        default=None, description="a whole number from -64 to 63"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="a whole number from 0 to 9223372036854775807"
    )
    provider: Provider = Field(
        default="cpu", description="one of cpu, cuda, tensorrt, rocm, openvino, coreml, dml"
    )
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] = Field(default=0, description=WORKERS_WANTED)

    @field_validator("vat_sigmas")
    @classmethod
    def _distinct(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(dict.fromkeys(values))

    @field_validator("model", "device", "data", "val_data", "test_data")
    @classmethod
    def _encodable(cls, value: str | None) -> str | None:
        if value is not None:
            value.encode()  # ONNX Runtime and JSON know no other names; UnicodeEncodeError is a ValueError
        return value

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
        if self.sparsity is not None:
            how |= {"crossbar": self.crossbar, "skip_zero_groups": True}
        if self.adc_bits is not None:
            how |= {name: getattr(self, name) for name in ("crossbar", "adc_bits", "dac_bits", "adc_range")}
        shared = (
            "device", "trials", "confidence", "seed", "sigma_unit", "encoding", "scale",
            "metric", "class_axis", "ignore_labels", "layers", "digital", "time_s", "enable", "disable",
            "provider",
            *ADDITIONS,
            "roughness", "workers", "output_name",
        )  # fmt: skip
        return make_spec(
            **{name: getattr(self, name) for name in shared},
            **how,
            model=model,
            data=data,
            percentiles=(self.percentile,),
            sigmas=() if self.sigma is None else (self.sigma,),
            yield_at=yield_at,
            exhaustive=True,
        )

    def training_options(self) -> dict[str, JsonValue]:
        """Give every option that the trained weights depend on, by its name on the command line.

        Left out are the inputs, known by their contents, and what only the audit depends on.
        """
        exclude = {
            "model", "device", "data", "val_data", "test_data", "audit_images", "trials", "confidence",
            "yield_at", "roughness", "workers", "verify_plan", "hardware_aware",
        }  # fmt: skip
        if self.top_slice is None:
            exclude.add("top_slice")
        if not self.ignore_labels:
            exclude.add("ignore_labels")
        if self.trained_through is None:
            exclude |= {"adc_bits", "dac_bits", "adc_range"}
        return {flag(name): value for name, value in self.model_dump(mode="json", exclude=exclude).items()}
