"""Rounding that counts noise: the exact objective, the levels, the largest weight, whole models."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.device import load_profile, operating_point
from nvaudit.jobs.auditing import audit
from nvaudit.jobs.remapping import remap
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.quantize import quantize
from nvaudit.perturb.moments import code_moments
from nvaudit.remapping.rounding import Levels, MatrixToRound, damped, objective, rounded

ONE_OF_SEVEN = Levels.of(
    np.arange(-3, 4), np.arange(-3.0, 4.0), np.array([0.1, 0.6, 0.6, 0.05, 0.6, 0.6, 0.1])
)


def problem(seed, rows=4, cols=1):
    gen = np.random.default_rng(seed)
    x = gen.standard_normal((40, rows)) @ gen.standard_normal((rows, rows))
    target = gen.uniform(-3, 3, (rows, cols))
    return MatrixToRound(target, np.full(target.shape, -1)), x.T @ x / len(x)


def nearest(matrix, levels=ONE_OF_SEVEN):
    return np.abs(levels.value - matrix.target[..., None]).argmin(axis=-1)


@pytest.mark.parametrize("noise", [0.0, 0.25, 1.0, 8.0])
def test_chosen_level_is_the_best_of_all(noise):
    """What the table of corners gives minimises (v − w)² + noise · Var over every level."""
    wanted = np.random.default_rng(1).uniform(-4, 4, 500)
    found = ONE_OF_SEVEN.choose(wanted, noise)
    cost = (ONE_OF_SEVEN.value - wanted[:, None]) ** 2 + noise * ONE_OF_SEVEN.variance
    np.testing.assert_array_equal(found, cost.argmin(axis=1))


def test_two_codes_that_hold_the_same_give_the_quieter_one():
    """Where devices of two codes have one mean, the one with less variance is taken."""
    levels = Levels.of(np.arange(3), np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.5, 0.2]))
    assert levels.code[levels.choose(np.array([0.9]), 1.0)].tolist() == [2]


def test_rounding_comes_close_to_the_best_of_all_codes():
    """Of 40 small matrices half get the best codes; on average a fifth of what nearest ones lose is lost."""
    exact, excess, others = 0, [], []
    for seed in range(40):
        matrix, power = problem(seed)
        power = damped(power)
        found = objective(matrix, rounded(matrix, [power], [0], ONE_OF_SEVEN), power, ONE_OF_SEVEN)
        best = min(
            objective(matrix, np.array(codes)[:, None], power, ONE_OF_SEVEN)
            for codes in itertools.product(range(7), repeat=4)
        )
        excess.append(found / best - 1)
        others.append(objective(matrix, nearest(matrix), power, ONE_OF_SEVEN) / best - 1)
        exact += found <= best * (1 + 1e-9)
    assert exact >= 20
    assert np.mean(excess) < 0.2 * np.mean(others)


def test_rounding_beats_the_nearest_codes_under_the_exact_objective():
    """Correlated inputs: the objective falls far below that of nearest codes, and sweeps never raise it."""
    for seed in range(10):
        matrix, power = problem(seed, rows=30, cols=6)
        power = damped(power)
        near, once, found = (
            objective(matrix, codes, power, ONE_OF_SEVEN)
            for codes in (
                nearest(matrix),
                rounded(matrix, [power], [0], ONE_OF_SEVEN, sweeps=0),
                rounded(matrix, [power], [0], ONE_OF_SEVEN),
            )
        )
        assert found <= once < near


def test_nothing_changes_where_inputs_are_independent_and_noise_is_flat():
    """Diagonal H and the same variance at every level: the nearest codes are the best ones."""
    levels = Levels.of(np.arange(-3, 4), np.arange(-3.0, 4.0), np.full(7, 0.4))
    matrix, _ = problem(3, rows=50, cols=5)
    power = np.diag(np.random.default_rng(4).uniform(0.5, 3, 50))
    np.testing.assert_array_equal(rounded(matrix, [power], [0], levels), nearest(matrix, levels))


def test_held_weights_keep_their_level_and_blocks_stay_apart():
    """What is held stays; rows of another block change nothing in the first."""
    matrix, power = problem(5, rows=12, cols=3)
    held = matrix.held.copy()
    held[4, 1] = 0
    blocks = [power[:6, :6], power[6:, 6:]]
    found = rounded(MatrixToRound(matrix.target, held), blocks, [0, 6], ONE_OF_SEVEN)
    assert found[4, 1] == 0
    alone = rounded(MatrixToRound(matrix.target[:6], held[:6]), blocks[:1], [0], ONE_OF_SEVEN)
    np.testing.assert_array_equal(found[:6], alone)


def lines_model(path, transposed, gen):
    """x → Gemm → Relu → MatMul → y, with correlated inputs."""
    w1, w2 = gen.standard_normal((12, 16)).astype(np.float32), gen.standard_normal((16, 4)).astype(np.float32)
    stored = w1.T.copy() if transposed else w1
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["h"], transB=int(transposed)),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "lines",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(stored, "w1"), numpy_helper.from_array(w2, "w2")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    x = (gen.standard_normal((400, 4)) @ gen.standard_normal((4, 12))).astype(np.float32)
    np.savez(path.with_suffix(".npz"), x=x)
    return x, w1, w2


def weights_of(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def rounded_model(source, folder, **options):
    out = folder / "out.onnx"
    report = remap(
        source, "fefet1", out=out, equalise=False, clip=False, recalibrate=False, trials=0, time_budget=0,
        calibration_chips=4, calibration_images=64, max_clean_loss=1.0, **options,
    )  # fmt: skip
    return report, out


@pytest.mark.parametrize("transposed", [False, True])
def test_layout_of_a_product_is_minded(tmp_path, transposed):
    """Stored either way round, a weight gets codes that lower the noise and error of its own layer."""
    gen = np.random.default_rng(0)
    x, w1, w2 = lines_model(tmp_path / "lines.onnx", transposed, gen)
    report, out = rounded_model(tmp_path / "lines.onnx", tmp_path, sigma=0.1)
    assert [tensor.rounded for tensor in report.tensors] == [True, True]
    stored = weights_of(out)
    new = stored["w1"].T if transposed else stored["w1"]
    law = code_moments(operating_point(load_profile("fefet1"), 0.1), layout(load_profile("fefet1"), bits=8))

    def error(values, wanted, taken):
        codes = quantize(values, 8)
        std = law.std[codes.code.astype(int) + 255] * float(codes.scale)
        gap = codes.code * float(codes.scale) - wanted
        return ((taken @ gap) ** 2).sum() + ((taken**2).sum(axis=0) @ std**2).sum()

    assert error(new, w1, x) < 0.8 * error(w1, w1, x)
    hidden = np.maximum(x @ w1, 0)
    assert error(stored["w2"], w2, hidden) < 0.8 * error(w2, w2, hidden)


def test_largest_weight_stays_and_codes_come_back_exactly(tmp_path):
    """The scale of every tensor is what it was, and what is written stands for whole codes."""
    lines_model(tmp_path / "lines.onnx", False, np.random.default_rng(1))
    before = weights_of(tmp_path / "lines.onnx")
    _, out = rounded_model(tmp_path / "lines.onnx", tmp_path)
    for name, values in weights_of(out).items():
        old = before[name]
        at = np.unravel_index(np.abs(old).argmax(), old.shape)
        assert values[at] == pytest.approx(old[at], rel=1e-6)
        codes = values / (np.abs(values).max() / 255)
        assert np.abs(codes - np.rint(codes)).max() < 1e-3
        assert np.abs(values - old).max() > 0


def test_scales_per_channel_keep_the_largest_weight_of_each(tmp_path):
    """With one scale for each output, each output's largest weight stays."""
    lines_model(tmp_path / "lines.onnx", False, np.random.default_rng(2))
    before = weights_of(tmp_path / "lines.onnx")["w1"]
    _, out = rounded_model(tmp_path / "lines.onnx", tmp_path, scale="per_channel")
    after = weights_of(out)["w1"]
    np.testing.assert_allclose(np.abs(after).max(axis=0), np.abs(before).max(axis=0), rtol=1e-6)


