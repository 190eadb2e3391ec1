"""Mutations of tasks: other inputs, other ranks, another op, other attributes, other costs."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, get_args

from helixctl.dag.ops import Op
from tests.attack.mutation import COLLECTIVES, Data, InapplicableError, MutationRegistry, Victim, another, copy

mutation = MutationRegistry()

# --- inputs and outputs ----------------------------------------------------------------------------------------------


@mutation(
    "input replaced by a value of the same rank", "HX401", "HX405", "HX406", "HX411",
    harmless="a rank may have two values of the same region, such as what it broadcasts and what it keeps",
)  # fmt: skip
def _same_rank(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    i = v.random.randrange(len(task["inputs"]))
    rank = v.values[task["inputs"][i]]["rank"]
    others = [x["id"] for x in v.data["values"] if x["rank"] == rank]
    task["inputs"][i] = another(v.random, task["inputs"][i], others)


@mutation("input replaced by another value of its tensor", "HX404", "HX405", "HX406",
      harmless="the tensor may be there twice on the rank")  # fmt: skip
def _same_tensor(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    i = v.random.randrange(len(task["inputs"]))
    tensor = v.values[task["inputs"][i]]["tensor"]
    others = [x["id"] for x in v.data["values"] if x["tensor"] == tensor]
    task["inputs"][i] = another(v.random, task["inputs"][i], others)


@mutation("microbatch mixed up with another", "HX405", "HX406")
def _microbatch(v: Victim) -> None:
    """A task reads, on its rank, the same tensor of another microbatch."""
    task = v.pick(v.data["tasks"])
    found = []
    for i, name in enumerate(task["inputs"]):
        value = v.values[name]
        for x in v.data["values"]:
            same = (x["tensor"], x["rank"]) == (value["tensor"], value["rank"])
            if same and x["region"][0] != value["region"][0] and "batch" in v.dims(x):
                found.append((i, x["id"]))
    i, other = v.pick(found)
    task["inputs"][i] = other


@mutation("two inputs exchanged", "HX404", "HX411")
def _inputs_exchanged(v: Victim) -> None:
    task = v.pick([t for t in v.data["tasks"] if len(t["inputs"]) > 1])
    _swap_two(v, task["inputs"])


@mutation("two outputs exchanged", "HX404", "HX411")
def _outputs_exchanged(v: Victim) -> None:
    task = v.pick([t for t in v.data["tasks"] if len(t["outputs"]) > 1])
    _swap_two(v, task["outputs"])


@mutation("outputs of two tasks exchanged", "HX404", "HX405", "HX406", "HX411")
def _makers_exchanged(v: Victim) -> None:
    a, b = v.two([t for t in v.data["tasks"] if len(t["outputs"]) == 1])
    a["outputs"], b["outputs"] = b["outputs"], a["outputs"]


@mutation("inputs of two tasks of one kind exchanged", "HX401", "HX404", "HX405", "HX406", "HX411",
      harmless="what both read may be equal")  # fmt: skip
def _reads_exchanged(v: Victim) -> None:
    a = v.pick(v.data["tasks"])
    b = v.pick([t for t in v.data["tasks"] if t["op"] == a["op"] and t["inputs"] != a["inputs"]])
    a["inputs"], b["inputs"] = b["inputs"], a["inputs"]


@mutation("a task reads what it makes", "HX404", "HX405")
def _cycle(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    i = v.random.randrange(len(task["inputs"]))
    task["inputs"][i] = v.pick(task["outputs"])


@mutation("a task reads what is made of it", "HX404", "HX405")
def _long_cycle(v: Victim) -> None:
    """A cycle over several tasks of a rank."""
    task = v.pick(v.data["tasks"])
    found, at = [], [task]
    for _ in range(4):
        at = [reader for t in at for name in t["outputs"] for reader in v.readers(name)][:8]
        found += [name for t in at for name in t["outputs"]]
    task["inputs"][v.random.randrange(len(task["inputs"]))] = v.pick(found)


@mutation("input dropped or repeated", "HX401", "HX404", "HX411")
def _arity(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    ids = task[v.random.choice(("inputs", "outputs"))]
    match v.random.randrange(3):
        case 0:
            ids.pop(v.random.randrange(len(ids)))
        case 1:
            ids.append(v.pick(ids))
        case _:
            ids.clear()


@mutation("an input and its output dropped", "HX401", "HX404", "HX411")
def _less(v: Victim) -> None:
    """As if a product with two weights were with one."""
    task = v.pick([t for t in v.computations if 1 < len(t["outputs"]) < len(t["inputs"])])
    i = v.random.randrange(len(task["outputs"]))
    task["outputs"].pop(i)
    task["inputs"].pop(i - len(task["outputs"]) - 1)


@mutation("made value made twice", "HX404")
def _two_makers(v: Victim) -> None:
    a, b = v.two([t for t in v.data["tasks"] if len(t["outputs"]) == 1])
    a["outputs"] = list(b["outputs"])


# --- ranks -----------------------------------------------------------------------------------------------------------


@mutation("computation on another rank", "HX401", "HX404")
def _rank(v: Victim) -> None:
    task = v.pick(v.computations)
    task["ranks"] = [another(v.random, task["ranks"][0], range(len(v.data["order"]) + 1))]


@mutation("computation on two ranks", "HX401")
def _ranks(v: Victim) -> None:
    v.pick(v.computations)["ranks"].append(v.random.randrange(len(v.data["order"])))


@mutation("two ranks of a collective swapped", "HX401", "HX404")
def _swapped(v: Victim) -> None:
    _swap_two(v, v.pick(v.collectives)["ranks"])


@mutation("a rank of a collective repeated", "HX401")
def _repeated(v: Victim) -> None:
    ranks = v.pick(v.collectives)["ranks"]
    i, j = v.two([*range(len(ranks))])
    ranks[i] = ranks[j]


@mutation("a rank of a collective replaced by another", "HX401", "HX404")
def _replaced(v: Victim) -> None:
    ranks = v.pick(v.collectives)["ranks"]
    i = v.random.randrange(len(ranks))
    ranks[i] = another(v.random, ranks[i], [r for r in range(len(v.data["order"]) + 1) if r not in ranks])


@mutation("a rank of a collective is missing", "HX401", "HX404", "HX405")
def _missing_rank(v: Victim) -> None:
    """With what it gives and gets, or without."""
    task = v.pick(v.collectives)
    i = v.random.randrange(len(task["ranks"]))
    task["ranks"].pop(i)
    if v.random.random() < 0.7:
        task["outputs"].pop(min(i, len(task["outputs"]) - 1))
        if len(task["inputs"]) > 1:
            task["inputs"].pop(i)


@mutation("a rank more in a collective", "HX401", "HX404", "HX405", "HX406", "HX408", "HX414")
def _more_ranks(v: Victim) -> None:
    """With what it would give and get."""
    task = v.pick(v.collectives)
    rank = v.pick([r for r in range(len(v.data["order"]) + 1) if r not in task["ranks"]])
    place = sum(r < rank for r in task["ranks"])
    task["ranks"].insert(place, rank)
    for ends in ("inputs", "outputs"):
        value = v.values[task[ends][-1]]
        if v.random.random() < 0.7 and not (ends == "inputs" and len(task["inputs"]) == 1):
            task[ends].insert(place, value["id"] + "x")
            v.data["values"].append(copy(value) | {"id": value["id"] + "x", "rank": rank})


@mutation("inputs of a collective in another order", "HX404")
def _collective_inputs(v: Victim) -> None:
    ids = v.pick([t for t in v.collectives if len(t["inputs"]) > 1])["inputs"]
    ids.append(ids.pop(0))


@mutation("all that is by rank in a collective in another order", "HX401")
def _collective_turned(v: Victim) -> None:
    task = v.pick([t for t in v.collectives if len(t["inputs"]) == len(t["outputs"]) > 1])
    for key in ("ranks", "inputs", "outputs"):
        task[key].reverse()


# --- ops -------------------------------------------------------------------------------------------------------------

OPS: dict[str, Data] = {
    "broadcast": {},
    "embed": {},
    "norm": {"function": "rms_norm", "dim": "hidden", "eps": 1e-5},
    "square_sums": {},
    "norm_by_sums": {"eps": 1e-5},
    "scale": {"multiplier": 2.0},
    "linear": {"contract": ["hidden"]},
    "head_linear": {"contract": "kv_rank", "rest": False, "parts": False},
    "join": {},
    "bias": {},
    "rotate": {"rotary": {"theta": 10000.0, "scaling": None}},
    "attention": {"softmax_width": 2, "causal": False},
    "activation": {"function": "gelu"},
    "multiply": {},
    "route": {"top_k": 2, "renormalise": True},
    "experts": {"function": "gelu", "top_k": 2},
    "token_gate": {},
    "add": {},
    "last_token": {},
    "rotate_at": {"rotary": {"theta": 10000.0, "scaling": None}},
    "scale_by": {},
    "scale_queries": {"scaling": {"factor": 0.5, "tokens": 2, "first": 1}},
    "cache_write": {},
    "select": {"top_k": 3, "causal": True, "scale": 0.25},
    "cached_select": {"top_k": 3, "causal": True, "scale": 0.25},
    "partial_select": {"top_k": 3, "causal": True, "scale": 0.25},
    "merge_select": {},
    "expand": {},
    "cached_attention": {"softmax_width": 10, "causal": True},
    "partial_attention": {"softmax_width": 10, "causal": True},
    "merge": {"softmax_width": 10},
    "best": {},
    "choose": {},
    "sample": {"sampling": {"temperature": 0.7, "top_k": 5, "top_p": 0.9}},
    "all_to_all": {"split": "batch", "gather": "head_dim"},
    "all_gather": {"dim": "hidden"},
    "all_reduce": {},
    "reduce_scatter": {"dim": "seq"},
    "packed": {"moves": [{"kind": "all_gather", "dim": "head_dim"}] * 2},
    "narrow": {"dim": "seq"},
    "send_receive": {},
}
SIMILAR = (
    ("add", "multiply"), ("all_gather", "all_reduce"), ("all_reduce", "all_gather"), ("all_to_all", "all_gather"),
    ("broadcast", "all_reduce"), ("send_receive", "broadcast"), ("norm", "embed"), ("activation", "add"),
    ("linear", "bias"), ("multiply", "add"), ("all_gather", "all_to_all"), ("all_reduce", "broadcast"),
    ("route", "linear"), ("embed", "linear"), ("rotate", "activation"), ("attention", "experts"), ("bias", "linear"),
    ("reduce_scatter", "all_reduce"), ("all_reduce", "reduce_scatter"), ("reduce_scatter", "all_gather"),
    ("narrow", "add"), ("narrow", "activation"), ("norm", "narrow"),
    ("last_token", "norm"), ("last_token", "add"), ("norm", "last_token"), ("rotate_at", "rotate"), ("choose", "best"),
    ("cached_attention", "attention"), ("cached_attention", "partial_attention"), ("cache_write", "cached_attention"),
    ("partial_attention", "cached_attention"), ("merge", "add"), ("best", "activation"), ("choose", "merge"),
    ("sample", "choose"), ("sample", "best"), ("expand", "linear"), ("expand", "cached_attention"),
    ("select", "cached_select"), ("cached_select", "partial_select"), ("partial_select", "cached_select"),
    ("merge_select", "choose"), ("merge_select", "merge"), ("choose", "merge_select"),
    ("token_gate", "multiply"), ("token_gate", "add"), ("packed", "all_gather"), ("packed", "all_to_all"),
    ("scale_queries", "scale"), ("scale_by", "scale"), ("scale_by", "multiply"), ("scale_queries", "rotate_at"),
)  # fmt: skip


@mutation("kind exchanged for a similar one", "HX401", "HX406", "HX411")
def _similar(v: Victim) -> None:
    old, new = v.pick(SIMILAR)
    v.task_of_kind(old)["op"] = {"kind": new, **copy(OPS[new])}


@mutation("lengths of other sequences", "HX406")
def _lengths(v: Victim) -> None:
    """Of another microbatch."""
    task = v.task_of_kind("last_token")
    mine, rank = task["inputs"][1], task["ranks"][0]
    name = v.values[mine]["tensor"]
    lengths = [value["id"] for value in v.data["values"] if (value["tensor"], value["rank"]) == (name, rank)]
    task["inputs"][1] = another(v.random, mine, lengths)


@mutation("last tokens of another tensor", "HX405", "HX411")
def _last_of_another(v: Victim) -> None:
    task = v.task_of_kind("last_token")
    mine = v.values[task["inputs"][0]]
    others = [
        value["id"]
        for value in v.data["values"]
        if (value["rank"], value["region"]) == (mine["rank"], mine["region"])
        and v.dims(value) == v.dims(mine)
        and value["tensor"] != mine["tensor"]
        and not value["partial"]
    ]
    task["inputs"][0] = v.pick(others)


@mutation("kind exchanged for any other", "HX401", "HX406", "HX411")
def _any_kind(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    new = another(v.random, task["op"]["kind"], [*OPS, "softmax"])
    task["op"] = {"kind": new, **copy(OPS.get(new, {}))}


def _attributes(v: Victim, name: str, kinds: tuple[str, ...], options: tuple[Any, ...]) -> None:
    """Change an attribute of one op, or of all equal ops, so that they agree with each other."""
    task = v.task_of_kind(*kinds)
    old = copy(task["op"])
    new = another(v.random, old[name], options)
    for other in v.data["tasks"] if v.random.random() < 0.5 else [task]:
        if other["op"] == old:
            other["op"] = {**old, name: new}


@mutation("eps of a norm", "HX411")
def _eps(v: Victim) -> None:
    _attributes(v, "eps", ("norm", "norm_by_sums"), (1e-6, 1e-5 * (1 + 2**-52), 0.0, 1e300, 1e-5 + 1e-12))


@mutation("dim of a norm", "HX411")
def _dim(v: Victim) -> None:
    _attributes(v, "dim", ("norm",), ("batch", "seq", "head_dim", "hidden", "head", ""))


@mutation("function of a norm", "HX411", "HX401")
def _norm_function(v: Victim) -> None:
    _attributes(v, "function", ("norm",), ("rms_norm", "layer_norm", "batch_norm"))


@mutation("an attribute that documents leave out at its default", "HX109", "HX401", "HX411")
def _left_out(v: Victim) -> None:
    """Given another value, or taken away."""
    rotary = {"dims": (None, 2, 4, 6), "interleaved": (False, True)}
    options: dict[str, dict[str, tuple[Any, ...]]] = {
        "norm": {"unit_offset": (False, True, 1)},
        "norm_by_sums": {"unit_offset": (False, True)},
        "embed": {"multiplier": (1.0, 2.0, 1 + 2**-52), "in_dtype": (False, True)},
        "add": {"multiplier": (1.0, 0.5, 0.0)},
        "scale": {"multiplier": (1.0, 0.3, 3.0), "cap": (None, 1.0, 30.0)},
        "rotate": {"long": (False, True), **rotary},
        "rotate_at": {"long": (False, True), **rotary},
    }
    op = v.task_of_kind(*options)["op"]
    its = options[op["kind"]]
    name = v.random.choice([*its])
    target = op["rotary"] if name in rotary else op
    target[name] = another(v.random, target.get(name, its[name][0]), its[name])


@mutation("dims that a product contracts", "HX401", "HX411")
def _contract(v: Victim) -> None:
    task = v.task_of_kind("linear")
    options = [[], ["hidden"], ["ffn"], ["head"], ["head_dim", "head"], ["head", "head_dim"], ["batch"], ["x"], "ffn"]
    _attributes(v, "contract", ("linear",), (*options, task["op"]["contract"] * 2))


@mutation("width of a softmax", "HX401", "HX411")
def _width(v: Victim) -> None:
    kinds = ("attention", "cached_attention", "partial_attention", "merge")
    _attributes(v, "softmax_width", kinds, (1, 2, 4, 5, 10, 0, 2**40, 4.0))


@mutation("causal or not", "HX411")
def _causal(v: Victim) -> None:
    _attributes(v, "causal", ("attention", "cached_attention", "partial_attention"), (True, False))


@mutation("theta of a rotation", "HX401", "HX411")
def _theta(v: Victim) -> None:
    task = v.task_of_kind("rotate", "rotate_at")
    rotary = task["op"]["rotary"]
    rotary["theta"] = v.random.choice((rotary["theta"] + 1, rotary["theta"] * (1 + 2**-50), 1.0, 0, -500.0, None))


@mutation("scaling of a rotation", "HX401", "HX411")
def _scaling(v: Victim) -> None:
    rotary = v.task_of_kind("rotate", "rotate_at")["op"]["rotary"]
    scaling = rotary["scaling"]
    if scaling is None or v.random.random() < 0.3:
        rotary["scaling"] = another(v.random, scaling, ({"kind": "linear", "factor": 2.0}, None, {"kind": "yarn"}))
        return
    key = v.pick([key for key in scaling if key != "kind"])
    scaling[key] = v.random.choice((scaling[key] * 2, scaling[key] + 1, 0, None))


@mutation("function of an activation", "HX411", "HX401")
def _function(v: Victim) -> None:
    _attributes(v, "function", ("activation", "experts"), ("gelu", "relu", "silu", "tanh"))


@mutation("top_k of experts", "HX401", "HX411")
def _top_k(v: Victim) -> None:
    _attributes(v, "top_k", ("route", "experts"), (1, 2, 3, 4, 0, 4096))


@mutation("renormalised or not", "HX411")
def _renormalise(v: Victim) -> None:
    _attributes(v, "renormalise", ("route",), (True, False))


@mutation("what a router makes of its logits", "HX109", "HX401", "HX411")
def _router(v: Victim) -> None:
    """A field of the router, in one op or in all that are equal; the first of its options is its default."""
    options: dict[str, tuple[Any, ...]] = {
        "scores": ("softmax", "sigmoid", "sparse_mixer", "tanh"),
        "bias": (False, True, 1),
        "choice_bias": (False, True),
        "groups": (None, {"count": 2, "top_k": 1, "score": "best"}, {"count": 2, "top_k": 2, "score": "sum_of_two"}),
        "scale": (1.0, 2.5, 2.5 * (1 + 2**-52), 0.0, -1.0),
        "sum_eps": (0.0, 1e-20, 1e-12, -1.0),
        "least_sum": (0.0, 1e-20, 1e-12),
        "jitter": (0.0, 0.01, 0.02),
        "logits_scale": (1.0, 0.3, 0.3 * (1 + 2**-52), 0.0),
        "gate_scales": (False, True),
    }
    task = v.pick([t for t in v.data["tasks"] if t["op"]["kind"] == "route" and "router" in t["op"]])
    old, name = copy(task["op"]), v.random.choice([*options])
    new = {**old["router"], name: another(v.random, old["router"].get(name, options[name][0]), options[name])}
    for other in v.data["tasks"] if v.random.random() < 0.5 else [task]:
        if other["op"] == old:
            other["op"] = {**old, "router": new}


@mutation("a router left out, or added", "HX401", "HX411")
def _router_or_none(v: Victim) -> None:
    op = v.task_of_kind("route")["op"]
    if op.pop("router", None) is None:
        op["router"] = {"scores": "sigmoid"}


@mutation("clamp of experts", "HX401", "HX411")
def _clamp(v: Victim) -> None:
    op = v.task_of_kind("experts")["op"]
    old = op.pop("clamp", None)
    if old is None or v.random.random() < 0.7:
        limit, alpha = old.values() if old else (7.0, 1.702)
        op["clamp"] = v.random.choice(({"limit": limit + 1, "alpha": alpha}, {"limit": limit, "alpha": alpha + 2**-20}))


@mutation("what gates multiply", "HX401", "HX411")
def _gates_on(v: Victim) -> None:
    op = v.task_of_kind("experts")["op"]
    op["gates_on"] = another(v.random, op.get("gates_on", "output"), ("output", "input", "both"))


@mutation("a bias of experts left out, or two exchanged", "HX401", "HX406", "HX411")
def _bias_of_experts(v: Victim) -> None:
    task = v.pick([t for t in v.data["tasks"] if t["op"]["kind"] == "experts" and len(t["inputs"]) > 5])
    if v.random.random() < 0.5:
        task["inputs"].pop()
    else:
        task["inputs"][-1], task["inputs"][-2] = task["inputs"][-2], task["inputs"][-1]


@mutation("a term of a sum left out, or added twice", "HX401", "HX406", "HX411")
def _term(v: Victim) -> None:
    """A shared expert that is not added, or added in the place of the others."""
    task = v.pick(
        [t for t in v.data["tasks"] if t["op"]["kind"] == "add" and all(v.values[i]["partial"] for i in t["inputs"])]
    )
    i = v.random.randrange(2)
    task["inputs"][i] = task["inputs"][1 - i]


@mutation("partial dims of a sum of two sums", "HX401", "HX406", "HX407")
def _terms(v: Victim) -> None:
    """Of one of its terms, or all of them in another order."""
    task = v.pick(
        [t for t in v.data["tasks"] if t["op"]["kind"] == "add" and all(v.values[i]["partial"] for i in t["inputs"])]
    )
    partial = v.values[task["outputs"][0]]["partial"]
    match v.random.randrange(3):
        case 0:
            partial.pop(v.random.randrange(len(partial)))
        case 1:
            partial.reverse()
        case _:
            ends = partial[v.random.randrange(len(partial))][1]
            ends[1] += 1


@mutation("dim of a gather, a scatter or a part", "HX406")
def _gather_dim(v: Victim) -> None:
    _attributes(
        v, "dim", ("all_gather", "reduce_scatter", "narrow"), ("batch", "seq", "head", "head_dim", "hidden", "ffn", "")
    )


@mutation("split or gather of an exchange", "HX406")
def _split(v: Victim) -> None:
    name = v.random.choice(("split", "gather"))
    _attributes(v, name, ("all_to_all",), ("batch", "seq", "head", "kv_head", "head_dim", "x"))


@mutation("split and gather exchanged", "HX406")
def _split_for_gather(v: Victim) -> None:
    op = v.task_of_kind("all_to_all")["op"]
    op["split"], op["gather"] = op["gather"], op["split"]


_MAY_BE_LEFT_OUT = {
    op.__dataclass_fields__["kind"].default: {
        field.name for field in fields(op) if field.name != "kind" and field.default is not MISSING
    }
    for op in get_args(get_args(Op)[0])
}


@mutation("unknown or missing attribute", "HX401")
def _attribute(v: Victim) -> None:
    op = v.pick(v.data["tasks"])["op"]
    key = v.random.choice(("x", *op))
    if key == "x":
        op["x"] = 1
    elif key in _MAY_BE_LEFT_OUT[op["kind"]]:
        raise InapplicableError
    else:
        del op[key]


# --- shares of an exchange -------------------------------------------------------------------------------------------


@mutation("shares of an exchange exchanged", "HX406")
def _shares_exchanged(v: Victim) -> None:
    a, b = v.two([v.values[name] for name in v.task_of_kind("all_to_all")["outputs"]])
    if a["region"] == b["region"]:
        raise InapplicableError
    a["region"], b["region"] = b["region"], a["region"]


@mutation("shares of an exchange moved", "HX401", "HX406")
def _shares_moved(v: Victim) -> None:
    """The border between two ranks' shares, on both sides of it."""
    task = v.task_of_kind("all_to_all")
    outs = [v.values[name] for name in task["outputs"]]
    axis = v.dims(outs[0]).index(task["op"]["split"])
    i = v.random.randrange(len(outs) - 1)
    step = v.random.choice((-1, 1))
    outs[i]["region"][axis][1] += step
    outs[i + 1]["region"][axis][0] += step


