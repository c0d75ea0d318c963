"""`nvaudit verify-plan`: the curve, the masks, the target, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import quick
from onnx import TensorProto, helper, numpy_helper

import nvaudit
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_GATE, EXIT_OK, OptionError
from nvaudit.report.write_verify.result import VerifyReport
from nvaudit.rng import stream

FEW = {"trials": 6, "limit": 60}
WORDS = ("-n", 6, "--limit", 60, "-j", 0, "-q")
LOUD = {"sigma_unit": "weight_max", "sigmas": (0.3,)}


@pytest.fixture
def model(example, tmp_path, monkeypatch) -> Path:
    """The example with its data, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(example.with_suffix(".npz"), "m.npz")
    return Path(shutil.copy(example, "m.onnx"))


@pytest.mark.parametrize(
    ("device", "options"),
    [
        ("rram", {"sigmas": (0.4,)}),
        ("rram_65nm", {}),
        ("pcm", {"time_s": 86400.0}),
        ("rram", {"adc_bits": 6, "crossbar": (64, 64)}),
    ],
    ids=["one draw per weight", "devices", "drift and read noise", "converters"],
)
def test_no_weight_verified_is_the_plain_audit(model, device, options):
    """At share 0 every chip has the audit's value, bit for bit; at a share above it is another."""
    plan = nvaudit.verify_plan(model, device, ranking="magnitude", shares=(0.3,), **FEW, **options)
    plain = quick.audit(model, device, exhaustive=True, **FEW, **options)
    assert plan.curve[0].share == 0
    assert plan.curve[0].values == plain.trials.values
    assert plan.curve[0].kpp == plain.kpp[0]
    assert (plan.nominal, plan.quantised) == (plain.nominal, plain.quantised)
    assert plan.curve[1].values != plain.trials.values


def test_every_weight_verified_is_the_quantised_model(model):
    """At share 1 without a residual and without other noise every chip is the quantised model."""
    for device in ("rram", "rram_65nm"):
        plan = nvaudit.verify_plan(
            model, device, ranking="random", shares=(1.0,), metric="cross_entropy", **FEW
        )
        assert plan.curve[0].mean > plan.quantised
        assert set(plan.curve[-1].values) == {plan.quantised}
        assert plan.curve[-1].saved == 0


def test_residual_stays_on_verified_weights(model):
    """At share 1 with a residual the chips are those of the smaller sigma."""
    options = {"metric": "cross_entropy", **FEW}
    plan = nvaudit.verify_plan(
        model, "rram", ranking="random", sigmas=(0.4,), verify_sigma=0.1, shares=(1.0,), **options
    )
    smaller = quick.audit(model, "rram", sigmas=(0.1,), exhaustive=True, **options)
    np.testing.assert_allclose(plan.curve[-1].values, smaller.trials.values, rtol=1e-5)
    assert plan.verify_sigma == 0.1
    assert not any("hold their targets exactly" in note for note in plan.notes)


def test_workers_have_no_influence(model):
    """The same plan from this process and from two others."""
    options = {"ranking": "magnitude", "shares": (0.1, 1.0), **FEW, **LOUD}
    first, second = (nvaudit.verify_plan(model, "rram", workers=n, **options) for n in (0, 2))
    assert first.curve == second.curve
    assert first.tensors == second.tensors


def test_masks_have_the_initializers_names_and_layout(model, tmp_path):
    """The file has a mask for each mapped initializer, set for as many weights as the report says."""
    plan = nvaudit.verify_plan(
        model, "rram", ranking="magnitude", shares=(0.1, 1.0), target_kpp=0.0, out="a.npz", **FEW, **LOUD
    )
    assert plan.choice.share == 0
    plan = nvaudit.verify_plan(
        model, "rram", ranking="magnitude", shares=(0.1,), out="plan.npz", **FEW, **LOUD
    )
    assert plan.plan == "plan.npz"
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer}
    with np.load("plan.npz") as masks:
        assert set(masks.files) == {row.name for row in plan.tensors} < set(weights)
        for row in plan.tensors:
            assert masks[row.name].dtype == bool
            assert masks[row.name].shape == weights[row.name].shape == row.shape
            assert row.verified == masks[row.name].sum()
            assert row.weights == weights[row.name].size
        chosen = np.concatenate([np.abs(weights[name][masks[name]]) for name in masks.files])
        other = np.concatenate([np.abs(weights[name][~masks[name]]) for name in masks.files])
    assert chosen.size == plan.choice.weights == round(0.1 * plan.weights)
    assert chosen.min() > other.max() - 0.01  # up to the rounding of the mapping
    before = Path("plan.npz").read_bytes()
    nvaudit.verify_plan(model, "rram", ranking="magnitude", shares=(0.1,), out="plan.npz", **FEW, **LOUD)
    assert Path("plan.npz").read_bytes() == before


