"""Options of `nvaudit harden`, by what they are about."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from nvaudit.cli.options import (
    Command,
    CrossbarType,
    FilePath,
    TimeType,
    addition_options,
    converter_options,
    ignore_option,
    stack,
)
from nvaudit.retrain.spec import HardenSpec

REMAP_ONLY = frozenset(
    {
        *("calibration_data", "digital_scale", "calibration_images", "calibration_chips"),
        *("no_equalise", "no_clip", "no_recalibrate", "time_budget"),
    }
)
"""Options that only ``--method remap`` has."""


def _default(name: str) -> Any:
    return HardenSpec.model_fields[name].default


class BitsType(click.ParamType[Any]):
    """Magnitude bits, or ``ternary``."""

    name = "H|ternary"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read bits."""
        text = str(value)
        if text == "ternary":
            return text
        if not re.fullmatch(r"\d{1,2}", text) or not 1 <= int(text) <= 14:
            self.fail(f"{value!r} is neither a whole number from 1 to 14 nor ternary", param, ctx)
        return int(text)


class NumbersType(click.ParamType[Any]):
    """Numbers between commas, ``0.1,0.2``."""

    name = "S,S,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Read numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers; write e.g. 0.1,0.2,0.3", param, ctx)


def data_options() -> Callable[[Command], Command]:
    """What it learns from, what is held out, what it is audited on."""
    return stack(
        click.option("--data", type=FilePath(), help="Data to train on, in the forms that `audit` takes; "
                     "without labels the given model's outputs are learned.  [default: MODEL.npz beside "
                     "the model]"),
        click.option("--limit", type=click.IntRange(1), metavar="N",
                     help="Use only the first N samples of --data.  [default: all]"),
        click.option("--val-split", type=float, metavar="SHARE", help="Share of the data that is held out "
                     "to validate on.  [default: 0.2]"),
        click.option("--val-data", type=FilePath(), help="Data to validate on.  [default: --val-split of "
                     "--data]"),
        click.option("--test-data", type=FilePath(), help="Data of the audits before and after.  [default: "
                     "the validation data]"),
    )  # fmt: skip


def noise_options() -> Callable[[Command], Command]:
    """The operating point of the device, and the noise that is injected."""
    return stack(
        click.option("--sigma", type=float, metavar="S",
                     help="Device variation in the profile's unit.  [default: the profile's]"),
        click.option("--sigma-unit", type=click.Choice(["level", "full_scale", "weight_max"]),
                     help="Unit of --sigma.  [default: the profile's]"),
        click.option("--time", "time_s", type=TimeType(),
                     help="Time since programming, e.g. 1d.  [default: the profile's]"),
        click.option("--enable", multiple=True, metavar="TERM", help="Switch a noise term on; repeatable.  "
                     "[default: as in the profile]"),
        click.option("--disable", multiple=True, metavar="TERM", help="Switch a noise term off; repeatable.  "
                     "[default: as in the profile]"),
        addition_options(),
        click.option("--train-sigma", type=float, metavar="S", help="Spread of the injected noise as a "
                     "fraction of max|W| (lognormal, correctnet: σ of the exponent).  [default: what the "
                     "device makes of a weight]"),
        click.option("--th", type=float, default=_default("th"), show_default=True,
                     help="Where noise is censored or truncated, in its σ."),
        click.option("--trice-start", type=float, default=_default("trice_start"), show_default=True,
                     help="TRICE: start of the search, in max|W|."),
        click.option("--trice-end", type=float, help="TRICE: its end.  [default: twice what the device "
                     "makes of a weight]"),
        click.option("--warm", type=click.IntRange(0), default=_default("warm"), show_default=True,
                     help="Epochs without scores."),
        click.option("--train-trials", type=click.IntRange(1), default=_default("train_trials"),
                     show_default=True, help="Chips of a score while training."),
        click.option("--score-images", type=click.IntRange(1), metavar="I", help="Validation samples of a "
                     "score, spread evenly.  [default: training samples / --train-trials, at least 100]"),
        click.option("--vat-sigmas", type=NumbersType(), help="stability-vat: spreads of the device to train "
                     "at, in the profile's unit.  [default: 0.1,0.2,0.3,0.4,0.5]"),
        click.option("--vat-keep", type=click.Choice(["roughness", "kpp"]), default=_default("vat_keep"),
                     show_default=True, help="stability-vat: keep the least rough candidate, as the paper "
                     "does, or that of the best KPP on the audited device."),
        click.option("--clip-weights", type=float, metavar="K", help="Keep weights within K standard "
                     "deviations of what their tensor is at the beginning.  [default: 1 with best, 2.5 "
                     "in its second training, else not]"),
        click.option("--lipschitz", type=float, default=_default("lipschitz"), show_default=True,
                     metavar="BETA", help="correctnet: weight of the regularisation."),
        click.option("--draws", type=click.IntRange(1), default=_default("draws"), show_default=True,
                     help="Noise draws per step, averaged."),
    )  # fmt: skip


