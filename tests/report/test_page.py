"""The page of an audit: what stands on it, and that nothing on it can do harm."""

import base64
import hashlib
import json
import re
import shlex

import numpy as np
import pytest

pytest.importorskip("plotly", reason="plotly draws the figures of the page")

from page_samples import ATTACK, Reader, everything, hostile, raced
from report_samples import accuracies, full_report, report

from nvaudit.report import AuditReport, from_json, to_json
from nvaudit.report.document import MAX_ROWS, CodeBlock, Table, for_medium
from nvaudit.report.kinds import document_of
from nvaudit.report.plots import figure_data
from nvaudit.report.render.html import html_document
from nvaudit.report.rerun import rerun_command
from nvaudit.report.wording import clean

MAX_BYTES = 6_000_000


def page_of(audit: AuditReport) -> str:
    """The audit as a page."""
    return html_document(document_of(audit))


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(everything())


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader.of(page)


def figures(reader: Reader) -> dict[str, dict]:
    """The figures that the page hands to plotly."""
    (content,) = (text for text in reader.scripts if text.startswith('{"figures"'))
    return json.loads(content)["figures"]


def numbers(value: object) -> np.ndarray:
    """A list of numbers as plotly writes it: plain or packed."""
    if isinstance(value, dict):
        return np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
    return np.asarray(value, dtype=float)


def test_sections_stand_in_order(read: Reader):
    """The verdict comes first, then the evidence, then what it rests on and how to repeat it."""
    names = [element.get("id") for element in read.all("section")]
    assert names == [
        "verdict", "chips", "yield", "sweep", "losses", "gate", "mapping", "device", "landscape", "notes",
        "record", "rerun", "cite",
    ]  # fmt: skip
    links = [element["href"] for element in read.all("a") if element.get("href") != "#main"]
    assert links == [f"#{name}" for name in names]


@pytest.mark.parametrize(
    ("values", "word", "title"),
    [
        (np.full(400, 0.95), "PASS", "The gate holds"),
        (np.full(400, 0.85), "FAIL", "The gate does not hold"),
        (np.full(100, 0.95), "UNDECIDED", "The gate could not be decided"),
    ],
)
def test_verdict_in_words(values: np.ndarray, word: str, title: str):
    """The verdict is a word beside its colour, with what was asked and what was counted."""
    found = report(values)
    words = Reader.of(page_of(found)).words
    assert found.verdict == word.lower()
    assert f"{word} {title}" in words
    assert f"{word}: at most 1 % of chips may be below 90 % (95 % confidence)." in words
    assert found.gate[0].reason[1:] in words
    assert (found.gate[0].needed or "") in words


def test_numbers_at_the_top(read: Reader):
    """The KPP stands there with its interval, beside the ideal, the quantised and the mean chip."""
    found, text = full_report(), read.words
    low, value, high = (f"{100 * v:.2f} %" for v in (found.kpp[0].low, found.kpp[0].value, found.kpp[0].high))
    assert f"KPP 1 % {value} [{low}, {high}], 95 % confidence" in text
    assert f"1 % of the simulated chips have top1 below {value}" in text
    assert f"the 95 % confidence interval is {low} to {high}" in text
    assert f"ideal {100 * found.nominal:.2f} % the unmodified model" in text
    assert f"mean of the chips {100 * found.trials.mean:.2f} %" in text


def test_one_file_that_loads_nothing(page: str, read: Reader):
    """No element refers to anything outside the page; it is below 6 MB and holds plotly once."""
    assert len(page.encode()) < MAX_BYTES
    for element, attributes in read.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (element, name, value)
    assert not list(read.all("link", "iframe", "object", "embed", "base"))
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert sum("plotly.js v" in script[:200] for script in read.scripts) == 1


