// What the page knows: for every task in the order of the drawing what the details show, and who waits for whom. All
// of it is set as text, never as markup. The drawing is there without the script.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const elements = [...byId("scroller").querySelectorAll(".task")];
const tasks = data.tasks.map(([work, layer, level, ranks, inputs, outputs, line, microbatch], i) => (
  { id: elements[i].firstElementChild.textContent, work, layer, level, ranks, inputs, outputs, line, microbatch,
    before: [], after: [] }));
for (const [source, target] of data.edges) {
  tasks[target].before.push(source);
  tasks[source].after.push(target);
}
const leftmost = (i) => Math.min(...tasks[i].ranks);

let selected = null;
let current = 0;  // where the keyboard is
let column = 0;  // the rank that the up and down keys keep to, and whose span a selection goes to

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

const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function element(tag, text, classes) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

function drawn(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Nanoseconds in words, with three digits.
function duration(ns) {
  if (ns === 0) return "0";
  const [unit, size] = [["s", 1e9], ["ms", 1e6], ["us", 1e3], ["ns", 1]].find(([, least]) => ns >= least) ?? ["ns", 1];
  return `${Number((ns / size).toPrecision(3))} ${unit}`;
}

// Calls a function once before the next picture, however often it was asked for.
function onNextFrame(action) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      action();
    });
  };
}
