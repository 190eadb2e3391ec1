// The drawing of the tasks: where each is, the keyboard's way through it, zoom, and labels that stay in view.
const scroller = byId("scroller");
const edges = [...scroller.querySelectorAll(".edges path")];
const indexOf = new Map(elements.map((element, i) => [element, i]));
// The boxes of each line of the drawing from left to right, for the arrow keys.
const lines = [];
tasks.forEach((task, i) => (lines[task.line] ??= []).push(i));
lines.forEach((line) => line.sort((a, b) => leftmost(a) - leftmost(b)));

// One task at a time is in the tab order; the arrow keys move it.
function setCurrent(i) {
  elements[current].removeAttribute("tabindex");
  current = i;
  elements[i].setAttribute("tabindex", "0");
}

function reveal(i) {
  openFoldOf(i);
  elements[i].scrollIntoView({ block: "nearest", inline: "nearest" });
}

function focusOn(i) {
  setCurrent(i);
  openFoldOf(i);
  elements[i].focus({ preventScroll: true });
  reveal(i);
}

function neighbour(key) {
  const line = lines[tasks[current].line];
  if (key === "ArrowLeft") return line[line.indexOf(current) - 1];
  if (key === "ArrowRight") return line[line.indexOf(current) + 1];
  const step = key === "ArrowDown" ? 1 : -1;
  for (let n = tasks[current].line + step; lines[n]; n += step) {
    const there = lines[n].find((i) => tasks[i].ranks.includes(column) && !isFolded(i));
    if (there !== undefined) return there;
  }
  return undefined;
}

// Zoom: all drawings by one factor; the scroller keeps their headings in place.
const drawings = [...scroller.querySelectorAll("svg")].map((svg) => (
  { svg, width: svg.viewBox.baseVal.width, height: svg.viewBox.baseVal.height }));
const [headDrawing, gutterDrawing, bodyDrawing] = drawings;
let zoom = 1;
function setZoom(factor) {
  zoom = Math.min(4, Math.max(0.1, factor));
  for (const { svg, width, height } of drawings) {
    svg.style.width = `${width * zoom}px`;
    svg.style.height = `${height * zoom}px`;
  }
  keepLabelsInView();
}

// A bracket may be longer than the window: its label stands in the middle of the part that is in view. ``home`` is
// where the label was drawn; a fold moves the bracket away from it.
const brackets = [...scroller.querySelectorAll(".bracketed")].map((group) => {
  const [label, path] = [group.firstElementChild, group.lastElementChild];
  const [words, line] = [label.getBBox(), path.getBBox()];
  const across = line.width > line.height;
  const [start, length, size] = across ? [line.x, line.width, words.width] : [line.y, line.height, words.height];
  return { label, across, size, start, stop: start + length, home: start + length / 2, at: 0 };
});
// So does the label of a wide bar: of a task over many columns, and of a fold.
const WIDE = 500;
const bars = [...scroller.querySelectorAll(".task, .fold")].flatMap((group) => {
  const shape = group.querySelector("rect");
  const width = Number(shape.getAttribute("width"));
  if (width < WIDE) return [];
  const label = group.querySelector("text:not(.number)");
  const [words, start] = [label.getBBox(), Number(shape.getAttribute("x"))];
  return [{ label, across: true, size: words.width + 40, start, stop: start + width, home: words.x + words.width / 2, at: 0 }];
});
function keepLabelsInView() {
  const left = headDrawing.svg.viewBox.baseVal.x + scroller.scrollLeft / zoom;
  const top = scroller.scrollTop / zoom;
  const right = left + scroller.clientWidth / zoom - gutterDrawing.width;
  const bottom = top + scroller.clientHeight / zoom - headDrawing.height;
  for (const bracket of [...brackets, ...bars]) {
    const { label, across, size, start, stop, home, at } = bracket;
    const [first, last] = across ? [left, right] : [top, bottom];
    const [middle, slack] = [(start + stop) / 2, Math.max(0, (stop - start - size) / 2 - 8)];
    const seen = stop < first || start > last ? middle : (Math.max(first, start) + Math.min(last, stop)) / 2;
    const moved = Math.round(middle - home + Math.max(-slack, Math.min(slack, seen - middle)));
    if (moved === at) continue;
    bracket.at = moved;
    label.setAttribute("transform", across ? `translate(${moved})` : `translate(0 ${moved})`);
  }
}
const viewChanged = onNextFrame(keepLabelsInView);
scroller.addEventListener("scroll", viewChanged, { passive: true });
new ResizeObserver(viewChanged).observe(scroller);

byId("smaller").addEventListener("click", () => setZoom(zoom / 1.25));
byId("larger").addEventListener("click", () => setZoom(zoom * 1.25));
byId("actual").addEventListener("click", () => setZoom(1));
byId("fit").addEventListener("click", () => {
  setZoom((scroller.clientWidth - 24) / (headDrawing.width + gutterDrawing.width));
});

// On paper the whole drawing is as wide as the page of page.css, and smaller than on the screen.
const paper = 1000;
let onScreen = 1;
window.addEventListener("beforeprint", () => {
  onScreen = zoom;
  setZoom(Math.min(1, paper / (headDrawing.width + gutterDrawing.width)));
});
window.addEventListener("afterprint", () => setZoom(onScreen));
