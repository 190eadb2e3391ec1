// The timeline: of every device a lane of computation and one of communication, predicted above measured. Time goes to
// the right. A span is a task on a device; hatched is a device that waits for communication.
const LANE = 17;  // the height of a lane, in pixels
const BETWEEN = 3;  // between predicted and measured
const APART = 12;  // between devices
const TOP = 6;
const LONGEST = 400000;  // the widest drawing

function makeTimeline() {
  const frame = byId("time-scroller");
  const [axis, names, body] = ["time-axis", "time-names", "time-body"].map(byId);
  const several = data.timelines.length > 1;
  const height = data.timelines.length * 2 * LANE + (data.timelines.length - 1) * BETWEEN;
  const topOf = new Map(data.columns.map(([rank], place) => [rank, TOP + place * (height + APART)]));
  const laneTop = (rank, kind, lane) => topOf.get(rank) + kind * (2 * LANE + BETWEEN) + lane * LANE;
  const isMove = elements.map((element) => element.classList.contains("communication"));
  const words = elements.map((element) => element.querySelector("text:not(.number)").textContent);
  const spans = [];  // with the element of each
  const gaps = [];  // in which a device computes nothing: it waits, or copies
  const byTask = tasks.map(() => []);
  const whole = Math.max(1, ...data.timelines.flatMap((one) => one.spans.map(([, , begin, length]) => begin + length)));
  let scale = 0;  // pixels a nanosecond; 0 until the timeline is first shown
  let onNames = 0;  // the width of the names
  const texts = drawn("g", { class: "texts" });
  const marks = drawn("g", { class: "omitted" });

  function build() {
    const runs = drawn("g", {});
    data.timelines.forEach((one, kind) => {
      for (const [rank, task, begin, length] of one.spans) {
        const lane = Number(isMove[task]);
        const shape = drawn("rect", {
          class: `run ${tasks[task].level} ${lane ? "communication" : "compute"}`,
          y: laneTop(rank, kind, lane) + 1, height: LANE - 2, rx: 2,
        });
        const span = { shape, rank, task, begin, length, kind, lane };
        byTask[task].push(span);
        spans.push(span);
        runs.append(shape);
      }
      for (const [classes, rows] of [["wait", one.waits], ["copy", one.copies]]) {
        for (const [rank, task, begin, length] of rows) {
          const shape = drawn("rect", { class: classes, y: laneTop(rank, kind, 0) + 1, height: LANE - 2 });
          gaps.push({ shape, rank, task, begin, length });
          runs.append(shape);
        }
      }
    });
    // In a run a collective is in flight from its issue, and may cover the end of the one before it.
    const lanes = [];
    for (const span of spans) (lanes[laneTop(span.rank, span.kind, span.lane)] ??= []).push(span);
    for (const lane of lanes.filter(Boolean)) {
      lane.sort((a, b) => a.begin - b.begin);
      lane.forEach((span, i) => { span.seen = Math.min(span.length, (lane[i + 1]?.begin ?? whole) - span.begin); });
    }
    const bands = drawn("g", {});
    for (const top of topOf.values()) bands.append(drawn("rect", { class: "tint", x: 0, y: top, height }));
    body.append(hatching(), bands, runs, marks, texts);
    buildNames();
    markSelected();
    mark(marked);
  }

  // What is hatched: a pattern that fills a wait.
  function hatching() {
    const definitions = drawn("defs", {});
    const pattern = drawn("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" });
    pattern.append(drawn("path", { d: "M-1 1L1 -1M0 6L6 0M5 7L7 5", class: "hatch" }));
    definitions.append(pattern);
    return definitions;
  }

  function buildNames() {
    const bottom = TOP + data.columns.length * (height + APART);
    let widest = 0;
    for (const [rank, [name, ...more]] of data.columns) {
      const top = topOf.get(rank);
      const label = drawn("text", { class: "span", x: 12, y: top + 13 }, name);
      names.append(label);
      more.slice(0, data.timelines.length * 2 - 1).forEach((text, i) => {
        names.append(drawn("text", { class: "note word", x: 12, y: top + 13 + (i + 1) * 14 }, text));
      });
      data.timelines.forEach((one, kind) => {
        ["computes", "moves"].forEach((lane, i) => {
          const text = several ? `${one.name}, ${lane}` : lane;
          names.append(drawn("text", { class: "note word lane", y: laneTop(rank, kind, i) + 12 }, text));
        });
      });
    }
    const own = [...names.querySelectorAll("text:not(.lane)")].map((text) => text.getBBox().width);
    const lanes = [...names.querySelectorAll(".lane")].map((text) => text.getBBox().width);
    widest = 12 + Math.max(...own) + 14 + Math.max(...lanes) + 8;
    names.querySelectorAll(".lane").forEach((text) => text.setAttribute("x", 12 + Math.max(...own) + 14));
    onNames = Math.ceil(widest);
    for (const [svg, width, tall] of [[names, onNames, bottom], [body, 0, bottom]]) {
      svg.setAttribute("height", tall);
      if (width) svg.setAttribute("width", width);
    }
  }

  function setScale(pixels) {
    scale = Math.min(LONGEST / whole, Math.max(50 / whole, pixels));
    const width = Math.ceil(whole * scale) + 24;
    for (const svg of [axis, body]) svg.setAttribute("width", width);
    body.querySelectorAll(".tint").forEach((band) => band.setAttribute("width", width));
    for (const { shape, begin, length } of [...spans, ...gaps]) {
      shape.setAttribute("x", (begin * scale).toFixed(2));
      shape.setAttribute("width", Math.max(0.5, length * scale).toFixed(2));
    }
    drawAxis();
    drawOmitted();
    drawTexts();
  }

  function fit() {
    setScale((frame.clientWidth - onNames - 30) / whole);
  }

  function drawAxis() {
    let step = 10 ** Math.floor(Math.log10(90 / scale));
    step *= [1, 2, 5, 10].find((factor) => factor * step * scale >= 90) ?? 10;
    const ticks = [];
    for (let ns = 0; ns <= whole; ns += step) {
      const x = (ns * scale).toFixed(1);
      ticks.push(drawn("path", { class: "rule", d: `M${x} 16V24` }));
      if (ns * scale > axis.width.baseVal.value - 45) continue;  // no room for its words
      ticks.push(drawn("text", { class: "note word", x: Number(x) + 2, y: 13 }, duration(Math.round(ns))));
    }
    axis.replaceChildren(...ticks);
  }

  // Where layers are left out: a dashed line behind the layer that they are like, on every device that has it.
  function drawOmitted() {
    marks.replaceChildren();
    if (data.folds.some(({ hidden }) => !hidden.length)) axis.setAttribute("height", 42);
    data.folds.filter(({ hidden }) => !hidden.length).forEach(({ like, layers, times }) => {
      const ends = new Map();
      for (const { task, rank, kind, begin, length } of spans) {
        if (tasks[task].layer !== like) continue;
        const key = `${kind} ${rank} ${tasks[task].microbatch ?? ""}`;
        const end = begin + length;
        if (!ends.has(key) || ends.get(key).end < end) ends.set(key, { kind, rank, end });
      }
      for (const { kind, rank, end } of ends.values()) {
        const [x, top] = [(end * scale).toFixed(1), laneTop(rank, kind, 0)];
        const line = drawn("path", { d: `M${x} ${top - 3}V${top + 2 * LANE + 3}` });
        line.append(drawn("title", {}, `layers ${layers[0]}-${layers[1]} are left out here: x ${times} more`));
        marks.append(line);
      }
      const middles = [...ends.values()].filter(({ kind }) => kind === 0).map(({ end }) => end * scale);
      const [x, text] = [Math.min(...middles), `layers ${layers[0]}-${layers[1]}: x ${times} more`];
      if (middles.length) axis.append(drawn("text", { class: "span word middle", x: Math.max(80, Math.min(x, axis.width.baseVal.value - 80)), y: 37 }, text));
    });
  }

  // The words of the spans that are wide enough and in view.
  function drawTexts() {
    const [left, top] = [frame.scrollLeft, frame.scrollTop];
    const [right, bottom] = [left + frame.clientWidth, top + frame.clientHeight];
    const found = [];
    for (const { shape, rank, task, begin, seen, kind, lane } of spans) {
      const [x, width, y] = [begin * scale, seen * scale, laneTop(rank, kind, lane)];
      if (width < 30 || x > right || x + width < left || y > bottom || y + LANE < top) continue;
      const [from, to] = [Math.max(x, left), Math.min(x + width, right - onNames)];
      const label = fitted(words[task], to - from - 6, lane);
      if (!label) continue;
      const classes = shape.getAttribute("class").replace("run", "word");
      found.push(drawn("text", { class: classes, x: ((from + to) / 2).toFixed(1), y: y + 12 }, label));
    }
    texts.replaceChildren(...found);
  }

  // The longest beginning of a text that fits, or nothing if that is less than three letters.
  const widths = [400, 600].map(() => new Map());
  const pen = document.createElement("canvas").getContext("2d");
  function widthOf(text, lane) {
    if (!widths[lane].has(text)) {
      pen.font = `${lane ? 600 : 400} 10px ${getComputedStyle(document.body).fontFamily}`;
      widths[lane].set(text, pen.measureText(text).width);
    }
    return widths[lane].get(text);
  }
  function fitted(text, room, lane) {
    if (widthOf(text, lane) <= room) return text;
    let kept = text.slice(0, -1);
    while (kept.length > 2 && widthOf(`${kept.trimEnd()}\u2026`, lane) > room) kept = kept.slice(0, -1);
    return kept.length > 2 ? `${kept.trimEnd()}\u2026` : "";
  }

  let marked = new Set();
  let litNow = null;

  function markSelected() {
    frame.classList.toggle("selecting", litNow !== null);
    for (const { shape, task } of spans) {
      shape.classList.toggle("lit", litNow !== null && litNow.lit(task));
      shape.classList.toggle("selected", litNow !== null && litNow.i === task);
    }
    for (const { shape, task } of gaps) shape.classList.toggle("lit", litNow !== null && litNow.lit(task));
  }

  function light(i, lit) {
    litNow = { i, lit };
    if (scale) markSelected();
  }

  function unlight() {
    litNow = null;
    if (scale) markSelected();
  }

  function mark(found) {
    marked = found;
    if (scale) for (const { shape, task } of spans) shape.classList.toggle("match", found.has(task));
  }

  // Bring the span of a task on the current device into view, or its first.
  function goTo(i) {
    if (!scale || !byId("timeline").offsetParent) return;
    const span = byTask[i].find(({ rank }) => rank === column) ?? byTask[i][0];
    if (!span) return;
    const [x, y] = [span.begin * scale, laneTop(span.rank, span.kind, span.lane)];
    const [wide, tall] = [frame.clientWidth - onNames - 30, frame.clientHeight - 50];
    if (x < frame.scrollLeft || x + span.length * scale > frame.scrollLeft + wide) frame.scrollLeft = x - wide / 3;
    if (y < frame.scrollTop || y + LANE > frame.scrollTop + tall) frame.scrollTop = y - tall / 3;
  }

  function shown() {
    if (byId("timeline").hidden || !data.timelines.length) return;
    if (!scale) {
      scale = 1;
      build();
      fit();
    } else {
      drawTexts();
    }
  }

  function spanAt(target) {
    return [...spans, ...gaps].find(({ shape }) => shape === target);
  }

  body.addEventListener("click", (event) => {
    const span = spanAt(event.target);
    if (!span) {
      clear();
      return;
    }
    column = span.rank;
    setCurrent(span.task);
    select(span.task);
    if (!scroller.hidden) reveal(span.task);
  });

  body.addEventListener("mouseover", (event) => {
    const span = spanAt(event.target);
    if (!span || span.shape.firstChild) return;
    const { shape, task, begin, length } = span;
    const what = { wait: "waits for ", copy: "copies for " }[shape.getAttribute("class").split(" ")[0]] ?? "";
    shape.append(drawn("title", {}, `${what}${tasks[task].id}: ${duration(length)}, from ${duration(begin)}`));
  });

  // The arrow keys go along a lane, and from lane to lane.
  frame.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow") || selected === null) return;
    const from = byTask[selected].find(({ rank }) => rank === column) ?? byTask[selected][0];
    if (!from) return;
    event.preventDefault();
    const to = event.key === "ArrowLeft" || event.key === "ArrowRight" ? along(from, event.key) : across(from, event.key);
    if (!to) return;
    column = to.rank;
    setCurrent(to.task);
    select(to.task);
    goTo(to.task);
  });

  function along(from, key) {
    const lane = spans.filter(({ rank, kind, lane: its }) => rank === from.rank && kind === from.kind && its === from.lane);
    lane.sort((a, b) => a.begin - b.begin);
    return lane[lane.indexOf(from) + (key === "ArrowRight" ? 1 : -1)];
  }

  function across(from, key) {
    const height = ({ rank, kind, lane }) => laneTop(rank, kind, lane);
    const side = key === "ArrowDown" ? 1 : -1;
    const others = spans.filter((span) => span.kind === from.kind && (height(span) - height(from)) * side > 0);
    const nearest = Math.min(...others.map((span) => Math.abs(height(span) - height(from))));
    const apart = (span) => Math.abs(span.begin + span.length / 2 - from.begin - from.length / 2);
    return others.filter((span) => Math.abs(height(span) - height(from)) === nearest).sort((a, b) => apart(a) - apart(b))[0];
  }

  // Zoom about the middle of what is in view.
  function scaleBy(factor) {
    const middle = (frame.scrollLeft + (frame.clientWidth - onNames) / 2) / scale;
    setScale(scale * factor);
    frame.scrollLeft = middle * scale - (frame.clientWidth - onNames) / 2;
    drawTexts();
  }

  byId("shorter").addEventListener("click", () => scaleBy(1 / 1.5));
  byId("longer").addEventListener("click", () => scaleBy(1.5));
  byId("fit-time").addEventListener("click", fit);
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    scaleBy(event.deltaY < 0 ? 1.25 : 1 / 1.25);
  }, { passive: false });
  frame.addEventListener("scroll", onNextFrame(() => scale && drawTexts()), { passive: true });

  return { light, unlight, mark, goTo, shown };
}
