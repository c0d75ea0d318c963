"""Products through crossbars in training: codes of the audit's graph, gradients of the plain product."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from nvaudit.data import Dataset
from nvaudit.device import load_profile, override_profile
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import layout
from nvaudit.model import (
    CellReadout,
    Converter,
    Converters,
    CrossbarPlan,
    CrossbarSplit,
    build_template,
    load_model,
)
from nvaudit.model.crossbar.plan import row_blocks
from nvaudit.model.probe import expose
from nvaudit.perturb.cells import device_factors
from nvaudit.perturb.crossbar import ConverterSpec
from nvaudit.retrain.crossbar import products
from nvaudit.retrain.crossbar.hardware import put_in_training
from nvaudit.retrain.executor.module import build_executor
from nvaudit.retrain.feed import Feed
from nvaudit.retrain.noise import no_noise, noisy_weights, shaped_noise, torch_generator
from nvaudit.retrain.quant import ArrayPlace

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from crossbar_cases import CASES, STEP, codes, inputs, mapped, run, save, split

ROWS = 16
ADC, DAC = Converter(64.0, -31, 31), Converter(2.0, -15, 15)
FINE = Converter(4.0, -31, 31)


def _place(encoding="sign_magnitude", scale=STEP):
    # The lowest levels of a top slice: every level counts for a power of two, and sums are exact.
    profile = override_profile(load_profile("rram"), top_slice="lowest")
    array = layout(profile, bits=6, cell_bits=2, encoding=encoding)
    return ArrayPlace("w", array, (), (), 1, np.asarray(scale, np.float32))


def _trained(path, splits, x, place, rows=ROWS):
    """The executor of a model, and the crossbars it is trained through."""
    executor = build_executor(load_model(path)).eval()
    data = Dataset({"x": x}, frozenset({"x"}), {"x": 0}, None, "none", len(x), "x", "0" * 64)
    how = ConverterSpec(rows, 64, 6, None, "max")
    feed = Feed(data, np.arange(len(x)))
    return executor, put_in_training(executor, (place,), splits, how, feed, 8)


def _generator(seed=0):
    return torch_generator("cpu", seed, "test")


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset"])
@pytest.mark.parametrize("name", CASES)
def test_the_forward_pass_is_the_audits(tmp_path, name, encoding):
    """Whole inputs and levels leave no room for rounding: outputs are those of the audit's graph in ONNX
    Runtime, bit for bit but for the order of what is added digitally, with and without DACs."""
    case = CASES[name]()
    path, place = save(tmp_path, case, np.float32), _place(encoding)
    tensor, x = mapped(case[1]["w"], encoding), inputs(case, np.float32)
    plain = build_executor(load_model(path)).eval()({"x": torch.from_numpy(x)})["y"]
    for dac in (None, DAC):
        converters = Converters(dac, ADC)
        template, fills = split(path, tensor, ROWS, converters)
        wanted = run(template, fills, x)[0]
        executor, crossbars = _trained(path, template.splits, x, place)
        crossbars.converters = {"w": converters}
        with torch.no_grad(), crossbars.programmed(no_noise, _generator()) as weights:
            found = executor({"x": torch.from_numpy(x)}, weights)["y"]
        assert np.allclose(found.numpy(), wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
        assert not torch.allclose(found, plain)  # the converters did something
        with torch.no_grad():
            assert torch.equal(executor({"x": torch.from_numpy(x)})["y"], plain)  # and are off outside


def test_the_codes_are_the_audits(tmp_path, monkeypatch):
    """Every ADC gives the code that it gives in the audit's graph, row block by row block."""
    case = CASES["conv"]()
    path, x = save(tmp_path, case, np.float32), inputs(case, np.float32)
    template, fills = split(path, mapped(case[1]["w"]), ROWS, Converters(None, FINE))
    rounded = [
        node.output[0]
        for node in onnx.ModelProto.FromString(template.proto).graph.node
        if node.op_type == "Round"
    ]
    wanted = run(replace(template, proto=expose(template.proto, rounded)[0]), fills, x, rounded)
    seen, real = [], products.codes

    def spy(values, converter, half_up):
        made = real(values, converter, half_up)
        seen.append(made.clone().numpy())
        return made

    monkeypatch.setattr(products, "codes", spy)
    executor, crossbars = _trained(path, template.splits, x, _place())
    crossbars.converters = {"w": Converters(None, FINE)}
    with torch.no_grad(), crossbars.programmed(no_noise, _generator()) as weights:
        executor({"x": torch.from_numpy(x)}, weights)
    assert len(seen) == len(rounded) == 6  # a kernel of 9 rows: one channel on each crossbar of 16 rows
    for ours, theirs in zip(seen, wanted, strict=True):
        assert np.array_equal(ours, theirs)
        assert np.unique(ours).size > 8


