// The selection: one task, and all that it waits for and that waits for it, in every view.
const timeline = makeTimeline();

function select(i) {
  const ancestors = reach(i, "before");
  const descendants = reach(i, "after");
  // A line is lit where it is on a way through the selected task.
  const above = (k) => k === i || ancestors.has(k);
  const below = (k) => k === i || descendants.has(k);
  const lit = (k) => above(k) || below(k);
  elements.forEach((element, k) => {
    element.classList.toggle("lit", lit(k));
    element.classList.toggle("selected", k === i);
  });
  edges.forEach((edge, k) => {
    const [source, target] = data.edges[k];
    edge.classList.toggle("lit", (above(source) && above(target)) || (below(source) && below(target)));
  });
  scroller.classList.add("selecting");
  timeline.light(i, lit);
  selected = i;
  current = i;
  show(i, ancestors.size, descendants.size);
}

function clear() {
  if (selected === null) return;
  scroller.classList.remove("selecting");
  timeline.unlight();
  elements[selected].classList.remove("selected");
  const hadFocus = details.contains(document.activeElement);
  details.hidden = true;
  if (hadFocus) focusOn(selected);
  selected = null;
}

scroller.addEventListener("click", (event) => {
  const i = indexOf.get(event.target.closest(".task"));
  if (i === undefined) {
    if (!event.target.closest(".fold")) clear();
    return;
  }
  column = leftmost(i);
  select(i);
  focusOn(i);
  timeline.goTo(i);
});

scroller.addEventListener("keydown", (event) => {
  if (!indexOf.has(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    select(current);
    timeline.goTo(current);
  } else if (event.key.startsWith("Arrow")) {
    event.preventDefault();
    const next = neighbour(event.key);
    if (next === undefined) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") column = leftmost(next);
    focusOn(next);
  }
});
