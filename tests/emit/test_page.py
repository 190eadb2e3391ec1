"""The page in a real browser: selecting, clearing, keys, search; it calls nobody and runs no foreign text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from helixctl.dag import Dag
from helixctl.emit import emit
from tests.emit.browser import NEEDS_BROWSER
from tests.emit.examples import HOSTILE, hostile_dag, paper_dag
from tests.speed import slowness

pytestmark = NEEDS_BROWSER


class Page:
    """What a test does with the open page, by task id."""

    def __init__(self, driver: webdriver.Chrome, dag: Dag) -> None:
        self.driver = driver
        self.dag = dag
        self.elements = driver.find_elements(By.CSS_SELECTOR, ".task")
        self.index = {task.id: i for i, task in enumerate(dag.tasks)}

    def box(self, task_id: str) -> WebElement:
        return self.elements[self.index[task_id]].find_element(By.TAG_NAME, "rect")

    def click(self, task_id: str) -> None:
        ActionChains(self.driver).scroll_to_element(self.box(task_id)).click(self.box(task_id)).perform()

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def script(self, text: str) -> Any:
        return self.driver.execute_script(text)

    def lit(self) -> set[str] | None:
        """The tasks that are not greyed out, as the browser paints them; None where nothing is selected."""
        shown = self.script(
            "return [...document.querySelectorAll('.task')].map((e) => Number(getComputedStyle(e).opacity))"
        )
        if not self.script("return scroller.classList.contains('selecting')"):
            assert set(shown) == {1}
            return None
        return {task.id for task, opacity in zip(self.dag.tasks, shown, strict=True) if opacity == 1}

    def details(self) -> str:
        return self.driver.find_element(By.ID, "details").text

    def selected(self) -> str | None:
        found = self.script("return document.querySelector('.task.selected title')?.textContent")
        return str(found) if found is not None else None

    def focused(self) -> str | None:
        found = self.script("return document.activeElement.closest('.task')?.querySelector('title').textContent")
        return str(found) if found is not None else None


def open_page(driver: webdriver.Chrome, dag: Dag, folder: Path) -> Page:
    path = folder / "page.html"
    path.write_text(str(emit(dag, "html")), encoding="utf-8")
    for log in ("browser", "performance"):
        driver.get_log(log)  # what earlier pages left
    driver.get(path.as_uri())
    return Page(driver, dag)


@pytest.fixture
def page(browser: webdriver.Chrome, tmp_path: Path) -> Page:
    return open_page(browser, paper_dag(4, 4), tmp_path)


def upstream(dag: Dag, task_id: str) -> set[str]:
    """The task and its ancestors."""
    found, open_ = {task_id}, [task_id]
    while open_:
        new = {p.id for p in dag.predecessors(dag.task[open_.pop()])} - found
        found |= new
        open_ += new
    return found


def downstream(dag: Dag, task_id: str) -> set[str]:
    """The task and its descendants."""
    found = {task_id}
    for task in dag.tasks:  # each stands after what it reads
        if any(p.id in found for p in dag.predecessors(task)):
            found.add(task.id)
    return found


def related(dag: Dag, task_id: str) -> set[str]:
    return upstream(dag, task_id) | downstream(dag, task_id)


@pytest.mark.parametrize(
    "task_id",
    [
        "l0.distribute.broadcast",
        "l0.attend.g1s2",
        "l1.concat.slices.g1",
        "l1.concat.groups.s3",
        "l1.feed_forward.add.g3s3",
    ],
)
def test_a_click_leaves_exactly_ancestors_and_descendants_lit(page: Page, task_id: str) -> None:
    assert page.lit() is None
    page.click(task_id)
    assert page.lit() == related(page.dag, task_id)
    assert page.selected() == task_id
    page.press(Keys.ESCAPE)
    assert page.lit() is None
    assert not page.driver.find_element(By.ID, "details").is_displayed()


def test_lit_lines_are_the_dependencies_on_a_way_through_the_task(page: Page) -> None:
    page.click("l1.attend.g1s2")
    lit = set(
        page.script(
            "return [...document.querySelectorAll('.edges path')].flatMap((e, i) => "
            "getComputedStyle(e).opacity === '1' ? [i] : [])"
        )
    )
    edges = page.script("return JSON.parse(document.getElementById('data').textContent).edges")
    ends = [{page.dag.tasks[source].id, page.dag.tasks[target].id} for source, target in edges]
    above, below = upstream(page.dag, "l1.attend.g1s2"), downstream(page.dag, "l1.attend.g1s2")
    assert lit == {i for i, pair in enumerate(ends) if pair <= above or pair <= below}


def test_a_click_on_empty_space_clears(page: Page) -> None:
    page.click("l0.attend.g0s0")
    assert page.lit() is not None
    ActionChains(page.driver).move_to_element_with_offset(page.box("l0.attend.g0s0"), 0, -17).click().perform()
    assert page.lit() is None


def test_details_say_what_the_document_says(page: Page) -> None:
    page.click("l0.attend.g1s1")
    text = page.details()
    for words in (
        "l0.attend.g1s1",
        "attention",
        "softmax width\n128",
        "causal\nfalse",
        "rank\n5",
        "2,097,152 (2.1 MFLOP)",
        "4,194,304 (4.19 MB) read and written",
        "l0.q activation, float16, 1.05 MB",
        "batch 0:1024, seq 0:1, head 4:8 of 16, head_dim 128:256 of 512",
        "value l0.attention@5",
        "l0.distribute.qkv.g1s1",
        "l0.concat.slices.g1",
    ):
        assert words in text


def test_details_of_a_collective_name_ranks_and_partial_sums(page: Page) -> None:
    page.click("l0.feed_forward.reduce")
    text = page.details()
    assert "ranks\n0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15" in text
    assert "partial sum over ffn 2048:4096" in text
    assert "received by one rank" in text
    assert "on ranks 0, 1, 2" in text


def test_a_link_in_the_details_selects_that_task(page: Page) -> None:
    page.click("l0.attend.g1s1")
    page.driver.find_element(By.XPATH, "//aside//button[text()='l0.concat.slices.g1']").click()
    assert page.selected() == page.focused() == "l0.concat.slices.g1"


def test_keys_reach_every_task(page: Page) -> None:
    page.script("document.getElementById('larger').focus()")
    page.press(Keys.TAB)
    if page.focused() is None:  # Chromium lets the keyboard into a scroller first
        page.press(Keys.TAB)
    assert page.focused() == "l0.distribute.broadcast"
    page.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert page.focused() == "l0.attend.g0s2"
    page.press(Keys.ARROW_DOWN)
    assert page.focused() == "l0.concat.slices.g0"
    page.press(Keys.ARROW_DOWN)  # keeps to the column it came from
    assert page.focused() == "l0.concat.groups.s2"
    page.press(Keys.ENTER)
    assert page.selected() == "l0.concat.groups.s2"
    assert page.lit() == related(page.dag, "l0.concat.groups.s2")
    page.press(Keys.ESCAPE)
    assert page.lit() is None
    assert page.focused() == "l0.concat.groups.s2"


def test_search_goes_from_match_to_match(page: Page) -> None:
    page.press("/")
    page.press("L1.concat.slices")
    assert page.driver.find_element(By.ID, "found").text == "4 tasks"
    assert len(page.driver.find_elements(By.CSS_SELECTOR, ".task.match")) == 4
    chosen = []
    for _ in range(5):
        page.press(Keys.ENTER)
        chosen.append(page.selected())
    assert chosen == [f"l1.concat.slices.g{g}" for g in (0, 1, 2, 3, 0)]
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    assert page.selected() == "l1.concat.slices.g3"
    page.press(Keys.ESCAPE)
    assert page.lit() is None
    assert not page.driver.find_elements(By.CSS_SELECTOR, ".task.match")


def test_the_first_step_backwards_is_to_the_last_match(page: Page) -> None:
    page.press("/")
    page.press("l1.concat.slices")
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    assert page.selected() == "l1.concat.slices.g3"


def test_zoom_and_jump(page: Page) -> None:
    width = "return document.querySelector('svg.body').getBoundingClientRect().width"
    before = page.script(width)
    page.driver.find_element(By.ID, "larger").click()
    assert page.script(width) == pytest.approx(before * 1.25)
    page.driver.find_element(By.ID, "fit").click()
    assert page.script("return scroller.scrollWidth <= scroller.clientWidth")
    page.driver.find_element(By.ID, "actual").click()
    page.driver.find_element(By.CSS_SELECTOR, "#layer option:last-child").click()
    assert page.script("return scroller.scrollTop") > 200


def test_dark_mode_changes_the_paper(page: Page) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    emulate = "Emulation.setEmulatedMedia"
    page.driver.execute_cdp_cmd(emulate, {"features": [{"name": "prefers-color-scheme", "value": "light"}]})
    light = page.script(colour)
    page.driver.execute_cdp_cmd(emulate, {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    assert page.script(colour) != light
    page.driver.execute_cdp_cmd(emulate, {"features": []})


def test_facts_and_legend_are_text(page: Page) -> None:
    header = page.driver.find_element(By.TAG_NAME, "header").text
    for words in (
        "paper-dense",
        "1,024 sequences x 1 token in one pass, no KV cache",
        "NVIDIA H100",
        "4 groups of 4 slices",
        page.dag.digest,
    ):
        assert words in header
    legend = page.driver.find_element(By.CLASS_NAME, "legend").text.split("\n")
    assert legend[:5] == ["distribute", "attend", "concat", "project", "feed_forward"]


def check_quiet(driver: webdriver.Chrome) -> None:
    """Assert no console message, and no request except for the page; the browser's own first page may still load."""
    assert [entry for entry in driver.get_log("browser") if not entry["message"].startswith("chrome:")] == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    urls = [s["request"]["url"] for s in sent if not s["documentURL"].startswith("chrome:")]
    assert len(urls) == 1
    assert urls[0].startswith("file://")