@pytest.mark.parametrize("scales", ["one", "per channel"])
@pytest.mark.parametrize("name", ["conv", "conv grouped", "gemm transB", "matmul left", "transposed"])
def test_each_output_may_have_its_own_scale(tmp_path, name, scales):
    """With converters so fine that they change nothing the product is the plain one at the noisy weights."""
    case = CASES[name]()
    path, x = save(tmp_path, case, np.float32), torch.from_numpy(inputs(case, np.float32))
    template, _ = split(path, mapped(case[1]["w"]), ROWS)
    axis = 1 if name == "transposed" else 0
    axes = () if scales == "one" else (axis,)
    place = replace(_place(), grid=None, scale_axes=axes, channel_axes=axes)
    executor, crossbars = _trained(path, template.splits, x.numpy(), place)
    crossbars.converters = {"w": Converters(None, Converter(2.0**-12, -(2**30), 2**30))}
    noise = shaped_noise("gaussian", 0.1, 2.0)
    plain = executor({"x": x}, noisy_weights(executor, (place,), noise, _generator()))["y"]
    with crossbars.programmed(noise, _generator()) as weights:
        found = executor({"x": x}, weights)["y"]
    assert torch.allclose(found, plain, rtol=1e-4, atol=1e-4 * float(plain.detach().abs().max()))


