"""What packed exchanges add: several tensors of one task, each with its move, its ends and its dtype."""

from __future__ import annotations

from tests.attack.mutation import Data, InapplicableError, MutationRegistry, Victim, another, copy

mutation = MutationRegistry()
ENDS = ("inputs", "outputs")


def _packed(v: Victim) -> Data:
    return v.task_of_kind("packed")


def _move(v: Victim, task: Data) -> int:
    return v.random.randrange(len(task["op"]["moves"]))


def _ends(task: Data, key: str, move: int) -> slice:
    """Where the inputs or outputs of a move stand."""
    each = len(task[key]) // len(task["op"]["moves"])
    return slice(move * each, (move + 1) * each)


def _swap(task: Data, key: str, a: int, b: int, only: int | None = None) -> None:
    """Exchange the ends of two moves, on all ranks or on one."""
    ends, first, second = task[key], _ends(task, key, a), _ends(task, key, b)
    if only is None:
        ends[first], ends[second] = ends[second], ends[first]
    else:
        i, j = first.start + only, second.start + only
        ends[i], ends[j] = ends[j], ends[i]


@mutation("tensors of a packed exchange swapped", "HX411")
def _swapped(v: Victim) -> None:
    """What is sent of two, or what is received; on all ranks or on one."""
    task = _packed(v)
    a, b = v.two([*range(len(task["op"]["moves"]))])
    rank = v.random.choice((None, v.random.randrange(len(task["ranks"]))))
    _swap(task, v.random.choice(ENDS), a, b, rank)


@mutation("moves of a packed exchange swapped", "HX406")
def _moves_swapped(v: Victim) -> None:
    moves = _packed(v)["op"]["moves"]
    a, b = v.two([*range(len(moves))])
    if moves[a] == moves[b]:
        raise InapplicableError
    moves[a], moves[b] = moves[b], moves[a]


@mutation("a packed exchange in another order of its tensors", harmless="they have nothing to do with each other")
def _reordered(v: Victim) -> None:
    task = _packed(v)
    moves = task["op"]["moves"]
    a, b = v.two([*range(len(moves))])
    for key in ENDS:
        _swap(task, key, a, b)
    moves[a], moves[b] = moves[b], moves[a]


@mutation("a packed exchange without one of its tensors", "HX401", "HX404")
def _left_out(v: Victim) -> None:
    """With what is said of it, or only with its move or its ends."""
    task = _packed(v)
    move = _move(v, task)
    cuts = [(key, _ends(task, key, move)) for key in ENDS]
    if (what := v.random.randrange(3)) != 1:
        for key, cut in cuts:
            del task[key][cut]
    if what != 0:
        del task["op"]["moves"][move]


@mutation("a tensor packed twice", "HX404")
def _twice(v: Victim) -> None:
    task = _packed(v)
    move = _move(v, task)
    for key in ENDS:
        task[key] += task[key][_ends(task, key, move)]
    task["op"]["moves"].append(copy(task["op"]["moves"][move]))


@mutation("one tensor sent for two", "HX406", "HX411")
def _one_for_two(v: Victim) -> None:
    task = _packed(v)
    a, b = v.two([*range(len(task["op"]["moves"]))])
    task["inputs"][_ends(task, "inputs", a)] = task["inputs"][_ends(task, "inputs", b)]


@mutation("dtype of a tensor in a packed exchange", "HX413")
def _dtype(v: Victim) -> None:
    """On all ranks, or on one."""
    task = _packed(v)
    names = task["outputs"][_ends(task, "outputs", _move(v, task))]
    new = another(v.random, v.values[names[0]]["dtype"], ("float16", "bfloat16", "float32", "float64", "int64"))
    for name in names if v.random.random() < 0.5 else [v.random.choice(names)]:
        v.values[name]["dtype"] = new


@mutation("a dim in a packed exchange", "HX406")
def _dim(v: Victim) -> None:
    """Of one move, or of all equal ones."""
    moves = _packed(v)["op"]["moves"]
    old = copy(v.pick(moves))
    key = v.pick([key for key in old if key != "kind"])
    new = another(v.random, old[key], ("batch", "seq", "head", "kv_head", "head_dim", "softmax", "vocab_share", "x"))
    places = [i for i, move in enumerate(moves) if move == old]
    for i in places if v.random.random() < 0.5 else places[:1]:
        moves[i] = {**old, key: new}


