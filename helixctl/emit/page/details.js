// The panel that tells all about the selected task.
const details = byId("details");

function pairs(rows) {
  const list = element("dl");
  for (const [word, text] of rows) list.append(element("dt", word), element("dd", text));
  return list;
}

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

// A row for each timeline: how long the task takes there, and when it begins.
function timesOf(i) {
  return data.timelines.flatMap(({ name, spans, waits }) => {
    const its = spans.filter(([, task]) => task === i);
    if (!its.length) return [];
    const [rank, , begin, length] = its.find(([where]) => where === column) ?? its[0];
    const exposed = waits.filter(([where, task]) => task === i && where === rank).reduce((sum, wait) => sum + wait[3], 0);
    const text = `${duration(length)}, from ${duration(begin)}${its.length > 1 ? ` on rank ${rank}` : ""}`;
    return [[name, exposed ? `${text}; the rank waits ${duration(exposed)} for it` : text]];
  });
}

// Layers that are left out: what enters the layer behind them is shown as what the last drawn one makes.
function omittedBefore(task) {
  const fold = data.folds.find(({ layers, hidden }) => !hidden.length && layers[1] + 1 === task.layer);
  return fold ? [["inputs", `of layer ${fold.layers[1]}, which is like layer ${fold.like}, shown as layer ${fold.like}'s`]] : [];
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
      ...timesOf(i),
      ["waits for", `${count(task.before.length, "task")}, ${count(ancestors, "ancestor")}`],
      ["then", `${count(task.after.length, "task")}, ${count(descendants, "descendant")}`],
      ...omittedBefore(task),
    ]),
    element("h3", count(task.inputs.length, "input")), ...valueList(task.inputs),
    element("h3", count(task.outputs.length, "output")), ...valueList(task.outputs),
    ...(task.before.length ? [element("h3", "waits for"), ...linkList(task.before)] : []),
    ...(task.after.length ? [element("h3", "then"), ...linkList(task.after)] : []),
  );
  details.hidden = false;
  details.scrollTop = 0;
}
