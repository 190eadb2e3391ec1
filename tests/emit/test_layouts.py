"""In every layout all text of the drawings can be read: nothing overlaps, nothing is clipped, boxes name microbatches.

A browser measures what it paints; ``LEGIBLE`` returns what cannot be read, in words.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from selenium import webdriver

from helixctl.dag import Dag
from helixctl.emit import emit
from helixctl.emit.dot import render_dot
from helixctl.emit.text_width import text_width
from tests.emit.browser import NEEDS_BROWSER
from tests.emit.examples import LAYOUTS, example, named

pytestmark = NEEDS_BROWSER

LEGIBLE = """
const faults = [];
const box = (e) => e.getBoundingClientRect();
const within = (inner, outer) => inner.left >= outer.left - 0.5 && inner.right <= outer.right + 0.5
    && inner.top >= outer.top - 0.5 && inner.bottom <= outer.bottom + 0.5;
const name = (t) => `"${t.textContent}" at ${Math.round(box(t).left)}, ${Math.round(box(t).top)}`;
for (const svg of document.querySelectorAll("svg")) {
  const area = box(svg);
  const seen = [...svg.querySelectorAll("text")].filter((t) => t.getClientRects().length);
  const texts = seen.map((t) => ({ t, r: box(t) }));
  for (const { t, r } of texts) if (!within(r, area)) faults.push(`${name(t)} leaves its drawing`);
  texts.sort((a, b) => a.r.top - b.r.top);
  texts.forEach((a, i) => {
    for (let k = i + 1; k < texts.length && texts[k].r.top < a.r.bottom - a.r.height / 7; k++) {
      const b = texts[k];
      const shared = Math.min(a.r.right, b.r.right) - Math.max(a.r.left, b.r.left);
      if (shared > 0) faults.push(`${name(a.t)} on ${name(b.t)}`);
    }
  });
}
// What dot draws: a node with one shape and one text.
for (const node of document.querySelectorAll("g.node")) {
  const [shapes, words] = [node.querySelectorAll("path, polygon"), node.querySelectorAll("text")];
  if (shapes.length !== 1 || words.length !== 1 || shapes[0].getAttribute("fill") === "none") continue;
  if (!within(box(words[0]), box(shapes[0]))) faults.push(`${name(words[0])} leaves its box`);
}
for (const task of document.querySelectorAll(".task")) {
  if (!task.getClientRects().length) continue;
  let rect = null;
  for (const part of task.children) {
    if (part.tagName === "rect") rect = box(part);
    if (part.tagName === "text" && !within(box(part), rect)) faults.push(`${name(part)} leaves its box`);
  }
}
for (const group of document.querySelectorAll("g.bracketed")) {
  if (!group.getClientRects().length) continue;
  const span = box(group.querySelector(".bracket"));
  for (const t of group.querySelectorAll("text")) {
    const r = box(t);
    const between = span.width > span.height
      ? r.left >= span.left && r.right <= span.right : r.top >= span.top && r.bottom <= span.bottom;
    if (!between) faults.push(`${name(t)} leaves its bracket`);
  }
}
for (const e of document.querySelectorAll("header *, footer, #details, #details *")) {
  if (e.clientWidth && e.scrollWidth > e.clientWidth) faults.push(`"${e.textContent.slice(0, 40)}" is clipped`);
}
const page = document.documentElement;
if (document.body && page.scrollWidth > innerWidth) faults.push("the page is wider than its window");
return faults;
"""


def open_example(driver: webdriver.Chrome, dag: Dag, folder: Path, output_format: str = "html") -> None:
    path = folder / f"drawing.{output_format}"
    path.write_text(str(emit(dag, output_format)), encoding="utf-8")
    driver.get(path.as_uri())


def resize(driver: webdriver.Chrome, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


# The page of every layout is looked at in each run, the other pictures of every third.
SOME = [name if i % 3 == 0 else pytest.param(name, marks=pytest.mark.sweep) for i, name in enumerate(LAYOUTS)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_text_of_the_page_can_be_read_and_boxes_name_their_microbatch(
    name: str, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    dag = example(name)
    open_example(browser, dag, tmp_path)
    assert browser.execute_script(LEGIBLE) == []
    numbers = browser.execute_script(
        "return [...document.querySelectorAll('.task')].map((e) => [...e.querySelectorAll('.number')]"
        ".map((t) => t.textContent))"
    )
    several = dag.plan.layout.microbatches > 1
    for task, found in zip(dag.tasks, numbers, strict=True):
        expected = {task.id.rpartition(".b")[2]} if several else set()
        assert set(found) == expected, task.id
    assert ("microbatch" in browser.execute_script("return document.querySelector('.legend').textContent")) == several


@pytest.mark.parametrize("name", SOME)
def test_every_text_of_the_svg_can_be_read(name: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    open_example(browser, example(name), tmp_path, "svg")
    assert browser.execute_script(LEGIBLE) == []


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("name", SOME)
def test_every_text_of_the_graphviz_picture_can_be_read(name: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    drawn = render_dot(str(emit(example(name), "dot")), "svg")
    path = tmp_path / "dot.svg"
    path.write_bytes(drawn)
    browser.get(path.as_uri())
    assert browser.execute_script("return document.querySelectorAll('g.node').length") > len(example(name).tasks)
    assert browser.execute_script(LEGIBLE) == []


@pytest.mark.parametrize("output_format", ["html", "svg", "dot"])
@pytest.mark.parametrize("device", ["x" * 150, "a device of many words " * 8])
def test_long_names(output_format: str, device: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    dag = named(example("one device"), device)
    text = str(emit(dag, output_format))
    path = tmp_path / f"long.{'svg' if output_format == 'dot' else output_format}"
    path.write_bytes(render_dot(text, "svg") if output_format == "dot" else text.encode())
    browser.get(path.as_uri())
    assert browser.execute_script(LEGIBLE) == []


LABELS_IN_VIEW = """
const view = scroller.getBoundingClientRect();
const gutter = document.querySelector("svg.gutter").getBoundingClientRect();
const unseen = [];
for (const group of document.querySelectorAll("svg.head .bracketed")) {
  const [label, line] = [...group.children].map((e) => e.getBoundingClientRect());
  const left = Math.max(line.left, gutter.right), right = Math.min(line.right, view.left + scroller.clientWidth);
  if (right - left < label.width + 20) continue;
  if (label.left < left || label.right > right) unseen.push(group.textContent);
}
return unseen;
"""


@pytest.mark.parametrize("left", [0, 700, 2500, 9999])
def test_the_label_of_a_long_bracket_stays_in_view(left: int, browser: webdriver.Chrome, tmp_path: Path) -> None:
    open_example(browser, example("64 devices"), tmp_path)
    browser.execute_async_script(
        f"scroller.scrollTo({left}, 900);"
        "requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(arguments[0])))"
    )
    assert browser.execute_script(LABELS_IN_VIEW) == []
    assert browser.execute_script(LEGIBLE) == []


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1000, 900), (700, 900), (360, 640), (900, 400)])
@pytest.mark.parametrize("name", ["Megatron's 8 x 1", "one device"])
def test_a_window_of_any_size(name: str, width: int, height: int, browser: webdriver.Chrome, tmp_path: Path) -> None:
    resize(browser, width, height)
    open_example(browser, example(name), tmp_path)
    task = "document.querySelector('.task').dispatchEvent(new MouseEvent('click', { bubbles: true }))"
    browser.execute_script(task)
    faults = browser.execute_script(LEGIBLE)
    room = browser.execute_script("return scroller.clientHeight")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert faults == []
    assert room > height / 3


@pytest.mark.parametrize("presses", ["smaller", "larger"])
def test_any_zoom(presses: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    open_example(browser, example("2 x 2, data 2, pipeline 2"), tmp_path)
    for _ in range(4):
        browser.execute_script(f"document.getElementById('{presses}').click()")
    assert browser.execute_script(LEGIBLE) == []


@pytest.mark.parametrize("name", ["Megatron's 8 x 1", "64 devices", "one device"])
def test_paper_holds_the_whole_drawing(name: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    open_example(browser, example(name), tmp_path)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    right = browser.execute_script(
        "return Math.max(...[...document.querySelectorAll('svg')].map((e) => e.getBoundingClientRect().right))"
    )
    clips = browser.execute_script("return scroller.scrollHeight > scroller.clientHeight + 1")
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert right <= 1047  # A4 across, less its margins
    assert not clips
    assert paper == "rgb(255, 255, 255)"
    width = "return document.querySelector('svg.body').getBoundingClientRect().width"
    assert browser.execute_script(width) > 150  # on the screen again as before


@pytest.mark.parametrize("name", SOME)
def test_no_text_is_wider_than_its_estimate(name: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    open_example(browser, example(name), tmp_path)
    texts = browser.execute_script("""
        return [...document.querySelectorAll("svg text")].map((t) => {
          const style = getComputedStyle(t);
          return [t.textContent, parseFloat(style.fontSize), style.fontWeight >= 600, t.getComputedTextLength()];
        });
    """)
    for text, size, bold, length in texts:
        assert length <= text_width(text, round(size), bold=bold), text


def test_every_letter_is_estimated_wide_enough(browser: webdriver.Chrome) -> None:
    browser.get("data:text/html,<canvas></canvas>")
    letters = [chr(code) for code in range(32, 127)]
    for bold in (False, True):
        widths = browser.execute_script(
            "const x = document.querySelector('canvas').getContext('2d'); x.font = arguments[0];"
            "return arguments[1].map((c) => x.measureText(c).width)",
            f"{600 if bold else 400} 100px 'DejaVu Sans', Verdana, system-ui",
            letters,
        )
        for letter, width in zip(letters, widths, strict=True):
            assert width <= text_width(letter, 100, bold=bold) <= 1.3 * width + 8, letter


def test_a_task_says_its_microbatch_in_its_details(browser: webdriver.Chrome, tmp_path: Path) -> None:
    dag = example("Megatron's 8 x 1")
    open_example(browser, dag, tmp_path)
    index = next(i for i, task in enumerate(dag.tasks) if task.id.endswith(".b3"))
    browser.execute_script(
        "document.querySelectorAll('.task')[arguments[0]].dispatchEvent(new MouseEvent('click', { bubbles: true }))",
        index,
    )
    assert re.search(r"microbatch\s*3\b", browser.execute_script("return document.getElementById('details').innerText"))
