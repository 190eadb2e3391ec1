"use strict";
// The drawing is there without this script; the script selects, searches, moves and zooms. The page's data holds, for
// every task in the order of the document, what the details panel shows. All of it is set as text, never as markup.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const scroller = byId("scroller");
  const details = byId("details");
  const elements = [...scroller.querySelectorAll(".task")];
  const edges = [...scroller.querySelectorAll(".edges path")];
  const indexOf = new Map(elements.map((element, i) => [element, i]));
  const tasks = data.tasks.map(([id, work, layer, level, ranks, inputs, outputs, before, line, microbatch]) => (
    { id, work, layer, level, ranks, inputs, outputs, before, line, microbatch, after: [] }));
  tasks.forEach((task, i) => task.before.forEach((p) => tasks[p].after.push(i)));
  // The boxes of each line of the drawing from left to right, for the arrow keys.
  const lines = [];
  tasks.forEach((task, i) => (lines[task.line] ??= []).push(i));
  const leftmost = (i) => Math.min(...tasks[i].ranks);
  lines.forEach((line) => line.sort((a, b) => leftmost(a) - leftmost(b)));

  let selected = null;
  let current = 0;  // where the keyboard is
  let column = 0;  // the rank that the up and down keys keep to

  // Everything that can be reached from a task along one direction, without the task.
  function reach(start, direction) {
    const found = new Set();
    const open = [start];
    while (open.length) {
      for (const next of tasks[open.pop()][direction]) {
        if (!found.has(next)) {
          found.add(next);
          open.push(next);
        }
      }
    }
    return found;
  }

  function select(i) {
    const ancestors = reach(i, "before");
    const descendants = reach(i, "after");
    // A line is lit where it is on a way through the selected task.
    const above = (k) => k === i || ancestors.has(k);
    const below = (k) => k === i || descendants.has(k);
    elements.forEach((element, k) => {
      element.classList.toggle("lit", above(k) || below(k));
      element.classList.toggle("selected", k === i);
    });
    edges.forEach((edge, k) => {
      const [source, target] = data.edges[k];
      edge.classList.toggle("lit", (above(source) && above(target)) || (below(source) && below(target)));
    });
    scroller.classList.add("selecting");
    selected = i;
    current = i;
    show(i, ancestors.size, descendants.size);
  }

  function clear() {
    if (selected === null) return;
    scroller.classList.remove("selecting");
    elements[selected].classList.remove("selected");
    const hadFocus = details.contains(document.activeElement);
    details.hidden = true;
    if (hadFocus) focusOn(selected);
    selected = null;
  }

  // One task at a time is in the tab order; the arrow keys move it.
  function setCurrent(i) {
    elements[current].removeAttribute("tabindex");
    current = i;
    elements[i].setAttribute("tabindex", "0");
  }

  function reveal(i) {
    elements[i].scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function focusOn(i) {
    setCurrent(i);
    elements[i].focus({ preventScroll: true });
    reveal(i);
  }

  function neighbour(key) {
    const line = lines[tasks[current].line];
    if (key === "ArrowLeft") return line[line.indexOf(current) - 1];
    if (key === "ArrowRight") return line[line.indexOf(current) + 1];
    const step = key === "ArrowDown" ? 1 : -1;
    for (let n = tasks[current].line + step; lines[n]; n += step) {
      const there = lines[n].find((i) => tasks[i].ranks.includes(column));
      if (there !== undefined) return there;
    }
    return undefined;
  }

  function element(tag, text, classes) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (classes) made.className = classes;
    return made;
  }

  function pairs(rows) {
    const list = element("dl");
    for (const [word, text] of rows) list.append(element("dt", word), element("dd", text));
    return list;
  }

  const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

  // One entry for all values that differ in nothing but their rank.
  function valueList(indices) {
    const merged = new Map();
    for (const index of indices) {
      const [id, rank, kind] = data.values[index];
      if (!merged.has(kind)) merged.set(kind, { ids: [], ranks: [] });
      merged.get(kind).ids.push(id);
      merged.get(kind).ranks.push(rank);
    }
    return [...merged].map(([kind, { ids, ranks }]) => {
      const [tensor, region, dtype, partial, nbytes] = data.kinds[kind];
      const [tensorName, role, dims] = data.tensors[tensor];
      const box = element("div", undefined, "value");
      const name = element("p");
      name.append(element("span", tensorName, "mono"), element("span", ` ${role}, ${dtype}, ${nbytes}`, "quiet"));
      const where = element("p");
      region.forEach(([start, stop], i) => {
        const [dim, size] = dims[i];
        const cut = start !== 0 || stop !== size;
        if (i) where.append(", ");
        where.append(element("span", `${dim} ${start}:${stop}`, cut ? "cut" : "quiet"));
        if (cut) where.append(element("span", ` of ${size}`, "quiet"));
      });
      box.append(name, where);
      if (partial.length) {
        const sums = partial.map(([dim, start, stop]) => `${dim} ${start}:${stop}`).join(", ");
        box.append(element("p", `partial sum over ${sums}`, "cut"));
      }
      box.append(element("p", ids.length > 1 ? `on ranks ${ranks.join(", ")}` : `value ${ids[0]}`, "quiet"));
      return box;
    });
  }

  function linkList(indices) {
    return indices.map((i) => {
      const link = element("button", tasks[i].id, "link mono");
      link.type = "button";
      link.addEventListener("click", () => { select(i); focusOn(i); });
      return link;
    });
  }

  function show(i, ancestors, descendants) {
    const task = tasks[i];
    const work = data.works[task.work];
    const close = element("button", "\u00d7", "close");
    close.type = "button";
    close.setAttribute("aria-label", "Clear the selection");
    close.addEventListener("click", clear);
    details.replaceChildren(
      close,
      element("h2", task.id, "mono"),
      pairs([
        ["kind", work.kind],
        ...work.attributes,
        ["layer", task.layer],
        ["level", task.level],
        ...(task.microbatch === undefined ? [] : [["microbatch", task.microbatch]]),
        [task.ranks.length > 1 ? "ranks" : "rank", task.ranks.join(", ")],
        ["flops", work.flops],
        ["bytes", work.nbytes],
        ["waits for", `${count(task.before.length, "task")}, ${count(ancestors, "ancestor")}`],
        ["then", `${count(task.after.length, "task")}, ${count(descendants, "descendant")}`],
      ]),
      element("h3", count(task.inputs.length, "input")), ...valueList(task.inputs),
      element("h3", count(task.outputs.length, "output")), ...valueList(task.outputs),
      ...(task.before.length ? [element("h3", "waits for"), ...linkList(task.before)] : []),
      ...(task.after.length ? [element("h3", "then"), ...linkList(task.after)] : []),
    );
    details.hidden = false;
    details.scrollTop = 0;
  }

  scroller.addEventListener("click", (event) => {
    const i = indexOf.get(event.target.closest(".task"));
    if (i === undefined) {
      clear();
      return;
    }
    column = leftmost(i);
    select(i);
    focusOn(i);
  });

  scroller.addEventListener("keydown", (event) => {
    if (!indexOf.has(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      select(current);
    } else if (event.key.startsWith("Arrow")) {
      event.preventDefault();
      const next = neighbour(event.key);
      if (next === undefined) return;
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") column = leftmost(next);
      focusOn(next);
    }
  });

  // Search: every keystroke marks the tasks whose id holds the text; Enter goes from one to the next.
  const query = byId("query");
  let matches = [];
  let at = -1;
  function search() {
    const wanted = query.value.trim().toLowerCase();
    matches.forEach((i) => elements[i].classList.remove("match"));
    matches = wanted ? tasks.flatMap((task, i) => (task.id.toLowerCase().includes(wanted) ? [i] : [])) : [];
    matches.forEach((i) => elements[i].classList.add("match"));
    at = -1;
    byId("found").textContent = wanted ? count(matches.length, "task") : "";
  }
  query.addEventListener("input", search);
  query.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    if (!matches.length) return;
    at = (at + (event.shiftKey ? -1 : 1) + matches.length + (at < 0 && event.shiftKey ? 1 : 0)) % matches.length;
    column = leftmost(matches[at]);
    setCurrent(matches[at]);
    select(matches[at]);
    reveal(matches[at]);
    byId("found").textContent = `${at + 1} of ${matches.length}`;
  });
  byId("search").addEventListener("submit", (event) => event.preventDefault());

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      query.value = "";
      search();
      clear();
    } else if (event.key === "/" && !event.target.closest("input, select")) {
      event.preventDefault();
      query.select();
    }
  });

  // Zoom: all drawings by one factor; the scroller keeps their headings in place.
  const drawings = [...scroller.querySelectorAll("svg")].map((svg) => (
    { svg, width: svg.viewBox.baseVal.width, height: svg.viewBox.baseVal.height }));
  let zoom = 1;
  function setZoom(factor) {
    zoom = Math.min(4, Math.max(0.1, factor));
    for (const { svg, width, height } of drawings) {
      svg.style.width = `${width * zoom}px`;
      svg.style.height = `${height * zoom}px`;
    }
    keepLabelsInView();
  }

  // A bracket may be longer than the window: its label stands in the middle of the part that is in view.
  const [headDrawing, gutterDrawing] = drawings;
  const brackets = [...scroller.querySelectorAll(".bracketed")].map((group) => {
    const [label, path] = [group.firstElementChild, group.lastElementChild];
    const [words, line] = [label.getBBox(), path.getBBox()];
    const across = line.width > line.height;
    const [start, length, size] = across ? [line.x, line.width, words.width] : [line.y, line.height, words.height];
    const slack = Math.max(0, (length - size) / 2 - 8);
    return { label, across, start, stop: start + length, middle: start + length / 2, slack, at: 0 };
  });
  function keepLabelsInView() {
    const left = headDrawing.svg.viewBox.baseVal.x + scroller.scrollLeft / zoom;
    const top = scroller.scrollTop / zoom;
    const right = left + scroller.clientWidth / zoom - gutterDrawing.width;
    const bottom = top + scroller.clientHeight / zoom - headDrawing.height;
    for (const bracket of brackets) {
      const { label, across, start, stop, middle, slack, at } = bracket;
      const [first, last] = across ? [left, right] : [top, bottom];
      if (stop < first || start > last) continue;
      const seen = (Math.max(first, start) + Math.min(last, stop)) / 2;
      const moved = Math.round(Math.max(-slack, Math.min(slack, seen - middle)));
      if (moved === at) continue;
      bracket.at = moved;
      label.setAttribute("transform", across ? `translate(${moved})` : `translate(0 ${moved})`);
    }
  }
  let waiting = false;
  function viewChanged() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      keepLabelsInView();
    });
  }
  scroller.addEventListener("scroll", viewChanged, { passive: true });
  new ResizeObserver(viewChanged).observe(scroller);

  byId("smaller").addEventListener("click", () => setZoom(zoom / 1.25));
  byId("larger").addEventListener("click", () => setZoom(zoom * 1.25));
  byId("actual").addEventListener("click", () => setZoom(1));
  byId("fit").addEventListener("click", () => {
    const [head, gutter] = drawings;
    setZoom((scroller.clientWidth - 24) / (head.width + gutter.width));
  });

  // On paper the whole drawing is as wide as the page of page.css, and smaller than on the screen.
  const paper = 1000;
  let onScreen = 1;
  window.addEventListener("beforeprint", () => {
    const [head, gutter] = drawings;
    onScreen = zoom;
    setZoom(Math.min(1, paper / (head.width + gutter.width)));
  });
  window.addEventListener("afterprint", () => setZoom(onScreen));

  byId("layer").addEventListener("change", (event) => {
    scroller.scrollTo({ top: Number(event.target.value) * zoom });
  });

  if (tasks.length) setCurrent(0);
})();
