"""The views of a page in a real browser: timeline, folds, plots; a selection and a search are the same in all."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from helixctl.cli.main import cli
from helixctl.cli.page import Measured, views_of
from helixctl.dag import Dag
from helixctl.dag.span import Span
from helixctl.emit.folds import drawn_layers, drawn_ranks, folds_of, joined
from helixctl.emit.html import html
from helixctl.emit.time_data import measured_waits
from helixctl.emit.trace import trace_json
from helixctl.emit.views import Views
from helixctl.lower import lower
from helixctl.plan.size import about
from helixctl.simulate import simulate
from tests.documents import PAPER, SMALL, dag_of, plan_of
from tests.emit.browser import NEEDS_BROWSER
from tests.emit.test_layouts import LEGIBLE
from tests.emit.test_page import check_quiet
from tests.speed import slowness

pytestmark = NEEDS_BROWSER

SEVERAL = ("layers=8", "workload.batch=8", "workload.seq_len=16")


@cache
def whole() -> tuple[Dag, Views]:
    """A dag with layers that a bar hides, on the page."""
    dag = dag_of(SMALL, 2, 1, *SEVERAL)
    return dag, views_of(dag, None, Measured())


@cache
def part() -> tuple[Dag, Views]:
    """A dag without the layers and the replicas that are like others."""
    plan = plan_of(SMALL, 2, 1, *SEVERAL, data=2)
    folds = folds_of(plan, 0, about)
    dag = joined(lower(plan, drawn_ranks(plan), drawn_layers(plan, folds.layers), folds.microbatches))
    return dag, views_of(dag, folds, Measured())


def measured() -> tuple[Dag, Views]:
    """A dag, and a run of it that took twice as long; what a rank issues next may cover a collective's end."""
    dag = dag_of(PAPER, 4, 4, "layers=1")
    spans = [
        replace(s, begin_s=2 * s.begin_s, end_s=(2.4 if s.lane == "communication" else 2) * s.end_s)
        for s in simulate(dag).spans
    ]
    return dag, views_of(dag, None, Measured(traces=(spans,)))


class Page:
    """What a test does with an open page."""

    def __init__(self, driver: webdriver.Chrome, folder: Path, shown: tuple[Dag, Views], view: str = "tasks") -> None:
        self.driver, (self.dag, views) = driver, shown
        path = folder / "page.html"
        path.write_text(html(self.dag, views=views), encoding="utf-8")
        driver.get(path.as_uri())
        for log in ("browser", "performance"):
            driver.get_log(log)
        driver.get("about:blank")
        driver.get_log("performance")
        driver.get(f"{path.as_uri()}#view={view}")
        self.data = self.script("return JSON.parse(document.getElementById('data').textContent)")

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def show(self, view: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, f".tabs [data-view={view}]").click()

    def seen(self) -> set[str]:
        """The views that can be seen."""
        names = ("scroller", "timeline", "figures")
        return {name for name in names if self.driver.find_element(By.ID, name).is_displayed()}

    def ids(self, selector: str) -> list[str]:
        """The tasks of the boxes that a selector finds, in the order of the document."""
        found = "[...document.querySelectorAll(arguments[0])].map((e) => e.querySelector('title').textContent)"
        return list(self.script(f"return {found}", selector))

    def runs(self) -> list[tuple[float, float, float]]:
        """Left end, width and upper edge of every span, in the order of the data."""
        names = "['x', 'width', 'y'].map((name) => Number(e.getAttribute(name)))"
        return [tuple(run) for run in self.script(f"return [...document.querySelectorAll('.run')].map((e) => {names})")]

    def spans(self, selector: str = "") -> list[str]:
        """The tasks of the spans that a selector finds, in the order of the data."""
        rows = [row for one in self.data["timelines"] for row in one["spans"]]
        found = "[...document.querySelectorAll('.run')].map((e) => e.matches(arguments[0]))"
        marks = self.script(f"return {found}", f".run{selector}")
        return [self.dag.tasks[row[1]].id for row, mark in zip(rows, marks, strict=True) if mark]

    def tops(self) -> dict[str, float]:
        """The upper edge of the box of every task, from the top of the window."""
        found = "[...document.querySelectorAll('.task')].map((e) => e.getBoundingClientRect().top)"
        return dict(zip([task.id for task in self.dag.tasks], self.script(f"return {found}"), strict=True))

    def click_span(self, task_id: str, rank: int) -> None:
        rows = [row for one in self.data["timelines"] for row in one["spans"]]
        at = next(i for i, row in enumerate(rows) if (self.dag.tasks[row[1]].id, row[0]) == (task_id, rank))
        shape = self.driver.find_elements(By.CSS_SELECTOR, ".run")[at]
        ActionChains(self.driver).scroll_to_element(shape).click(shape).perform()

    def faults(self) -> list[str]:
        return list(self.script(LEGIBLE))


