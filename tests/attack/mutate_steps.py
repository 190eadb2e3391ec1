"""What steps with a KV cache add: positions, lanes, lengths, states that are left, parts that are merged, tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.plan.steps import steps_of
from tests.attack.mutate_tasks import again
from tests.attack.mutation import Data, InapplicableError, MutationRegistry, Victim, another, copy, redigest

mutation = MutationRegistry()
STATES = ("k_cache", "v_cache", "latent_cache", "index_k_cache")
CACHES = (*STATES, "k_cached", "v_cached", "latent_cached", "index_k_cached")
PARTS = ("attention_part", "attention_lse", "best_score", "best_key")
OVER_CACHE = ("cached_attention", "partial_attention")
COUNTED = {
    "cache_write": (-2, -1),
    "expand": (3, 4),
    "cached_attention": (3, 4),
    "partial_attention": (3, 4),
    "cached_select": (3, 4),
    "partial_select": (3, 4),
}  # places of length and count
LOWERED = "the dag may be what the other plan is lowered to"


def _kind(value: Data) -> str:
    """The name of a value's tensor without its layer."""
    return str(value["tensor"].rpartition(".")[2])


def _of(v: Victim, kinds: Sequence[str], *, made: bool = True) -> list[Data]:
    """Values of some kinds of tensors; ``made``: only those that are given, or made by a computation."""
    moving = {name for task in v.collectives for name in task["outputs"]} if made else set()
    return [value for value in v.data["values"] if _kind(value) in kinds and value["id"] not in moving]


def _alike(v: Victim, value: Data, kinds: Sequence[str]) -> list[Data]:
    """The values of some kinds of tensors that are of the same layer, rank and sequences."""
    layer = value["tensor"].rpartition(".")[0]
    where = (value["rank"], value["region"][0], layer)
    return [x for x in _of(v, kinds) if (x["rank"], x["region"][0], x["tensor"].rpartition(".")[0]) == where]


def _interval(v: Victim, value: Data, dim: str) -> list[int]:
    found: list[int] = value["region"][v.dims(value).index(dim)]
    return found


def _size(v: Victim, value: Data, dim: str) -> int:
    return int(v.tensors[value["tensor"]]["shape"][v.dims(value).index(dim)])


def _cut_cache(v: Victim) -> Data:
    """A state of which the rank has one lane of several."""
    return v.pick([x for x in _of(v, STATES) if _size(v, x, "key_lane") > 1])


# --- positions -------------------------------------------------------------------------------------------------------


@mutation("a rank has another lane of the cache", "HX406", "HX407", "HX408")
def _other_lane(v: Victim) -> None:
    """With all that it makes of it, or without: a lane is there twice, another nowhere."""
    cache = _cut_cache(v)
    lane, lanes = list(_interval(v, cache, "key_lane")), _size(v, cache, "key_lane")
    new = another(v.random, lane, [[i, i + 1] for i in range(lanes)])
    for value in _alike(v, cache, v.random.choice((CACHES, (*CACHES, *PARTS)))):
        _interval(v, value, "key_lane")[:] = new


@mutation("two slices exchange their lanes", "HX406", "HX414")
def _lanes_exchanged(v: Victim) -> None:
    """All of it agrees, but that parts are put together in the order of the ranks."""
    a = _cut_cache(v)
    others = [x for x in _of(v, CACHES) if x["tensor"] == a["tensor"] and x["rank"] != a["rank"]]
    b = v.pick([x for x in others if _interval(v, x, "key_lane") != _interval(v, a, "key_lane")])
    lanes = {x["rank"]: list(_interval(v, y, "key_lane")) for x, y in ((a, b), (b, a))}
    for x in (a, b):
        for value in _of(v, (*CACHES, *PARTS)):
            if value["rank"] == x["rank"] and value["tensor"].rpartition(".")[0] == a["tensor"].rpartition(".")[0]:
                _interval(v, value, "key_lane")[:] = lanes[x["rank"]]


@mutation("a slice reads a lane more", "HX401", "HX406", "HX407", "HX408")
def _lane_more(v: Victim) -> None:
    cache = _cut_cache(v)
    for value in _alike(v, cache, v.random.choice((CACHES, STATES, (*CACHES, *PARTS)))):
        lane = _interval(v, value, "key_lane")
        lane[v.random.randrange(2)] = v.random.choice((0, _size(v, value, "key_lane")))