def train_options() -> Callable[[Command], Command]:
    """How it is trained."""
    return stack(
        click.option("--epochs", type=click.IntRange(0), help="Passes over the data.  [default: 100 with "
                     "trice, else 20]"),
        click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Samples of a step.  "
                     "[default: 64; all of them where samples influence each other]"),
        click.option("--optimiser", type=click.Choice(["adam", "sgd"]), default=_default("optimiser"),
                     show_default=True, help="AdamW, or SGD with Nesterov momentum 0.9."),
        click.option("--lr", type=float, help="Learning rate.  [default: 0.001 with adam, 0.003 with "
                     "adam and best, 0.0003 in its second training, 0.01 with sgd]"),
        click.option("--weight-decay", type=float, default=_default("weight_decay"), show_default=True,
                     help="Of the weights on the array."),
        click.option("--schedule", type=click.Choice(["cosine", "constant"]), default=_default("schedule"),
                     show_default=True, help="Of the learning rate."),
        click.option("--clip-gradient", type=float, default=_default("clip_gradient"), show_default=True,
                     help="Largest norm of the gradient."),
        click.option("--augment", type=click.Choice(["none", "flip", "crop", "flip+crop"]),
                     default=_default("augment"), show_default=True, help="Of images: left-right flips, "
                     "shifts."),
        click.option("--distill", type=float, metavar="SHARE", help="Share of the loss that is the "
                     "distance to the given model's outputs.  [default: 0.5 with best, else 0; 1 without "
                     "labels]"),
        click.option("--activation-bits", type=click.IntRange(2, 16), metavar="A", help="Round activations "
                     "while training.  [default: not]"),
        click.option("--reset", is_flag=True, help="Begin with new weights.  [default: fine-tune]"),
        click.option("--keep", type=click.Choice(["best", "better", "last"]), help="The result: the network "
                     "with the best KPP of all epochs, the given one among them; the better of the last and "
                     "the given one (what is lost without noise beyond 1.5 points counts against the KPP); "
                     "or the last.  [default: best with trice, better with best or "
                     "--max-clean-loss, else last]"),
        click.option("--max-clean-loss", type=float, metavar="LOSS", help="What the result may lose "
                     "without noise, in the metric's unit (0.015: 1.5 points of top1); for remap, clipping.  "
                     "[default: 0.005 with remap, else no limit]"),
    )  # fmt: skip


def compression_options() -> Callable[[Command], Command]:
    """A smaller result."""
    return stack(
        click.option("--sparsity", type=float, metavar="SHARE", help="Prune this share of the weights on the "
                     "array, in groups: what one crossbar holds of one output.  [default: not]"),
        click.option("--dense", multiple=True, metavar="GLOB", help="With --sparsity: weights whose name "
                     "matches stay whole, as the last one does; repeatable.  [default: only the last one]"),
        click.option("--prune-lambda", type=float, default=_default("prune_lambda"), show_default=True,
                     metavar="L", help="With --sparsity: weight of the clipped penalty; with 1 a group of "
                     "mean size goes to zero before groups are cut, unless the loss holds it."),
    )  # fmt: skip


