// Search: every keystroke marks the tasks whose id holds the text, in every view; Enter goes from one to the next.
const query = byId("query");
let matches = [];
let at = -1;

function search() {
  const wanted = query.value.trim().toLowerCase();
  matches.forEach((i) => elements[i].classList.remove("match"));
  matches = wanted ? tasks.flatMap((task, i) => (task.id.toLowerCase().includes(wanted) ? [i] : [])) : [];
  matches.forEach((i) => elements[i].classList.add("match"));
  timeline.mark(new Set(matches));
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
  timeline.goTo(matches[at]);
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