def test_the_page_needs_no_network_and_reports_no_error(page: Page) -> None:
    page.click("l0.attend.g0s0")
    page.press(Keys.ESCAPE)
    check_quiet(page.driver)


@pytest.mark.parametrize("shape", [(1, 1), (16, 1)])
def test_other_shapes_work(shape: tuple[int, int], browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = open_page(browser, paper_dag(*shape), tmp_path)
    page.click("l0.attend.g0s0")
    assert page.lit() == related(page.dag, "l0.attend.g0s0")
    check_quiet(browser)


def test_hostile_text_stays_text(browser: webdriver.Chrome, tmp_path: Path) -> None:
    dag = hostile_dag()
    page = open_page(browser, dag, tmp_path)
    assert "</script>" in browser.title  # the name as text; the script in it would have set another title
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 2
    assert not browser.find_elements(By.TAG_NAME, "b")
    assert len(page.elements) == len(dag.tasks)
    page.click(f"l0.attend.g0s0{HOSTILE}")
    # The driver cannot carry half of a surrogate pair, so the text is made whole first.
    details = page.script("return document.getElementById('details').textContent.toWellFormed()")
    assert "l0.attend.g0s0</script><script>" in details
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 2
    check_quiet(browser)


def test_the_policy_refuses_any_script_but_the_page_s_own(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = open_page(browser, paper_dag(1, 4), tmp_path)
    page.script(
        "const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.body.append(s)"
    )
    assert page.script("return window.owned") is None


def test_24_layers_stay_quick(browser: webdriver.Chrome, tmp_path: Path) -> None:
    dag = paper_dag(4, 4, 24)
    page = open_page(browser, dag, tmp_path)
    assert len(page.elements) == len(dag.tasks) == 4081
    milliseconds = page.script("""
        const task = document.querySelectorAll(".task")[2000];
        const start = performance.now();
        task.dispatchEvent(new MouseEvent("click", { bubbles: true }));
        document.body.getBoundingClientRect();
        return performance.now() - start;
    """)
    assert milliseconds < 1000 * slowness()  # about 20 on a laptop