@mutation("cycles or offsets of a cache left out", "HX401", "HX406", "HX408")
def _positions_left_out(v: Victim) -> None:
    """The positions are written by nobody."""
    cache = v.pick(_of(v, STATES))
    dim = v.random.choice(("key_cycle", "key_offset"))
    for value in _alike(v, cache, CACHES):
        _interval(v, value, dim)[1] -= 1


@mutation("all ranks leave out the same positions", "HX401", "HX406", "HX408")
def _all_leave_out(v: Victim) -> None:
    for value in _of(v, CACHES):
        _interval(v, value, "key_cycle")[0] += 1


@mutation("a part that is said to be of another lane", "HX406")
def _part_of_lane(v: Victim) -> None:
    part = v.pick(_of(v, PARTS))
    lane = _interval(v, part, "key_lane")
    lanes = _size(v, part, "key_lane")
    lane[:] = another(v.random, list(lane), [[i, i + 1] for i in range(lanes)] + [[0, lanes]])


@mutation("cache of other sequences or heads", "HX401", "HX406", "HX407", "HX408", "HX414")
def _other_region(v: Victim) -> None:
    """Two ranks exchange their regions of it."""
    a = v.pick(_of(v, STATES))
    b = v.pick([x for x in _of(v, STATES) if x["tensor"] == a["tensor"] and x["region"] != a["region"]])
    for x, y in zip(_alike(v, a, CACHES), _alike(v, b, CACHES), strict=True):
        x["region"], y["region"] = y["region"], x["region"]


@mutation("room of the caches changed", "HX401", "HX411")
def _room(v: Victim) -> None:
    """Of all of them, with the regions."""
    dim = v.random.choice(("key_cycle", "key_lane", "key_offset"))
    for tensor in v.data["tensors"]:
        if dim in tensor["dims"]:
            tensor["shape"][tensor["dims"].index(dim)] += 1
    for value in v.data["values"]:
        if dim in v.dims(value) and (dim != "key_lane" or _interval(v, value, dim)[0] == 0):
            _interval(v, value, dim)[1] += dim != "key_lane"


@mutation("lanes and blocks exchanged in all tensors", "HX401", "HX406", "HX411")
def _lanes_for_blocks(v: Victim) -> None:
    tensors = [t for t in v.data["tensors"] if "key_offset" in t["dims"] and t["shape"][2] != t["shape"][3]]
    if not tensors:
        raise InapplicableError
    for tensor in tensors:
        tensor["shape"][2], tensor["shape"][3] = tensor["shape"][3], tensor["shape"][2]


# --- lengths ---------------------------------------------------------------------------------------------------------


@mutation("length and count exchanged in a task, or in all", "HX411")
def _mask_of_counts(v: Victim) -> None:
    task = v.task_of_kind(*COUNTED)
    i, j = COUNTED[task["op"]["kind"]]
    for other in v.data["tasks"] if v.random.random() < 0.5 else [task]:
        if other["op"] == task["op"]:
            other["inputs"][i], other["inputs"][j] = other["inputs"][j], other["inputs"][i]


@mutation("one of length and count in the place of both", "HX411")
def _one_for_both(v: Victim) -> None:
    task = v.task_of_kind(*COUNTED)
    i, j = COUNTED[task["op"]["kind"]]
    task["inputs"][i] = task["inputs"][j] = task["inputs"][v.random.choice((i, j))]


@mutation("positions of a rotation from another input", "HX411")
def _rotated_by_count(v: Victim) -> None:
    task = v.task_of_kind("rotate_at")
    rank = task["ranks"][0]
    batch = v.values[task["inputs"][-1]]["region"]
    task["inputs"][-1] = v.pick(
        [x["id"] for x in v.given("input") if (x["tensor"], x["rank"], x["region"]) == ("count", rank, batch)]
    )


@mutation("a rotation without its length", "HX401", "HX411")
def _no_length(v: Victim) -> None:
    task = v.task_of_kind("rotate_at")
    if v.random.random() < 0.5:
        task["op"]["kind"] = "rotate"
    task["inputs"].pop()


