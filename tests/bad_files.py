"""The bad plans and dags of tests/invalid: good ones with one mistake each, by the name of the file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from helixctl.lower import lower
from helixctl.plan import Plan, digest
from tests.documents import SMALL, TINY, as_shipped, plan_of, tiny

Data = dict[str, Any]
Change = Callable[[Data], object]


def row(data: Data, table: str, name: str) -> Data:
    """A tensor, value or task of a dag document by its name."""
    found: Data = next(r for r in data[table] if name == r.get("id", r.get("name")))
    return found


def task(data: Data, name: str) -> Data:
    return row(data, "tasks", name)


def value(data: Data, name: str) -> Data:
    return row(data, "values", name)


def _swap(items: list[Any], i: int, j: int) -> None:
    items[i], items[j] = items[j], items[i]


def _cross(data: Data) -> None:
    """Ranks 0 and 1 come to two collectives that they share in opposite order; data dependencies still hold."""
    for kind in ("gather", "reduce"):
        copy = json.loads(json.dumps(task(data, f"l0.{'project' if kind == 'gather' else 'feed_forward'}.{kind}")))
        copy["id"] += ".again"
        for i, name in enumerate(copy["outputs"]):
            copy["outputs"][i] = name + "x"
            data["values"].append(value(data, name) | {"id": name + "x"})
        data["tasks"].append(copy)
    data["order"][0] += ["l0.project.gather.again", "l0.feed_forward.reduce.again"]
    data["order"][1] += ["l0.feed_forward.reduce.again", "l0.project.gather.again"]


def _work_twice(data: Data) -> None:
    """Rank 0 computes its q, k and v again; nobody reads them."""
    copy = json.loads(json.dumps(task(data, "l0.distribute.qkv.g0s0")))
    copy["id"] += ".again"
    copy["outputs"] = [name + "x" for name in copy["outputs"]]
    data["values"] += [value(data, f"l0.{t}@0") | {"id": f"l0.{t}@0x"} for t in ("q", "k", "v")]
    data["tasks"].append(copy)
    data["order"][0].append(copy["id"])


def _exchange_heads(data: Data) -> None:
    """Rank 0 takes the second head and rank 1 the first, but the gather keeps its order."""
    for name in ("w_q", "w_k", "w_v", "q", "k", "v", "attention"):
        a, b = value(data, f"l0.{name}@0"), value(data, f"l0.{name}@1")
        a["region"], b["region"] = b["region"], a["region"]


def _sum_one_part_twice(data: Data) -> None:
    """Rank 1 takes the part of the feed-forward width that rank 0 has."""
    for name in ("w_up", "up", "activated", "w_down", "down"):
        a, b = value(data, f"l0.{name}@0"), value(data, f"l0.{name}@1")
        b["region"], b["partial"] = a["region"], a["partial"]


def _another_layout(data: Data, **axes: Any) -> None:
    """The plan is of another layout that is as legal, and has its digest."""
    data["plan"]["layout"] |= axes
    data["plan_digest"] = digest(Plan.model_validate(data["plan"]))


def _deep(data: Data, layers: int, microbatches: int) -> None:
    """The plan is of a deep model with a large batch, and has their digests."""
    data["model"]["layers"] = layers
    data["workload"]["batch"] = data["layout"]["microbatches"] = microbatches
    plan = Plan.model_validate(data)
    data["digests"] |= {"model": digest(plan.model), "workload": digest(plan.workload)}


def _forget_tokens(data: Data) -> None:
    """The last stage keeps the next tokens to itself."""
    sends = [t for t in data["tasks"] if t["id"].startswith("l1.head.send")]
    for name in (value for t in sends for value in t["outputs"]):
        data["values"].remove(value(data, name))
    data["tasks"] = [t for t in data["tasks"] if t not in sends]
    data["order"] = [[name for name in ids if not name.startswith("l1.head.send")] for ids in data["order"]]


def _read_what_was(data: Data) -> None:
    """Rank 0 keeps what the cache held before the step, to which it has no right: the cache is written in place."""
    cache = value(data, "l0.k_cache@0")
    nbytes = 2 * 4 * math.prod(stop - start for start, stop in cache["region"])  # read and written, in float32
    ends = {"inputs": ["l0.k_cache@0"], "outputs": ["l0.k_cache:shard@0"]}
    made = {"id": "l0.attend.narrow.g0s0", "layer": 0, "level": "attend", "op": {"kind": "narrow", "dim": "key_cycle"}}
    data["values"].append(cache | {"id": "l0.k_cache:shard@0"})
    data["tasks"].append(made | {"ranks": [0], **ends, "flops": 0, "nbytes": nbytes})
    data["order"][0].append("l0.attend.narrow.g0s0")


def _drop(key: str) -> Change:
    return lambda d: d.pop(key)


# Name -> how the tiny plan, or the tiny dag, is broken. A name starts with the code that must be given.
PLANS: dict[str, Change] = {
    "HX301-no-layout": _drop("layout"),
    "HX301-unknown-axis": lambda d: d["layout"].update(slice=2),
    "HX302-edited-model": lambda d: d["model"]["norm"].update(eps=1e-6),
    "HX303-illegal-layout": lambda d: d["layout"].update(groups=3),
    "HX304-version": lambda d: d.update(format_version="2.0"),
    "HX305-too-large": lambda d: _deep(d, layers=4096, microbatches=1024),
}
DAGS: dict[str, Change] = {
    "HX401-no-order": _drop("order"),
    "HX401-unknown-kind": lambda d: task(d, "l0.attend.g0s0")["op"].update(kind="softmax"),
    "HX401-unknown-key": lambda d: task(d, "l0.attend.g0s0").update(cost=1),
    "HX401-region-outside": lambda d: value(d, "l0.w_q@0").update(region=[[0, 9], [0, 1], [0, 4]]),
    "HX401-two-inputs-of-attention": lambda d: task(d, "l0.attend.g0s0")["inputs"].pop(),
    "HX401-ranks-descend": lambda d: task(d, "l0.project.gather")["ranks"].reverse(),
    "HX402-digest": lambda d: d.update(plan_digest="sha256:" + "0" * 64),
    "HX403-undeclared-value": lambda d: task(d, "l0.attend.g0s0")["inputs"].__setitem__(0, "l0.q@7"),
    "HX403-task-twice": lambda d: d["tasks"].append(d["tasks"][0]),
    "HX403-undeclared-tensor": lambda d: value(d, "l0.q@0").update(tensor="l0.x"),
    "HX403-undeclared-task-in-order": lambda d: d["order"][0].append("l0.attend.g9s9"),
    "HX404-other-rank": lambda d: task(d, "l0.attend.g0s0")["inputs"].__setitem__(0, "l0.q@1"),
    "HX404-two-makers": lambda d: task(d, "l0.attend.g0s0")["outputs"].__setitem__(0, "l0.q@0"),
    "HX405-reordered": lambda d: _swap(d["order"][0], 2, 3),
    "HX405-dropped": lambda d: d["order"][1].pop(),
    "HX405-twice": lambda d: d["order"][1].append(d["order"][1][-1]),
    "HX406-region-moved": lambda d: value(d, "l0.projection@0").update(region=[[0, 2], [0, 3], [1, 5]]),
    "HX406-gather-order": _exchange_heads,
    "HX406-whole-for-partial": lambda d: value(d, "l0.down@0").update(partial=[]),
    "HX406-partial-twice": _sum_one_part_twice,
    "HX406-partial-of-nothing": lambda d: [
        value(d, f"l0.down@{r}").update(partial=[["x", [8 * r, 8 * r + 8]]]) for r in (0, 1)
    ],
    "HX407-work-twice": _work_twice,
    "HX408-owned-twice": lambda d: d["values"].append(value(d, "l0.w_q@0") | {"id": "l0.w_q:again@0"}),
    "HX409-crossed-collectives": _cross,
    "HX410-memory": lambda d: None,  # made for a device of 1 kB
    "HX411-another-scale": lambda d: task(d, "l0.attend.g0s0")["op"].update(softmax_width=4),
    "HX411-weights-exchanged": lambda d: _swap(task(d, "l0.distribute.qkv.g0s0")["inputs"], 1, 2),
    "HX411-another-activation": lambda d: task(d, "l0.feed_forward.activation.g0s0")["op"].update(function="relu"),
    "HX411-another-init": lambda d: row(d, "tensors", "l0.w_q").update(init=[0.0, 1.0]),
    "HX412-flops": lambda d: task(d, "l0.attend.g0s0").update(flops=1),
    "HX413-half": lambda d: value(d, "l0.q@0").update(dtype="float16"),
    "HX414-another-combine": lambda d: _another_layout(d, combine="reduce"),
    "HX414-level": lambda d: task(d, "l0.project.gather").update(level="concat"),
}
# The same of the decode step of a tiny model with a vocabulary, of two stages.
STEPS: dict[str, Change] = {"HX415-state-read-twice": _read_what_was, "HX415-token-not-sent": _forget_tokens}


def bad_files() -> dict[str, str]:
    """The text of every bad plan and dag, by file name."""
    good = lower(as_shipped(tiny(2, 1).plan))
    files = {f"{name}.plan.json": _broken(good.plan.to_json(), change) for name, change in PLANS.items()}
    for name, change in DAGS.items():
        dag = lower(as_shipped(tiny(2, 1, "device.memory=1 kB").plan)) if name == "HX410-memory" else good
        files[f"{name}.dag.json"] = _broken(dag.to_json(), change)
    sets = (*TINY, "layers=2", "vocabulary.size=8", "workload.output_len=4")
    decode = lower(as_shipped(plan_of(SMALL, 1, 1, *sets, pipeline=2)), step="decode")
    return files | {f"{name}.dag.json": _broken(decode.to_json(), change) for name, change in STEPS.items()}


def _broken(text: str, change: Change) -> str:
    """The broken document, as helixctl writes one: the rows of a table a line each."""
    data = json.loads(text)
    change(data)
    blocks = []
    for key, content in data.items():
        rows = content if isinstance(content, list) else None
        lines = ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) if rows else json.dumps(content)
        blocks.append(f'"{key}": [\n{lines}\n]' if rows else f'"{key}": {lines}')
    return "{" + ",\n".join(blocks) + "}\n"
