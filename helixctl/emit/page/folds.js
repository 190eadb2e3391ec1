// Folds: a bar stands for layers that are like drawn ones. Where the layers are on the page, the bar opens and closes
// them: what is between two heights is hidden, and all that is below moves up.
const folds = data.folds.map((fold, i) => ({ ...fold, bar: scroller.querySelectorAll(".fold")[i], closed: false }));
const labels = folds.map(({ bar }) => bar.querySelector("text").textContent);

// All that has a height, with the height at which it was drawn.
const upper = (shape) => Number(shape.getAttribute("y"));
const movable = [
  ...elements.map((element) => ({ element, y: upper(element.querySelector("rect")) })),
  ...folds.map(({ bar }) => ({ element: bar, y: upper(bar.querySelector("rect")) })),
  ...[...scroller.querySelectorAll("svg.body .caption")].map((text) => ({ element: text, y: upper(text) - 4 })),
];
const bent = [...edges, ...scroller.querySelectorAll("svg.body .rule, .body .bracketed path, .gutter .bracketed path")].map((path) => (
  { path, shape: path.getAttribute("d") }));

const hiddenSpans = () => folds.filter((fold) => fold.closed).flatMap((fold) => fold.hidden).sort((a, b) => a[0] - b[0]);
const covers = (spans, y) => spans.some(([top, bottom]) => top <= y && y < bottom);

// Where a height is when the spans are hidden; inside of one it is that of its upper end.
function placed(spans, y) {
  let shift = 0;
  for (const [top, bottom] of spans) {
    if (y <= top) break;
    shift += Math.min(y, bottom) - top;
  }
  return y - shift;
}

function applyFolds() {
  const spans = hiddenSpans();
  for (const { element, y } of movable) {
    const moved = placed(spans, y) - y;
    element.classList.toggle("folded", covers(spans, y));
    if (moved) element.setAttribute("transform", `translate(0 ${moved})`);
    else element.removeAttribute("transform");
  }
  for (const { path, shape } of bent) {
    path.setAttribute("d", shape.replace(/(M-?\d+ |V)(-?\d+)/g, (_, command, y) => command + placed(spans, Number(y))));
  }
  edges.forEach((edge, k) => edge.classList.toggle("folded", data.edges[k].every(isFolded)));
  for (const bracket of brackets) {
    if (bracket.across) continue;
    bracket.drawn ??= [bracket.start, bracket.stop];
    [bracket.start, bracket.stop] = bracket.drawn.map((y) => placed(spans, y));
    bracket.label.parentElement.classList.toggle("folded", bracket.start === bracket.stop);
  }
  for (const drawing of [gutterDrawing, bodyDrawing]) {
    const view = drawing.svg.viewBox.baseVal;
    drawing.whole ??= view.height;
    drawing.height = view.height = placed(spans, drawing.whole);
  }
  folds.forEach(({ bar, hidden, closed }, i) => {
    if (!hidden.length) return;
    bar.setAttribute("aria-expanded", String(!closed));
    bar.querySelector("text").textContent = `${closed ? "\u25b8" : "\u25be"} ${labels[i]}`;
  });
  setZoom(zoom);
}

function isFolded(i) {
  return elements[i].classList.contains("folded");
}

function toggleFold(i) {
  folds[i].closed = !folds[i].closed;
  applyFolds();
}

function openFoldOf(i) {
  if (!isFolded(i)) return;
  const { layer } = tasks[i];
  toggleFold(folds.findIndex(({ closed, layers }) => closed && layers[0] <= layer && layer <= layers[1]));
}

// Open the folds that hide a height of the drawing as it was made, and say where that height is then.
function openAt(y) {
  folds.forEach((fold, i) => {
    if (fold.closed && covers(fold.hidden, y)) toggleFold(i);
  });
  return placed(hiddenSpans(), y);
}

folds.forEach(({ bar, hidden }, i) => {
  if (!hidden.length) return;
  folds[i].closed = true;
  bar.addEventListener("click", () => toggleFold(i));
  bar.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    toggleFold(i);
  });
});
if (folds.some((fold) => fold.closed)) applyFolds();

const firstLayer = Number(byId("layer").options[0]?.dataset.top ?? 0);
byId("layer").addEventListener("change", (event) => {
  scroller.scrollTo({ top: (openAt(firstLayer + Number(event.target.value)) - firstLayer) * zoom });
});