@mutation("last tokens at the length of the cache", "HX411")
def _last_at_length(v: Victim) -> None:
    task = v.task_of_kind("last_token")
    count = v.values[task["inputs"][1]]
    likes = [x for x in v.given("input") if (x["rank"], x["region"]) == (count["rank"], count["region"])]
    task["inputs"][1] = v.pick([x["id"] for x in likes if x["tensor"] == "length"])


@mutation("lengths or counts of another microbatch", "HX406")
def _counts_of_others(v: Victim) -> None:
    task = v.task_of_kind("rotate_at", *COUNTED)
    i = v.pick([i for i, name in enumerate(task["inputs"]) if v.values[name]["tensor"] in {"length", "count"}])
    mine = v.values[task["inputs"][i]]
    likes = [x for x in v.given("input") if (x["rank"], x["tensor"]) == (mine["rank"], mine["tensor"])]
    task["inputs"][i] = another(v.random, mine["id"], [x["id"] for x in likes])


@mutation("lengths or counts of fewer sequences", "HX406", "HX408", "HX412", "HX415")
def _counts_of_fewer(v: Victim) -> None:
    value = v.pick([x for x in v.given("input") if x["tensor"] in {"length", "count"}])
    value["region"][0][v.random.randrange(2)] += v.random.choice((-1, 1))
    start, stop = value["region"][0]
    if not 0 <= start < stop <= v.tensors[value["tensor"]]["shape"][0]:
        raise InapplicableError


@mutation("how much a cache holds beforehand changed", "HX411")
def _held(v: Victim) -> None:
    """Flops and bytes are counted with it."""
    tensor = v.pick([t for t in v.data["tensors"] if t["name"] in {"length", "count"} and "count" in v.tensors])
    tensor["init"][0] += v.random.choice((1.0, -1.0, 1000.0))


# --- states ----------------------------------------------------------------------------------------------------------


def _states(v: Victim) -> list[Data]:
    return [tensor for tensor in v.data["tensors"] if tensor["role"] == "state"]


@mutation("next of a state changed", "HX401", "HX411")
def _next(v: Victim) -> None:
    state = v.pick(_states(v))
    if v.random.random() < 0.2:
        del state["next"]
    else:
        names = [t["name"] for t in v.data["tensors"] if t["dims"] == state["dims"]]
        state["next"] = another(v.random, state["next"], [*names, "", "x", None])


@mutation("next of two states exchanged", "HX411")
def _nexts(v: Victim) -> None:
    """Keys become values, or those of another layer."""
    a, b = v.two(_states(v))
    a["next"], b["next"] = b["next"], a["next"]


@mutation("a tensor that is no state has a next", "HX411")
def _a_next(v: Victim) -> None:
    tensor = v.pick([t for t in v.data["tensors"] if t["role"] != "state"])
    tensor["next"] = v.pick(v.data["tensors"])["name"]


@mutation("a state is read by another task", "HX415")
def _read_again(v: Victim) -> None:
    """What the cache held before the step, and nobody may keep."""
    state = v.pick(v.given("state"))
    name, rank = state["id"] + ":kept", state["rank"]
    v.data["values"].append(copy(state) | {"id": name})
    dim = v.pick(v.dims(state))
    made = copy(v.pick(v.readers(state["id"]))) | {"id": name, "op": {"kind": "narrow", "dim": dim}}
    made |= {"inputs": [state["id"]], "outputs": [name], "flops": 0, "nbytes": 2 * _nbytes(state)}
    v.data["tasks"].append(made)
    order = v.data["order"][rank]
    order.insert(v.random.randrange(len(order) + 1), name)


