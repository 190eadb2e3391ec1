"""Mutations of values: another region, rank, dtype, tensor, or another partial sum."""

from __future__ import annotations

from tests.attack.mutation import Data, InapplicableError, MutationRegistry, Victim, another, copy

mutation = MutationRegistry()
# Of lengths and counts, which may be of more sequences than are read.
COUNTED = ("HX408", "HX412", "HX414", "HX415")
DTYPES = ("float16", "bfloat16", "float32", "float64", "int64")


def _interval(v: Victim) -> tuple[list[int], int]:
    """An interval of some value, and the size of its dim."""
    value = v.pick(v.data["values"])
    axis = v.random.randrange(len(value["region"]))
    return value["region"][axis], v.tensors[value["tensor"]]["shape"][axis]


@mutation("region moved by one", "HX401", "HX406", *COUNTED)
def _moved(v: Victim) -> None:
    interval, _ = _interval(v)
    step = v.random.choice((-1, 1)) if interval[0] else 1
    interval[:] = [interval[0] + step, interval[1] + step]


@mutation("region shrunk by one", "HX401", "HX406", *COUNTED)
def _shrunk(v: Victim) -> None:
    interval, _ = _interval(v)
    end = v.random.randrange(2)
    interval[end] += 1 - 2 * end


@mutation("region grown by one", "HX401", "HX406", *COUNTED)
def _grown(v: Victim) -> None:
    interval, size = _interval(v)
    ends = [end for end in (0, 1) if (interval[0] > 0, interval[1] < size)[end]]
    end = v.pick(ends)
    interval[end] += 2 * end - 1


@mutation("region made whole", "HX406", *COUNTED)
def _whole(v: Victim) -> None:
    interval, size = _interval(v)
    interval[:] = [0, size]


@mutation("region out of the tensor", "HX401")
def _outside(v: Victim) -> None:
    interval, size = _interval(v)
    interval[:] = v.random.choice(([0, size + 1], [size, size + 1], [0, 10**30], [size, 2 * size], [-1, size]))


@mutation("region empty or reversed", "HX401")
def _empty(v: Victim) -> None:
    interval, _ = _interval(v)
    interval[:] = v.random.choice(([interval[0]] * 2, interval[::-1]))


@mutation("region of another number of dims", "HX401")
def _dims(v: Victim) -> None:
    region = v.pick(v.data["values"])["region"]
    if v.random.random() < 0.5:
        region.pop()
    else:
        region.append(list(region[0]))


@mutation("dims of a region exchanged", "HX401", "HX406")
def _turned(v: Victim) -> None:
    value = v.pick([x for x in v.data["values"] if len({tuple(i) for i in x["region"]}) > 1])
    i, j = v.two([*range(len(value["region"]))])
    value["region"][i], value["region"][j] = value["region"][j], value["region"][i]


@mutation("regions of two ranks exchanged", "HX406")
def _exchanged(v: Victim) -> None:
    value = v.pick(v.data["values"])
    likes = [x for x in v.data["values"] if x["tensor"] == value["tensor"] and x["region"] != value["region"]]
    other = v.pick(likes)
    value["region"], other["region"] = other["region"], value["region"]


@mutation("numbers of a region of another type", "HX401")
def _types(v: Victim) -> None:
    interval, _ = _interval(v)
    end = v.random.randrange(2)
    interval[end] = v.random.choice((float(interval[end]), str(interval[end]), None, [], bool(interval[end])))


@mutation("value on another rank", "HX401", "HX404")
def _other_rank(v: Victim) -> None:
    value = v.pick(v.data["values"])
    value["rank"] = another(v.random, value["rank"], range(len(v.data["order"]) + 1))


@mutation("value of another tensor", "HX401", "HX404", "HX411")
def _other_tensor(v: Victim) -> None:
    value = v.pick(v.data["values"])
    dims = [name for name, tensor in v.tensors.items() if len(tensor["dims"]) == len(v.dims(value))]
    value["tensor"] = another(v.random, value["tensor"], dims)


@mutation("dtype of a value changed", "HX406", "HX413")
def _dtype(v: Victim) -> None:
    value = v.pick(v.data["values"])
    value["dtype"] = another(v.random, value["dtype"], DTYPES)


@mutation("dtype of all values changed", "HX413")
def _dtypes(v: Victim) -> None:
    dtype = another(v.random, v.data["plan"]["model"]["dtype"], DTYPES[:4])
    for value in v.data["values"]:
        value["dtype"] = dtype if value["dtype"] != "int64" else "int64"


def _partial(v: Victim) -> Data:
    return v.pick([value for value in v.data["values"] if value["partial"]])


@mutation("partial sum taken for a whole", "HX406")
def _no_partial(v: Victim) -> None:
    _partial(v)["partial"] = []


@mutation("partial sums of a collective all taken for wholes", "HX406")
def _no_partials(v: Victim) -> None:
    for name in v.task_of_kind("all_reduce", "reduce_scatter")["inputs"]:
        v.values[name]["partial"] = []