# --- labels and costs ------------------------------------------------------------------------------------------------


@mutation("layer of a task", "HX411", "HX414")
def _layer(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    task["layer"] = another(v.random, task["layer"], (task["layer"] + 1, 0, 2**40))


@mutation("level of a task", "HX411", "HX414")
def _level(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    levels = "embed transfer distribute exchange attend concat project feed_forward head"
    task["level"] = another(v.random, task["level"], levels.split())


@mutation("flops of a task", "HX412")
def _flops(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    flops = task["flops"]
    options = (flops + 1, flops * 2, flops // 2, flops * 1000, flops * 1024, 0, flops - 1, 10**30)
    task["flops"] = another(v.random, flops, [n for n in options if n >= 0])


@mutation("nbytes of a task: bits, elements, x 1000 for x 1024", "HX412")
def _nbytes(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    nbytes = task["nbytes"]
    options = (nbytes * 8, nbytes // 2, nbytes // 8, nbytes * 1000 // 1024, nbytes * 1024, nbytes + 1, 0, nbytes * 2)
    task["nbytes"] = another(v.random, nbytes, options)


@mutation("nbytes of a collective of all ranks, or of one more or less", "HX412")
def _collective_nbytes(v: Victim) -> None:
    task = v.pick(v.collectives)
    n, nbytes = len(task["ranks"]), task["nbytes"]
    task["nbytes"] = another(v.random, nbytes, (nbytes * n, nbytes // n, nbytes * n // max(n - 1, 1), nbytes + n))


# --- tasks as a whole ------------------------------------------------------------------------------------------------


@mutation("task declared twice", "HX403")
def _task_twice(v: Victim) -> None:
    v.data["tasks"].append(copy(v.pick(v.data["tasks"])))


@mutation("task dropped, and never issued", "HX404", "HX408", "HX414")
def _task_dropped(v: Victim) -> None:
    task = v.pick(v.data["tasks"])
    v.data["tasks"].remove(task)
    for order in v.data["order"]:
        order[:] = [name for name in order if name != task["id"]]


@mutation("task dropped, but issued", "HX403")
def _task_undeclared(v: Victim) -> None:
    v.data["tasks"].remove(v.pick(v.data["tasks"]))


@mutation("id of a task changed", "HX403")
def _task_renamed(v: Victim) -> None:
    v.pick(v.data["tasks"])["id"] += v.random.choice((" ", "x", "\u00e9"))


@mutation("work done twice on one rank", "HX407", "HX414")
def _work_twice(v: Victim) -> None:
    """Nobody reads what is made again."""
    again(v, v.pick(_computed(v)))


@mutation("work done twice on all ranks", "HX407", "HX414")
def _all_work_twice(v: Victim) -> None:
    """Every part is made as often as every other."""
    tensor = v.values[v.pick(_computed(v))["outputs"][0]]["tensor"]
    for task in [t for t in _computed(v) if v.values[t["outputs"][0]]["tensor"] == tensor]:
        again(v, task)


@mutation("collective done twice", "HX414", harmless="nobody reads what is gathered again, and all ranks do it")
def _collective_twice(v: Victim) -> None:
    again(v, v.pick(v.collectives))


@mutation("part kept twice", "HX414", harmless="nobody reads what is kept again, and it costs what it says")
def _narrowed_twice(v: Victim) -> None:
    again(v, v.task_of_kind("narrow"))


def _computed(v: Victim) -> list[Data]:
    """The tasks that compute an equation."""
    return [task for task in v.computations if task["op"]["kind"] != "narrow"]


def again(v: Victim, task: Data) -> None:
    """Repeat a task on its ranks, right after it, with a result that no task reads."""
    repeated = copy(task)
    repeated["id"] += ".again"
    repeated["outputs"] = [name + "x" for name in task["outputs"]]
    v.data["values"] += [copy(v.values[name]) | {"id": name + "x"} for name in task["outputs"]]
    v.data["tasks"].append(repeated)
    for order in v.data["order"]:
        if task["id"] in order:
            order.insert(order.index(task["id"]) + 1, repeated["id"])


def _swap_two(v: Victim, items: list[Any]) -> None:
    i, j = v.two([*range(len(items))])
    items[i], items[j] = items[j], items[i]


assert OPS.keys() >= set(COLLECTIVES)
