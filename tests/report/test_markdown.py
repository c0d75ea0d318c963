"""The audit as Markdown: readable on GitHub, and nothing in a name becomes markup."""

import re

import numpy as np
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from report_samples import accuracies, full_report, report, tensors

from nvaudit.report.document import Document, Hero, Number, Section, Table
from nvaudit.report.kinds import document_of
from nvaudit.report.render.markdown import literal, markdown_document
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import ModelInfo, TensorDecision

GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = "a|b`c`*d*_e_~~f~~<img src=x>[g](http://h)![i](j)\\|&lt;#1 @user $x$ www.k.com\n\n# L\x1b[2J\u202e"
STEP_LIMIT = 2**20
"""Bytes that GitHub takes for the summary of a step."""


def written(audit: AuditReport) -> str:
    """The audit as Markdown."""
    return markdown_document(document_of(audit))


def tokens(text: str) -> list[Token]:
    """Every token of a document, inline ones too."""
    found = []
    for token in GITHUB.parse(text):
        found += [token, *(token.children or ())]
    return found


def cells(text: str) -> list[list[str]]:
    """Rows of all tables, as a reader sees them."""
    rows: list[list[str]] = []
    for token, inside in zip(parsed := GITHUB.parse(text), [*parsed[1:], None], strict=True):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append("".join(t.content for t in inside.children if t.type.startswith("text")))
    return rows


def visible(text: str) -> str:
    """The text that a reader sees outside of raw HTML."""
    return "".join(t.content for t in tokens(text) if t.type in ("text", "text_special"))


@pytest.mark.parametrize(
    ("values", "sign", "word"),
    [
        (accuracies(300), "✅", "PASS"),
        (np.linspace(0.5, 1, 50), "❌", "FAIL"),
        (np.array([0.95, 0.96]), "⚠️", "UNDECIDED"),
    ],
)
def test_the_verdict_comes_first(values, sign, word):
    """A heading with a sign, the verdict in words with the numbers, and what would decide it."""
    audit = report(values)
    lines = written(audit).splitlines()
    assert lines[0] == f"## {sign} {audit.headline}"
    assert lines[2].startswith(f"**{word}**: The gate ")
    assert lines[4].startswith(f"- {word}: at most 1 % of chips may be below 90 % (95 % confidence). ")
    assert (lines[5].startswith("- To decide: 297 more trials")) == (word == "UNDECIDED")


def test_the_table_has_the_numbers():
    """Ideal, quantised, mean, KPP with its interval, yield, as the text report has them."""
    rows = {row[0]: row[1:] for row in cells(written(full_report()))}
    assert rows["ideal"] == ["97.56 %", "the unmodified model"]
    assert rows["quantised"] == ["97.33 %", "−0.22 points by mapping"]
    assert rows["mean of the chips"] == ["93.08 %", "std 1.21 points, 400 chips"]
    assert rows["KPP 1 %"] == ["90.44 %", "[89.33 %, 90.44 %], 95 % confidence"]
    assert rows["yield, at least 90 %"][0] == "99.50 %"


def test_without_a_gate_there_is_no_verdict():
    """Neither sign nor verdict, and the numbers all the same."""
    audit = report(gate=(), verdict=None, yields=())
    text = written(audit)
    assert text.startswith(f"## {audit.headline}\n\n- 1 % of the simulated chips have top1 below ")
    assert "\n\n| top1 (higher is better) |" in text
    assert not re.search("PASS|FAIL|UNDECIDED|✅|❌|⚠️", text)


def test_the_sweep_is_a_table():
    """One row for each percentile at each σ, by σ; the gate that decides is spelt out."""
    text = written(full_report())
    gate = "at most 1 % of chips may be below 90 % (95 % confidence) at σ = 0.2 level spacings"
    assert f"\n- UNDECIDED: {gate}; the sweep below has every σ. " in text
    rows = [row for row in cells(text) if len(row) == 8]
    assert rows[0] == [
        "σ, level spacings", "mean", "std", "percentile", "KPP", "interval", "yield at 90 %", "verdict",
    ]  # fmt: skip
    assert [row[0] for row in rows[1:]] == ["0.05", "0.05", "0.1", "0.1", "0.2", "0.2"]
    assert [row[-1] for row in rows[1:]] == ["pass", "none", "pass", "none", "undecided", "none"]