@mutation("whole taken for a partial sum", "HX406")
def _a_partial(v: Victim) -> None:
    value = v.pick([x for x in v.data["values"] if not x["partial"]])
    dim, size = v.pick([*zip(v.tensors[value["tensor"]]["dims"], v.tensors[value["tensor"]]["shape"], strict=True)])
    value["partial"] = [[v.random.choice((dim, "ffn", "expert", "x")), [0, v.random.randint(1, size)]]]


@mutation("partial interval moved", "HX401", "HX406")
def _partial_moved(v: Victim) -> None:
    interval = v.pick(_partial(v)["partial"])[1]
    step = v.random.choice((-1, 1))
    interval[v.random.randrange(2)] += step
    if v.random.random() < 0.5:
        interval[:] = [interval[0] + step, interval[1] + step]


@mutation("partial intervals of two ranks exchanged", "HX406")
def _partials_exchanged(v: Victim) -> None:
    a = _partial(v)
    likes = [x for x in v.data["values"] if x["tensor"] == a["tensor"] and x["partial"] != a["partial"]]
    b = v.pick([x for x in likes if x["partial"]])
    a["partial"], b["partial"] = b["partial"], a["partial"]


@mutation("partial over another dim", "HX406")
def _partial_dim(v: Victim) -> None:
    task = v.task_of_kind("all_reduce", "reduce_scatter")
    for name in task["inputs"] if v.random.random() < 0.5 else task["inputs"][:1]:
        for part in v.values[name]["partial"]:
            part[0] = v.random.choice(("batch", "hidden", "vocab", "x", "")) + "_" * (part[0] in {"vocab", "hidden"})


@mutation("id of a value changed where it is declared", "HX403")
def _renamed(v: Victim) -> None:
    value = v.pick([x for x in v.data["values"] if v.readers(x["id"]) or x["id"] in v.maker])
    value["id"] = v.random.choice((value["id"] + "x", v.pick(v.data["values"])["id"]))


@mutation("id of a value changed where it is used", "HX403")
def _renamed_in_use(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    ids = task[v.random.choice(("inputs", "outputs"))]
    ids[v.random.randrange(len(ids))] += v.random.choice((" ", "@", "0", "é"))


@mutation("value declared twice", "HX403")
def _twice(v: Victim) -> None:
    v.data["values"].append(copy(v.pick(v.data["values"])))


@mutation("value dropped", "HX403")
def _dropped(v: Victim) -> None:
    v.data["values"].remove(v.pick(v.data["values"]))


@mutation("weight owned twice", "HX408", "HX414")
def _owned_twice(v: Victim) -> None:
    value = copy(v.pick(v.given("weight")))
    value |= {"id": value["id"] + ":again", "rank": v.random.randrange(len(v.data["order"]))}
    v.data["values"].append(value)


@mutation("weight owned by nobody", "HX404")
def _owned_by_nobody(v: Victim) -> None:
    """Its rank reads another's."""
    value = v.pick(v.given("weight"))
    other = v.pick([x for x in v.given("weight") if x["tensor"] == value["tensor"] and x is not value])
    v.data["values"].remove(value)
    for task in v.readers(value["id"]):
        task["inputs"] = [other["id"] if name == value["id"] else name for name in task["inputs"]]


@mutation("weight made of nothing", "HX404", "HX411")
def _weight_from_nothing(v: Victim) -> None:
    """What a task makes is declared to be a weight that is given; the task is gone."""
    task = v.pick(v.computations)
    _forget(v, task)


@mutation("input given to one rank more", "HX408", "HX414")
def _input_twice(v: Victim) -> None:
    value = copy(v.pick(v.given("input")))
    value |= {"id": value["id"] + ":again", "rank": v.random.randrange(len(v.data["order"]))}
    v.data["values"].append(value)


@mutation("KV heads of a value are others", "HX401", "HX406")
def _kv_heads(v: Victim) -> None:
    value = v.pick([x for x in v.data["values"] if "kv_head" in v.dims(x)])
    tensor = v.tensors[value["tensor"]]
    axis = tensor["dims"].index("kv_head")
    start, stop = value["region"][axis]
    size = tensor["shape"][axis]
    options = [[a, a + stop - start] for a in range(size - (stop - start) + 1)]
    value["region"][axis] = another(v.random, value["region"][axis], options)


@mutation("unknown key, missing key or wrong type in a value", "HX401")
def _malformed(v: Victim) -> None:
    value = v.pick(v.data["values"])
    key = v.pick([*value])
    match v.random.randrange(3):
        case 0:
            value["x"] = 1
        case 1 if key != "partial":  # which may be left out
            del value[key]
        case _:
            value[key] = v.random.choice((None, 1.5, -1, {}, [[[]]], True))


def _forget(v: Victim, task: Data) -> None:
    """Take a task out of the document."""
    v.data["tasks"].remove(task)
    for order in v.data["order"]:
        while task["id"] in order:
            order.remove(task["id"])
    if not task["outputs"]:
        raise InapplicableError