def test_one_view_or_two_are_seen(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, whole())
    assert page.seen() == {"scroller"}
    for view, seen in (("timeline", {"timeline"}), ("both", {"scroller", "timeline"}), ("figures", {"figures"})):
        page.show(view)
        assert page.seen() == seen
        assert page.driver.find_element(By.CSS_SELECTOR, "[aria-pressed=true]").get_attribute("data-view") == view
        assert page.faults() == []
    check_quiet(browser)


def test_every_task_is_a_span_on_each_of_its_ranks(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, whole(), "timeline")
    simulated = simulate(page.dag)
    assert page.spans() == [span.task for span in simulated.spans]
    boxes = page.runs()
    step = max(span.end_s for span in simulated.spans)
    scale = max(x + width for x, width, _ in boxes) / step
    lanes = {}
    for span, (x, width, y) in zip(simulated.spans, boxes, strict=True):
        assert x == pytest.approx(span.begin_s * scale, abs=0.6)
        assert width == pytest.approx((span.end_s - span.begin_s) * scale, abs=0.6)
        lanes.setdefault((span.rank, span.lane), set()).add(y)
    assert all(len(ys) == 1 for ys in lanes.values())
    assert len({min(ys) for ys in lanes.values()}) == 2 * len(page.dag.order)


def test_exposed_waits_are_drawn(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, whole(), "timeline")
    simulated = simulate(page.dag)
    waits = page.script("return [...document.querySelectorAll('.wait')].map((e) => Number(e.getAttribute('width')))")
    expected = [seconds for rank in simulated.waited_s for seconds in rank.values()]
    assert len(waits) == len(expected) > 0
    assert sum(waits) / max(waits) == pytest.approx(sum(expected) / max(expected), rel=0.02)
    # A wait and a computation of one rank never overlap.
    computing = {(s.rank, s.begin_s, s.end_s) for s in simulated.spans if s.lane == "compute"}
    for wait in whole()[1].timelines[0].waits:
        its = [(begin, end) for rank, begin, end in computing if rank == wait.rank]
        assert not any(begin < wait.end_s - 1e-12 and end > wait.begin_s + 1e-12 for begin, end in its)


def test_a_rank_computes_waits_or_copies_until_it_is_done() -> None:
    sets = ("layers=2", "attention.softmax_slices=1")
    plan = plan_of(PAPER, 4, 4, *sets, slicing="batch", residual="sharded", microbatches=2, interleave=2)
    dag = lower(plan)
    (timeline,) = views_of(dag, None, Measured()).timelines
    assert timeline.copies
    ends = simulate(dag).rank_end_s
    for rank in range(16):
        computing = [span for span in timeline.spans if span.lane == "compute"]
        filled = [s for s in (*computing, *timeline.waits, *timeline.copies) if s.rank == rank]
        filled.sort(key=lambda span: span.begin_s)
        at = 0.0
        for span in filled:
            assert span.begin_s == pytest.approx(at, abs=1e-9)
            at = span.end_s
        assert at == pytest.approx(ends[rank])


