"""Converters that convert nothing are refused; those that convert a part of the weights say which part."""

import io

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from rich.console import Console

from nvaudit import audit
from nvaudit.errors import OptionError
from nvaudit.jobs.comparing import compare
from nvaudit.jobs.hardening import harden
from nvaudit.jobs.replaying import replay
from nvaudit.jobs.rooflining import roofline
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import document_of, junit_of, print_report
from nvaudit.report.render.markdown import markdown_document
from nvaudit.report.result import from_json

FAST = {"trials": 3, "workers": 0, "roughness": False}
INSIDE, HIDDEN, CLASSES, COUNT = 24, 10, 5, 40
SHARE = HIDDEN * CLASSES / (HIDDEN * CLASSES + INSIDE * HIDDEN)
IN_WORDS = "17.24 % of the mapped weights"


def _normal(*shape):
    return np.random.Generator(np.random.SFC64(sum(shape))).standard_normal(shape).astype("f")


def _save(folder, nodes, tensors, name="m", opset=21, extra=()):
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", 1, ["N", INSIDE]), *extra],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(a, n) if isinstance(a, np.ndarray) else a for n, a in tensors.items()],
    )  # fmt: skip
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def _data(path, **more):
    x = _normal(COUNT, INSIDE)
    np.savez(path.with_suffix(".npz"), x=x, y=np.arange(COUNT) % CLASSES, **more)
    return path


def _partly(folder, name="m"):
    """An Einsum, which stays whole, and a product."""
    nodes = [
        helper.make_node("Einsum", ["x", "w"], ["h"], equation="ni,io->no"),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    tensors = {"w": _normal(INSIDE, HIDDEN), "v": _normal(HIDDEN, CLASSES)}
    return _data(_save(folder, nodes, tensors, name))


def _whole(folder, name="m"):
    nodes = [helper.make_node("Einsum", ["x", "w"], ["y"], equation="ni,io->no")]
    return _data(_save(folder, nodes, {"w": _normal(INSIDE, CLASSES)}, name))


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    return audit(_partly(tmp_path_factory.mktemp("partly")), **FAST, adc_bits=4, min_kpp=0.0)


def test_the_report_counts_the_weights_that_go_through_converters(partly):
    """Share, and what is not split with its reason; also when the report is read again."""
    info = partly.crossbar
    assert (info.weights, info.weights_split) == (290, 50)
    assert info.share_of_weights == pytest.approx(SHARE)
    assert [(one.name, one.weights) for one in info.not_split] == [("w", 240)]
    assert info.not_split[0].reason == "its operator Einsum is not taken apart into column sums"
    assert from_json(to_json(partly), "r.json").crossbar == info


def test_the_share_stands_in_the_headline_of_every_output(partly):
    """Text, Markdown, page and JUnit; and the line of what the converters cost."""
    assert partly.headline.startswith("UNDECIDED: KPP 1 %")
    assert f"4-bit ADCs on {IN_WORDS}, crossbars of 256×256, 3 chips" in partly.headline
    out = io.StringIO()
    print_report(partly, Console(width=200, file=out))
    line = next(line for line in out.getvalue().splitlines() if line.startswith("  converted"))
    assert line.endswith(f"by 4-bit ADCs on {IN_WORDS}")
    assert "Not split, ideal converters: w: its operator Einsum" in out.getvalue()
    junit = junit_of(partly)
    assert f'name="share_of_weights_converted" value="{SHARE!r}"' in junit
    assert 'name="not_converted" value="w"' in junit
    for shown in (junit, markdown_document(document_of(partly)), str(document_of(partly))):
        assert IN_WORDS in shown
    note = "converters act on 50 of 290 weights on the array (17.24 %); the rest is not split"
    assert any(text.startswith(note) for text in partly.notes)


def test_a_model_that_is_split_as_a_whole_needs_no_share(tmp_path):
    """The headline names the converters and says no share; nothing is noted."""
    nodes = [helper.make_node("MatMul", ["x", "v"], ["y"])]
    report = audit(_data(_save(tmp_path, nodes, {"v": _normal(INSIDE, CLASSES)})), **FAST, adc_bits=4)
    assert (report.crossbar.share_of_weights, report.crossbar.not_split) == (1.0, ())
    assert "4-bit ADCs, crossbars of 256×256, 3 chips" in report.headline
    assert "of the mapped weights" not in report.headline
    assert not any("converters act" in note for note in report.notes)


def test_a_chip_with_converters_on_a_part_is_written_as_it_was_measured(partly, tmp_path):
    """Replay needs no second opinion on what is split."""
    done = replay(partly, tmp_path / "chip.onnx", trial=1)
    assert done.measured == done.reported


def test_comparisons_and_rooflines_say_the_share(tmp_path):
    """Of the best model, of every level, and beside those of the others."""
    (tmp_path / "a").mkdir()
    nodes = [helper.make_node("MatMul", ["x", "v"], ["y"])]
    whole = _data(_save(tmp_path / "a", nodes, {"v": _normal(INSIDE, CLASSES)}, "all"))
    part = _partly(tmp_path, "part")
    report = compare([whole, part], data=part.with_suffix(".npz"), **FAST, adc_bits=4)
    assert {one.name: one.share_converted for one in report.models} == {
        "all": 1.0, "part": pytest.approx(SHARE)
    }  # fmt: skip
    assert "share of the mapped weights that go through converters: all 100 %, part 17.24 %" in report.notes
    assert (IN_WORDS in report.headline) == (report.best == "part")
    levels = roofline(part, trials=3, workers=0, adc_bits=4, cell_bits=[2])
    assert levels.levels[0].share_converted == pytest.approx(SHARE)
    assert levels.headline.endswith(f"; converters on {IN_WORDS}")


def _compared(model, **how):
    compare([_partly(model.parent, "other"), model], data=model.with_suffix(".npz"), **how)


def _hardened(model, **how):
    harden(model, out=model.parent / "out.onnx", method="gaussian", epochs=1, **how)


@pytest.mark.parametrize("command", [audit, roofline, _compared, _hardened])
def test_converters_that_would_convert_nothing_are_refused(tmp_path, command):
    """No gate passes with converters that do not exist; the reason of every weight is named."""
    with pytest.raises(OptionError) as refused:
        command(path := _whole(tmp_path), trials=3, adc_bits=2)
    assert str(refused.value) == (
        f"--adc-bits: {path}: no weight on the array can be split over crossbars, so no converter would be "
        "simulated: "
        "'w': its operator Einsum is not taken apart into column sums; leave --adc-bits out"
    )


def test_block_quantised_weights_are_converted_block_by_block(tmp_path):
    """Of int4 with a scale for every 8 rows and output: converters of two bits cost, those of 16 do not."""
    rng = np.random.Generator(np.random.SFC64(1))
    code = helper.make_tensor("q", onnx.TensorProto.INT4, (INSIDE, CLASSES),
                              rng.integers(-8, 8, INSIDE * CLASSES).tolist())  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["v"], axis=0, block_size=8),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    scale = np.abs(_normal(3, CLASSES)) * np.float32(0.1) + np.float32(0.02)
    path = _data(_save(tmp_path, nodes, {"q": code, "s": scale}))
    how = FAST | {"metric": "agreement"}
    plain, fine, coarse = (
        audit(path, **how, **({} if bits is None else {"adc_bits": bits})) for bits in (None, 16, 2)
    )
    (layer,) = fine.crossbar.layers
    assert (layer.rows, layer.scaling, fine.crossbar.share_of_weights) == ((8, 8, 8), "block", 1.0)
    assert fine.quantised == plain.quantised == 1.0
    assert fine.trials.values == plain.trials.values
    assert coarse.quantised < 0.8