def test_policy_names_the_scripts(read: Reader):
    """The content security policy lets run the page's own scripts by their hashes, and loads nothing."""
    (policy,) = (m["content"] for m in read.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    run = [text for text in read.scripts if not text.startswith('{"figures"')]
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run}
    assert len(run) == 2
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_structure_is_sound(read: Reader):
    """Elements close, ids are unique, labels point to something, headings go down one by one."""
    assert read.unclosed == []
    assert read.open == []
    ids = [attributes["id"] for _, attributes in read.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    pointed = {a[key] for _, a in read.elements for key in ("aria-labelledby", "for") if a.get(key)}
    assert pointed <= set(ids)
    assert pointed
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1
    assert next(read.all("html"))["lang"] == "en"


def test_every_figure_is_said_in_words(read: Reader):
    """A chart is an image to a screen reader, named by a caption that states its numbers."""
    charts = [element for element in read.all("div") if element.get("role") == "img"]
    assert [chart["data-figure"] for chart in charts] == list(figures(read)) == [
        "histogram", "yield", "sweep", "waterfall", "by-tensors", "by-terms", "by-classes", "levels",
        "surface", "contours",
    ]  # fmt: skip
    for chart in document_of(everything()).figures:
        assert re.search(r"\d", chart.caption), chart.name
    for name, figure in figures(read).items():
        assert figure["data"], name


def test_every_table_has_a_caption_and_a_region(read: Reader):
    """Tables scroll inside a region that the keyboard reaches; every row and column has a header."""
    regions = [e for e in read.all("div") if e.get("role") == "region"]
    tables = list(read.all("table"))
    assert len(regions) == len(tables) == len(list(read.all("caption"))) > 8
    assert all(region.get("tabindex") == "0" for region in regions)
    assert {head.get("scope") for head in read.all("th")} == {"col", "row"}


def test_figures_show_the_report():
    """The histogram holds all chips; the waterfall ends at the KPP; the surface is the report's."""
    found = everything()
    drawn = {figure.name: figure_data(figure.draw())["data"] for figure in document_of(found).figures}
    assert numbers(drawn["histogram"][0]["y"]).sum() == found.trials.count
    steps = numbers(drawn["waterfall"][0]["y"])
    assert np.cumsum(steps) == pytest.approx(
        [found.nominal, found.quantised, found.trials.mean, found.kpp[0].value]
    )
    z = np.array([numbers(row) for row in drawn["surface"][0]["z"]]) if isinstance(
        drawn["surface"][0]["z"], list
    ) else numbers(drawn["surface"][0]["z"]).reshape(7, 7)  # fmt: skip
    assert pytest.approx(np.array(found.landscape.losses), abs=1e-6) == z.T
    means = [trace for trace in drawn["sweep"] if trace["name"] == "mean"]
    assert numbers(means[0]["y"]) == pytest.approx([point.trials.mean for point in found.sweep])


@pytest.mark.parametrize("make", [hostile, everything])
def test_rerun_command_is_copied_whole(make):
    """What the copy button copies is the command to the letter."""
    found = make()
    (code,) = (
        block
        for section in document_of(found).sections
        for block in section.blocks
        if isinstance(block, CodeBlock) and block.name == "Command line of this audit"
    )
    assert " ".join(code.parts) == code.text == rerun_command(found)
    shown = re.search(r'aria-label="Command line of this audit"><code>(.*?)</code>', page_of(found), re.S)
    assert Reader.of(shown[1]).text == clean(rerun_command(found))
    assert shlex.split(code.text)[:2] == ["nvaudit", "audit"]


def test_names_are_only_text():
    """Markup, scripts, templates and control characters in names, profiles and paths stay text."""
    found = hostile()
    text = page_of(found)
    read = Reader.of(text)
    assert len(read.scripts) == 3
    assert all("hacked" not in script for script in read.scripts if not script.startswith('{"figures"'))
    assert "hacked" in "".join(script for script in read.scripts if script.startswith('{"figures"'))
    assert "<" not in next(script for script in read.scripts if script.startswith('{"figures"'))
    images = list(read.all("img"))
    assert all("onerror" not in image for image in images)
    assert {image.get("id") for image in images} <= {"still-surface"}
    assert read.unclosed == []
    assert " ".join(clean(ATTACK).split()) in read.words
    assert "49" not in re.findall(r"&\{\{.*?\}\}|&49", read.words)
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "\\u202egnp" in text


def test_labels_of_figures_are_only_text():
    """plotly reads tags in labels: those of a name are entities, so that they are shown."""
    drawn = {figure.name: figure_data(figure.draw()) for figure in document_of(hostile()).figures}
    for label in drawn["by-tensors"]["layout"]["yaxis"]["ticktext"]:
        assert "<" not in label
        assert label.startswith("&lt;/script&gt;")
    assert "<script" not in json.dumps(drawn)
    assert "<img" not in json.dumps(drawn)


def test_raced_chips_count_by_their_weight():
    """Where chips were stopped early, weights fill the histogram, and the page calls it an estimate."""
    values = accuracies(400)
    found = report(values, trials=raced(values))
    page = document_of(found)
    drawn = {figure.name: figure_data(figure.draw())["data"] for figure in page.figures}
    assert numbers(drawn["histogram"][0]["y"]).sum() == pytest.approx(400)
    curve = drawn["yield"][-1]
    assert numbers(curve["y"]).max() == pytest.approx(1)
    assert len(drawn["yield"]) == 1  # no band: it would not hold
    text = Reader.of(page_of(found)).words
    stopped = found.trials.race.stopped
    assert f"{stopped} of 400 chips were stopped early" in text
    assert "the picture is an estimate: 20 chips that were run on every image stand for all" in text


def test_plain_chips_have_a_band():
    """Where every chip is known the yield curve has a band that holds it."""
    page = document_of(report(accuracies(300)))
    yields = next(figure for figure in page.figures if figure.name == "yield")
    band, curve = figure_data(yields.draw())["data"]
    count = len(numbers(curve["y"]))
    high, low = numbers(band["y"])[:count], numbers(band["y"])[count:][::-1]
    assert (low <= numbers(curve["y"])).all()
    assert (numbers(curve["y"]) <= high).all()
    assert (low < high).all()


@pytest.mark.parametrize("better", [True, False])
def test_a_loss_reads_the_other_way(better: bool):
    """The yield falls with what is required of an accuracy, and rises with what is allowed of a loss."""
    values = accuracies(300)
    found = report(values) if better else report(1 - values, higher=False, unit="nats")
    yields = next(f for f in document_of(found).figures if f.name == "yield")
    curve = figure_data(yields.draw())["data"][-1]
    assert (np.diff(numbers(curve["y"])) < 0).all() == better
    assert (np.diff(numbers(curve["y"])) > 0).all() != better
    side = "below" if better else "above"
    assert f"{side} " in Reader.of(page_of(found)).words


def test_bare_report():
    """A report without gate, sweep, attribution, landscape and levels is a page too."""
    found = report(np.full(3, 0.5), verdict=None, gate=(), yields=(), device={}, timing={}, run={})
    read = Reader.of(page_of(found))
    names = [element.get("id") for element in read.all("section")]
    assert names == [
        "verdict", "chips", "yield", "losses", "mapping", "device", "notes", "record", "rerun", "cite",
    ]  # fmt: skip
    assert "NO GATE 3 chips at σ = 0.1 level spacings" in read.words
    assert "run the audit with --attribute" in read.words
    assert set(figures(read)) == {"histogram", "yield", "waterfall"}


def test_label_free_comes_first():
    """Without labels the first thing said is that nothing is known about accuracy."""
    read = Reader.of(page_of(report(label_free=True)))
    verdict = read.words.index("Label-free: there were no labels")
    assert verdict < read.words.index("KPP 1 %")


def test_a_large_report_stays_small():
    """Thousands of tensors and a hundred thousand chips make a page below 6 MB; what is left out is said."""
    plain = report()
    rows = tuple(plain.tensors[i % 5].model_copy(update={"name": f"layer{i}.weight"}) for i in range(5000))
    values = accuracies(100_000, images=10_000)
    text = page_of(report(values, tensors=rows))
    assert len(text.encode()) < MAX_BYTES
    assert f"The first {MAX_ROWS:,} of 5,000; report.json has all." in Reader.of(text).words
    yields = next(f for f in document_of(report(values)).figures if f.name == "yield")
    curve = figure_data(yields.draw())["data"][-1]
    assert len(numbers(curve["x"])) < 500


def test_a_page_from_json_is_the_same():
    """A saved report gives the page of the audit that made it."""
    found = full_report()
    assert page_of(from_json(to_json(found), "report.json")) == html_document(document_of(found))


def test_missing_bound_is_said():
    """An interval without an end says what would give it, in words and not only in the picture."""
    found = report(accuracies(100))
    assert found.kpp[0].low is None
    words = Reader.of(page_of(found)).words
    assert "the lower end needs more chips" in words
    assert "[no bound, " in words


def test_tables_offer_what_is_in_them():
    """The filter of the tensors offers both decisions."""
    sections = {section.name: section for section in document_of(everything()).sections}
    blocks = for_medium(sections["mapping"].blocks, "page")
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert table.offered == ["digital", "mapped"]
    assert len(table.rows) == 5
    assert isinstance(everything(), AuditReport)
