"""A result in a notebook: saved, loaded, shown, as data frames and as figures."""

import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import pytest
from page_samples import everything, hostile

import nvaudit
from nvaudit.errors import DataError, NvauditError, OptionError
from nvaudit.report.kinds import document_of, read_any, tables_of
from nvaudit.report.render.csv import csv_text

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*/report.json"))
KIND_OF = {path.parent.name: path for path in GOLDEN}


def golden(path):
    return read_any(path.read_text(encoding="utf-8"), path.name)[1]


@pytest.mark.parametrize("name", KIND_OF)
def test_a_saved_report_is_loaded_as_it_was(tmp_path, name):
    """Of every kind: the same class, equal, and the same bytes when it is saved again."""
    report = nvaudit.load(KIND_OF[name])
    report.save(tmp_path / "a.json")
    again = nvaudit.load(str(tmp_path / "a.json"))
    assert (type(again), again) == (type(report), report)
    again.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_what_is_no_report_is_refused(tmp_path):
    """With the name of the file, what was found, and what to give."""
    with pytest.raises(OptionError, match=r"none\.json: cannot be read: No such file"):
        nvaudit.load(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"schema_version": 1, "kind": "recipe"}')
    with pytest.raises(DataError, match=r"other\.json: a report of no kind that is known: .*'recipe'"):
        nvaudit.load(tmp_path / "other.json")
    with pytest.raises(NvauditError, match="folder"):
        everything().save(tmp_path / "no" / "r.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.json"]


def test_a_report_is_short_where_it_is_echoed():
    """A thousand chips are one line: class and headline."""
    report = everything()
    assert repr(report) == f"<AuditReport: {report.headline}>"
    assert str(report) == report.headline


def test_a_notebook_shows_headline_numbers_and_figure(monkeypatch):
    """Without matplotlib the figure is its caption, and what to install."""
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    report = everything()
    shown = report._repr_html_()
    assert report.headline.replace(" %", "\N{NO-BREAK SPACE}%") in shown
    assert "KPP 1\N{NO-BREAK SPACE}%" in shown
    assert "pip install 'nvaudit[paper]'" in shown.replace("&#39;", "'")
    assert "<svg" not in shown


def test_names_from_a_model_are_text_in_a_notebook():
    """A headline with markup is shown, not run."""
    shown = hostile()._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown


@pytest.mark.parametrize("name", KIND_OF)
def test_tables_become_data_frames(name):
    """Every table of every kind: the columns of the CSV, a row each, numbers as numbers."""
    pd = pytest.importorskip("pandas", reason="pandas makes the data frames; pip install 'nvaudit[pandas]'")
    report = golden(KIND_OF[name])
    assert report.tables == tuple(tables_of(report))
    for table, records in tables_of(report).items():
        frame = report.to_dataframe(table)
        assert list(frame.columns) == list(records.columns)
        back = [
            tuple(None if pd.isna(cell) else cell for cell in row) for row in frame.itertuples(index=False)
        ]
        assert (
            csv_text(records.columns, back).splitlines()[0] == csv_text(records.columns, ()).splitlines()[0]
        )
        assert back == [tuple(row) for row in records.rows]
    assert report.to_dataframe().equals(report.to_dataframe(report.tables[0]))


def test_chips_can_be_computed_with():
    """The mean over the chips of the frame is the report's."""
    pytest.importorskip("pandas", reason="pandas makes the data frames; pip install 'nvaudit[pandas]'")
    report = golden(KIND_OF["audit_plain"])
    frame = report.to_dataframe("chips")
    assert len(frame) == report.trials.count
    assert frame["value"].mean() == pytest.approx(report.trials.mean)


def test_a_missing_table_or_extra_is_named(monkeypatch):
    """The tables that there are; the extra to install."""
    report = golden(KIND_OF["compare"])
    with pytest.raises(OptionError, match=r"table 'chips': this report has models, .*; name one of these"):
        report.to_dataframe("chips")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        OptionError, match=r"to_dataframe\(\) needs pandas; run: pip install 'nvaudit\[pandas\]'"
    ):
        report.to_dataframe()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OptionError, match=r"figure\(\) needs matplotlib.*pip install 'nvaudit\[paper\]'"):
        report.figure()


