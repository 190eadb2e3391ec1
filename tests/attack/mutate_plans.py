"""Mutations of plans, alone and inside dags: other specs, other layouts, other digests."""

from __future__ import annotations

from typing import Any

from tests.attack.mutation import Data, InapplicableError, MutationRegistry, Victim, another, digest, leaves, redigest

mutation = MutationRegistry()
LOWERED = "the dag may be what the other plan is lowered to"
AXES: dict[str, tuple[Any, ...]] = {
    "slicing": ("head_dim", "batch", "query", "key"),
    "combine": ("concat", "reduce"),
    "gather_order": ("slices_first", "groups_first"),
    "reduction_dtype": ("accumulator", "model"),
    "residual": ("replicated", "sharded"),
    "latent_prefill": ("absorbed", "expanded"),
    "key_prefill": ("key", "query"),
    "expert_data": (1, 2, 3, 4),
    "group_shares": (None, "1-1", "2-1", "1-3", "1-2-3", "3-2-1", "1-1-1"),
}
LATER = {
    "residual": "replicated",
    "key_block": 16,
    "latent_prefill": "absorbed",
    "key_prefill": "key",
    "expert_data": 1,
    "group_shares": None,
}  # in their order
MESH = ("groups", "slices", "data", "pipeline")
# What another legal value of a field can lead to; HX401: it is not a legal value.
ELSE = ("HX106", "HX109", "HX111", "HX303", "HX401", "HX404", "HX405", "HX410", "HX411", "HX413", "HX414")


def change(v: Victim, holder: Any, key: Any) -> None:
    """Another value of a like type."""
    old = holder[key]
    match old:
        case bool():
            options: tuple[Any, ...] = (not old,)
        case int():
            options = (old + 1, max(old - 1, 1), old * 2, 1, 0)
        case float():
            options = (old * 2, old / 3, old + 1e-9)
        case None:
            options = (1, 2, True, "float16")
        case "float16" | "bfloat16" | "float32" | "float64":
            options = ("float16", "bfloat16", "float32", "float64")
        case "gelu" | "relu" | "silu":
            options = ("gelu", "relu", "silu")
        case _:
            options = (f"{old}x", "x", "1 GB", "2 GB/s", "3 TFLOP/s", "9 us")
    holder[key] = another(v.random, old, options)


def axis(v: Victim, layout: Data) -> None:
    """Another value of an axis, or of two that multiply to the same devices."""
    choice = v.random.choice((*AXES, "mesh", "mesh", "mesh", "microbatches", "interleave", "experts", "placement"))
    if choice in AXES:  # an axis that came later is left out where it has its default, the first of its values
        layout[choice] = another(v.random, layout.get(choice, AXES[choice][0]), AXES[choice])
        if choice in LATER:
            _left_out(layout)
    elif choice == "mesh":
        a, b = v.two(MESH)
        factor = v.pick([n for n in (2, 3, 4, 6) if layout[a] % n == 0])
        layout[a], layout[b] = layout[a] // factor, layout[b] * factor
    elif choice == "placement":
        axes = layout["placement"].split("-")
        v.random.shuffle(axes)
        layout["placement"] = "-".join(axes)
    else:
        layout[choice] = another(v.random, layout[choice], (1, 2, 3, 4))


def _left_out(layout: Data) -> None:
    """Axes that came later stand at the end, in their order, and not where they have their defaults."""
    for name, default in LATER.items():
        if (value := layout.pop(name, default)) != default:
            layout[name] = value


@mutation("layout of a dag changed, digests kept", "HX303", "HX402")
def _layout(v: Victim) -> None:
    axis(v, v.data["plan"]["layout"])


@mutation("layout of a dag changed, digests made anew", "HX303", "HX411", "HX413", "HX414", harmless=LOWERED)
def _layout_anew(v: Victim) -> None:
    axis(v, v.data["plan"]["layout"])
    redigest(v.data)


