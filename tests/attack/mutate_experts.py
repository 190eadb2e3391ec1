"""Mutations of experts that replicas share: tokens that are not joined, results of another replica, other experts."""

from __future__ import annotations

from tests.attack.mutation import Data, InapplicableError, MutationRegistry, Victim, redigest

mutation = MutationRegistry()


def _among_replicas(v: Victim, *kinds: str) -> Data:
    """A collective of replicas, which joins tokens or parts results."""
    layout = v.data["plan"]["layout"]
    if layout.get("expert_data", 1) == 1:
        raise InapplicableError
    team = layout["groups"] * layout["slices"]
    across = [t for t in v.collectives if t["op"]["kind"] in kinds and t["level"] == "feed_forward"]
    return v.pick([t for t in across if max(t["ranks"]) - min(t["ranks"]) >= team])


@mutation("joined tokens of replicas, less those of one", "HX406")
def _not_joined(v: Victim) -> None:
    task = _among_replicas(v, "all_gather")
    place = v.random.randrange(len(task["outputs"]))
    own, joined = v.values[task["inputs"][place]], v.values[task["outputs"][place]]
    batch = v.dims(own).index("batch")
    joined["region"][batch] = own["region"][batch]


@mutation("results of experts for the tokens of another replica", "HX404", "HX406")
def _of_another(v: Victim) -> None:
    a, b = v.two(_among_replicas(v, "reduce_scatter")["outputs"])
    one, other = v.values[a], v.values[b]
    one["region"], other["region"] = other["region"], one["region"]


@mutation("a replica that is left out where replicas share experts", "HX401", "HX404", "HX406")
def _left_out(v: Victim) -> None:
    task = _among_replicas(v, "all_gather", "reduce_scatter")
    place = v.random.randrange(len(task["ranks"]))
    for key in ("ranks", "inputs", "outputs"):
        del task[key][place]


@mutation("experts of two replicas exchanged", "HX406", "HX412", "HX414")
def _exchanged(v: Victim) -> None:
    if v.data["plan"]["layout"].get("expert_data", 1) == 1:
        raise InapplicableError
    weights = [w for w in v.given("weight") if v.dims(w)[0] == "expert"]
    one, other = v.two(weights)
    if one["tensor"] != other["tensor"] or one["region"] == other["region"]:
        raise InapplicableError
    one["region"], other["region"] = other["region"], one["region"]


@mutation("number of replicas that share experts, digests made anew", "HX303", "HX414")
def _other_number(v: Victim) -> None:
    layout = v.data["plan"]["layout"]
    if layout.get("expert_data", 1) == 1:
        raise InapplicableError
    layout["expert_data"] += 1
    redigest(v.data)