@mutation("states with other ranks than those that leave them", "HX415")
def _lent(v: Victim) -> None:
    """Each of two ranks is given the other's, and sends it before the first task: the step computes what it should."""
    a = v.pick(v.given("state"))
    likes = [x for x in v.given("state") if x["tensor"] == a["tensor"] and x["rank"] != a["rank"]]
    b = v.pick([x for x in likes if x["region"] != a["region"]])
    sends = []
    for mine, other in ((a, b), (b, a)):
        rank, name = mine["rank"], mine["id"]
        made = copy(mine) | {"id": name + ":back"}
        v.data["values"].append(made)
        for task in v.readers(name):
            task["inputs"] = [made["id"] if x == name else x for x in task["inputs"]]
            like = task
        sends.append(copy(like) | {"id": made["id"], "op": {"kind": "send_receive"}, "ranks": [other["rank"], rank]})
        sends[-1] |= {"inputs": [name], "outputs": [made["id"]], "flops": 0, "nbytes": _nbytes(mine)}
    a["rank"], b["rank"] = b["rank"], a["rank"]
    v.data["tasks"] += sends
    for rank in (a["rank"], b["rank"]):
        v.data["order"][rank][:0] = [task["id"] for task in sends]


@mutation("a state given to one rank more", "HX408", "HX414", "HX415")
def _state_twice(v: Victim) -> None:
    """Or all of them a second time, so that each part is there as often as any other."""
    state = v.pick(v.given("state"))
    for value in v.given("state"):
        if value is state or (v.random.random() < 0.9 and value["tensor"] == state["tensor"]):
            rank = value["rank"] if v.random.random() < 0.5 else v.random.randrange(len(v.data["order"]))
            v.data["values"].append(copy(value) | {"id": value["id"] + ":again", "rank": rank})


@mutation("cache written twice on all ranks", "HX414", "HX415")
def _written_twice(v: Victim) -> None:
    tensor = v.values[v.task_of_kind("cache_write")["outputs"][0]]["tensor"]
    for task in [t for t in v.data["tasks"] if v.values.get(t["outputs"][0], {}).get("tensor") == tensor]:
        again(v, task)


@mutation("attention over the cache as it was", "HX411")
def _as_it_was(v: Victim) -> None:
    """Without the new keys, or the new values."""
    task = v.task_of_kind(*OVER_CACHE)
    write = v.maker[task["inputs"][1]]
    if write["op"]["kind"] != "cache_write":
        raise InapplicableError  # it was gathered, or expanded
    each = len(write["outputs"])
    i = v.random.randrange(each)
    task["inputs"][1 + i] = write["inputs"][each + i]


@mutation("keys and values exchanged in a cache", "HX411")
def _keys_for_values(v: Victim) -> None:
    task = v.task_of_kind("cache_write", *OVER_CACHE)
    if "latent_cache" in {_kind(v.values[name]) for name in task["inputs"]} or task["inputs"][1] == task["inputs"][2]:
        raise InapplicableError  # one is both
    i = v.random.choice((0, 2)) if task["op"]["kind"] == "cache_write" else 1
    task["inputs"][i], task["inputs"][i + 1] = task["inputs"][i + 1], task["inputs"][i]


@mutation("cache of another layer", "HX405", "HX411")
def _other_layer(v: Victim) -> None:
    task = v.task_of_kind("cache_write", *OVER_CACHE)
    i = v.pick([i for i, name in enumerate(task["inputs"]) if _kind(v.values[name]) in CACHES])
    mine = v.values[task["inputs"][i]]
    likes = [x for x in _of(v, (_kind(mine),)) if (x["rank"], x["region"]) == (mine["rank"], mine["region"])]
    task["inputs"][i] = another(v.random, mine["id"], [x["id"] for x in likes])


@mutation("keys written unrotated, or queries not rotated", "HX411")
def _unrotated(v: Victim) -> None:
    rotation = v.task_of_kind("rotate_at")
    i = v.random.randrange(2)
    for task in v.readers(rotation["outputs"][i]):
        task["inputs"] = [rotation["inputs"][i] if x == rotation["outputs"][i] else x for x in task["inputs"]]


# --- parts -----------------------------------------------------------------------------------------------------------


@mutation("merged before the parts are there", "HX406")
def _not_gathered(v: Victim) -> None:
    """Of its own lane alone."""
    task = v.task_of_kind("merge")
    i = v.random.randrange(2)
    mine = v.values[task["inputs"][i]]
    task["inputs"][i] = v.pick([x["id"] for x in _alike(v, mine, (_kind(mine),)) if x["id"] != mine["id"]])


