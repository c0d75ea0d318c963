"""The command that runs an audit again."""

import shlex
import subprocess

import numpy as np
import pytest
from report_samples import report

from nvaudit.cli.audit import audit_command
from nvaudit.cli.outputs import OUTPUT_PARAMETERS
from nvaudit.report.rerun import remedy_command, rerun_command
from nvaudit.spec import RunSpec, axes_of, make_spec

NOT_OF_THE_SPEC = {*OUTPUT_PARAMETERS, "quiet", "workers", "resume", "plan"}
SPECS = {
    "defaults": {},
    "numbers": {
        "trials": 400,
        "percentiles": (1.0, 0.1, 5.5),
        "confidence": 0.999,
        "seed": 7,
        "sigmas": (0.1, 1e-05, 0.30000000000000004),
        "sigma_unit": "weight_max",
        "min_kpp": -2.5,
        "require_mapped": 0.95,
        "yield_at": (0.9, 0.95),
        "tail": (0.01,),
        "time_s": 86400.5,
        "class_axis": -1,
        "crossbar": (64, 32),
        "max_minutes": 2.5,
        "tolerance": 0.0,
    },
    "words": {
        "data": "my data/d's.npz",
        "layers": ("conv*", "-x", "$(rm -rf .)"),
        "digital": ("`a`", 'b"c'),
        "enable": ("aging",),
        "metric": "own:margin",
        "output_name": "é",
        "encoding": "offset",
        "top_slice": "lowest",
        "offset_zero": "upper",
        "digital_outliers": 0.01,
        "code": "auto:integers",
        "devices_per_weight": 2.5,
        "allocate": "crossbars",
        "scale": "per_channel",
        "provider": "cuda",
    },
    "mapping": {"mapping": "my H.mapping.json"},
    "switches": {
        "exhaustive": True,
        "roughness": False,
        "every_device": True,
        "skip_zero_groups": True,
        "attribute": ("tensors", "terms"),
    },
    "labels": {
        "labels": "la bels.csv",
        "label_column": "t ext",
        "label_kind": "text",
        "alphabet": "a b.txt",
        "metric": "cer",
    },
    "boxes": {"metric": "map", "boxes": "yolov8", "min_score": 0.25, "nms_overlap": 0.5},
    "rare chips": {"rare": (1e-06, 0.001), "rare_runs": 20, "rare_chips": 100, "rare_moves": 2},
    "calibration": {"calibrate_chips": 20, "calibrate_data": "o ther.npz"},
    "converters": {"crossbar": (64, 32), "adc_bits": 5, "dac_bits": 8, "adc_range": "percentile:99.5"},
    "more noise": {
        "stuck_at": "0.01,0.02",
        "read_noise": "0.02",
        "correlated": "0.01:tensor",
        "write_verify": 0.1,
        "drift_compensation": True,
    },
    "cost": {
        "technology": "cmos_65nm_siam",
        "technology_set": ("adc.bits=5",),
        "input_mode": "parallel",
        "copies": 4,
        "pipelined": True,
        "g_max_us": 50.0,
        "on_off": 20.0,
        "energy_chips": 8,
    },
    "a chip and the last release": {"chip": "re ad/", "baseline_report": "la st.json", "max_drop": 0.01},
    "gate": {
        "ignore_labels": (-1, 255),
        "min_kpp": 0.9,
        "all_trials": True,
        "suggest": False,
        "bits": 5,
        "cell_bits": 2,
        "limit": 10,
        "batch_size": 3,
    },
}


def asked(words: list[str]) -> RunSpec:
    """The specification that the command line makes of some words."""
    with audit_command.make_context("audit", words) as context:
        options = {key: value for key, value in context.params.items() if key not in NOT_OF_THE_SPEC}
        axes, single = axes_of(options)
        assert not axes
        return make_spec(**single)