def test_a_click_on_a_span_lights_the_task_and_back(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, whole(), "both")
    page.click_span("l0.attend.g1s0", 1)
    assert page.ids(".task.selected") == ["l0.attend.g1s0"]
    assert page.spans(".selected") == ["l0.attend.g1s0"]
    assert set(page.spans(".lit")) == set(page.ids(".task.lit"))
    assert "predicted\n" in page.driver.find_element(By.ID, "details").text
    page.press(Keys.ESCAPE)
    assert page.spans(".lit") == page.ids(".selecting .task.lit") == []
    box = page.driver.find_element(By.CSS_SELECTOR, ".task.distribute.compute rect")
    box.click()
    (selected,) = page.ids(".task.selected")
    assert page.spans(".selected") == [selected]
    view = page.script("return document.getElementById('time-scroller').getBoundingClientRect().toJSON()")
    run = page.script("return document.querySelector('.run.selected').getBoundingClientRect().toJSON()")
    assert view["top"] <= run["top"] <= run["bottom"] <= view["bottom"]


def test_a_selection_stays_when_the_view_changes(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, whole(), "timeline")
    page.click_span("l4.attend.g0s0", 0)  # of a layer that a bar hides
    page.show("tasks")
    assert page.ids(".task.selected") == ["l4.attend.g0s0"]
    box = page.driver.find_element(By.CSS_SELECTOR, ".task.selected rect")
    assert box.is_displayed()
    assert 0 < box.location["y"] < 1000


def test_the_arrow_keys_go_along_a_lane_and_to_the_next(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, whole(), "timeline")
    page.click_span("l0.attend.g0s0", 0)
    page.script("document.getElementById('time-scroller').focus()")
    order = [name for name in page.dag.order[0] if page.dag.task[name].lane == "compute"]
    page.press(Keys.ARROW_RIGHT)
    assert page.spans(".selected") == [order[order.index("l0.attend.g0s0") + 1]]
    page.press(Keys.ARROW_LEFT)
    assert page.spans(".selected") == ["l0.attend.g0s0"]
    page.press(Keys.ARROW_DOWN)
    (selected, *_) = page.spans(".selected")
    assert page.dag.task[selected].lane == "communication"


SWEEP = pytest.mark.sweep  # what a run can leave out


@pytest.mark.parametrize("view", [pytest.param("tasks", marks=SWEEP), pytest.param("timeline", marks=SWEEP), "both"])
def test_search_marks_tasks_and_spans(view: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, whole(), view)
    page.press("/")
    page.press("l5.attend")
    expected = [task.id for task in page.dag.tasks if "l5.attend" in task.id]
    assert page.driver.find_element(By.ID, "found").text == f"{len(expected)} tasks"
    assert page.ids(".task.match") == expected
    if view != "tasks":
        assert sorted(set(page.spans(".match"))) == sorted(expected)
    page.press(Keys.ENTER)
    assert page.ids(".task.selected") == expected[:1]
    if view != "tasks":
        assert set(page.spans(".selected")) == set(expected[:1])
    if view != "timeline":  # the layer was folded, and is open now
        assert page.driver.find_element(By.CSS_SELECTOR, ".task.selected rect").is_displayed()
    page.press(Keys.ESCAPE)
    assert page.ids(".task.match") == []
    page.show("timeline")
    assert page.spans(".match") == []


HEIGHTS = "return [...document.querySelectorAll('.task')].map((e) => e.getBoundingClientRect().height)"


def test_a_fold_is_closed_and_opens(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, whole())
    hidden = {task.id for task in page.dag.tasks if 2 <= task.layer <= 6}
    names = [task.id for task in page.dag.tasks]

    def unseen() -> set[str]:
        return {name for name, height in zip(names, page.script(HEIGHTS), strict=True) if height == 0}

    bar = page.driver.find_element(By.CSS_SELECTOR, ".fold")
    assert "layers 2-6 are like layer 1: x 5 more" in bar.text
    assert bar.get_attribute("aria-expanded") == "false"
    assert unseen() == hidden
    closed = page.script("return document.querySelector('svg.body').getBoundingClientRect().height")
    tops = page.tops()
    gap = min(top for name, top in tops.items() if name.startswith("l7.")) - max(
        top for name, top in tops.items() if name.startswith("l1.")
    )
    assert 0 < gap < 150  # what is below moved up
    assert page.faults() == []
    ActionChains(page.driver).scroll_to_element(bar).click(bar).perform()
    assert unseen() == set()
    assert bar.get_attribute("aria-expanded") == "true"
    assert page.script("return document.querySelector('svg.body').getBoundingClientRect().height") > 2 * closed
    assert page.faults() == []
    bar.send_keys(Keys.ENTER)
    assert unseen() == hidden
    check_quiet(browser)