def crossbar_options() -> Callable[[Command], Command]:
    """Crossbars with converters, in the audits and in training."""
    return stack(
        click.option("--crossbar", type=CrossbarType(), help="With --sparsity or --adc-bits: size of a "
                     "crossbar; a group that is pruned has at most as many weights as it has rows.  "
                     "[default: 256x256]"),
        converter_options(),
        click.option("--hardware-aware/--no-hardware-aware", default=None, help="With --adc-bits: train "
                     "through the crossbars and their converters, or only audit with them.  [default: "
                     "train]"),
    )  # fmt: skip


def remap_options() -> Callable[[Command], Command]:
    """What ``--method remap`` may do."""
    return stack(
        click.option("--calibration-data", type=FilePath(), help="remap: data to calibrate on.  [default: "
                     "a part of --data]"),
        click.option("--digital-scale", type=click.Choice(["absorb", "insert", "insert-both"]), help="remap: "
                     "rescale only what the model can absorb, or insert digital factors.  [default: absorb]"),
        click.option("--calibration-images", type=click.IntRange(1), metavar="I",
                     help="remap: samples to calibrate on.  [default: 256]"),
        click.option("--calibration-chips", type=click.IntRange(2), metavar="C",
                     help="remap: chips to calibrate on.  [default: 16]"),
        click.option("--time-budget", type=float, metavar="SECONDS", help="remap: what calibration may take; "
                     "0: no limit.  [default: 60]"),
        click.option("--no-equalise", is_flag=True, help="remap: rescale nothing."),
        click.option("--no-clip", is_flag=True, help="remap: clip nothing."),
        click.option("--no-recalibrate", is_flag=True, help="remap: leave biases and normalisations as they "
                     "are."),
    )  # fmt: skip


def audit_options() -> Callable[[Command], Command]:
    """The audits before and after."""
    return stack(
        click.option("--trials", "-n", type=click.IntRange(1), default=_default("trials"), show_default=True,
                     help="Chips of the audits before and after: the same ones."),
        click.option("--audit-images", type=click.IntRange(1), default=_default("audit_images"),
                     show_default=True, metavar="I", help="Samples of the audits, spread evenly."),
        click.option("--percentile", "-k", type=float, default=_default("percentile"), show_default=True,
                     help="Of the KPP."),
        click.option("--confidence", type=float, default=_default("confidence"), show_default=True,
                     help="Of every interval."),
        click.option("--roughness/--no-roughness", default=True, show_default=True,
                     help="Measure the roughness of both loss landscapes, or leave it out."),
        click.option("--verify-plan", is_flag=True, help="Add a write-verify plan of the hardened model to "
                     "the report, as `nvaudit verify-plan` makes it."),
        click.option("--yield-at", type=float, metavar="A", help="Share of the chips at or above A.  "
                     "[default: the given model's accuracy less 2 points]"),
        click.option("--metric", help="As for `audit`; mse takes labels as numbers to learn, multilabel "
                     "as 0 or 1 for each output.  [default: top1 with class labels]"),
        click.option("--output-name", metavar="NAME", help="Which output is trained and scored.  [default: "
                     "the first]"),
        click.option("--class-axis", type=int, help="Axis of the class scores.  [default: read from the "
                     "shapes]"),
        ignore_option(),
        click.option("--scale", type=click.Choice(["per_tensor", "per_channel"]), default="per_tensor",
                     show_default=True, help="One quantisation scale per tensor or per output channel."),
        click.option("--layers", multiple=True, metavar="GLOB",
                     help="Map only weights whose name matches; repeatable.  [default: all]"),
        click.option("--digital", multiple=True, metavar="GLOB",
                     help="Keep weights whose name matches digital; repeatable.  [default: none]"),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
                     help="Same seed, same training and chips."),
        click.option("--provider", default="cpu", show_default=True,
                     type=click.Choice(["cpu", "cuda", "tensorrt", "rocm", "openvino", "coreml", "dml"]),
                     help="Of ONNX Runtime; with cuda torch is asked for the GPU too (never tried)."),
    )  # fmt: skip