def test_mask_of_a_weight_behind_a_transpose_has_the_stored_layout(tmp_path):
    """A weight that is stored turned gets a mask that is turned too, whatever its name."""
    rng = stream(0, "transposed")
    weight = rng.standard_normal((3, 7)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["file"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    shape = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 7])]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
    stored = [numpy_helper.from_array(weight, "file")]  # a name that numpy.savez would refuse
    graph = helper.make_graph(nodes, "g", shape, out, stored)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "t.onnx",
    )
    x = rng.standard_normal((20, 7)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=(x @ weight.T).argmax(axis=1))
    nvaudit.verify_plan(
        tmp_path / "t.onnx", "rram", tmp_path / "d.npz", ranking="magnitude", shares=(0.3,), trials=12,
        out=tmp_path / "p.npz", **LOUD,
    )  # fmt: skip
    with np.load(tmp_path / "p.npz") as masks:
        assert masks.files == ["file"]
        mask = masks["file"]
    assert mask.shape == (3, 7)
    assert mask.sum() == 6
    assert np.abs(weight[mask]).min() > np.abs(weight[~mask]).max() - 0.02


def test_target_is_reached_by_the_smallest_share(command, model):
    """The search adds shares between those asked for; the text, the JSON and the masks agree."""
    words = ("--sigma", 0.3, "--sigma-unit", "weight_max", "--ranking", "magnitude", "--shares", "0.5,1")
    ran = command(
        "verify-plan", model, *words, *WORDS, "--target-kpp", 0.9, "-o", "p.npz", "--report", "r.json"
    )
    assert ran.code == EXIT_OK
    found = VerifyReport.model_validate_json(Path("r.json").read_text(encoding="utf-8"), strict=True)
    assert " ".join(ran.out.split()).startswith(found.headline)
    assert "plan: p.npz" in ran.out.splitlines()
    assert "report: r.json" in ran.out.splitlines()
    assert len(found.curve) > 3
    reached = [point.share for point in found.curve if point.kpp.value >= 0.9]
    assert 0 < found.choice.share < 1
    assert found.choice.share in reached
    assert found.choice.short not in reached
    assert found.choice.kpp >= 0.9
    with np.load("p.npz") as masks:
        assert sum(int(masks[name].sum()) for name in masks.files) == found.choice.weights
    assert sum(row.verified for row in found.tensors) == found.choice.weights
    per_weight = found.devices / found.weights
    assert found.choice.devices == found.choice.weights * per_weight
    assert found.choice.saved == found.devices - found.choice.devices


def test_target_that_no_share_reaches(command, model):
    """Exit code 1, no file, and the report says why."""
    words = ("--sigma", 0.3, "--sigma-unit", "weight_max", "--ranking", "random", "--shares", "0.01")
    ran = command("verify-plan", model, *words, *WORDS, "--target-kpp", 0.97, "-o", "p.npz", "--report", "-")
    assert ran.code == EXIT_GATE
    assert not Path("p.npz").exists()
    found = json.loads(ran.out)
    assert found["choice"] is None
    assert found["plan"] is None
    assert sum(row["verified"] for row in found["tensors"]) == found["curve"][-1]["weights"]
    assert "Larger --shares, harden or remap may reach it" in " ".join(ran.err.split())
    assert "no share of 18,248 weights (random) that was tried reaches 97 %" in found["headline"]
    assert "no plan was written" in " ".join(ran.err.split())


def test_without_a_target_the_plan_loses_at_most_a_point(model):
    """The smallest share asked for within a point of the largest is the plan."""
    plan = nvaudit.verify_plan(model, "rram", ranking="magnitude", **FEW, **LOUD)
    best = plan.curve[-1].kpp.value
    good = [point.share for point in plan.curve if point.kpp.value >= best - 0.01]
    assert plan.choice.share == min(good)
    assert plan.choice.short == max(point.share for point in plan.curve if point.share < min(good))