def test_example_survives_more_and_audits_to_the_reported_number(tmp_path):
    """On the example network rounding alone lifts the worst chips, and a public audit gives that number."""
    out = tmp_path / "out.onnx"
    options = {"sigma": 0.2, "limit": 300}
    report = remap(
        "examples/digits_cnn.onnx", "fefet1", "examples/digits_cnn.npz", out=out, equalise=False,
        clip=False, recalibrate=False, trials=20, calibration_chips=6, calibration_images=100,
        time_budget=0, **options,
    )  # fmt: skip
    names = [step.name for step in report.steps]
    assert names == ["original", "original, codes for noise"]
    assert report.steps[1].kept
    assert report.after.mean > report.before.mean + 0.01
    again = audit(
        out, "fefet1", "examples/digits_cnn.npz", sigmas=(0.2,), limit=300, trials=20, roughness=False,
        exhaustive=True,
    )  # fmt: skip
    assert again.kpp[0].value == report.after.kpp
    assert again.quantised == report.after.quantised


def test_what_costs_too_much_on_all_samples_is_rounded_with_more_caution(tmp_path):
    """Few samples let codes pass that lose on all of them: errors then count more, until codes hold."""
    report = remap(
        "examples/digits_cnn.onnx", "fefet1", "examples/digits_cnn.npz", out=tmp_path / "out.onnx", sigma=0.3,
        equalise=False, clip=False, recalibrate=False, trials=0, calibration_chips=4, calibration_images=24,
        time_budget=0, max_clean_loss=0.0,
    )  # fmt: skip
    *refused, last = report.steps[1:]
    assert refused[0].name == "original, codes for noise"
    assert all("costs too much of the nominal metric on" in step.reason for step in refused)
    cautions = [float(step.name.rpartition("× ")[2]) for step in [*refused[1:], last]]
    assert cautions == [2.0, 4.0, 8.0, 16.0][: len(cautions)]
    assert last.kept


def test_rounding_can_be_left_out(tmp_path):
    """With rounding off no code changes."""
    lines_model(tmp_path / "lines.onnx", False, np.random.default_rng(1))
    report, out = rounded_model(tmp_path / "lines.onnx", tmp_path, rounding=False)
    assert {tensor.round_reason for tensor in report.tensors} == {"was not tried"}
    before = weights_of(tmp_path / "lines.onnx")
    for name, values in weights_of(out).items():
        np.testing.assert_array_equal(values, before[name])
