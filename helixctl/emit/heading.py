"""The facts above a drawing: model, workload, cluster, layout and digests."""

from __future__ import annotations

from helixctl.dag import Dag
from helixctl.plan import Layout


def title(dag: Dag) -> str:
    """One line that names the picture."""
    plan = dag.plan
    return f"{plan.model.name} on {plan.cluster.name}, {plan.layout}"


def facts(dag: Dag) -> tuple[tuple[str, str], ...]:
    """Pairs of a key and its text."""
    model, workload, cluster, layout = dag.plan.model, dag.plan.workload, dag.plan.cluster, dag.plan.layout
    heads = f"{model.attention.heads} heads of {model.attention.head_dim}"
    if model.attention.key_heads < model.attention.heads:
        heads += f" for {model.attention.key_heads} of keys and values"
    if model.attention.softmax_slices > 1:
        heads += f" in {model.attention.softmax_slices} softmax slices"
    network = f"feed-forward {model.feed_forward.intermediate_size}"
    if experts := model.feed_forward.experts:
        network = f"{experts.count} experts of {model.feed_forward.intermediate_size}, top {experts.top_k}"
    # How results are combined, and every axis that is not at its default, also axes that are added later.
    gathers = {"combine", "gather_order"} if layout.combine == "concat" else {"combine"}
    rest = layout.model_dump(mode="json", include=gathers if layout.partitions > 1 else set())
    rest |= layout.model_dump(mode="json", exclude={"groups", "slices"}, exclude_defaults=True)
    axes = [f"{axis} {value}".replace("_", " ") for axis, value in rest.items()]
    if model.feed_forward.gated:
        network += ", gated"
    if model.vocabulary:
        network += f", vocabulary {model.vocabulary.size}"
    shape = f"{_count(model.layers, 'layer')}, hidden {model.hidden_size}, {heads}, {network}, {model.dtype}"
    devices = f"{_count(cluster.hosts, 'host')} of {cluster.devices_per_host} x {cluster.device.name}"
    cut = ", ".join([f"{_count(layout.groups, 'group')} of {_count(layout.slices, 'slice')}", *axes])
    return (
        ("model", f"{model.name}: {shape}"),
        ("workload", str(workload)),
        ("cluster", f"{cluster.name}: {devices}"),
        ("layout", cut),
        ("plan", dag.plan.digest),
        *((("dag", dag.digest),) if dag.plan_digest else ()),  # a part of a dag is no document
    )


def team_words(layout: Layout, rank: int) -> list[str]:
    """The stage and the replica of a rank, ``stage 1``, ``replica 0``, if there are several."""
    stage, replica = layout.team_of(rank)
    places = (("stage", stage, layout.pipeline), ("replica", replica, layout.data))
    return [f"{word} {at}" for word, at, size in places if size > 1]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