def test_plot_gives_the_figures_of_the_page():
    """By the names of ``figures``, in the order of the page; the first without a name."""
    pytest.importorskip("plotly", reason="plotly draws the figures")
    report = everything()
    assert report.figures == tuple(figure.name for figure in document_of(report).figures)
    assert {"histogram", "yield", "sweep", "surface"} <= set(report.figures)
    page = {figure.name: figure.draw() for figure in document_of(report).figures}
    assert all(report.plot(name) == page[name] for name in report.figures)
    assert report.plot() == page[report.figures[0]]
    with pytest.raises(OptionError, match="figure 'yeild': this report has histogram, yield, "):
        report.plot("yeild")
    with pytest.raises(OptionError, match="figure: this report of nvaudit audit --plan has no figures"):
        golden(KIND_OF["plan"]).plot()


def drawn_once():
    """Each figure that a report of the golden ones has, by name, once."""
    found = {figure: path for path in GOLDEN for figure in golden(path).figures}
    return [pytest.param(path, figure, id=figure) for figure, path in found.items()]


@pytest.mark.parametrize(("path", "figure"), drawn_once())
def test_every_figure_is_drawn_for_paper(path, figure):
    """Every trace that a page has is drawn by matplotlib: titles, names of traces and notes are there."""
    text = pytest.importorskip("matplotlib.text", reason="matplotlib draws; pip install 'nvaudit[paper]'")
    pytest.importorskip("plotly", reason="plotly describes the figures")
    report = golden(path)
    shown, drawn = report.plot(figure), report.figure(figure, width=5)
    assert drawn.get_size_inches()[0] == 5
    texts = " ".join(one.get_text() for one in drawn.findobj(text.Text))
    wanted = [note.text for note in shown.layout.annotations]
    if not any(trace.type == "surface" for trace in shown.data):
        wanted += [axis.title.text for axis in (shown.layout.xaxis, shown.layout.yaxis)]
    if shown.layout.showlegend:
        wanted += [trace.name for trace in shown.data if trace.name and trace.showlegend is not False]
    assert [text for text in wanted if text and text not in texts] == []


def test_bars_and_bands_are_where_the_numbers_are():
    """A histogram has a bar of the right height for each bin; a band reaches both ends of each interval."""
    pytest.importorskip("matplotlib", reason="matplotlib draws for paper; pip install 'nvaudit[paper]'")
    report = everything()
    bars = report.plot("histogram").data[0]
    heights = [patch.get_height() for patch in report.figure("histogram").axes[0].containers[0]]
    assert heights == pytest.approx(list(bars.y))
    band = report.figure("sweep").axes[0].collections[0].get_paths()[0].vertices
    for point in report.sweep:
        ends = sorted(y for x, y in band if x == pytest.approx(point.sigma))
        assert (ends[0], ends[-1]) == pytest.approx((point.kpp[0].low, point.kpp[0].high))


@pytest.mark.parametrize(("form", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_command_line_draws_for_paper(command, tmp_path, form, start):
    """``--svg`` and ``--pdf`` write a figure by its name: the same bytes each time."""
    pytest.importorskip("matplotlib", reason="matplotlib draws for paper; pip install 'nvaudit[paper]'")
    source, first, second = KIND_OF["audit_sweep"], tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        ran = command("report", source, f"--{form}", path, "--figure", "sweep")
        assert (ran.code, ran.out) == (0, f"figure: {path}\n"), ran.err
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(start)
    if form == "svg":
        assert ET.fromstring(first.read_bytes()).tag.endswith("svg")
    other = command("report", source, f"--{form}", tmp_path / "other")
    assert other.code == 0
    assert (tmp_path / "other").read_bytes() != first.read_bytes()


def test_a_figure_is_named_for_a_file(command, tmp_path):
    """A wrong name lists the figures; a name without a file, and a missing extra, are refused."""
    source = KIND_OF["audit_sweep"]
    ran = command("report", source, "--figure", "sweep")
    assert (ran.code, ran.err) == (
        2, "nvaudit: error: --figure: for --svg and --pdf; name a file with it\n"
    )  # fmt: skip
    path = tmp_path / "f.svg"
    ran = command("report", source, "--svg", path, "--figure", "swoop")
    assert ran.code == 2
    if find_spec("matplotlib") is None:
        assert ran.err == (
            "nvaudit: error: --svg needs matplotlib and plotly; run: pip install 'nvaudit[paper]'\n"
        )
    else:
        assert "--figure 'swoop': this report has histogram, yield, sweep" in ran.err
    assert not path.exists()


def test_the_verbs_are_listed():
    """``dir(nvaudit)``, which completion reads, has every public name, used or not; each can be had."""
    assert {"audit", "compare", "harden", "load", "AuditReport"} <= set(dir(nvaudit))
    assert dir(nvaudit) == sorted(nvaudit.__all__)
    assert all(getattr(nvaudit, name) is not None for name in dir(nvaudit))