def test_what_is_not_mapped_is_folded_away():
    """Tensors, how it was run and how to run it again are collapsed; each opens and closes once."""
    text = written(report())
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>") == 3
    assert "<summary>What is on the array</summary>\n\nMapped: 2 tensors, 4,752 weights" in text
    assert ["bias of Conv", "2"] in cells(text)
    assert "```sh\nnvaudit audit examples/digits_cnn.onnx --seed 0" in text


def hostile() -> AuditReport:
    row = TensorDecision(name=HOSTILE, decision="mapped", reason=HOSTILE, op=HOSTILE, shape=(1,), dtype="f")
    other = row.model_copy(update={"decision": "digital"})
    return full_report().model_copy(
        update={
            "headline": HOSTILE,
            "metric": HOSTILE,
            "tensors": (row, other),
            "notes": (HOSTILE,),
            "events": (HOSTILE,),
            "attribution": {HOSTILE: 0.1},
            "model": ModelInfo(path=HOSTILE, opset=1, inputs=(), outputs=(), batching=""),
            "run": {"model": HOSTILE, "layers": ["```", "x`y"]},
        }
    )


def test_nothing_in_a_name_becomes_markup():
    """A hostile name makes no link, picture, emphasis, heading, code, HTML or table cell."""
    text = written(hostile())
    found = tokens(text)
    plain = tokens(written(full_report()))
    kinds = {"link_open", "image", "em_open", "s_open", "code_inline", "heading_open", "html_block"}
    for kind in kinds:
        assert [t.type for t in found].count(kind) == [t.type for t in plain].count(kind), kind
    raw = {t.content for t in found if t.type == "html_inline"}
    assert raw == set()
    assert {len(row) for row in cells(text)} == {len(row) for row in cells(written(full_report()))}
    assert not set(text) & set("\x1b\u202e")
    assert "//h" in visible(text)
    # GitHub would make links of these, but not in the command.
    outside = re.sub(r"^(`{3,})sh\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search("www[.]k|http://h", outside)


def test_names_read_as_they_are():
    """What a reader sees is the name itself."""
    assert visible(literal("a|b`c`*d*_e_<i>[g](http://h) \\ &amp; #1 @u 50 %")) == (
        "a|b`c`*d*_e_<i>[g](http://h) \\ &amp; #1 @u 50 %"
    )
    assert literal("a\nb") == "a&#92;nb"


def test_the_command_cannot_leave_its_block():
    """The fence is longer than any run of backticks in the command."""
    (fence,) = (t for t in tokens(written(hostile())) if t.type == "fence" and " audit " in t.content)
    assert fence.info == "sh"
    assert "--layers '```' --layers 'x`y'" in fence.content
    assert len(fence.markup) == 4


def test_a_summary_is_never_too_large():
    """With thousands of long names it stays far below what GitHub takes for a step."""
    rows = tuple(
        row.model_copy(update={"name": f"{i}{'|' * 5000}", "reason": f"{'<' * 5000}{i}"})
        for i in range(1000)
        for row in (tensors()[0], tensors()[2])
    )
    audit = full_report().model_copy(
        update={
            "tensors": rows,
            "notes": tuple("&" * 5000 for _ in range(1000)),
            "attribution": {row.name: 0.1 for row in rows},
            "sweep": full_report().sweep * 300,
        }
    )
    text = written(audit)
    assert len(text.encode()) < STEP_LIMIT
    assert "… and 900 more, in the JSON report" in text


def test_tables_are_aligned():
    """Columns carry their alignment; a bar is made of blocks."""
    table = Table(
        "t", "A table.", ("a", "b", "c"), (("1", "2", Number(0.5, "50 %", part=0.5)),), numeric=(1,)
    )
    document = Document("T", "", "", Hero("none", "", "", (), ()), (Section("s", "S", (table,)),), "")
    assert markdown_document(document).endswith(
        "### S\n\nA table.\n\n| a | b | c |\n| --- | ---: | --- |\n| 1 | 2 | ████     50 % |"
    )
