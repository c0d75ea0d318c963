"""The specification of a run: what is allowed, and what is said about the rest."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvaudit.declare import fields_of
from nvaudit.errors import OptionError
from nvaudit.option_texts import parse_time, read_sweep
from nvaudit.spec import RunSpec, make_spec

WANTED = {name: field.wanted for name, field in fields_of(RunSpec).items()}

WHOLE = "a whole number, 1 or more"
CELLS = "a whole number from 1 to 8"
BITS = "a whole number from 1 to 14"
TRIALS = "a whole number from 1 to 100000000"
SEED = "a whole number from 0 to 9223372036854775807"
CONFIDENCE = "a number above 0.5 and below 1"
PERCENTILES = "1 to 100 numbers above 0 and below 100"
UNITS = "one of level, full_scale, weight_max"
ENCODINGS = "one of sign_magnitude, sign_per_device, differential, offset"
PROVIDERS = "one of cpu, cuda, tensorrt, rocm, openvino, coreml, dml"
CROSSBAR = "rows and columns, whole numbers, 1 or more, such as 256x256"

BAD = [
    ("trials", 0, f"--trials: got 0; use {TRIALS}"),
    ("trials", 100_000_001, f"--trials: got 100000001; use {TRIALS}"),
    ("trials", 1.5, f"--trials: got 1.5; use {TRIALS}"),
    ("trials", None, f"--trials: got None; use {TRIALS}"),
    ("percentiles", (), f"--percentile: got (); use {PERCENTILES}"),
    ("percentiles", (1.0, 0.0), f"--percentile: got 0.0; use {PERCENTILES}"),
    ("percentiles", (100.0,), f"--percentile: got 100.0; use {PERCENTILES}"),
    ("percentiles", (math.nan,), f"--percentile: got nan; use {PERCENTILES}"),
    ("percentiles", 1.0, f"--percentile: got 1.0; use {PERCENTILES}"),
    ("confidence", 0.5, f"--confidence: got 0.5; use {CONFIDENCE}"),
    ("confidence", 1.0, f"--confidence: got 1.0; use {CONFIDENCE}"),
    ("confidence", 95, f"--confidence: got 95; use {CONFIDENCE}"),
    ("confidence", math.nan, f"--confidence: got nan; use {CONFIDENCE}"),
    ("seed", -1, f"--seed: got -1; use {SEED}"),
    ("seed", 2**63, f"--seed: got 9223372036854775808; use {SEED}"),
    ("bits", 0, f"--bits: got 0; use {BITS}"),
    ("bits", 15, f"--bits: got 15; use {BITS}"),
    ("cell_bits", 0, f"--cell-bits: got 0; use {CELLS}"),
    ("cell_bits", 9, f"--cell-bits: got 9; use {CELLS}"),
    ("sigmas", (0.1, math.nan), "--sigma: got nan; use at most 1000 finite numbers"),
    ("sigmas", (math.inf,), "--sigma: got inf; use at most 1000 finite numbers"),
    ("sigmas", ("x",), "--sigma: got 'x'; use at most 1000 finite numbers"),
    ("sigma_unit", "volt", f"--sigma-unit: got 'volt'; use {UNITS}"),
    ("top_slice", "all", "--top-slice: got 'all'; use one of window, lowest"),
    ("encoding", "twos", f"--encoding: got 'twos'; use {ENCODINGS}"),
    ("code", "8,a", f"--code: got '8,a'; use {WANTED['code']}"),
    ("devices_per_weight", 0.5, "--devices-per-weight: got 0.5; use a number from 1 to 64"),
    ("mapping", 3, f"--mapping: got 3; use {WANTED['mapping']}"),
    ("allocate", "rows", "--allocate: got 'rows'; use one of devices, crossbars"),
    ("scale", "per_row", "--scale: got 'per_row'; use one of per_tensor, per_channel"),
    ("metric", 5, f"--metric: got 5; use {WANTED['metric']}"),
    ("class_axis", 64, "--class-axis: got 64; use a whole number from -64 to 63"),
    ("output_name", 1, "--output-name: got 1; use the name of an output"),
    ("exhaustive", "perhaps", "--exhaustive: got 'perhaps'; use true or false"),
    ("tolerance", -0.1, "--tolerance: got -0.1; use a finite number, 0 or more"),
    ("all_trials", 7, "--all-trials: got 7; use true or false"),
    ("max_trials", 0, f"--max-trials: got 0; use {TRIALS}"),
    ("attribute", ("tensor",), "--attribute: got 'tensor'; use tensors, terms, classes or all"),
    ("roughness", 2, "--roughness: got 2; use true or false"),
    ("attribution_trials", 0, f"--attribution-trials: got 0; use {TRIALS}"),
    ("attribution_images", 0, "--attribution-images: got 0; use a whole number, 1 or more"),
    ("tail", (0.0,), "--tail: got 0.0; use at most 100 numbers above 0 and below 100"),
    ("dask", 8786, "--dask: got 8786; use the address of a scheduler, or its scheduler file"),
    ("max_minutes", 0, "--max-minutes: got 0; use a finite number above 0"),
    ("require_mapped", 95, f"--require-mapped: got 95; use {WANTED['require_mapped']}"),
    ("min_kpp", math.nan, "--min-kpp: got nan; use a finite number"),
    ("min_kpp", math.inf, "--min-kpp: got inf; use a finite number"),
    ("yield_at", (-math.inf,), "--yield-at: got -inf; use at most 100 finite numbers"),
    ("limit", 0, f"--limit: got 0; use {WHOLE}"),
    ("batch_size", 0, f"--batch-size: got 0; use {WHOLE}"),
    ("ignore_labels", (0.5,), "--ignore-label: got 0.5; use at most 16 whole numbers"),
    ("layers", "conv*", "--layers: got 'conv*'; use a list of globs"),
    ("digital", "fc*", "--digital: got 'fc*'; use a list of globs"),
    ("time_s", -1.0, "--time: got -1.0; use a finite number of seconds, 0 or more"),
    ("time_s", math.inf, "--time: got inf; use a finite number of seconds, 0 or more"),
    ("enable", "aging", "--enable: got 'aging'; use a list of names of noise terms"),
    ("disable", (1,), "--disable: got 1; use a list of names of noise terms"),
    ("stuck_at", "0.1", f"--stuck-at: got '0.1'; use {WANTED['stuck_at']}"),
    ("read_noise", "-0.1", f"--read-noise: got '-0.1'; use {WANTED['read_noise']}"),
    ("correlated", "0.1:row", f"--correlated: got '0.1:row'; use {WANTED['correlated']}"),
    ("correlated", "0.1:0x4", f"--correlated: got '0.1:0x4'; use {WANTED['correlated']}"),
    ("write_verify", -1.0, "--write-verify: got -1.0; use a finite number, 0 or more"),
    ("drift_compensation", "maybe", "--drift-compensation: got 'maybe'; use true or false"),
    ("crossbar", (0, 256), f"--crossbar: got 0; use {CROSSBAR}"),
    ("crossbar", (256,), f"--crossbar: missing; give {CROSSBAR}"),
    ("skip_zero_groups", "maybe", "--skip-zero-groups: got 'maybe'; use true or false"),
    ("adc_bits", 1, "--adc-bits: got 1; use a whole number from 2 to 16"),
    ("dac_bits", 17, "--dac-bits: got 17; use a whole number from 2 to 16"),
    ("adc_range", "percentile:101", f"--adc-range: got 'percentile:101'; use {WANTED['adc_range']}"),
    ("every_device", "maybe", "--every-device: got 'maybe'; use true or false"),
    ("calibrate_chips", 1, "--calibrate-chips: got 1; use a whole number from 2 to 1000000"),
    ("calibrate_data", 5, "--calibrate-data: got 5; use a path, in UTF-8"),
    ("chip", 5, "--chip: got 5; use a path, in UTF-8"),
    ("provider", "tpu", f"--provider: got 'tpu'; use {PROVIDERS}"),
    ("workers", -1, "--workers: got -1; use a whole number from 0 to 4096"),
    ("technology", 3, "--technology: got 3; use the name of a technology or the path of one, in UTF-8"),
    ("technology_set", ("a",), f"--technology-set: got 'a'; use {WANTED['technology_set']}"),
    ("input_mode", "spikes", "--input-mode: got 'spikes'; use one of bit_serial, parallel, pwm"),
    ("copies", 0, "--copies: got 0; use a whole number from 1 to 65536"),
    ("pipelined", "maybe", "--pipelined: got 'maybe'; use true or false"),
    ("g_max_us", 0.0, f"--g-max-us: got 0.0; use {WANTED['g_max_us']}"),
    ("on_off", 1.0, f"--on-off: got 1.0; use {WANTED['on_off']}"),
    ("energy_chips", 1, "--energy-chips: got 1; use a whole number from 2 to 1000000"),
    ("offset_zero", "zero", "--offset-zero: got 'zero'; use one of lower, upper"),
    ("digital_outliers", 0.6, f"--digital-outliers: got 0.6; use {WANTED['digital_outliers']}"),
    ("suggest", "maybe", "--suggest: got 'maybe'; use true or false"),
    ("max_drop", -1.0, "--max-drop: got -1.0; use a finite number, 0 or more"),
    ("baseline_report", 5, "--baseline: got 5; use a path, in UTF-8"),
    ("labels", 5, "--labels: got 5; use a path"),
    ("label_column", 5, "--label-column: got 5; use a name"),
    ("label_kind", 5, "--label-kind: got 5; use one of class, text, boxes, values"),
    ("alphabet", 5, "--alphabet: got 5; use a path"),
    ("boxes", 5, "--boxes: got 5; use one of xyxy, tf, yolox, yolov5, yolov8"),
    ("min_score", 5, "--min-score: got 5; use a number from 0 to 1"),
    ("nms_overlap", 5, "--nms-overlap: got 5; use a number above 0, at most 1"),
    ("rare", (0.5,), f"--rare: got 0.5; use {WANTED['rare']}"),
    ("rare_runs", 3, "--rare-runs: got 3; use a whole number from 4 to 1000"),
    ("rare_chips", 5, "--rare-chips: got 5; use a whole number from 20 to 1000000"),
    ("rare_moves", 0, "--rare-moves: got 0; use a whole number from 1 to 1000"),
    ("device", 3, "--device: got 3; use the name of a profile or the path of one, in UTF-8"),
    ("data", 3, "--data: got 3; use a path, in UTF-8"),
    ("model", None, "MODEL: got None; use the path of an ONNX file, in UTF-8"),
    ("model", "m\udcff.onnx", r"MODEL: got 'm\udcff.onnx'; use the path of an ONNX file, in UTF-8"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_a_bad_value_is_named_with_what_is_allowed(name, value, message):
    """Each message gives the option, the value that was found, and what is allowed."""
    with pytest.raises(OptionError) as caught:
        make_spec(**{"model": "m.onnx", "device": "rram", name: value})
    assert str(caught.value) == message


def test_every_option_has_a_bad_value_here_and_words_for_it():
    """No option is left without a message of its own."""
    assert set(WANTED) == set(RunSpec.model_fields)
    assert {name for name, _, _ in BAD} == set(RunSpec.model_fields)


def test_several_bad_values_are_named_together_and_once():
    """One run tells all that is wrong."""
    with pytest.raises(OptionError) as caught:
        make_spec(model="m", device="rram", trials=0, percentiles=(0.0, 0.0), limit=-1)
    found = str(caught.value).split("; ")
    assert [text for text in found if ": got" in text] == [
        "--limit: got -1",
        "--trials: got 0",
        "--percentile: got 0.0",
    ]


def test_long_values_are_cut_in_messages():
    """A message stays readable whatever was given."""
    with pytest.raises(OptionError) as caught:
        make_spec(model="m", device="rram", scale="x" * 10_000)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trails": 10}, "trails: there is no such option; did you mean trials?"),
        ({"qqqq": 10}, "qqqq: there is no such option; use one of model, device, sigmas, "),
    ],
)
def test_unknown_options_are_named(options, message):
    """A misspelt option is refused, with the nearest name."""
    with pytest.raises(OptionError) as caught:
        make_spec(model="m", device="rram", **options)
    assert str(caught.value).startswith(message)


def test_a_model_is_required():
    """What has no default must be given."""
    with pytest.raises(OptionError) as caught:
        make_spec()
    assert str(caught.value) == "MODEL: missing; give the path of an ONNX file, in UTF-8"


def test_duplicates_are_dropped_and_minus_zero_is_zero():
    """A question asked twice is answered once, in the order of the first."""
    spec = make_spec(
        model="m", device="d", sigmas=(0.2, 0.1, 0.2), percentiles=[5, 1, 5.0], yield_at=(-0.0, 0.0)
    )
    assert spec.sigmas == (0.2, 0.1)
    assert spec.percentiles == (5.0, 1.0)
    assert [str(value) for value in spec.yield_at] == ["0.0"]


def test_a_specification_survives_json():
    """What stands in a report as `run` makes the same specification again."""
    spec = make_spec(
        model=Path("m.onnx"), device=Path("d.json"), data=Path("x.npz"), trials=7, percentiles=(1, 5),
        sigmas=(0.1, 0.30000000000000004), layers=["a*"], crossbar=(64, 32), time_s=86400, min_kpp=0.5,
    )  # fmt: skip
    assert make_spec(**json.loads(json.dumps(spec.model_dump(mode="json")))) == spec
    assert spec.model == "m.onnx"


def test_a_specification_cannot_be_changed():
    """It is frozen, so that the report says what was run."""
    with pytest.raises(ValueError, match="frozen"):
        make_spec(model="m", device="d").trials = 5


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1", (0.1,)),
        ("0", (0.0,)),
        ("1e-3", (0.001,)),
        ("0.1:0.3:0.1", (0.1, 0.2, 0.3)),
        ("0:0.4:0.1", (0.0, 0.1, 0.2, 0.3, 0.4)),
        ("0:0.35:0.1", (0.0, 0.1, 0.2, 0.3)),
        ("0:1:0.3333", (0.0, 0.3333, 0.6666, 0.9999)),
        ("1e-13:3e-13:1e-13", (1e-13, 2e-13, 3e-13)),
        ("0.2:0.2:0.1", (0.2,)),
        ("0.2:0.25:1e300", (0.2,)),
        (" 0.1 : 0.2 : 0.1 ", (0.1, 0.2)),
        ("-1", (-1.0,)),
    ],
)
def test_sigmas(text, values):
    """A number, or a sweep with both ends exactly as typed."""
    assert read_sweep(text) == values


def test_sweep_length():
    """A thousand points are allowed, one more is not."""
    assert len(read_sweep("1:1000:1")) == 1000
    with pytest.raises(
        OptionError, match=r"^--sigma '0:1000:1' has more than 1000 points; take a larger step$"
    ):
        read_sweep("0:1000:1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is neither a finite number nor a sweep start:stop:step"),
        ("nan", "is neither a finite number nor a sweep start:stop:step"),
        ("inf", "is neither a finite number nor a sweep start:stop:step"),
        ("1e999", "is neither a finite number nor a sweep start:stop:step"),
        ("0.1:0.2", "is neither a finite number nor a sweep start:stop:step"),
        ("0:1:0.1:2", "is neither a finite number nor a sweep start:stop:step"),
        ("::", "is neither a finite number nor a sweep start:stop:step"),
        ("0.3:0.1:0.1", ": a sweep needs finite start ≤ stop and a step above 0"),
        ("0.1:0.3:-0.1", ": a sweep needs finite start ≤ stop and a step above 0"),
        ("0:1:0", ": a sweep needs finite start ≤ stop and a step above 0"),
        ("0:1:1e-400", ": a sweep needs finite start ≤ stop and a step above 0"),
        ("nan:1:1", ": a sweep needs finite start ≤ stop and a step above 0"),
        ("0:inf:1", ": a sweep needs finite start ≤ stop and a step above 0"),
        ("0:1:inf", ": a sweep needs finite start ≤ stop and a step above 0"),
        ("0:1e9:1", "has more than 1000 points; take a larger step"),
        ("0:1e308:1e-308", "has more than 1000 points; take a larger step"),
    ],
)
def test_bad_sigmas(text, message):
    """Everything else is refused at once, however many points it would have."""
    with pytest.raises(OptionError) as caught:
        read_sweep(text)
    space = "" if message.startswith(":") else " "
    assert str(caught.value) == f"--sigma {text!r}{space}{message}"


@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(0, 999), st.integers(0, 9))
def test_a_sweep_ends_where_it_was_told_to(start, step, steps, digits):
    """For every decimal sweep the last point is the stop as typed, and no point is repeated."""
    number = [f"{n}e-{digits}" for n in (start, start + steps * step, step)]
    values = read_sweep(":".join(number))
    assert len(values) == steps + 1
    assert values[0] == float(number[0])
    assert values[-1] == float(number[1])
    assert list(values) == sorted(set(values))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("90", 90), ("90s", 90), ("5min", 300), ("1.5h", 5400), ("1d", 86400), ("2w", 1209600),
        ("10y", 315576000), ("1e3", 1000), (" 1 d", 86400),
    ],
)  # fmt: skip
def test_times(text, seconds):
    """A number of seconds, or of a named unit."""
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "x", "d", "min", "-1s", "nan", "inf", "nand", "1e400", "1e308y", "1 day", "1h30", "1,5h"]
)
def test_bad_times(text):
    """Everything else is refused with examples."""
    with pytest.raises(OptionError) as caught:
        parse_time(text)
    assert str(caught.value) == (f"--time {text!r} is not a time; write e.g. 90s, 5min, 12h, 1d, 2w, 10y")