@pytest.mark.parametrize("name", ["conv", "conv strided, dilated", "gemm", "matmul left", "transposed"])
def test_gradients_are_those_of_the_plain_product(tmp_path, name):
    """However coarse the ADCs, while they do not clip: for weight, bias and input, at the noisy weight."""
    case = CASES[name]()
    path, x = save(tmp_path, case, np.float32), torch.from_numpy(inputs(case, np.float32))
    template, _ = split(path, mapped(case[1]["w"]), ROWS)
    executor, crossbars = _trained(path, template.splits, x.numpy(), _place())
    crossbars.converters = {"w": Converters(None, Converter(200.0, -99, 99))}
    noise, found = shaped_noise("gaussian", 0.1, 2.0), []
    for through in (False, True):
        given = x.clone().requires_grad_()
        executor.zero_grad()
        if through:
            with crossbars.programmed(noise, _generator()) as weights:
                out = executor({"x": given}, weights)["y"]
        else:
            out = executor({"x": given}, noisy_weights(executor, (_place(),), noise, _generator()))["y"]
        (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
        found.append((out, given.grad, *(p.grad.clone() for p in executor.parameters())))
    (plain, *wanted), (crossed, *gradients) = found
    assert not torch.allclose(plain, crossed, rtol=0.1)
    assert len(wanted) >= 2
    for ours, theirs in zip(gradients, wanted, strict=True):
        assert theirs.abs().max() > 0
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential"])
def test_clipping_stops_gradients(tmp_path, encoding):
    """The gradient of an output is less by the share of its column sums that are clipped, by significance:
    none of it is left where all are, half where one of two equal row blocks is."""
    case = CASES["gemm"]()
    case[1]["w"][:] = 63  # every device of a positive weight at level 3
    path = save(tmp_path, case, np.float32)
    template, _ = split(path, mapped(case[1]["w"], encoding), 20)
    x = torch.zeros(3, 40)
    x[0, :20], x[1], x[2] = 10.0, 10.0, 0.1  # of each sample: one block, both, none beyond 300
    executor, crossbars = _trained(path, template.splits, x.numpy(), _place(encoding), rows=20)
    crossbars.converters = {"w": Converters(None, Converter(100.0, -3, 3))}
    with crossbars.programmed(no_noise, _generator()) as weights:
        executor({"x": x.requires_grad_()}, weights)["y"].sum().backward()
    share = x.grad[:, 0] / float(63 * STEP * 5)
    # Of a differential weight only one of two polarities is clipped: the other holds zeros.
    half = 0.5 if encoding == "sign_magnitude" else 0.25
    assert share.tolist() == pytest.approx([1 - half, 1 - 2 * half, 1.0], abs=1e-6)


def test_a_dac_that_clips_stops_gradients(tmp_path):
    """To its input alone: the weight still learns from the code."""
    case = CASES["gemm"]()
    path, x = save(tmp_path, case, np.float32), torch.full((3, 40), 5.0)
    x[:, :10] = 100.0
    template, _ = split(path, mapped(case[1]["w"]), ROWS)
    executor, crossbars = _trained(path, template.splits, x.numpy(), _place())
    crossbars.converters = {"w": Converters(DAC, Converter(200.0, -99, 99))}
    with crossbars.programmed(no_noise, _generator()) as weights:
        executor({"x": x.requires_grad_()}, weights)["y"].sum().backward()
    assert (x.grad[:, :10] == 0).all()
    assert (x.grad[:, 10:] != 0).any()
    assert (executor.weights["w"].grad != 0).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_operators_share_the_devices_of_a_weight(tmp_path, monkeypatch, seed):
    """Both are computed through crossbars, with one chip and one range.

    What the second converts has been scaled: of a column sum halfway between two codes the last bit decides,
    and its code may be the other one. Nowhere else do codes differ.
    """
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"], name="a"),
        onnx.helper.make_node("MatMul", ["h", "w"], ["y"], name="b"),
    ]
    # Not of the stream that all tests draw from: whether there are ties would depend on their order.
    code = np.random.Generator(np.random.SFC64(seed)).integers(-63, 64, (30, 30))
    path = save(tmp_path, (nodes, {"w": code}, [4, 30], 17), np.float32)
    template, _ = split(path, mapped(code), ROWS)
    x = np.ones((4, 30), np.float32)
    executor, crossbars = _trained(path, template.splits, x, _place())
    seen, real = [], products.codes

    def spy(values, converter, half_up):
        made = real(values, converter, half_up)
        seen.append(made.clone().numpy())
        return made

    monkeypatch.setattr(products, "codes", spy)
    with torch.no_grad(), crossbars.programmed(no_noise, _generator()) as weights:
        found = executor({"x": torch.from_numpy(x)}, weights)["y"].numpy()
    template, fills = split(path, mapped(code), ROWS, crossbars.converters["w"])
    rounds = [n for n in onnx.ModelProto.FromString(template.proto).graph.node if n.op_type == "Round"]
    names = [node.input[0] for node in rounds] + [node.output[0] for node in rounds]
    shown = replace(template, proto=expose(template.proto, names)[0])
    wanted, *values = run(shown, fills, x, ["y", *names])
    assert len(rounds) == 4  # two operators, two row blocks
    tied = np.zeros(wanted.shape, bool)
    for number, (ours, theirs, exact) in enumerate(zip(seen[-4:], values[4:], values[:4], strict=True)):
        other = ours != theirs
        assert np.abs(ours - theirs).max() <= 1
        assert np.allclose(np.abs(exact[other]) % 1, 0.5, rtol=0, atol=1e-5)
        assert number >= 2 or not other.any()
        tied |= other.any(0)  # of all devices
    assert tied.mean() < 0.1
    assert np.allclose(found[~tied], wanted[~tied], rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert not np.allclose(found, executor({"x": torch.from_numpy(x)})["y"].detach().numpy(), rtol=1e-3)


def test_what_is_not_taken_apart_is_trained_whole(tmp_path):
    """A weight that the audit does not split keeps its reason, and if there is no other that is an error."""
    case = CASES["gemm"]()
    path, x = save(tmp_path, case, np.float32), inputs(case, np.float32)
    with pytest.raises(
        OptionError,
        match=r"--adc-bits: no weight on the array can be trained through crossbars, e.g. 'w': it is a "
        r"stack; use --no-hardware-aware, which leaves the converters to the audits",
    ):
        _trained(path, (CrossbarSplit("w", "it is a stack"),), x, _place())


def test_a_weight_that_lies_otherwise_is_trained_whole(tmp_path):
    """Where training would cut a weight elsewhere than the audit, its operator stays; the reason says so."""
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
        onnx.helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    path = save(tmp_path, (nodes, {"w": codes(20, 20), "v": codes(20, 3)}, [6, 20], 17), np.float32)
    loaded = load_model(path)
    places = [replace(_place(), key=key) for key in ("w", "v")]
    cells = {p.key: CellReadout(device_factors(p.array), 0, np.asarray(STEP, np.float32)) for p in places}
    w, v = build_template(loaded, list(cells), crossbars=CrossbarPlan(ROWS, cells)).splits
    data = Dataset(
        {"x": np.zeros((6, 20), np.float32)}, frozenset({"x"}), {"x": 0}, None, "none", 6, "x", "0" * 64
    )
    how = ConverterSpec(ROWS, 64, 6, None, "max")
    splits = (replace(w, blocks=row_blocks(20, 1, 5)), v)
    found = put_in_training(build_executor(loaded), places, splits, how, Feed(data, np.arange(6)), 8).facts()
    assert found["layers"] == ("v",)
    assert set(found["whole"]) == {"w"}
    assert "only Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN are taken apart" in found["whole"]["w"]
