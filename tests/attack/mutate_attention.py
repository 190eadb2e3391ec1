"""What attention attends to and how: windows, chunks, scales, soft caps, sinks, values of another width."""

from __future__ import annotations

from typing import Any

from tests.attack.mutation import Data, InapplicableError, MutationRegistry, Victim, another

mutation = MutationRegistry()
ATTENTIONS = ("attention", "cached_attention", "partial_attention")


def _with(v: Victim, name: str) -> list[Data]:
    """The attentions that have an attribute; of one layer, or those of all."""
    having = [task for task in v.data["tasks"] if task["op"]["kind"] in ATTENTIONS and name in task["op"]]
    one = v.pick(having)
    return having if v.random.random() < 0.5 else [one]


def _changed(v: Victim, name: str, options: list[Any]) -> None:
    tasks = _with(v, name)
    new = another(v.random, tasks[0]["op"][name], options)
    for task in tasks:
        if new is None:
            task["op"].pop(name)
        else:
            task["op"][name] = new


@mutation("a window or chunk off by one, or gone", "HX411", "HX412")
def _reach(v: Victim) -> None:
    name = v.random.choice(("window", "chunk"))
    found = [task for task in v.data["tasks"] if name in task["op"]]
    if not found:
        raise InapplicableError
    size = found[0]["op"][name]
    _changed(v, name, [size - 1, size + 1, None] if size > 1 else [size + 1, None])


@mutation("a window for a chunk", "HX411", "HX412")
def _window_for_chunk(v: Victim) -> None:
    name, other = v.random.choice((("window", "chunk"), ("chunk", "window")))
    for task in _with(v, name):
        task["op"][other] = task["op"].pop(name)


@mutation("a scale of scores changed or gone", "HX411")
def _scale(v: Victim) -> None:
    _changed(v, "scale", [0.5, 2.0, None])


@mutation("a soft cap of scores changed or gone", "HX411")
def _soft_cap(v: Victim) -> None:
    _changed(v, "soft_cap", [0.5, 30.0, None])


@mutation("a window, scale or cap where the model has none", "HX411", "HX412")
def _too_much(v: Victim) -> None:
    task = v.task_of_kind(*ATTENTIONS)
    name, value = v.random.choice((("window", 2), ("chunk", 2), ("scale", 0.25), ("soft_cap", 1.5)))
    if name in task["op"]:
        raise InapplicableError
    task["op"][name] = value


@mutation("the number of a query's position changed", "HX401", "HX411")
def _position_scaling(v: Victim) -> None:
    task = v.task_of_kind("scale_queries")
    old = dict(task["op"]["scaling"])
    name = v.random.choice(("factor", "tokens", "first"))
    options = {"factor": [0.25, 0.5 * (1 + 2**-52), 0.0], "tokens": [1, 3, 2**40, 0], "first": [0, 2]}[name]
    new = v.random.choice(options)
    for other in v.data["tasks"] if v.random.random() < 0.5 else [task]:
        if other["op"].get("scaling") == old:
            other["op"]["scaling"] = {**old, name: new}


@mutation("queries or values that are not scaled", "HX411")
def _not_scaled(v: Victim) -> None:
    """What reads them takes what they are made of."""
    scaled = [t for t in v.computations if v.values[t["outputs"][0]]["tensor"].endswith(("q_scaled", "v_scaled"))]
    task = v.pick(scaled)
    reading = [other for other in v.data["tasks"] if task["outputs"][0] in other["inputs"]]
    for other in reading:
        other["inputs"][other["inputs"].index(task["outputs"][0])] = task["inputs"][0]


@mutation("positions of scaled queries without their length, or from the count", "HX411")
def _scaled_without_length(v: Victim) -> None:
    task = v.pick([t for t in v.data["tasks"] if t["op"]["kind"] == "scale_queries" and len(t["inputs"]) > 1])
    mine = v.values[task["inputs"].pop()]
    counts = [x["id"] for x in v.given("input") if (x["tensor"], x["rank"]) == ("count", mine["rank"])]
    if v.random.random() < 0.5:
        task["inputs"].append(v.pick(counts))


@mutation("keys scaled by their positions", "HX406", "HX411")
def _scaled_keys(v: Victim) -> None:
    """Instead of queries: what attends exchanges the two."""
    task = v.task_of_kind("scale_queries")
    attention = v.pick([t for t in v.data["tasks"] if task["outputs"][0] in t["inputs"]])
    if attention["op"]["kind"] != "attention":
        raise InapplicableError
    key = attention["inputs"][1]
    attention["inputs"][:2] = task["inputs"][0], task["outputs"][0]
    task["inputs"][0] = key


def _sinks(v: Victim) -> list[Data]:
    return [value for value in v.data["values"] if value["tensor"].endswith(".sinks")]


@mutation("a sink left out", "HX408", "HX411", "HX412")
def _no_sink(v: Victim) -> None:
    ids = {value["id"] for value in _sinks(v)}
    task = v.pick([task for task in v.data["tasks"] if ids & set(task["inputs"])])
    task["inputs"].pop()


@mutation("a sink counted in every lane", "HX401", "HX411")
def _sink_twice(v: Victim) -> None:
    """In the partial attention, beside the merge or instead of it."""
    sink = v.pick(_sinks(v))
    tasks = [task for task in v.data["tasks"] if task["ranks"] == [sink["rank"]]]
    partial = v.pick([t for t in tasks if t["op"]["kind"] == "partial_attention" and t["layer"] == _layer(sink)])
    partial["inputs"].append(sink["id"])
    merge = next(t for t in tasks if t["op"]["kind"] == "merge" and t["layer"] == _layer(sink))
    if v.random.random() < 0.5:
        merge["inputs"].pop()


def _layer(value: Data) -> int:
    return int(value["tensor"].partition(".")[0][1:])


@mutation("sinks of other heads", "HX406", "HX408", "HX414")
def _sinks_of_others(v: Victim) -> None:
    sink = v.pick(_sinks(v))
    others = [x["region"] for x in _sinks(v) if x["tensor"] == sink["tensor"]]
    sink["region"] = another(v.random, list(sink["region"]), others)


@mutation("sinks of another layer", "HX403", "HX411")
def _sinks_of_another_layer(v: Victim) -> None:
    sink = v.pick(_sinks(v))
    other = v.pick([x for x in _sinks(v) if x["rank"] == sink["rank"] and x["tensor"] != sink["tensor"]])
    reading = [task for task in v.data["tasks"] if sink["id"] in task["inputs"]]
    for task in reading:
        task["inputs"][task["inputs"].index(sink["id"])] = other["id"]


@mutation("values, or what attention makes of them, of other dims", "HX401", "HX406", "HX407", "HX408")
def _dims_of_values(v: Victim) -> None:
    value = v.pick([x for x in v.data["values"] if "v_dim" in v.dims(x)])
    interval = value["region"][v.dims(value).index("v_dim")]
    interval[v.random.randrange(2)] += v.random.choice((-1, 1))
