"""What a sparse choice of keys adds: an indexer and its cache, the best keys of lanes, choices that layers share."""

from __future__ import annotations

from typing import Any

from tests.attack.mutation import Data, InapplicableError, MutationRegistry, Victim, another

mutation = MutationRegistry()
SELECTS = ("select", "cached_select", "partial_select")
ATTENTIONS = ("attention", "cached_attention", "partial_attention")


def _kind(v: Victim, name: str) -> str:
    return str(v.values[name]["tensor"].rpartition(".")[2])


def _changed(v: Victim, kinds: tuple[str, ...], name: str, options: tuple[Any, ...]) -> None:
    """An attribute of one task, or of all that have it and are of these kinds, so that they agree with each other."""
    tasks = [t for t in v.data["tasks"] if t["op"]["kind"] in kinds and name in t["op"]]
    one = v.pick([t for t in tasks if t["op"]["kind"] in SELECTS])
    new = another(v.random, one["op"][name], options)
    for task in tasks if v.random.random() < 0.5 else [one]:
        task["op"][name] = new


@mutation("how many keys are chosen", "HX401", "HX406", "HX411", "HX412")
def _top_k(v: Victim) -> None:
    _changed(v, (*SELECTS, *ATTENTIONS), "top_k", (1, 2, 3, 4, 5, 0, 2**20, 3.0, None))


@mutation("scale of an indexer's scores", "HX401", "HX411")
def _scale(v: Victim) -> None:
    old = v.task_of_kind(*SELECTS)["op"]["scale"]
    _changed(v, SELECTS, "scale", (old * 2, old * (1 + 2**-52), 1.0, 0.0, -old, None))


@mutation("keys chosen among later ones", "HX411", "HX412")
def _not_causal(v: Victim) -> None:
    _changed(v, SELECTS, "causal", (True, False))


def _write(v: Victim) -> Data:
    """A task that writes an indexer's keys beside the latent."""
    return v.pick([t for t in v.computations if "index_k_cached" in {_kind(v, name) for name in t["outputs"]}])


@mutation("the indexer's keys are not written", "HX401", "HX406", "HX411")
def _not_written(v: Victim) -> None:
    """The choice is among what the cache held before, or something else is written."""
    write = _write(v)
    by_kind = {_kind(v, name): name for name in (*write["inputs"], *write["outputs"])}
    if v.random.random() < 0.5:
        for task in v.readers(by_kind["index_k_cached"]):
            swap = {by_kind["index_k_cached"]: by_kind["index_k_cache"]}
            task["inputs"] = [swap.get(name, name) for name in task["inputs"]]
    else:
        (key,) = [name for kind, name in by_kind.items() if kind == "index_k_rotated"]
        write["inputs"] = [by_kind["latent"] if name == key else name for name in write["inputs"]]


@mutation("the indexer's cache left out of the write", "HX401", "HX404", "HX408", "HX411", "HX412", "HX415")
def _left_out(v: Victim) -> None:
    write = _write(v)
    for end in ("inputs", "outputs"):
        write[end] = [name for name in write[end] if not _kind(v, name).startswith("index_k_")]


@mutation("keys that another layer has chosen", "HX405", "HX411")
def _of_another_layer(v: Victim) -> None:
    tasks = [t for t in v.computations if t["op"]["kind"] in ATTENTIONS and "top_k" in t["op"]]
    task = v.pick(tasks)
    mine = v.values[task["inputs"][-1]]
    likes = [x for x in v.data["values"] if _kind(v, x["id"]) == "selected"]
    task["inputs"][-1] = another(
        v.random, mine["id"], [x["id"] for x in likes if (x["rank"], x["region"]) == (mine["rank"], mine["region"])]
    )


@mutation("attention to all keys", "HX401", "HX411", "HX412")
def _to_all(v: Victim) -> None:
    """What was chosen is not looked at: by one attention, or by all."""
    tasks = [t for t in v.computations if t["op"]["kind"] in ATTENTIONS and "top_k" in t["op"]]
    one = v.pick(tasks)
    for task in tasks if v.random.random() < 0.5 else [one]:
        task["op"].pop("top_k")
        task["inputs"].pop()


@mutation("keys chosen for other tokens", "HX406", "HX407", "HX412", "HX414")
def _other_tokens(v: Victim) -> None:
    """Those of a slice, or what it is scored by."""
    names = ("selected", "index_q_rotated", "index_factor", "index_k_rotated")
    value = v.pick([x for x in v.data["values"] if _kind(v, x["id"]) in names])
    where = value["region"][v.random.randrange(2)]
    where[v.random.randrange(2)] += v.random.choice((-1, 1))
    axis = value["region"].index(where)
    if not 0 <= where[0] < where[1] <= v.tensors[value["tensor"]]["shape"][axis]:
        raise InapplicableError


@mutation("an indexer that is not normalised, or not rotated", "HX411")
def _early(v: Victim) -> None:
    """What goes into a norm or a rotation of the indexer is taken in the place of what comes out."""
    kinds = ("norm", "rotate", "rotate_at")
    makers = [t for t in v.computations if t["op"]["kind"] in kinds and _kind(v, t["outputs"][0]).startswith("index_")]
    maker = v.pick(makers)
    i = v.random.randrange(len(maker["outputs"]))
    for task in v.readers(maker["outputs"][i]):
        task["inputs"] = [maker["inputs"][i] if x == maker["outputs"][i] else x for x in task["inputs"]]


@mutation("operands of an indexer exchanged", "HX401", "HX406", "HX411")
def _exchanged(v: Victim) -> None:
    task = v.task_of_kind(*SELECTS, "merge_select")
    task["inputs"][:2] = reversed(task["inputs"][:2])


@mutation("factors of an indexer rounded", "HX411", "HX413", "HX412")
def _rounded(v: Victim) -> None:
    """A product that is said to be kept wide, or not; or what it makes, in another dtype."""
    tasks = [t for t in v.computations if t["op"]["kind"] == "linear" and t["op"].get("wide")]
    task = v.pick(tasks)
    if v.random.random() < 0.5:
        task["op"].pop("wide")
    else:
        v.values[task["outputs"][0]]["dtype"] = "bfloat16"


@mutation("the best keys of fewer lanes", "HX401", "HX404", "HX406", "HX409", "HX411", "HX412")
def _fewer_lanes(v: Victim) -> None:
    """A merge takes what its own lane has, and not what is gathered of all."""
    task = v.task_of_kind("merge_select")
    gathers = [v.maker[name] for name in task["inputs"]]
    rank = task["ranks"][0]
    for i, gather in enumerate(gathers):
        mine = [n for n in gather["inputs"] if v.values[n]["rank"] == rank]
        task["inputs"][i] = next(n for n in mine if _kind(v, n) == _kind(v, task["inputs"][i]))


@mutation("a choice of keys where the model makes none", "HX401", "HX411", "HX412")
def _too_much(v: Victim) -> None:
    """An attention of a model with none is said to have one; or a shared layer is given an indexer's op."""
    tasks: list[Data] = [t for t in v.computations if t["op"]["kind"] in ATTENTIONS and "top_k" not in t["op"]]
    task = v.pick(tasks)
    task["op"]["top_k"] = v.random.choice((1, 2, 3))
