// Which view is shown: the tasks, the timeline, both one above the other, or the plots.
const views = [...document.querySelectorAll(".tabs button")];

function setView(name) {
  const shown = { tasks: ["tasks", "both"], timeline: ["timeline", "both"], figures: ["figures"] };
  scroller.hidden = !shown.tasks.includes(name);
  byId("timeline").hidden = !shown.timeline.includes(name);
  byId("figures").hidden = !shown.figures.includes(name);
  document.body.dataset.view = name;
  views.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.view === name)));
  timeline.shown();
  if (selected !== null && !scroller.hidden) reveal(selected);
  if (selected !== null) timeline.goTo(selected);
}

views.forEach((button) => button.addEventListener("click", () => setView(button.dataset.view)));
const asked = new URLSearchParams(location.hash.slice(1)).get("view");  // page.html#view=timeline
setView(views.some((button) => button.dataset.view === asked) ? asked : "tasks");
if (tasks.length) setCurrent(0);