def test_paired_gain_and_order_of_the_curve(model):
    """Shares ascend whatever the order asked for; gains are against the same chips unverified."""
    plan = nvaudit.verify_plan(model, "rram", ranking="magnitude", shares=(1.0, 0.2), **FEW, **LOUD)
    assert [point.share for point in plan.curve] == [0, pytest.approx(0.2, abs=1e-4), 1]
    none, some, _ = plan.curve
    assert none.difference is None
    assert some.difference.mean.value == pytest.approx(some.mean - none.mean)
    assert some.worst == min(some.values)
    assert some.devices + some.saved == plan.devices


def test_ranking_by_sensitivity_beats_chance(model):
    """With few weights verified the chips keep more with the ranking by sensitivity than by |W| or chance."""
    pytest.importorskip("torch")
    options = {"shares": (0.05,), "trials": 8, "limit": 200, "sensitivity_images": 96, **LOUD}
    mean = {
        ranking: nvaudit.verify_plan(model, "rram", ranking=ranking, **options).curve[1].mean
        for ranking in ("swim", "magnitude", "random")
    }
    assert mean["swim"] > mean["magnitude"] + 0.05
    assert mean["swim"] > mean["random"] + 0.05


def test_ranking_by_sensitivity_needs_no_labels(command, unlabelled):
    """Without data the plan is label-free, says so first, and is the same with the same seed."""
    pytest.importorskip("torch")
    words = ("--shares", "0.1", "--sensitivity-images", 16, "-n", 2, "-j", 0, "--limit", 16, "-q")
    runs = [command("verify-plan", unlabelled, *words, "--report", "-") for _ in range(2)]
    reports = [json.loads(ran.out) for ran in runs]
    assert reports[0]["headline"].startswith("LABEL-FREE")
    assert reports[0]["tensors"] == reports[1]["tensors"]
    assert reports[0]["curve"] == reports[1]["curve"]


def test_other_samples_for_the_ranking(model):
    """--sensitivity-data is what the ranking looks at, and the report names it."""
    pytest.importorskip("torch")
    with np.load("m.npz") as given:
        arrays = {name: given[name][200:240] for name in given.files}
    np.savez("other.npz", **arrays)
    options = {"shares": (0.1,), "sensitivity_images": 40, "trials": 6, "limit": 60, **LOUD}
    own, other = (
        nvaudit.verify_plan(model, "rram", **options, **more)
        for more in ({}, {"sensitivity_data": "other.npz"})
    )
    assert "40 samples of other.npz" in other.ranked_by
    assert own.tensors != other.tensors
    assert not any("samples that the chips are scored on" in note for note in other.notes)


def test_magnitude_works_without_torch(model):
    """Where torch is missing, swim says what to do, and magnitude runs."""
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from nvaudit.cli import run\n"
        "words = ['verify-plan', 'm.onnx', '-n', '2', '-j', '0', '--limit', '16', '--shares', '1', '-q']\n"
        "first = run([*words, '--ranking', 'magnitude'])\n"
        "sys.exit(10 * first + run(words))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_BAD_INPUT, done.stderr
    assert done.stdout.startswith("KPP 1 % on rram: verify")
    wanted = "--ranking swim needs torch; run: pip install 'nvaudit[harden]', or use --ranking magnitude"
    assert wanted in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shares", "0.1,2"), "--shares: got 2.0; use 1 to 100 numbers from 0 to 1, such as 0.01,0.1,1"),
        (("--shares", "x"), "--shares: got 'x'; use 1 to 100 numbers from 0 to 1"),
        (("--shares", "nan"), "--shares: got nan; use 1 to 100 numbers from 0 to 1"),
        (("--target-kpp", "95"), "--target-kpp 95: top1 is a fraction from 0 to 1; for 95 % write 0.95"),
        (("--target-kpp", "nan"), "--target-kpp: got nan; use a finite number"),
        (("--verify-sigma", "0.2"), "--verify-sigma 0.2: more than the 0.1 (level) of devices that are not"),
        (("--verify-term", "zz"), "--verify-term 'zz': the noise term is not in effect here; those that"),
        (("--sigma", "0.1:0.3:0.1"), "--sigma: got 3 values; a write-verify plan has one"),
        (("-o", "m.onnx"), "-o m.onnx: this is the model; choose another path"),
        (("--report", "m.npz"), "--report m.npz: this is the data; choose another path"),
        (("-o", "same", "--report", "same"), "-o and --report: both are same; choose two paths"),
        (("--html", "m.npz"), "--html m.npz: this is the data; choose another path"),
        (("--report", "same", "--html", "same"), "--report and --html: both are same; choose two paths"),
        (("-o", "same", "--html", "same"), "-o and --html: both are same; choose two paths"),
        (("--report", "-", "--json"), "--report and --json: both are standard output; choose two paths"),
        (("--html", "no/p.html"), "no/p.html: cannot be written: its folder does not exist"),
        (("-o", "-"), "-o -: masks are binary"),
        (("-o", "no/folder.npz"), "no/folder.npz: cannot be written: its folder does not exist"),
        (("--ranking", "best"), "--ranking: got 'best'; use one of swim, magnitude, random"),
        (("--sensitivity-data", "nope.npz"), "nope.npz"),
    ],
)
def test_bad_input(command, model, words, message):
    """Each mistake ends with exit code 2 and says what, where and what to do; nothing is written."""
    if "--sensitivity-data" in words:
        pytest.importorskip("torch")
    rest = () if {"--ranking", "--sensitivity-data"} & set(words) else ("--ranking", "random")
    ran = command("verify-plan", model, *WORDS, *rest, *words)
    assert ran.code == EXIT_BAD_INPUT
    assert message in " ".join(ran.err.split())
    assert ran.out == ""
    assert sorted(path.name for path in Path().iterdir()) == ["m.npz", "m.onnx"]