def test_lines_end_at_their_boxes_when_a_fold_is_closed(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, whole())
    faults = page.script("""
        const data = JSON.parse(document.getElementById("data").textContent);
        const boxes = [...document.querySelectorAll(".task")].map((e) => e.getBoundingClientRect());
        return [...document.querySelectorAll(".edges path")].flatMap((path, k) => {
          const line = path.getBoundingClientRect();
          const [source, target] = data.edges[k].map((i) => boxes[i]);
          const off = (target.height && Math.abs(line.bottom - target.top) > 1.5)
            || (source.height && Math.abs(line.top - source.bottom) > 1.5);
          return line.width + line.height && off ? [data.edges[k]] : [];
        });
    """)
    assert faults == []


def test_go_to_a_layer_opens_its_fold(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, whole())
    page.driver.find_element(By.XPATH, "//select[@id='layer']/option[text()='layer 5']").click()
    assert page.driver.find_element(By.CSS_SELECTOR, ".fold").get_attribute("aria-expanded") == "true"
    top = page.tops()["l5.distribute.norm.g0s0"]
    frame = page.script("return scroller.getBoundingClientRect().top")
    assert 0 < top - frame < 400


def test_a_part_says_what_it_stands_for(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, part())
    text = page.driver.find_element(By.TAG_NAME, "body").text
    assert "3 of 8 layers, replica 0 of 2: the others are like these" in text
    bar = page.driver.find_element(By.CSS_SELECTOR, ".fold")
    assert bar.get_attribute("role") is None  # nothing to open
    assert page.driver.find_element(By.CSS_SELECTOR, "svg.body .bracketed text").text == "replica 1 is like replica 0"
    assert page.faults() == []
    page.script("document.querySelectorAll('.task')[0].dispatchEvent(new MouseEvent('click', { bubbles: true }))")
    assert any(name.startswith("l7.") for name in page.ids(".task.lit"))  # through the fold
    page.press("/")
    page.press("l7.distribute.norm", Keys.ENTER)
    assert "of layer 6, which is like layer 1" in page.driver.find_element(By.ID, "details").text
    page.show("timeline")
    assert "the whole step takes" in page.driver.find_element(By.ID, "timeline").text
    assert len(page.driver.find_elements(By.CSS_SELECTOR, ".omitted path")) == 2
    assert "layers 2-6: x 5 more" in page.driver.find_element(By.ID, "time-axis").text
    assert page.faults() == []
    check_quiet(browser)


def test_measured_below_predicted(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, measured(), "timeline")
    assert [one["name"] for one in page.data["timelines"]] == ["predicted", "measured"]
    names = page.driver.find_element(By.ID, "time-names").text
    assert "predicted, computes" in names
    assert "measured, moves" in names
    runs = page.runs()
    half = len(runs) // 2
    for predicted, its in zip(runs[:half], runs[half:], strict=True):
        assert its[2] > predicted[2]
        assert its[0] == pytest.approx(2 * predicted[0], abs=0.1)
    page.click_span("l0.attend.g0s0", 0)
    assert page.spans(".selected") == ["l0.attend.g0s0"] * 2
    assert "measured\n" in page.driver.find_element(By.ID, "details").text
    assert page.faults() == []


def test_plots_say_memory_times_and_traffic(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, measured(), "figures")
    text = page.driver.find_element(By.ID, "figures").text
    for words in (
        "Memory of the fullest device",
        "weights",
        "free",
        "Time by level",
        "attend",
        "Received by one device",
    ):
        assert words in text
    figures = measured()[1].figures
    assert figures is not None
    device = page.dag.plan.cluster.device
    memory = figures.memory
    held = memory.weights + memory.cache + memory.arenas + memory.reserve + memory.free
    assert held == pytest.approx(device.memory)
    assert sum(time.seconds for time in figures.predicted) == pytest.approx(figures.step_s)
    assert page.faults() == []


