"""What latent attention adds: products a head, joined heads, rotations of a part of a head, one cache for both."""

from __future__ import annotations

from typing import Any

from tests.attack.mutation import Data, InapplicableError, MutationRegistry, Victim, another

mutation = MutationRegistry()


def _changed(v: Victim, task: Data, name: str, value: Any) -> None:
    """In one task, or in all equal ones, so that they agree with each other."""
    old = dict(task["op"])
    for other in v.data["tasks"] if v.random.random() < 0.5 else [task]:
        if other["op"] == old:
            other["op"] = {**old, name: value}


def _tensor(v: Victim, name: str) -> str:
    return str(v.values[name]["tensor"].rpartition(".")[2])


@mutation("how much of a head is rotated", "HX401", "HX411")
def _last(v: Victim) -> None:
    task = v.pick([t for t in v.computations if t["op"]["kind"] in {"rotate", "rotate_at"} and "last" in t["op"]])
    _changed(v, task, "last", another(v.random, task["op"]["last"], (2, 4, 8, 13, None, 0, 3, 6.0)))


@mutation("the dim of a head's product, its rest or its dtype", "HX401", "HX411")
def _of_a_head(v: Victim) -> None:
    task = v.task_of_kind("head_linear")
    name = v.random.choice(("contract", "rest", "parts"))
    options = ("nope_dim", "kv_rank", "v_dim", "head", "x") if name == "contract" else (True, False, None)
    _changed(v, task, name, another(v.random, task["op"][name], options))


@mutation("weights of keys and values exchanged", "HX404", "HX411")
def _weights_exchanged(v: Victim) -> None:
    task = v.pick([t for t in v.computations if {"w_k", "w_v"} & {_tensor(v, name) for name in t["inputs"]}])
    for i, name in enumerate(task["inputs"]):
        if (kind := _tensor(v, name)) in {"w_k", "w_v"}:
            other = {"w_k": "w_v", "w_v": "w_k"}[kind]
            rank = v.values[name]["rank"]
            task["inputs"][i] = v.pick(
                [x["id"] for x in v.given("weight") if _tensor(v, x["id"]) == other and x["rank"] == rank]
            )


@mutation("a head's part of a weight is another's", "HX406", "HX407", "HX408", "HX412", "HX414")
def _other_heads(v: Victim) -> None:
    value = v.pick([x for x in v.given("weight") if {"kv_rank", "head"} <= set(v.dims(x))])
    where = value["region"][v.dims(value).index("head")]
    where[v.random.randrange(2)] += v.random.choice((-1, 1))
    size = v.tensors[value["tensor"]]["shape"][v.dims(value).index("head")]
    if not 0 <= where[0] < where[1] <= size:
        raise InapplicableError


@mutation("joined in another order, or with itself", "HX411")
def _joined(v: Victim) -> None:
    task = v.task_of_kind("join")
    if v.random.random() < 0.5:
        task["inputs"].reverse()
    else:
        task["inputs"][v.random.randrange(2)] = v.pick(task["inputs"])
        if len(set(task["inputs"])) == 2:
            raise InapplicableError


@mutation("joined with a key that is not rotated, or a latent that is not normalised", "HX411")
def _joined_early(v: Victim) -> None:
    task = v.task_of_kind("join")
    i = v.random.randrange(2)
    maker = v.maker[task["inputs"][i]]
    task["inputs"][i] = v.pick([name for name in maker["inputs"] if v.values[name]["tensor"] in v.tensors])
    if _tensor(v, task["inputs"][i]) == "length":
        raise InapplicableError


@mutation("a latent of other sequences", "HX405", "HX406")
def _other_sequences(v: Victim) -> None:
    """What a slice narrows a latent to, or takes of it."""
    made = [v.values[t["outputs"][0]] for t in v.data["tasks"] if t["op"]["kind"] == "narrow"]
    value = v.pick([x for x in made if _tensor(v, x["id"]) in {"kv_down", "k_rope"}])
    value["region"][0] = [end + v.random.choice((-1, 1)) for end in value["region"][0]]
    start, stop = value["region"][0]
    if not 0 <= start < stop <= v.tensors[value["tensor"]]["shape"][0]:
        raise InapplicableError


@mutation("attention over a cache that is keys alone", "HX401", "HX404", "HX406", "HX411")
def _keys_alone(v: Victim) -> None:
    """Of the two places of a cache that is both, one has what it was, or nothing."""
    tasks = [t for t in v.computations if t["op"]["kind"] in {"cached_attention", "partial_attention"}]
    task = v.pick([t for t in tasks if t["inputs"][1] == t["inputs"][2]])
    i = v.random.choice((1, 2))
    if v.random.random() < 0.5:
        task["inputs"].pop(i)
    else:
        write = v.maker[task["inputs"][1]]
        task["inputs"][i] = write["inputs"][1]


def _expands(v: Victim) -> Data:
    return v.task_of_kind("expand")


@mutation(
    "expanded keys and values that are not the cache's, or of before it was written", "HX404", "HX406", "HX411", "HX415"
)
def _expanded_early(v: Victim) -> None:
    task = _expands(v)
    write = v.maker[task["inputs"][0]]
    task["inputs"][0] = v.random.choice(write["inputs"][:2])


@mutation("expanded keys in the place of values, or latents in the place of either", "HX411")
def _unexpanded(v: Victim) -> None:
    task = v.pick(
        [
            t
            for t in v.computations
            if t["op"]["kind"] in {"cached_attention", "partial_attention"}
            and _tensor(v, t["inputs"][1]) == "k_expanded"
        ]
    )
    i = v.random.choice((1, 2))
    made = v.maker[task["inputs"][i]]
    task["inputs"][i] = v.random.choice((task["inputs"][3 - i], made["inputs"][0]))


@mutation("expanded positions of another lane, of other sequences, or for other heads", "HX405", "HX406", "HX407")
def _expanded_elsewhere(v: Victim) -> None:
    """What a rank makes of its latents is another region than they are."""
    task = _expands(v)
    value = v.values[v.random.choice(task["outputs"])]
    name = v.random.choice(("batch", "key_lane", "head"))
    axis = v.dims(value).index(name)
    size = v.tensors[value["tensor"]]["shape"][axis]
    value["region"][axis] = [end + v.random.choice((-1, 1)) for end in value["region"][axis]]
    start, stop = value["region"][axis]
    if not 0 <= start < stop <= size:
        raise InapplicableError