@mutation("merged with other log-sum-exps", "HX404", "HX405", "HX406")
def _other_sums(v: Victim) -> None:
    """Of another group, another microbatch or another layer."""
    task = v.task_of_kind("merge")
    i = v.random.randrange(2)
    mine = v.values[task["inputs"][i]]
    likes = [x for x in _of(v, (_kind(mine),), made=False) if x["tensor"] == mine["tensor"] and x["id"] != mine["id"]]
    task["inputs"][i] = v.pick([x["id"] for x in likes if x["region"] != mine["region"]])


@mutation("parts and log-sum-exps exchanged", "HX411")
def _sums_for_parts(v: Victim) -> None:
    task = v.task_of_kind("merge", "partial_attention", "choose", "best")
    ends = task["inputs" if task["op"]["kind"] in {"merge", "choose"} else "outputs"]
    ends[:2] = ends[1::-1]


@mutation("merged without one lane", "HX401", "HX404", "HX406")
def _lane_missing(v: Victim) -> None:
    """One rank less in the exchange, or a lane less in what it leaves."""
    task = v.pick([t for t in v.collectives if _kind(v.values[t["inputs"][0]]) in PARTS])
    if v.random.random() < 0.5:
        ranks = len(task["ranks"])
        i = v.random.randrange(ranks)
        for key in ("ranks", "inputs", "outputs"):
            del task[key][i::ranks]
    else:
        for name in task["outputs"]:
            _interval(v, v.values[name], "key_lane")[v.random.randrange(2)] = 1


@mutation("parts exchanged along another dim", "HX406")
def _along_another(v: Victim) -> None:
    task = v.pick([t for t in v.collectives if _kind(v.values[t["inputs"][0]]) in PARTS])
    op = v.pick(task["op"].get("moves", [task["op"]]))
    for key in [key for key in op if key != "kind"]:
        if v.random.random() < 0.6:
            op[key] = another(v.random, op[key], ("seq", "head", "batch", "head_dim", "v_dim", "softmax"))


# --- tokens ----------------------------------------------------------------------------------------------------------


def _best(v: Victim) -> Data:
    return v.task_of_kind("best")


@mutation("the best of another share of the vocabulary", "HX401", "HX406")
def _other_share(v: Victim) -> None:
    """What is said of the outputs, of the logits, or of both alike."""
    task = _best(v)
    ends = v.random.choice((task["outputs"], task["inputs"], [*task["outputs"]][:1]))
    for name in ends:
        value = v.values[name]
        value["region"][1] = [end + v.random.choice((-1, 1)) for end in value["region"][1]]


@mutation("the best of two shares exchanged", "HX406")
def _shares_exchanged(v: Victim) -> None:
    a, b = v.two([t for t in v.data["tasks"] if t["op"]["kind"] == "best"])
    for i in range(2):
        x, y = v.values[a["outputs"][i]], v.values[b["outputs"][i]]
        if x["region"] == y["region"]:
            raise InapplicableError
        x["region"], y["region"] = y["region"], x["region"]


@mutation("chosen among a part of the vocabulary", "HX406")
def _chosen_of_a_part(v: Victim) -> None:
    task = v.task_of_kind("choose")
    for i in range(2) if v.random.random() < 0.5 else [v.random.randrange(2)]:
        mine = v.values[task["inputs"][i]]
        task["inputs"][i] = v.pick([x["id"] for x in _of(v, (mine["tensor"],)) if _same_place(x, mine)])


def _same_place(a: Data, b: Data) -> bool:
    return a["id"] != b["id"] and (a["rank"], a["region"][0]) == (b["rank"], b["region"][0])


def _sends(v: Victim) -> list[Data]:
    """The sends of tokens."""
    return [t for t in v.collectives if v.values[t["inputs"][0]]["tensor"] == "token"]


@mutation("token of another microbatch sent", "HX406")
def _other_token(v: Victim) -> None:
    task = v.pick(_sends(v))
    mine = v.values[task["inputs"][0]]
    likes = [x for x in _of(v, ("token",)) if x["rank"] == mine["rank"] and x["region"] != mine["region"]]
    task["inputs"][0] = v.pick(likes)["id"]


