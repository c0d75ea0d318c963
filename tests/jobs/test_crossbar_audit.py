"""Audits on crossbars with converters, whole."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from nvaudit import audit
from nvaudit.cli.commands import cli
from nvaudit.errors import OptionError
from nvaudit.jobs.replaying import replay
from nvaudit.perturb import crossbar
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import print_report
from nvaudit.report.result import from_json

MODEL = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"
FAST = {"limit": 60, "trials": 3, "workers": 0, "roughness": False, "data": MODEL.with_suffix(".npz")}


@pytest.fixture(scope="module")
def coarse():
    return audit(MODEL, "rram", **FAST, adc_bits=3, dac_bits=6, crossbar=(64, 64))


def test_fine_converters_give_the_chips_of_the_plain_audit():
    """16 bits change no decision: the same chips, the same accuracy."""
    plain = audit(MODEL, "rram", **FAST)
    fine = audit(MODEL, "rram", **FAST, adc_bits=16, dac_bits=16, crossbar=(64, 64))
    assert fine.trials.values == plain.trials.values
    assert (fine.quantised, fine.crossbar.quantised_ideal) == (plain.quantised, plain.quantised)
    assert plain.crossbar is None


def test_large_column_sums_are_converted_few_samples_at_a_time(coarse, monkeypatch):
    """That changes no chip, and the report says how many; a smaller --batch-size is kept."""
    monkeypatch.setattr(crossbar, "SUMS_BYTES", 1)
    monkeypatch.setattr(crossbar, "ADDED_BYTES", 1)
    few = audit(MODEL, "rram", **FAST, adc_bits=3, dac_bits=6, crossbar=(64, 64))
    assert few.trials.values == coarse.trials.values
    assert few.model.batching.endswith("; 4 at a time, for the size of the column sums")
    two = audit(MODEL, "rram", **FAST, adc_bits=3, dac_bits=6, crossbar=(64, 64), batch_size=2)
    assert "at a time" not in two.model.batching


def test_coarse_converters_cost_accuracy_and_the_report_says_which_step_costs_what(coarse):
    """Ideal, quantised, converted and noisy stand apart."""
    assert coarse.crossbar.quantised_ideal == coarse.nominal
    assert coarse.quantised < coarse.crossbar.quantised_ideal - 0.05
    assert coarse.trials.mean < coarse.crossbar.quantised_ideal - 0.05


def test_the_report_holds_the_crossbars_of_every_layer(coarse):
    """Rows in use, ADC range, share clipped; crossbars as in the table of tensors."""
    info = coarse.crossbar
    assert (info.rows, info.cols, info.adc_bits, info.dac_bits, info.adc_range) == (64, 64, 3, 6, "max")
    mapped = {row.name: row for row in coarse.tensors if row.decision == "mapped"}
    assert {layer.name for layer in info.layers} == set(mapped)
    for layer in info.layers:
        assert layer.reason is None
        assert max(layer.rows) <= 64
        assert layer.crossbars == mapped[layer.name].crossbars > 0
        assert 0 < layer.utilisation <= 1
        assert layer.adc_codes == (-3, 3)
        assert layer.adc_range[1] == pytest.approx(3 * layer.adc_step)
    assert info.crossbars == sum(layer.crossbars for layer in info.layers)
    assert info.samples == 60
    assert from_json(to_json(coarse), "r.json") == coarse


def test_a_percentile_range_clips_and_a_full_scale_one_is_wider(coarse):
    """The three ways of setting ranges stand in order."""
    narrow = audit(MODEL, "rram", **FAST, adc_bits=3, crossbar=(64, 64), adc_range="percentile:90").crossbar
    wide = audit(MODEL, "rram", **FAST, adc_bits=3, crossbar=(64, 64), adc_range="full_scale").crossbar
    for low, middle, high in zip(narrow.layers, coarse.crossbar.layers, wide.layers, strict=True):
        assert low.adc_range[1] < middle.adc_range[1] < high.adc_range[1]
        assert low.clipped > 0.02
        assert middle.clipped == high.clipped == 0


def test_results_do_not_depend_on_the_workers(coarse):
    """Calibration and chips are part of the specification, processes are not."""
    again = audit(MODEL, "rram", **FAST | {"workers": 2}, adc_bits=3, dac_bits=6, crossbar=(64, 64))
    assert again.trials.values == coarse.trials.values


@pytest.mark.parametrize("options", [{"encoding": "differential"}, {"encoding": "offset", "adc_bits": 8}])
def test_other_encodings_run_too(options):
    """Both polarities, or shifted codes with a digital reference; unsigned columns have unsigned codes."""
    report = audit(MODEL, "rram", **FAST, **{"adc_bits": 6} | options)
    assert report.quantised > 0.8
    layers = {layer.signed_inputs: layer for layer in report.crossbar.layers}
    assert layers[False].adc_codes[0] == 0


def test_devices_with_read_noise_are_read_before_the_adc():
    """Drift, programming and read noise of PCM, with converters."""
    report = audit(MODEL, "pcm", **FAST | {"trials": 2}, adc_bits=8, time_s=3600.0)
    assert 0.2 < report.trials.mean <= 1
    assert not [note for note in report.notes if "read noise is drawn once" in note]


def test_a_chip_is_written_with_its_crossbars(coarse, tmp_path):
    """Plain ONNX Runtime measures what the report says."""
    done = replay(coarse, tmp_path / "chip.onnx", trial=1)
    assert done.measured == done.reported == coarse.trials.values[1]


def test_the_text_report_shows_crossbars_and_what_converters_cost(coarse):
    """What converts, what each layer fills, and the cost as a step of its own."""
    out = io.StringIO()
    print_report(coarse, Console(width=100, file=out))
    text = out.getvalue()
    assert "Crossbars of 64 × 64" in text
    assert "3-bit ADCs, 6-bit DACs" in text
    assert "converted" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dac_bits": 8}, "--dac-bits is for crossbars with converters; give --adc-bits too"),
        ({"adc_range": "full_scale"}, "--adc-range is for crossbars with converters; give --adc-bits too"),
        (
            {"adc_bits": 5, "sigma_unit": "weight_max", "sigmas": (0.1,)},
            "is stated as a fraction of max|W|, not for devices",
        ),
    ],
)
def test_options_that_go_without_their_crossbars_are_refused(options, message):
    """Each with what to do."""
    with pytest.raises(OptionError) as caught:
        audit(MODEL, "rram", **FAST, **options)
    assert message in str(caught.value)


def test_the_command_line_takes_the_options(tmp_path):
    """And its report runs again."""
    path = tmp_path / "r.json"
    words = [
        "audit",
        str(MODEL),
        "--limit",
        "30",
        "-n",
        "2",
        "--no-roughness",
        "-j",
        "0",
        "-q",
        "-o",
        str(path),
    ]
    words += ["--crossbar", "128x64", "--adc-bits", "4", "--dac-bits", "8", "--adc-range", "percentile:99.9"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert report["crossbar"]["adc_range"] == "percentile:99.9"
    assert (report["crossbar"]["rows"], report["crossbar"]["cols"]) == (128, 64)
    assert audit(**report["run"]).trials.values == tuple(report["trials"]["values"])


def test_a_wrong_range_is_refused_on_the_command_line():
    """With what may be given."""
    result = CliRunner().invoke(cli, ["audit", str(MODEL), "--adc-bits", "4", "--adc-range", "percentile:3"])
    assert result.exit_code != 0
    assert "percentile:P with P from 50 to 100" in str(result.exception or result.output)


def test_records_of_other_converters_are_not_resumed(tmp_path):
    """Chips with other converters are other chips."""
    folder = tmp_path / "kept"
    audit(MODEL, "rram", **FAST, adc_bits=4, resume=folder)
    with pytest.raises(OptionError, match="--adc-bits"):
        audit(MODEL, "rram", **FAST, adc_bits=5, resume=folder)
    with pytest.raises(OptionError, match="--crossbar"):
        audit(MODEL, "rram", **FAST, adc_bits=4, crossbar=(64, 64), resume=folder)
    values = audit(MODEL, "rram", **FAST, adc_bits=4, resume=folder).trials.values
    assert np.isfinite(values).all()


def test_auto_counts_the_converters_of_the_run():
    """The report has their share of the error, and a coarse ADC another code than ideal converters."""
    options = {"limit": 40, "trials": 2, "workers": 0, "roughness": False, "code": "auto"}
    ideal = audit(MODEL, "fefet1", **options)
    coarse = audit(MODEL, "fefet1", **options, adc_bits=4, crossbar=(64, 64))
    assert ideal.codes.codes[0].errors.converters == 0
    errors = coarse.codes.codes[0].errors
    assert errors.converters > errors.noise
    assert coarse.codes.codes[0].significances != ideal.codes.codes[0].significances
    given = audit(
        MODEL, "fefet1", **{**options, "code": ideal.codes.codes[0].text}, adc_bits=4, crossbar=(64, 64)
    )
    assert errors.total < given.codes.codes[0].errors.total