@mutation("groups and slices of a dag exchanged, digests made anew", "HX303", "HX411", "HX414", harmless=LOWERED)
def _exchanged(v: Victim) -> None:
    layout = v.data["plan"]["layout"]
    layout["groups"], layout["slices"] = layout["slices"], layout["groups"]
    redigest(v.data)


@mutation("weights of groups, digests made anew", "HX303", "HX406", "HX414", harmless=LOWERED)
def _weights(v: Victim) -> None:
    layout = v.data["plan"]["layout"]
    if layout["groups"] == 1:
        raise InapplicableError
    weights = [v.random.randint(1, 5) for _ in range(layout["groups"])]
    layout["group_shares"] = another(v.random, layout.get("group_shares"), ("-".join(map(str, weights)),))
    redigest(v.data)


@mutation("groups or slices of a dag changed, digests made anew", "HX303")
def _more_groups(v: Victim) -> None:
    layout = v.data["plan"]["layout"]
    layout[v.random.choice(("groups", "slices"))] += 1
    redigest(v.data)


def _field(v: Victim, name: str) -> None:
    change(v, *v.pick([*leaves(v.data["plan"][name])]))


@mutation("a spec of a dag changed, digests kept", "HX106", "HX109", "HX111", "HX302", "HX303", "HX401", "HX402")
def _spec(v: Victim) -> None:
    _field(v, v.random.choice(("model", "workload", "cluster")))


@mutation("model of a dag changed, digests made anew", *ELSE, harmless=LOWERED)
def _model(v: Victim) -> None:
    _field(v, "model")
    redigest(v.data)


@mutation("workload of a dag changed, digests made anew", *ELSE, harmless=LOWERED)
def _workload(v: Victim) -> None:
    _field(v, "workload")
    redigest(v.data)


@mutation("cluster of a dag changed, digests made anew", "HX106", "HX109", "HX303", "HX401", "HX410", harmless=LOWERED)
def _cluster(v: Victim) -> None:
    _field(v, "cluster")
    redigest(v.data)


@mutation("memory of a device too small, digests made anew", "HX410")
def _memory(v: Victim) -> None:
    v.data["plan"]["cluster"]["device"]["memory"] = v.random.choice(("1 B", "100 B", "1 kB"))
    redigest(v.data)


@mutation("digest of the plan in a dag", "HX402")
def _plan_digest(v: Victim) -> None:
    old = v.data["plan_digest"]
    v.data["plan_digest"] = v.random.choice((_other(v, old), "", old.upper(), old[7:], old + " "))


@mutation("digest of a spec in a dag", "HX302")
def _spec_digest(v: Victim) -> None:
    digests = v.data["plan"]["digests"]
    name = v.pick([*digests])
    digests[name] = _other(v, digests[name])
    _plan_only(v.data)


@mutation("digests of two specs in a dag exchanged", "HX302")
def _digests_exchanged(v: Victim) -> None:
    digests = v.data["plan"]["digests"]
    a, b = v.two([*digests])
    digests[a], digests[b] = digests[b], digests[a]
    _plan_only(v.data)


@mutation("version of a dag or of its plan", "HX110", "HX301", "HX304", "HX401")
def _version(v: Victim) -> None:
    holder, key = v.pick([(v.data, "$schema"), (v.data, "format_version"), (v.data["plan"], "format_version"),
                          (v.data["plan"], "$schema")])  # fmt: skip
    options = {"$schema": ("urn:helixctl:dag:2", "urn:helixctl:plan:1", "urn:helixctl:dag:", 1)}
    if holder is v.data["plan"]:
        options["$schema"] = ("urn:helixctl:dag:1", "urn:helixctl:plan:2", "", None)
    holder[key] = v.random.choice(options.get(key, ("1.1", "2.0", "0.9", "1", 1.0, None)))
    if holder is v.data["plan"]:
        _plan_only(v.data)


