"""Mutations of tensors: other names, dims, shapes or roles than those of the model."""

from __future__ import annotations

from tests.attack.mutation import Data, MutationRegistry, Victim, another, copy

mutation = MutationRegistry()


def _tensor(v: Victim) -> Data:
    found: Data = v.pick(v.data["tensors"])
    return found


@mutation("name of a tensor changed where it is declared", "HX403")
def _renamed(v: Victim) -> None:
    _tensor(v)["name"] += v.random.choice(("x", " ", "1"))


@mutation("name of a tensor changed everywhere", "HX411")
def _renamed_everywhere(v: Victim) -> None:
    tensor = _tensor(v)
    old, new = tensor["name"], tensor["name"] + "x"
    tensor["name"] = new
    for value in v.data["values"]:
        if value["tensor"] == old:
            value["tensor"] = new


@mutation("names of two tensors exchanged", "HX401", "HX404", "HX411", harmless="the two may be alike in all else")
def _names_exchanged(v: Victim) -> None:
    a = _tensor(v)
    b = v.pick([t for t in v.data["tensors"] if t["name"] != a["name"] and len(t["dims"]) == len(a["dims"])])
    a["name"], b["name"] = b["name"], a["name"]


@mutation("a dim renamed", "HX401", "HX411")
def _dim(v: Victim) -> None:
    dims = _tensor(v)["dims"]
    i = v.random.randrange(len(dims))
    dims[i] = another(v.random, dims[i], ("batch", "seq", "hidden", "head", "kv_head", "head_dim", "ffn", "x", ""))


@mutation("two dims exchanged", "HX401", "HX411")
def _dims(v: Victim) -> None:
    tensor = v.pick([t for t in v.data["tensors"] if len(t["dims"]) > 1])
    i, j = v.two([*range(len(tensor["dims"]))])
    for key in ("dims", "shape") if v.random.random() < 0.5 else ("dims",):
        tensor[key][i], tensor[key][j] = tensor[key][j], tensor[key][i]


@mutation("shape changed", "HX401", "HX411")
def _shape(v: Victim) -> None:
    shape = _tensor(v)["shape"]
    i = v.random.randrange(len(shape))
    shape[i] = another(v.random, shape[i], (shape[i] + 1, shape[i] - 1, 2 * shape[i], 0, 10**30))


@mutation("a dim dropped or added", "HX401")
def _rank(v: Victim) -> None:
    tensor = _tensor(v)
    for key in ("dims", "shape") if v.random.random() < 0.5 else (v.random.choice(("dims", "shape")),):
        tensor[key].append(tensor[key][0])


@mutation("seeded numbers changed", "HX411")
def _init(v: Victim) -> None:
    tensor = _tensor(v)
    old = tensor["init"]
    if old is None:
        tensor["init"] = [0.0, 1.0]
    else:
        tensor["init"] = v.random.choice(([old[0], old[1] * 2], [old[0] + 1, old[1]], old[::-1], None))
    if tensor["init"] == old:
        tensor["init"] = None


@mutation("role changed", "HX404", "HX411")
def _role(v: Victim) -> None:
    tensor = _tensor(v)
    tensor["role"] = another(v.random, tensor["role"], ("input", "weight", "state", "activation", "output"))


@mutation("tensor dropped", "HX403")
def _dropped(v: Victim) -> None:
    v.data["tensors"].remove(_tensor(v))


@mutation("tensor added", "HX411")
def _added(v: Victim) -> None:
    v.data["tensors"].append(copy(_tensor(v)) | {"name": "l0.x"})


@mutation("tensor declared twice", "HX403")
def _twice(v: Victim) -> None:
    v.data["tensors"].append(copy(_tensor(v)))


@mutation("tables in another order", "HX401", harmless="the rows of a table have no order")
def _rows(v: Victim) -> None:
    v.random.shuffle(v.data[v.random.choice(("tensors", "values", "tasks"))])