@mutation("tokens not sent", "HX415")
def _not_sent(v: Victim) -> None:
    """To one rank, to a stage, or of a microbatch."""
    task = v.pick(_sends(v))
    match v.random.randrange(3):
        case 0:
            gone = [task]
        case 1:
            gone = [t for t in _sends(v) if v.values[t["inputs"][0]]["region"] == v.values[task["inputs"][0]]["region"]]
        case _:
            gone = [t for t in _sends(v) if t["ranks"][1] == task["ranks"][1]]
    for task in gone:
        v.data["tasks"].remove(task)
        v.data["values"].remove(v.values[task["outputs"][0]])
        for order in v.data["order"]:
            order[:] = [name for name in order if name != task["id"]]


@mutation("tokens sent in another order, or ahead of other microbatches", "HX405", "HX409", "HX414",
      harmless="on some ranks there may be nothing between")  # fmt: skip
def _sent_early(v: Victim) -> None:
    """On all ranks alike."""
    names = {task["id"] for task in _sends(v)}
    early: Callable[[list[str]], list[str]] = v.random.choice((lambda x: x[::-1], lambda x: x[1:] + x[:1]))
    for order in v.data["order"]:
        sends = [name for name in order if name in names]
        order[:] = [name for name in order if name not in names] + early(sends)


@mutation("a token is sent by the one that lacks it", "HX404")
def _sent_back(v: Victim) -> None:
    v.pick(_sends(v))["ranks"].reverse()


@mutation("a token passed on by another stage", "HX414", "HX405", "HX409", harmless="the token is the same")
def _passed_on(v: Victim) -> None:
    """By a rank that has been sent it itself."""
    a, b = v.two(_sends(v))
    if a["ranks"][1] == b["ranks"][1] or v.values[a["inputs"][0]]["region"] != v.values[b["inputs"][0]]["region"]:
        raise InapplicableError
    rank = b["ranks"][0]
    b["inputs"], b["ranks"] = list(a["outputs"]), [a["ranks"][1], b["ranks"][1]]
    v.data["order"][rank].remove(b["id"])
    order = v.data["order"][a["ranks"][1]]
    order.insert(order.index(a["id"]) + 1, b["id"])


# --- dtypes, costs, steps --------------------------------------------------------------------------------------------


@mutation("dtype of parts, log-sum-exps, logits or tokens", "HX413")
def _dtype(v: Victim) -> None:
    """Of all of them alike: they agree among themselves."""
    name = v.random.choice((*PARTS, "best_logit", "best_token", "token", *STATES, "length", "count"))
    values = _of(v, (name,), made=False)
    dtype = another(v.random, v.pick(values)["dtype"], ("float16", "bfloat16", "float32", "float64", "int64"))
    layer = v.pick(values)["tensor"]
    for value in values:
        if value["tensor"] == layer:
            value["dtype"] = dtype


@mutation("flops or bytes of a task over a cache", "HX412")
def _costs(v: Victim) -> None:
    """Of all positions, of the new ones alone, of the whole cache, or with what a lane is not read."""
    task = v.task_of_kind(*OVER_CACHE, "cache_write", "merge", "rotate_at", "best", "choose")
    ends = [v.values[name] for name in (*task["inputs"], *task["outputs"])]
    whole = sum(_nbytes(value) for value in ends)
    first = v.values[task["inputs"][0]]
    options = {
        "flops": [4 * _numel(first), 4 * _numel(first) * _numel(ends[1]), 2 * _numel(first), task["flops"] * 2, 1],
        "nbytes": [whole, sum(_nbytes(v.values[x]) for x in task["inputs"]), task["nbytes"] * 2, task["nbytes"] - 1],
    }
    key = v.pick([*options])
    task[key] = another(v.random, task[key], options[key])


@mutation("step of a dag changed", "HX401", "HX411", "HX414")
def _step(v: Victim) -> None:
    old = v.data.get("step", "pass")
    v.data["step"] = another(v.random, old, ("pass", "prefill", "decode", "", "Decode", None))


@mutation("step of a dag left out", "HX401")
def _no_step(v: Victim) -> None:
    if "step" not in v.data:
        raise InapplicableError
    del v.data["step"]


