"""Pages in a real browser: they open offline, fit a phone and paper, follow the dark, and are accessible."""

import base64
import json
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("plotly", reason="plotly draws the figures of a page")
pytest.importorskip("selenium", reason="selenium drives the browser")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium chromium-driver"),
    pytest.mark.skipif(DRIVER is None, reason="no chromedriver: apt-get install chromium-driver"),
]

SAMPLES = Path(__file__).parents[1] / "report"
# As root, without a screen or a graphics card (WebGL in software), and without any traffic of its own.
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)
WIDTHS = (360, 768, 1280)
PATIENCE_S = 120


class Tab:
    """A browser tab, with what these tests ask of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.touched = False

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def cdp(self, command: str, **arguments: object) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def view(self, width: int = 1280, scheme: str = "light", motion: str = "no-preference") -> None:
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
        )
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        self.cdp(
            "Emulation.setEmulatedMedia", features=[{"name": k, "value": v} for k, v in features.items()]
        )

    def open(self, page: Path, untouched: bool = False) -> None:
        """Open a page; one that is open already only where it has to be, and is not, untouched.

        Drawing takes seconds, so tests of the untouched page come first, and of one page together.
        """
        needed, self.touched = untouched and self.touched, not untouched
        if not needed and self.driver.current_url.partition("#")[0] == page.as_uri():
            return
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.as_uri())
        self.until(lambda: self.run("return document.documentElement.dataset.charts === 'drawn'"), "drawn")

    def until(self, found: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not found():
            assert time.monotonic() < end, f"not {what} after {PATIENCE_S} s"
            time.sleep(0.05)

    def requests(self) -> set[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(PATIENCE_S)
    driver.set_script_timeout(PATIENCE_S)
    try:
        yield Tab(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page with every part, and one whose names are all attacks."""
    from nvaudit.report.kinds import document_of
    from nvaudit.report.render.html import html_document

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SAMPLES))
        from page_samples import everything, hostile
    folder = tmp_path_factory.mktemp("pages")
    for name, report in (("everything", everything()), ("hostile", hostile())):
        (folder / f"{name}.html").write_text(html_document(document_of(report)), encoding="utf-8")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def page(tab: Tab, pages: dict[str, Path]) -> Tab:
    """The page with every part, wide and light."""
    tab.view()
    tab.open(pages["everything"])
    return tab