def _if(folder, taken):
    def branch(name, weight):
        made = helper.make_tensor_value_info(f"{name}_y", 1, None)
        return helper.make_graph([helper.make_node("MatMul", ["x", weight], [f"{name}_y"])], name, [], [made])

    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch("t", "w"), else_branch=branch("e", "v"))]
    tensors = {"w": _normal(INSIDE, CLASSES), "v": _normal(CLASSES, INSIDE).T.copy()}
    extra = [helper.make_tensor_value_info("c", 9, [])]
    return _data(_save(folder, nodes, tensors, extra=extra), c=np.array(taken))


def test_layers_in_branches_are_converted_where_they_run(tmp_path):
    """The branch that no calibration sample takes has no range: it is left whole and counted."""
    report = audit(_if(tmp_path, True), **FAST, adc_bits=2, metric="agreement")
    assert report.quantised < 0.8
    assert report.crossbar.share_of_weights == 0.5
    assert [(one.name, one.reason) for one in report.crossbar.not_split] == [
        ("v", "its operator ran on none of the calibration samples, so it has no range")
    ]


@pytest.mark.parametrize("dac_bits", [None, 8])
@pytest.mark.parametrize(("first", "second"), [(1e37, 1e-30), (1e37, 1.0), (1e-37, 1e-37)])
def test_weights_of_extreme_sizes_are_refused_with_the_reason(tmp_path, first, second, dac_bits):
    """What single precision does not hold is not calibrated; which weight is named."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    tensors = {
        "w": (_normal(INSIDE, HIDDEN) * first).astype("f"),
        "v": (_normal(HIDDEN, CLASSES) * second).astype("f"),
    }
    with pytest.raises(OptionError, match=r"--adc-bits: .*weight '[wv]' .*single precision.*--digital [wv]$"):
        audit(
            _data(_save(tmp_path, nodes, tensors)), **FAST, adc_bits=6, dac_bits=dac_bits, metric="agreement"
        )


def test_converters_that_no_sample_reaches_are_refused(tmp_path):
    """A branch that is never taken holds the only weight: nothing would be converted."""

    def branch(name, node):
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"{name}_y", 1, None)])

    then = branch("t", helper.make_node("MatMul", ["x", "w"], ["t_y"]))
    other = branch("e", helper.make_node("Slice", ["x", "zero", "five", "one"], ["e_y"]))
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    whole = {"zero": [0], "five": [CLASSES], "one": [1]}
    tensors = {name: np.array(value, np.int64) for name, value in whole.items()}
    tensors["w"] = _normal(INSIDE, CLASSES)
    extra = [helper.make_tensor_value_info("c", 9, [])]
    path = _data(_save(tmp_path, nodes, tensors, extra=extra), c=np.array(False))
    with pytest.raises(OptionError, match="'w': its operator ran on none of the calibration samples"):
        audit(path, **FAST, adc_bits=4)