@pytest.mark.parametrize("options", SPECS.values(), ids=SPECS.keys())
def test_the_command_asks_for_the_same(options):
    """Read by a shell and by the command line it gives the specification of the report, option for option."""
    spec = make_spec(model="m odel.onnx", device="fefet1", **options)
    command = rerun_command(report(run=spec.model_dump(mode="json")))
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, check=True
    )
    words = done.stdout.split("\0")[:-1]
    assert words[:2] == ["nvaudit", "audit"]
    assert asked(words[2:]) == spec


def test_every_option_is_tried():
    """No field of the specification is left out of the test above, but what belongs to a machine."""
    tried = set().union(*SPECS.values()) | {"model", "device", "workers", "dask"}
    assert set(RunSpec.model_fields) - tried == {
        "disable",
        "attribution_trials",
        "attribution_images",
        "max_trials",
    }


def test_what_belongs_to_the_machine_is_left_out():
    """Workers and cluster have no influence on results."""
    run = make_spec(model="m.onnx", device="rram", workers=3, dask="tcp://a:1").model_dump(mode="json")
    assert not {"--workers", "--dask"} & set(shlex.split(rerun_command(report(run=run))))


def test_names_cannot_act_on_a_terminal():
    """Control characters are written as escapes that bash reads back."""
    name = "a\x1b[2J'b\\c\n.onnx"
    command = rerun_command(report(run={"model": name}))
    assert command == r"nvaudit audit $'a\x1b[2J\'b\\c\n.onnx'"
    done = subprocess.run(
        ["bash", "-c", f"printf %s {command.split(' ', 2)[2]}"], capture_output=True, check=True
    )
    assert done.stdout.decode() == name


def test_a_model_is_no_option():
    """A model whose name begins with a dash is a path all the same."""
    assert rerun_command(report(run={"model": "-x.onnx"})) == "nvaudit audit ./-x.onnx"


def failed(**changes):
    """A report whose gate fails, of a specification."""
    made = report(values=np.linspace(0.5, 0.7, 500))
    assert made.verdict == "fail"
    spec = make_spec(model="m/net.onnx", device="rram", min_kpp=0.9, **changes)
    return made.model_copy(update={"run": spec.model_dump(mode="json")})


def test_a_gate_that_fails_suggests_hardening_without_training():
    """The command has the conditions of the audit and nothing else, and `nvaudit harden` takes it."""
    from nvaudit.cli.harden import harden_command

    made = failed(
        data="my d.npz", sigma_unit="weight_max", time_s=60.0, bits=4, layers=("a", "-b"), trials=50, seed=3
    )
    words = shlex.split(remedy_command(made))
    assert words[:2] == ["nvaudit", "harden"]
    context = harden_command.make_context("harden", words[2:])
    given = context.params
    assert (given["method"], given["device"], str(given["out"])) == ("remap", "rram", "net_remapped.onnx")
    assert (str(given["data"]), given["sigma_unit"], given["time_s"]) == ("my d.npz", "weight_max", 60.0)
    assert (given["bits"], given["layers"]) == (4, ("a", "-b"))
    assert given["sigma"] == (made.operating_point.sigma,)
    assert not {"--trials", "--seed", "--scale", "--limit"} & set(words)


def test_what_is_suggested_has_the_code_of_the_audit():
    """A model that was audited on a code is hardened on that code, not on slices."""
    words = shlex.split(remedy_command(failed(code="auto", allocate="devices", devices_per_weight=2.5)))
    at = words.index("--code")
    assert words[at : at + 2] == ["--code", "auto"]
    assert words[words.index("--allocate") + 1] == "devices"
    assert words[words.index("--devices-per-weight") + 1] == "2.5"
    assert "--code" not in shlex.split(remedy_command(failed()))


def test_nothing_is_suggested_where_no_gate_fails():
    """Neither without a gate nor with one that holds."""
    assert remedy_command(report(gate=(), verdict=None)) is None
    assert remedy_command(report(values=np.linspace(0.95, 0.99, 500))) is None