def check_quiet(tab: Tab, page: Path) -> None:
    """Nothing is requested but the file itself, nothing is an error, and no name becomes a script."""
    tab.view()
    tab.open(page, untouched=True)
    sent = {url for url in tab.requests() if not url.startswith(("data:", "blob:"))}
    assert sent == {page.as_uri()}
    assert [entry for entry in tab.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert tab.run("return window.hacked") is None


def check_figures(tab: Tab) -> None:
    """Each chart is an image of some size."""
    plots = tab.all("[data-figure]")
    assert len(plots) >= 5
    for plot in plots:
        drawing = plot.find_elements(By.CSS_SELECTOR, "svg.main-svg")
        assert drawing, plot.get_attribute("id")
        assert drawing[0].size["width"] > 300
        assert drawing[0].size["height"] > 100


def test_page_is_quiet(tab: Tab, pages: dict[str, Path]):
    """It asks for nothing and logs no error."""
    check_quiet(tab, pages["everything"])


def test_print_unfolds(tab: Tab, pages: dict[str, Path]):
    """Before printing all details open; afterwards those that were closed are closed again."""
    tab.view()
    tab.open(pages["everything"], untouched=True)
    closed = len(tab.all("details:not([open])"))
    assert closed > 2
    tab.run("dispatchEvent(new Event('beforeprint'))")
    assert tab.all("details:not([open])") == []
    tab.run("dispatchEvent(new Event('afterprint'))")
    assert len(tab.all("details:not([open])")) == closed


def test_keyboard(tab: Tab, pages: dict[str, Path]):
    """The first stop skips to the result; every region that scrolls and every button is a stop."""
    tab.view()
    tab.open(pages["everything"], untouched=True)
    tab.touched = True
    body = tab.all("body")[0]
    body.send_keys(Keys.TAB)
    focused = tab.driver.switch_to.active_element
    assert focused.text == "Skip to the result"
    assert focused.is_displayed()
    focused.send_keys(Keys.ENTER)
    assert tab.run("return document.activeElement.id") == "main"
    stops = "a[href], button, select, input, summary, [tabindex='0']"
    for element in tab.all("main .scroll, main button, main summary, main select, main pre"):
        assert tab.run("return arguments[0].matches(arguments[1])", element, stops)


def test_every_figure_is_drawn(page: Tab):
    """Each chart is there; the surface is drawn by WebGL and has a still for paper."""
    check_figures(page)
    assert page.all("#plot-surface canvas")
    assert page.run("return document.getElementById('still-surface').naturalWidth") == 1440


@pytest.mark.parametrize("width", WIDTHS)
def test_page_fits(page: Tab, width: int):
    """The page itself never scrolls sideways; what is wide scrolls inside its region, charts shrink."""
    page.view(width)
    page.until(lambda: all(plot.size["width"] <= width for plot in page.all(".main-svg")), "resized")
    assert page.run("return document.documentElement.scrollWidth") <= width
    beyond = page.run(
        "return [...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, svg, .plot') && "
        "e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert beyond == []


def test_dark(page: Tab):
    """Page and charts follow the system, also while they are open, and the other way round."""
    look = (
        "const ink = (e) => getComputedStyle(e).fill || getComputedStyle(e).color;"
        "return [getComputedStyle(document.documentElement).backgroundColor, "
        "getComputedStyle(document.querySelector('h1')).color, "
        "ink(document.querySelector('#plot-histogram .xtick text')), "
        "ink(document.querySelector('#plot-histogram .bars .point path'))]"
    )
    light = page.run(look)
    page.view(scheme="dark")
    page.until(lambda: page.run(look)[2:] != light[2:], "dark")
    dark = page.run(look)
    assert all(a != b for a, b in zip(light, dark, strict=True))
    assert brightness(light[0]) > 600 > 200 > brightness(light[1])
    assert brightness(dark[0]) < 200 < 600 < brightness(dark[1])
    page.view(scheme="light")
    page.until(lambda: page.run(look) == light, "light again")


def brightness(colour: str) -> int:
    """Sum of red, green and blue of ``rgb(1, 2, 3)``."""
    return sum(map(int, colour[colour.index("(") + 1 : -1].split(",")[:3]))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_accessible(tab: Tab, pages: dict[str, Path], scheme: str, width: int):
    """axe-core finds nothing serious, light or dark, on a phone or a desktop, with everything unfolded."""
    axe = pytest.importorskip("axe_core_python.base", reason="axe-core checks the page")
    tab.view(width, scheme)
    tab.open(pages["everything"])
    tab.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.run(axe.AXE_SCRIPT)
    found = tab.driver.execute_async_script(
        "const done = arguments[arguments.length - 1]; axe.run(document).then(done, (e) => done(String(e)));"
    )
    assert found["passes"]
    serious = [
        (one["id"], [node["html"][:120] for node in one["nodes"]][:3])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_paper(page: Tab, tmp_path: Path):
    """On A4 no page is blank, nothing is cut at the right, and it is light even where the screen is dark."""
    if shutil.which("pdftoppm") is None:
        pytest.skip("pdftoppm turns paper into pictures: apt-get install poppler-utils")
    page.view(scheme="dark")
    printed = page.cdp("Page.printToPDF", preferCSSPageSize=True)
    paper = tmp_path / "page.pdf"
    paper.write_bytes(base64.b64decode(printed["data"]))
    subprocess.run(["pdftoppm", "-r", "30", "-gray", paper, tmp_path / "p"], check=True)
    sheets = [read_pgm(path) for path in sorted(tmp_path.glob("p-*.pgm"))]
    assert 4 < len(sheets) < 30
    for sheet in sheets:
        assert sheet.shape == pytest.approx((351, 248), abs=2)
        dark = sheet < 160
        assert dark.mean() > 0.001, "a blank page"
        assert not dark[:, -10:].any(), "cut at the right"
        assert np.median(sheet) > 240, "not light"


def read_pgm(path: Path) -> np.ndarray:
    head, width, height, _, pixels = path.read_bytes().split(maxsplit=4)
    assert head == b"P5"
    return np.frombuffer(pixels[-int(width) * int(height) :], np.uint8).reshape(int(height), int(width))


def test_tensors_can_be_sorted_and_filtered(page: Tab):
    """A header sorts by numbers or text, a second click turns it round; the fields keep what matches."""

    def column(place: int) -> list[str]:
        rows = page.all("#tensors tbody tr")
        return [
            row.find_elements(By.CSS_SELECTOR, "th, td")[place].text for row in rows if row.is_displayed()
        ]

    devices = page.all("#tensors thead button")[8]
    page.run("arguments[0].focus()", devices)
    devices.send_keys(Keys.ENTER)
    assert column(8) == ["576", "18,432", "", "", ""]
    devices.send_keys(Keys.ENTER)
    assert column(8) == ["18,432", "576", "", "", ""]
    assert page.all("#tensors thead th")[8].get_attribute("aria-sort") == "descending"
    assert page.all("#status")[0].get_attribute("textContent") == "Sorted by devices, descending"
    page.all("#tensors-find")[0].send_keys("CONV2")
    assert column(0) == ["conv2.weight", "conv2.bias"]
    Select(page.all("#tensors-choice")[0]).select_by_visible_text("digital")
    page.until(lambda: column(0) == ["conv2.bias"], "filtered")
    assert page.all(".filter output")[0].text == "1 of 5 rows"


def test_surface_turns_by_buttons(page: Tab):
    """Who does not drag turns the surface by buttons: about its axis, by 30 degrees, at the same distance."""
    eye = "return document.getElementById('plot-surface')._fullLayout.scene.camera.eye"
    button = page.all("[data-turn='30']")[0]
    page.run("arguments[0].focus()", button)
    eyes = [page.run(eye)]
    for _ in range(2):  # the first turn sets the distance that fits the width
        button.send_keys(Keys.ENTER)
        page.until(lambda: page.run(eye) != eyes[-1], "turned")
        eyes.append(page.run(eye))
    _, before, after = eyes
    assert after["z"] == pytest.approx(before["z"])
    assert np.hypot(after["x"], after["y"]) == pytest.approx(np.hypot(before["x"], before["y"]))
    turned = np.arctan2(after["y"], after["x"]) - np.arctan2(before["y"], before["x"])
    assert np.rad2deg(turned) == pytest.approx(30)


def test_charts_are_saved_as_svg(page: Tab, tmp_path: Path):
    """The button of a chart saves it under its name, light on white; nothing is requested from outside."""
    page.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for name in ("yield", "surface"):
        button = page.all(f"[data-save='{name}']")[0]
        page.run("arguments[0].click()", button)
        path = tmp_path / f"{name}.svg"
        page.until(path.exists, f"{path.name} saved")
        root = ET.fromstring(path.read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("width") == "720"


def test_reduced_motion(page: Tab):
    """Who wants no motion gets none."""
    smooth = "return getComputedStyle(document.documentElement).scrollBehavior"
    assert page.run(smooth) == "smooth"
    page.view(motion="reduce")
    assert page.run(smooth) == "auto"


def test_without_scripts(page: Tab, pages: dict[str, Path]):
    """Without JavaScript everything is there to read; what would not work is not there."""
    page.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.driver.get(pages["everything"].as_uri())
        assert page.all("noscript .warning")[0].is_displayed()
        assert len([row for row in page.all("#tensors tbody tr") if row.is_displayed()]) == 5
        assert all(caption.is_displayed() for caption in page.all("figcaption"))
        hidden = page.all(".filter, .copy, .turn, [data-figure]")
        assert hidden
        assert not any(element.is_displayed() for element in hidden)
    finally:
        page.cdp("Emulation.setScriptExecutionDisabled", value=False)
        page.driver.get("about:blank")


def test_hostile_names_are_only_names(tab: Tab, pages: dict[str, Path]):
    """A page whose names are all attacks is as quiet, and its charts are drawn."""
    check_quiet(tab, pages["hostile"])
    check_figures(tab)


def test_hostile_names_fit_a_phone(tab: Tab, pages: dict[str, Path]):
    """Endless words are broken."""
    tab.view(360)
    tab.open(pages["hostile"])
    tab.until(lambda: all(plot.size["width"] <= 360 for plot in tab.all(".main-svg")), "resized")
    assert tab.run("return document.documentElement.scrollWidth") <= 360


def test_landscape_document(tab: Tab, example: Path, tmp_path: Path):
    """The page of a landscape has the same frame; one choice shows a direction pair in both drawings."""
    from nvaudit import landscape
    from nvaudit.report.landscape.document import landscape_document
    from nvaudit.report.render.html import html_document

    path = tmp_path / "landscape.html"
    path.write_text(
        html_document(landscape_document(landscape(example, grid=5, pairs=2, images=16))), encoding="utf-8"
    )
    tab.view(360)
    tab.open(path)
    assert [entry for entry in tab.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert tab.run("return document.documentElement.scrollWidth") <= 360
    shown = (
        "return ['surface', 'contours'].map((name) => document.getElementById(`plot-${name}`).data"
        ".filter((t) => t.z).map((t) => t.visible))"
    )
    assert tab.run(shown) == [[True, False], [True, False]]
    Select(tab.all("#contours-offer")[0]).select_by_value("1")
    tab.until(lambda: tab.run(shown) == [[False, True], [False, True]], "shown")
    assert Select(tab.all("#surface-offer")[0]).first_selected_option.get_attribute("value") == "1"
