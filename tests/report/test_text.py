"""The terminal report and the table of `nvaudit inspect`."""

import io
import re
from collections import Counter

import numpy as np
import pytest
from report_samples import accuracies, full_report, report, tensors
from rich.cells import cell_len
from rich.console import Console

from nvaudit.report.inspection.result import inspect_report
from nvaudit.report.kinds import print_report
from nvaudit.report.sections import TensorDecision


def text_of(audit, width: int = 80, **options) -> str:
    buffer = io.StringIO()
    print_report(audit, Console(file=buffer, width=width, **options))
    return buffer.getvalue()


def inspect_of(rows, width: int = 100) -> str:
    buffer = io.StringIO()
    found = inspect_report(
        nvaudit_version="0.1.0", ir_version=8, crossbar=(256, 256), tensors=tuple(rows), mapped=None,
        model={"path": "model.onnx", "opset": 17, "batching": "takes any batch size"}, mapped_gate=None,
        device={"name": "fefet1", "weight_bits": 8, "cell_bits": 2, "encoding": "sign_magnitude"},
    )  # fmt: skip
    print_report(found, Console(file=buffer, width=width))
    return buffer.getvalue()


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def flat(text: str) -> str:
    """Text without its line breaks."""
    return " ".join(text.split())


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("trials", [1, 2, 10, 300, 1000])
def test_lines_fit(width, trials):
    """No line is longer than the terminal and none ends in spaces, with few trials and many."""
    for line in text_of(report(accuracies(trials)), width).splitlines():
        assert cell_len(line) <= width
        assert line == line.rstrip()


@pytest.mark.parametrize("width", [40, 80, 100])
def test_everything_fits_with_all_parts(width):
    """The same with sweep, roughness, attribution, events and notes."""
    text = text_of(full_report(), width)
    assert max(map(cell_len, text.splitlines())) <= width
    for part in (
        "Over the spread",
        "Loss landscape",
        "KPP cost",
        "on the way",
        "Notes",
        "Roughness 1.23 ± 0.1 ×10⁻³",
    ):
        assert part in text
    assert squeezed("worker 2 stopped (killed by signal 9)") in squeezed(text)


def test_headline_comes_first():
    """The first line is the headline; a label-free audit says so there."""
    headline = "LABEL-FREE (no labels): KPP 1 % agreement 92.22 % on fefet1"
    assert text_of(report(headline=headline, label_free=True)).splitlines()[0] == headline


@pytest.mark.parametrize(
    ("values", "word"),
    [(np.linspace(0.95, 1, 300), "PASS"), (np.linspace(0.5, 1, 50), "FAIL"), ([0.95, 0.96], "UNDECIDED")],
)
def test_verdict_is_a_word_and_a_colour(values, word):
    """The verdict reads without colour, and no escape code is written where there is no terminal."""
    plain = text_of(report(np.array(values)))
    assert f"\n{word}  The gate " in plain
    assert f"\n  {word}: at most 1 % of chips may be below 90 % (95 % confidence). " in plain
    assert "\x1b" not in plain
    coloured = text_of(report(np.array(values)), force_terminal=True, color_system="standard", no_color=False)
    assert re.search(r"\x1b\[1;3[123]m" + word, coloured)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_no_color_is_obeyed(monkeypatch):
    """With NO_COLOR a terminal gets no colour."""
    monkeypatch.setenv("NO_COLOR", "1")
    coloured = text_of(report(), force_terminal=True, color_system="standard")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", coloured)


def test_missing_bound_is_said():
    """Without a bound, the report says how many trials would give one."""
    text = flat(text_of(report(accuracies(300))))
    assert "KPP 1 %: no lower bound: needs 368 trials (two-sided 95 %), this run has 300" in text
    assert "[no bound, " in text
    assert "no lower bound" not in text_of(report(accuracies(368)))


def test_missing_bound_of_a_loss_is_the_upper_one():
    """For a loss the bound that is missing is the upper one."""
    text = flat(text_of(report(np.linspace(0.1, 0.3, 300), higher=False, unit="nats")))
    assert "KPP 1 %: no upper bound: needs 368 trials" in text
    assert ", no bound]" in text
    assert "lower is better, nats" in text


def test_finite_set_is_said():
    """The standard error of the finite evaluation set stands apart from the interval."""
    text = flat(text_of(report()))
    assert "standard error of the ideal top1 on 450 images is 0.73 %" in text