@mutation("what a packed exchange can not carry", "HX401")
def _other_ops(v: Victim) -> None:
    op = _packed(v)["op"]
    other = v.random.choice(("all_reduce", "broadcast", "packed", "add", "softmax"))
    match v.random.randrange(3):
        case 0:
            op["moves"][v.random.randrange(len(op["moves"]))] = copy(op) if other == "packed" else {"kind": other}
        case 1:
            del op["moves"][1:]
        case _:
            op["moves"] = []


@mutation("pieces of two ranks exchanged in a packed exchange", "HX404", "HX406")
def _pieces(v: Victim) -> None:
    """The values change places, or their regions."""
    task = _packed(v)
    key = v.random.choice(ENDS)
    cut = _ends(task, key, _move(v, task))
    a, b = v.two([*range(cut.start, cut.stop)])
    x, y = v.values[task[key][a]], v.values[task[key][b]]
    if v.random.random() < 0.5:
        task[key][a], task[key][b] = task[key][b], task[key][a]
    elif x["region"] != y["region"]:
        x["region"], y["region"] = y["region"], x["region"]
    else:
        raise InapplicableError


@mutation("a share in a packed exchange moved", "HX401", "HX406")
def _share(v: Victim) -> None:
    """One end of a region of what is received."""
    task = _packed(v)
    value = v.values[v.pick(task["outputs"])]
    interval = v.pick(value["region"])
    interval[v.random.randrange(2)] += v.random.choice((-1, 1))


@mutation("a packed exchange reads what it makes", "HX404", "HX405")
def _cycle(v: Victim) -> None:
    task = _packed(v)
    move = _move(v, task)
    task["inputs"][_ends(task, "inputs", move)] = task["outputs"][_ends(task, "outputs", move)]


@mutation("bytes of a packed exchange: of one tensor, or of all but one", "HX412")
def _nbytes(v: Victim) -> None:
    task = _packed(v)
    value = v.values[v.pick(task["inputs"])]
    one = (len(task["ranks"]) - 1) * _size(value)
    task["nbytes"] = another(v.random, task["nbytes"], (one, abs(task["nbytes"] - one)))


def _size(value: Data) -> int:
    found = {"float16": 2, "bfloat16": 2, "float32": 4}.get(value["dtype"], 8)
    for start, stop in value["region"]:
        found *= stop - start
    return found


@mutation("tensors exchanged one by one instead of packed", "HX414", harmless="it takes longer, and makes the same")
def _apart(v: Victim) -> None:
    """As older documents have it; all packed exchanges, or one. Microbatches that take turns have other turns then."""
    chosen = [task for task in v.data["tasks"] if task["op"]["kind"] == "packed"]
    for task in chosen if v.random.random() < 0.5 else [v.pick(chosen)]:
        _unpack(v, task)
    if not chosen:
        raise InapplicableError


def _unpack(v: Victim, task: Data) -> None:
    parts = []
    for i, op in enumerate(task["op"]["moves"]):
        ends = {key: task[key][_ends(task, key, i)] for key in ENDS}
        parts.append({**task, "id": f"{task['id']}.{i}", "op": op, **ends})
        nbytes = max(_size(v.values[name]) for name in ends["inputs"])
        if op["kind"] == "all_to_all":
            axis = v.dims(v.values[ends["inputs"][0]]).index(op["split"])
            regions = [v.values[name]["region"][axis] for name in ends["outputs"]]
            whole = sum(stop - start for start, stop in regions)
            kept = [
                _size(v.values[name]) // whole * (stop - start)
                for name, (start, stop) in zip(ends["inputs"], regions, strict=True)
            ]
            nbytes = max(kept)
        parts[-1]["nbytes"] = (len(task["ranks"]) - 1) * nbytes
    at = v.data["tasks"].index(task)
    v.data["tasks"][at : at + 1] = parts
    for order in v.data["order"]:
        order[:] = [name for one in order for name in ([p["id"] for p in parts] if one == task["id"] else [one])]