@pytest.mark.parametrize(
    ("width", "mode"),
    [
        (1280, "light"),
        pytest.param(1280, "dark", marks=SWEEP),
        pytest.param(1920, "light", marks=SWEEP),
        pytest.param(1920, "dark", marks=SWEEP),
    ],
)
def test_every_view_can_be_read(width: int, mode: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": mode}]}
    )
    page = Page(browser, tmp_path, part())
    for view in ("tasks", "timeline", "both", "figures"):
        page.show(view)
        assert page.faults() == []
        for press in ("longer", "longer", "shorter", "fit-time"):
            page.script(f"document.getElementById('{press}').click()")
            assert page.faults() == []


def test_80_layers_on_64_devices(browser: webdriver.Chrome, tmp_path: Path) -> None:
    plan = plan_of(PAPER, 64, 1, "layers=80", "hosts=8", "attention.heads=64", "attention.softmax_slices=1")
    (tmp_path / "x.plan.json").write_text(plan.to_json())
    result = CliRunner().invoke(cli, ["visualize", str(tmp_path / "x.plan.json"), "-o", str(tmp_path / "x.html")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "x.html").stat().st_size <= 2_000_000
    browser.get((tmp_path / "x.html").as_uri())
    opened = "const [its] = performance.getEntriesByType('navigation'); return its.loadEventEnd"
    assert browser.execute_script(opened) < 2000 * slowness()
    assert "3 of 80 layers" in browser.find_element(By.TAG_NAME, "header").text


def test_waits_of_a_measured_step() -> None:
    spans = [
        Span("a", 0, "compute", 0.0, 1.0),
        Span("move", 0, "communication", 0.5, 3.0),
        Span("b", 0, "compute", 2.0, 2.5),
        Span("next", 0, "communication", 2.75, 4.0),
        Span("c", 1, "compute", 0.0, 1.0),
    ]
    found = [(wait.task, wait.rank, wait.begin_s, wait.end_s) for wait in measured_waits(spans)]
    assert found == [("move", 0, 1.0, 2.0), ("move", 0, 2.5, 3.0), ("next", 0, 3.0, 4.0)]


def test_what_ran_is_shown_where_it_is_of_this_plan(tmp_path: Path) -> None:
    dag = dag_of(SMALL, 2, 1, "layers=1")
    other = dag_of(SMALL, 1, 2, "layers=1")
    (tmp_path / "x.dag.json").write_text(dag.to_json())
    report = {
        "report": "helixctl run", "dag_digest": dag.digest, "dtype": dag.plan.model.dtype,
        "step_time_ms": {"mean": 7.5}, "tokens_per_s": 1.0, "sync_overhead_per_token_ms": 0.0,
        "kinds": [{"level": "attend", "kind": "attention", "lane": "compute", "busy_ms": 1.5, "exposed_ms": 0.0}],
    }  # fmt: skip
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "trace.json").write_text(trace_json(dag, simulate(dag).spans, simulated=False, title="x"))
    (tmp_path / "other.json").write_text(trace_json(other, simulate(other).spans, simulated=False, title="x"))
    (tmp_path / "old.json").write_text(json.dumps(report | {"dag_digest": other.digest}))
    (tmp_path / "generation.json").write_text(json.dumps({"report": "helixctl run", "generation": True}))

    def drawn(*names: str, output: str = "x.html") -> tuple[int, str]:
        reports = [word for name in names for word in ("--report", str(tmp_path / name))]
        target = tmp_path / output
        target.unlink(missing_ok=True)
        result = CliRunner().invoke(cli, ["visualize", str(tmp_path / "x.dag.json"), "-o", str(target), *reports])
        return result.exit_code, target.read_text() if target.exists() else f"{result.exception} {result.output}"

    status, page = drawn("report.json", "trace.json")
    assert status == 0
    assert "7.5 ms measured" in page
    assert '"name":"measured"' in page
    for name in ("other.json", "old.json"):
        status, said = drawn(name)
        assert status == 1
        assert "HX113" in said
    status, said = drawn("generation.json")
    assert "HX110 is the report of a generation" in said
    status, said = drawn("report.json", output="x.svg")
    assert status == 2
    assert "--report is for html" in said