@mutation("a plan of steps changed, digests made anew", "HX303", "HX401", "HX411", "HX412", "HX414", harmless=LOWERED)
def _another_plan(v: Victim) -> None:
    """Other lengths, other chunks, other blocks, or a slicing that leaves the dag another cache."""
    plan = v.data["plan"]
    if "output_len" not in plan["workload"]:
        raise InapplicableError
    match v.random.randrange(5):
        case 0:
            plan["workload"]["output_len"] = another(v.random, 6, (1, 2, 5, 7, 8, 60))
        case 1:
            plan["workload"]["prefill_tokens"] = v.random.choice((1, 4, 7, 12, 16, 9999))
        case 2:
            plan["layout"]["key_block"] = v.random.choice((1, 3, 4, 5, 11, 12))
        case 3:
            plan["layout"]["slicing"] = another(v.random, plan["layout"]["slicing"], ("key", "batch", "head_dim"))
        case _:
            del plan["workload"]["output_len"]
    redigest(v.data)


@mutation("the other step of the plan, under this step's name", "HX411")
def _other_step(v: Victim) -> None:
    """Of as many new tokens it may be, but of another number in the cache."""
    plan, mine = Plan.model_validate(v.data["plan"]), v.data.get("step")
    other = next((name for name in steps_of(plan.workload) if mine and name != mine), None)
    if other is None:
        raise InapplicableError
    v.data |= json.loads(lower(plan, step=other).to_json()) | {"step": mine}


def _numel(value: Data) -> int:
    return math.prod(stop - start for start, stop in value["region"])


def _nbytes(value: Data) -> int:
    return _numel(value) * {"float16": 2, "bfloat16": 2, "float32": 4}.get(value["dtype"], 8)


# --- prefill by query rows -------------------------------------------------------------------------------------------


def _by_rows(v: Victim) -> Data:
    """A task that attends with a slice's query rows over the lanes of all slices."""
    if v.data["plan"]["layout"].get("key_prefill") != "query":
        raise InapplicableError
    return v.task_of_kind("cached_attention")


@mutation("a slice attends with its rows over its own lane alone", "HX406")
def _own_lane_alone(v: Victim) -> None:
    """It takes what it wrote, not what was gathered; of keys and values, or of one of them."""
    task = _by_rows(v)
    mine = {v.values[name]["tensor"]: name for t in v.computations if t["op"]["kind"] == "cache_write"
            for name in t["outputs"] if v.values[name]["rank"] == task["ranks"][0]}  # fmt: skip
    places = [i for i in (1, 2) if v.values[task["inputs"][i]]["tensor"] in mine]
    for i in places if v.random.random() < 0.5 else places[:1]:
        its = v.values[task["inputs"][i]]
        task["inputs"][i] = v.pick([name for name in mine.values() if v.values[name]["tensor"] == its["tensor"]])


@mutation("query rows of a slice moved: rows attended with twice, and not at all", "HX405", "HX406", "HX407", "HX414")
def _rows_moved(v: Victim) -> None:
    task = _by_rows(v)
    value = v.values[v.random.choice((task["inputs"][0], task["outputs"][0]))]
    rows = _interval(v, value, "seq")
    rows[:] = [end + v.random.choice((-1, 1)) for end in rows]
    if not 0 <= rows[0] < rows[1] <= _size(v, value, "seq"):
        raise InapplicableError


@mutation("lanes of a cache gathered of another step's state", "HX404", "HX411", "HX415")
def _lanes_of_before(v: Victim) -> None:
    """What a rank sends of its lane is what it was before the new keys and values were written."""
    _by_rows(v)
    task = v.pick([t for t in v.collectives if t["id"].endswith((".g0", ".g1")) and "_cached" in t["id"]])
    i = v.random.randrange(len(task["inputs"]))
    made = v.maker[task["inputs"][i]]
    task["inputs"][i] = v.pick([name for name in made["inputs"] if _kind(v.values[name]) in CACHES[:3]])


@mutation("gathered lanes in the order of other ranks", "HX401", "HX404", "HX406")
def _lanes_in_another_order(v: Victim) -> None:
    _by_rows(v)
    task = v.pick([t for t in v.collectives if "_cached" in t["id"]])
    ends = task[v.random.choice(("inputs", "outputs"))]
    i, j = v.two(range(len(task["ranks"])))
    ends[i], ends[j] = ends[j], ends[i]