@mutation("a table or key of a dag dropped, unknown or of another type", "HX110", "HX301", "HX401", "HX402")
def _keys(v: Victim) -> None:
    key = v.pick([key for key in v.data if key not in {"$schema", "format_version"}])
    match v.random.randrange(4):
        case 0:
            del v.data[key]
        case 1:
            v.data["x"] = v.data.pop(key)
        case 2:
            v.data[key] = v.random.choice((None, {}, "x", 1, [[]], [None]))
        case _:
            other = v.pick([k for k in ("tensors", "values", "tasks", "order") if k != key])
            v.data[key], v.data[other] = v.data[other], v.data[key]


# --- plans alone -----------------------------------------------------------------------------------------------------


@mutation("a spec of a plan changed", "HX106", "HX109", "HX111", "HX301", "HX302", "HX303", document="plan")
def _plan_spec(v: Victim) -> None:
    change(v, *v.pick([*leaves(v.data[v.random.choice(("model", "workload", "cluster"))])]))


@mutation("digest of a spec in a plan", "HX302", document="plan")
def _plan_spec_digest(v: Victim) -> None:
    digests = v.data["digests"]
    name = v.pick([*digests])
    digests[name] = v.random.choice((_other(v, digests[name]), "", digests[name] + "0"))


@mutation("layout of a plan for other devices", "HX303", document="plan")
def _devices(v: Victim) -> None:
    v.data["layout"][v.pick(MESH)] += v.random.randint(1, 9)


@mutation("layout of a plan that is not legal", "HX303", document="plan")
def _illegal(v: Victim) -> None:
    layout, model = v.data["layout"], v.data["model"]
    change_to = {
        "experts": 7,
        "microbatches": v.data["workload"]["batch"] + 1,
        "interleave": layout["microbatches"] + 1,
        "pipeline": model["layers"] + 1,
        "groups": model["attention"]["heads"] + 1,
    }
    name = v.pick([*change_to])
    layout[name] = change_to[name]


@mutation("an axis of a plan of another type, unknown or missing", "HX301", document="plan")
def _axis_type(v: Victim) -> None:
    layout = v.data["layout"]
    name = v.pick([*layout])
    match v.random.randrange(3):
        case 0:
            layout[name] = v.random.choice((None, 1.5, [], {}, "x", 0, -1, True, 2**41, "1"))
        case 1:
            layout[name + "s"] = 1
        case _:
            del layout[v.random.choice(("groups", "slices"))]


@mutation("placement of a plan", "HX301", document="plan")
def _placement(v: Victim) -> None:
    placement = v.data["layout"]["placement"]
    options = (placement + "-data", placement.replace("data", "slices"), "", placement.upper(), placement[:-1])
    v.data["layout"]["placement"] = v.random.choice(options)


@mutation("version of a plan", "HX301", "HX304", document="plan")
def _plan_version(v: Victim) -> None:
    key = v.random.choice(("$schema", "format_version"))
    options = {"$schema": ("urn:helixctl:plan:2", "urn:helixctl:plan:", 1, None)}
    v.data[key] = v.random.choice(options.get(key, ("1.1", "2.0", "", None, 1.0)))


@mutation("a key of a plan dropped or of another type", "HX301", "HX302", "HX303", document="plan")
def _plan_keys(v: Victim) -> None:
    key = v.pick([key for key in v.data if key not in {"$schema", "format_version"}])
    if v.random.random() < 0.5:
        del v.data[key]
    else:
        v.data[key] = v.random.choice((None, {}, "x", 1, []))


def _other(v: Victim, old: str) -> str:
    """A digest with another digit."""
    i = v.random.randrange(7, len(old))
    return old[:i] + another(v.random, old[i], "0123456789abcdef") + old[i + 1 :]


def _plan_only(dag: Data) -> None:
    """Make the digest of the plan anew, not those of its specs."""
    dag["plan_digest"] = digest(dag["plan"])
