"""What drawing tokens adds: how they are drawn, from which logits, by which seed, of which sequence and position."""

from __future__ import annotations

from tests.attack.mutation import Data, InapplicableError, MutationRegistry, Victim, another, redigest

mutation = MutationRegistry()
_HOW = ("temperature", "top_k", "top_p")
_OTHERS = {
    "temperature": (0.1, 0.69, 0.71, 1.0, 2.0),
    "top_k": (None, 1, 4, 6, 53),
    "top_p": (0.5, 0.89, 0.91, 1.0),
}


def _draw(v: Victim) -> Data:
    return v.task_of_kind("sample")


def _changed(v: Victim, how: Data) -> None:
    """Other numbers, one or several."""
    for name in v.random.sample(_HOW, v.random.randrange(1, 3)):
        how[name] = another(v.random, how[name], _OTHERS[name])


@mutation("temperature, top_k or top_p of a draw", "HX411")
def _otherwise(v: Victim) -> None:
    """On one rank, or wherever tokens are drawn."""
    tasks = [task for task in v.data["tasks"] if task["op"]["kind"] == "sample"]
    task = v.pick(tasks)
    _changed(v, task["op"]["sampling"])
    for each in tasks if v.random.random() < 0.5 else ():
        each["op"]["sampling"] = dict(task["op"]["sampling"])


@mutation("temperature, top_k or top_p that is none", "HX401")
def _no_number(v: Victim) -> None:
    how = _draw(v)["op"]["sampling"]
    name = v.pick(_HOW)
    none = {"temperature": (0, 0.0, -0.7, "0.7", None), "top_k": (0, -1, 2.5, "5"), "top_p": (0, 0.0, -0.1, 1.1, None)}
    how[name] = v.pick(none[name])


@mutation("sampling of the plan changed, digests made anew", "HX411")
def _other_plan(v: Victim) -> None:
    """Other numbers, or greedy where tokens are drawn, or drawn where the dag is greedy."""
    workload = v.data["plan"]["workload"]
    if "output_len" not in workload or "vocab" not in str(v.data["tensors"]):
        raise InapplicableError
    if "sampling" not in workload:
        workload["sampling"] = {"temperature": 0.7, "top_k": None, "top_p": 1.0}
    elif v.random.random() < 0.3:
        del workload["sampling"]
    else:
        _changed(v, workload["sampling"])
    redigest(v.data)


@mutation("seed, length and count of a draw exchanged", "HX411")
def _other_source(v: Victim) -> None:
    """Another position, or another seed: one of the three in the place of another, or two exchanged."""
    inputs = _draw(v)["inputs"]
    i, j = v.random.sample((1, 2, 3), 2)
    if v.random.random() < 0.5:
        inputs[i] = inputs[j]
    else:
        inputs[i], inputs[j] = inputs[j], inputs[i]


@mutation("seed, length or count of other sequences in a draw", "HX406")
def _other_sequences(v: Victim) -> None:
    """Of another microbatch."""
    inputs = _draw(v)["inputs"]
    i = v.random.randrange(1, 4)
    mine = v.values[inputs[i]]
    likes = [x for x in v.data["values"] if (x["tensor"], x["rank"]) == (mine["tensor"], mine["rank"])]
    inputs[i] = v.pick([x["id"] for x in likes if x["region"] != mine["region"]])


@mutation("drawn from a part of the vocabulary", "HX406")
def _of_a_part(v: Victim) -> None:
    """From the rank's own logits, which are not gathered."""
    inputs = _draw(v)["inputs"]
    mine = v.values[inputs[0]]
    likes = [x for x in v.data["values"] if (x["tensor"], x["rank"]) == (mine["tensor"], mine["rank"])]
    batch, vocab = mine["region"]
    inputs[0] = v.pick([x["id"] for x in likes if x["region"][0] == batch and x["region"][1] != vocab])


@mutation("logits of a draw gathered in another dtype", "HX413")
def _other_dtype(v: Victim) -> None:
    """Of all of them alike, or of one rank."""
    logits = v.values[_draw(v)["inputs"][0]]
    task = v.maker[logits["id"]]
    dtype = another(v.random, logits["dtype"], ("float16", "bfloat16", "float32", "float64"))
    for name in task["outputs"] if v.random.random() < 0.5 else [logits["id"]]:
        v.values[name]["dtype"] = dtype


@mutation("dtype of seeds or of drawn tokens", "HX413")
def _other_integers(v: Victim) -> None:
    task = _draw(v)
    name = v.pick((task["inputs"][1], task["outputs"][0]))
    v.values[name]["dtype"] = v.pick(("float16", "bfloat16", "float32", "float64"))


@mutation("seeds of sequences not given to all that draw", "HX403", "HX404")
def _no_seed(v: Victim) -> None:
    """Left out, or on another rank."""
    seed = v.values[_draw(v)["inputs"][1]]
    if v.random.random() < 0.5:
        v.data["values"].remove(seed)
    else:
        seed["rank"] = another(v.random, seed["rank"], range(len(v.data["order"])))
