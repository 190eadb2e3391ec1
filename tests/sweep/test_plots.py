"""The plots: a page in a real browser, which calls nobody and runs no foreign text, and a picture."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

pytest.importorskip("vl_convert", reason="the extra plots is not installed")

from helixctl.output import SIGNATURE
from helixctl.sweep import Sweep
from helixctl.sweep.charts import charts
from helixctl.sweep.page import html
from helixctl.sweep.picture import png
from tests.emit.browser import NEEDS_BROWSER
from tests.sweep.swept import Swept

HOSTILE = "</script><script>window.foreign = 1</script><img src=x onerror='window.foreign = 2'>"


def drawn(sweep: Sweep) -> list[int]:
    """The batches of the points that have figures."""
    return [p.batch for p in sweep.points if p.state != "refused"]


def hostile(sweep: Sweep) -> Sweep:
    """A sweep with texts that would run, if they were not escaped."""
    points = [p.model_copy(update={"name": f"{HOSTILE}{p.name}", "terms": f"{HOSTILE}{p.terms}"}) for p in sweep.points]
    cluster = sweep.cluster.model_copy(update={"device": HOSTILE})
    return sweep.model_copy(update={"points": tuple(points), "cluster": cluster, "notes": (HOSTILE,)})


@pytest.fixture(scope="module")
def page(swept: Swept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "x.html"
    path.write_text(html(swept.sweep))
    return path


def opened(browser: webdriver.Chrome, path: Path) -> webdriver.Chrome:
    browser.get(path.as_uri())
    WebDriverWait(browser, 60).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#plots svg.marks"))
    return browser


def marks(browser: webdriver.Chrome, kind: str) -> list[WebElement]:
    """The symbols, bars or texts of the plots."""
    return browser.find_elements(
        By.CSS_SELECTOR, f"#plots svg .mark-{kind}.role-mark path, #plots svg .mark-{kind}.role-mark text"
    )


def points(browser: webdriver.Chrome) -> list[WebElement]:
    """The symbols of the first plot, whose names are the texts of their figures."""
    return browser.find_elements(By.CSS_SELECTOR, "#plots svg .mark-symbol.role-mark path[aria-roledescription=point]")


def requests(browser: webdriver.Chrome) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("file:", "data:", "blob:", "about:"))]


class TestPage:
    pytestmark = NEEDS_BROWSER

    def test_it_shows_every_point_and_calls_nobody(self, browser: webdriver.Chrome, page: Path, swept: Swept) -> None:
        opened(browser, page)
        count = len(drawn(swept.sweep))
        assert len(points(browser)) == 3 * count  # rates, scaling, time to first token
        assert len(marks(browser, "rect")) >= 3 * count  # weights, cache and arenas
        texts = [e.text for e in marks(browser, "text")]
        best = [p for p in swept.sweep.points if p.on_front]
        assert {f"{p.terms} · {p.batch:,}" for p in best} <= set(texts)
        assert "at most 270 us a token: right of this line" in texts
        assert "no plan" in texts
        assert len(browser.find_elements(By.CSS_SELECTOR, "tbody tr")) == len(swept.sweep.points)
        assert requests(browser) == []
        assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []

    def test_a_mark_tells_its_figures(self, browser: webdriver.Chrome, page: Path, swept: Swept) -> None:
        opened(browser, page)
        point = next(p for p in swept.sweep.points if p.on_front)
        user = f"{point.tokens_per_s_per_user:,.1f}"
        mark = next(e for e in points(browser) if user in e.accessible_name)
        ActionChains(browser).move_to_element(mark).perform()
        told = WebDriverWait(browser, 10).until(
            lambda b: b.find_element(By.CSS_SELECTOR, "#vg-tooltip-element.visible").text
        )
        for text in (point.name, user, f"{point.output_tokens_per_s_per_device:,.1f}", "weights"):
            assert str(text) in told

    @pytest.mark.sweep
    def test_the_legend_leaves_one_number_of_devices(self, browser: webdriver.Chrome, page: Path) -> None:
        opened(browser, page)

        def faint() -> int:
            return sum(float(e.value_of_css_property("opacity")) < 0.5 for e in points(browser))

        assert faint() == 0
        legend = browser.find_elements(By.CSS_SELECTOR, "#plots svg .role-legend-symbol path")[0]
        ActionChains(browser).move_to_element(legend).click().perform()
        WebDriverWait(browser, 10).until(lambda _: faint() > 0)

    def test_foreign_text_is_text(self, browser: webdriver.Chrome, swept: Swept, tmp_path: Path) -> None:
        path = tmp_path / "hostile.html"
        path.write_text(html(hostile(swept.sweep)))
        opened(browser, path)
        assert browser.execute_script("return window.foreign") is None
        assert HOSTILE in browser.find_element(By.TAG_NAME, "h1").text


def test_a_page_is_the_same_each_time_and_small(swept: Swept, page: Path) -> None:
    assert html(swept.sweep) == page.read_text()
    assert page.stat().st_size < 1.1e6


def test_the_picture(swept: Swept) -> None:
    found = png(swept.sweep)
    assert found.startswith(b"\x89PNG")
    assert b"tEXtSoftware\0" + SIGNATURE in found
    width, height = struct.unpack(">II", found[16:24])
    assert 1200 < width < 1900
    assert 1400 < height < 2400


def test_the_limit_on_the_first_token_is_drawn(swept: Swept) -> None:
    limits = swept.sweep.limits.model_copy(update={"max_ttft_s": 0.005})
    text = json.dumps(charts(swept.sweep.model_copy(update={"limits": limits})))
    assert "at most 5 ms: below this line" in text
    assert '"datum": 0.005' in text


@pytest.mark.sweep
def test_one_number_of_devices_and_nothing_that_fits(swept: Swept) -> None:
    """Plots of what there is: without scaling, and without a single figure."""
    for kept in (
        [p for p in swept.sweep.points if p.devices == 4],
        [p for p in swept.sweep.points if p.state == "refused"],
    ):
        sweep = swept.sweep.model_copy(update={"points": tuple(kept)})
        assert png(sweep).startswith(b"\x89PNG")
        assert "Tokens/s of all users" in json.dumps(charts(sweep))
