"""Mutations of many rows together, so that no two neighbours contradict each other."""

from __future__ import annotations

from tests.attack.mutation import COLLECTIVES, Data, InapplicableError, MutationRegistry, Victim

mutation = MutationRegistry()


def _teams(data: Data) -> list[list[int]]:
    """Sets of ranks that share a collective of more than two, or any that is no send: about the teams."""
    found = {tuple(t["ranks"]) for t in data["tasks"] if t["op"]["kind"] in COLLECTIVES[:4]}
    return [list(ranks) for ranks in found]


@mutation("two ranks of a team exchange their parts of the model", "HX404", "HX406", "HX408", "HX412", "HX414")
def _parts(v: Victim) -> None:
    """Where nothing is gathered this computes the model; but not as the layout says."""
    a, b = v.two(v.pick(_teams(v.data)))
    mine: dict[int, dict[tuple[str, str], Data]] = {a: {}, b: {}}
    for value in v.data["values"]:
        if value["rank"] in mine and v.maker.get(value["id"], {"op": {"kind": ""}})["op"]["kind"] not in COLLECTIVES:
            stem = value["id"].rpartition("@")[0]
            mine[value["rank"]][value["tensor"], stem] = value
    changed = False
    for key in mine[a].keys() & mine[b].keys():
        x, y = mine[a][key], mine[b][key]
        changed |= x["region"] != y["region"] or x["partial"] != y["partial"]
        for field in ("region", "partial"):
            x[field], y[field] = y[field], x[field]
    if not changed:
        raise InapplicableError


@mutation("two ranks renumbered everywhere", "HX401", "HX414")
def _renumbered(v: Victim) -> None:
    """Stages, replicas, groups or slices change places."""
    a, b = v.two([*range(len(v.data["order"]))])
    _renumber(v.data, {a: b, b: a})


@mutation("two stages exchanged", "HX401", "HX404", "HX405", "HX414")
def _stages(v: Victim) -> None:
    """The ranks that send, and those that receive."""
    sends = [t["ranks"] for t in v.data["tasks"] if t["op"]["kind"] == "send_receive"]
    a, b = v.pick(sends)
    pairs = {tuple(ranks) for ranks in sends if (ranks[0] - a) == (ranks[1] - b)}
    names = {x: y for pair in pairs for x, y in (pair, pair[::-1])}
    _renumber(v.data, names)


@mutation("all regions of a dim of a tensor moved", "HX401", "HX406")
def _tensor_moved(v: Victim) -> None:
    tensor = v.pick(v.data["tensors"])
    axis = v.random.randrange(len(tensor["shape"]))
    for value in v.data["values"]:
        if value["tensor"] == tensor["name"]:
            value["region"][axis] = [end + 1 for end in value["region"][axis]]


@mutation("the border of two ranks' parts of the feed-forward moved", "HX406", "HX408", "HX412", "HX414", "HX401")
def _border(v: Victim) -> None:
    """One has more of the width, the other less, through all its layer: it computes the model."""
    names = {t["name"] for t in v.data["tensors"] if "ffn" in t["dims"]}
    edges = sorted(
        {
            interval[1]
            for x in v.data["values"]
            if x["tensor"] in names
            for dim, interval in zip(v.dims(x), x["region"], strict=True)
            if dim == "ffn"
        }
    )
    edge = v.pick(edges[:-1])
    step = v.random.choice((-1, 1))
    for value in v.data["values"]:
        intervals = [i for d, i in zip(v.dims(value), value["region"], strict=True) if d == "ffn"]
        for interval in (*intervals, *(i for d, i in value["partial"] if d == "ffn")):
            interval[:] = [end + step if end == edge else end for end in interval]
    for task in v.data["tasks"]:
        _recount(v, task)


@mutation("two dags of one model mixed", "HX403", "HX404", "HX401", "HX411")
def _mixed(v: Victim) -> None:
    """The tasks of some layer or rank are left, what they make is of another name."""
    rank = v.random.randrange(len(v.data["order"]))
    for value in v.data["values"]:
        if value["rank"] == rank and v.random.random() < 0.5:
            value["id"] = value["id"].replace("@", ":other@")


def _renumber(data: Data, names: dict[int, int]) -> None:
    if not names:
        raise InapplicableError
    for value in data["values"]:
        value["rank"] = names.get(value["rank"], value["rank"])
    for task in data["tasks"]:
        task["ranks"] = [names.get(rank, rank) for rank in task["ranks"]]
    data["order"] = [data["order"][names.get(rank, rank)] for rank in range(len(data["order"]))]


_NBYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "int64": 8}


def _recount(v: Victim, task: Data) -> None:
    """Flops and bytes of the kinds that a feed-forward has (docs/formats.md, "Flops and bytes")."""

    def numel(name: str) -> int:
        count = 1
        for start, stop in v.values[name]["region"]:
            count *= stop - start
        return count

    def nbytes(names: list[str]) -> int:
        return sum(numel(name) * _NBYTES[v.values[name]["dtype"]] for name in names)

    kind_, outputs = task["op"]["kind"], sum(numel(name) for name in task["outputs"])
    if kind_ == "linear":
        x, depth = v.values[task["inputs"][0]], 1
        for dim, (start, stop) in zip(v.dims(x), x["region"], strict=True):
            depth *= stop - start if dim in task["op"]["contract"] else 1
        task["flops"] = 2 * depth * outputs
    elif kind_ in {"activation", "multiply"}:
        task["flops"] = outputs
    if kind_ in {"linear", "activation", "multiply"}:
        task["nbytes"] = nbytes([*task["inputs"], *task["outputs"]])