def test_few_and_equal_chips():
    """One chip, or chips that are all alike, are said in words instead of a histogram."""
    assert "  1 chip at σ = 0.1 level spacings: top1 96.00 %." in text_of(report([0.96]))
    assert "  10 chips at σ = 0.1 level spacings: all have the same top1 96.00 %." in text_of(
        report([0.96] * 10)
    )
    assert "±" not in text_of(report([0.96]))


def test_without_gate_there_is_no_verdict():
    """Without a gate no verdict is printed."""
    text = text_of(report(gate=(), verdict=None, yields=()))
    assert not re.search("PASS|FAIL|UNDECIDED|threshold", text)


def test_sweep_gates_name_their_sigma():
    """In a sweep the verdict says at which σ, and every point has its own in the table."""
    text = flat(text_of(full_report()))
    assert "(95 % confidence) at σ = 0.2 level spacings; the sweep below has every σ" in text
    row = r"0\.05 95\.\d\d % 1\.\d\d points 1 % 93\.11 % \[92\.44 %, 93\.56 %\] 100 % pass"
    assert re.search(row, flat(text_of(full_report(), 120)))


def test_terminal_codes_in_names_are_shown_not_sent():
    """A name with escape codes or marks that reorder text cannot act on the terminal."""
    evil = "w\x1b[2J\x1b]0;pwned\x07\u202eb\r\n[red]x[/red]"
    row = TensorDecision(name=evil, decision="digital", reason=evil, shape=(1,), dtype="float32")
    for text in (inspect_of([row], 200), text_of(report(tensors=(row,), notes=(evil,)), 200)):
        assert not set(text) & set("\x1b\x07\u202e\r")
        assert r"w\x1b[2J" in text
        assert "[red]x[/red]" in text


def test_ascii_terminals_get_ascii():
    """A console that cannot encode Unicode gets readable ASCII instead of a crash."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_report(full_report(), Console(file=stream, width=80))
    stream.flush()
    text = raw.getvalue().decode("ascii")
    assert "at sigma = 0.2 level" in text
    assert "?" not in text


def test_inspect_table():
    """Every tensor has one row with its shape and crossbars; types, bits and reasons where they tell more."""
    lines = [flat(line) for line in inspect_of(tensors()).splitlines()]
    assert lines[0] == "model.onnx on fefet1: 2 tensors on the array, 3 digital"
    assert "tensor operator shape crossbars" in lines
    assert "conv2.weight Conv 32×16×3×3 4" in lines
    assert "conv1.bias 16 float32 bias of Conv" in lines
    assert any(line.startswith("shape (in If_12/then_branch) 2 int64") for line in lines)
    assert any(
        line.startswith("Mapped: 2 tensors, 4,752 weights, 19,008 devices, 8 crossbars") for line in lines
    )


@pytest.mark.parametrize("width", [40, 80, 100, 160])
def test_inspect_is_complete(width):
    """Long ops, shapes and reasons are folded, never cut; of a long name its beginning and end stay."""
    rows = [
        TensorDecision(
            name=f"/encoder/layers.{i}/self_attn/out_proj/MatMul_{'weight' * 12}",
            path="loop/body", decision=decision, reason=f"reason {i}: " + "a rather long explanation " * 6,
            op="com.microsoft.MatMulNBits", shape=(1024, 1024, 3, 3, 3), dtype="float8e4m3fn",
            bits=8, slices=4, crossbars=123456,
        )
        for i, decision in enumerate(["mapped", "digital", "mapped"])
    ]  # fmt: skip
    text = inspect_of(rows, width)
    assert max(map(cell_len, text.splitlines())) <= width
    # Folded cells interleave with their neighbours: characters are counted rather than strings found.
    expected = Counter(
        "".join(
            squeezed(row.reason + row.dtype + (row.op if row.decision == "mapped" else "")) for row in rows
        )
    )
    assert not expected - Counter(text)
    assert text.count("explanation") == 18
    assert text.count("123,456") == 3
    assert "…" not in text


def test_inspect_without_mapped_tensors():
    """A model without weights is said to have none on the array."""
    text = inspect_of([row for row in tensors() if row.decision == "digital"])
    assert "On the array" not in text
    assert "Mapped: 0 tensors, 0 weights" in text