def test_no_output_is_the_ranking_s_data(command, model):
    """The samples of the ranking are an input like the others, by the name of their option."""
    shutil.copy("m.npz", "other.npz")
    words = ("--ranking", "random", "--sensitivity-data", "other.npz", "--html", "other.npz")
    ran = command("verify-plan", model, *WORDS, *words)
    assert ran.code == EXIT_BAD_INPUT
    assert ran.err == ("nvaudit: error: --html other.npz: this is --sensitivity-data; choose another path\n")
    assert Path("other.npz").read_bytes() == Path("m.npz").read_bytes()


def test_json_and_page(command, model):
    """--json is --report -, with the text on standard error; the page has the same curve."""
    pytest.importorskip("plotly")
    words = ("--ranking", "magnitude", "--shares", "0.1,1", *WORDS)
    ran = command("verify-plan", model, *words, "--json", "--html", "p.html", "-o", "p.npz")
    assert ran.code == EXIT_OK
    found = VerifyReport.model_validate_json(ran.out, strict=True)
    assert " ".join(ran.err.split()).startswith(found.headline)
    assert ran.err.splitlines()[-2:] == ["plan: p.npz", "page: p.html"]
    page = Path("p.html").read_text(encoding="utf-8")
    figure = page[page.index('"verify":{"data":[') :]
    assert all(str(point.mean) in figure for point in found.curve)
    assert found.hashes.model in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_kpp": 0.9}, r"--min-kpp: a write-verify plan runs every chip .* audit with it"),
        ({"shares": ()}, r"--shares: got \(\); use 1 to 100 numbers from 0 to 1"),
        ({"shares": (1.5,)}, r"--shares: got 1.5; use 1 to 100 numbers"),
        ({"rankin": "swim"}, r"rankin: there is no such option"),
        ({"verify_terms": 3}, r"--verify-term: got 3; use a list of names of noise terms"),
        ({"sensitivity_images": 0}, r"--sensitivity-images: got 0; use a whole number, 1 or more"),
        ({"percentiles": (1.0, 2.0)}, r"--percentile: got 2 values; a write-verify plan has one"),
    ],
)
def test_bad_options(model, options, message):
    """The function refuses what the command line does, by the same names."""
    with pytest.raises(OptionError, match=message):
        nvaudit.verify_plan(model, "rram", **options)


def test_a_spread_that_was_measured_late_is_said():
    """What happened after programming cannot be verified away; the notes say that it is in the spread."""
    options = {"ranking": "magnitude", "shares": (0.5,), "trials": 2, "limit": 10, "workers": 0}
    model = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"
    late = nvaudit.verify_plan(model, "rram_wan2022_1d", **options)
    assert any("was measured 1 d after programming" in note for note in late.notes)
    assert not any("was measured" in note for note in nvaudit.verify_plan(model, "rram", **options).notes)
