"""The facts above a drawing: model, workload, cluster, layout and digests."""

from __future__ import annotations

from collections import Counter

from helixctl.dag import Dag
from helixctl.plan import Layout
from helixctl.spec import EqualHosts, ModelSpec


def title(dag: Dag) -> str:
    """One line that names the picture."""
    plan = dag.plan
    step = "" if dag.step == "pass" else f", {dag.step} step"
    return f"{plan.model.name} on {plan.cluster.name}, {plan.layout}{step}"


def facts(dag: Dag) -> tuple[tuple[str, str], ...]:
    """Pairs of a key and its text."""
    model, workload, cluster, layout = dag.plan.model, dag.plan.workload, dag.plan.cluster, dag.plan.layout
    # How results are combined, and every axis that is not at its default, also axes that are added later.
    gathers = {"combine", "gather_order"} if layout.combine == "concat" else {"combine"}
    rest = layout.model_dump(mode="json", include=gathers if layout.partitions > 1 else set())
    rest |= layout.model_dump(mode="json", exclude={"groups", "slices"}, exclude_defaults=True)
    axes = [f"{axis} {value}".replace("_", " ") for axis, value in rest.items()]
    ends = f", vocabulary {model.vocabulary.size}" if model.vocabulary else ""
    shape = f"{_count(model.layers, 'layer')}, hidden {model.hidden_size}, {_layers(model)}{ends}, {model.dtype}"
    devices = ", ".join(map(_hosts, cluster.kinds))
    cut = ", ".join([f"{_count(layout.groups, 'group')} of {_count(layout.slices, 'slice')}", *axes])
    return (
        ("model", f"{model.name}: {shape}"),
        ("workload", str(workload)),
        ("cluster", f"{cluster.name}: {devices}"),
        ("layout", cut),
        ("plan", dag.plan.digest),
        *((("dag", dag.digest),) if dag.plan_digest else ()),  # a part of a dag is no document
    )


def _hosts(kind: EqualHosts) -> str:
    """``1 host of 8 x NVIDIA L40S in domains of 2 (pair) and 4 (socket)``."""
    text = f"{_count(kind.hosts, 'host')} of {kind.devices_per_host} x {kind.device.name}"
    domains = [f"{link.devices} ({link.name})" for link in kind.links]
    return f"{text} in domains of {' and '.join(domains)}" if domains else text


def _layers(model: ModelSpec) -> str:
    """What the layers are; of several kinds how many there are of each."""
    if not model.pattern:
        return _parts(model)
    counts = Counter(model.kind(layer) for layer in range(model.layers))
    return "; ".join(f"{count} {kind}: {_parts(model.alike(kind))}" for kind, count in counts.items())


def _parts(model: ModelSpec) -> str:
    """Heads and feed-forward network of a layer."""
    heads = f"{model.attention.heads} heads of {model.attention.head_dim}"
    if latent := model.attention.latent:
        heads += f" over a latent of {latent.kv_rank} + {latent.rope_dim}"
        if sparse := model.attention.sparse:
            heads += f", {sparse.top_k} keys of a token"
    elif model.attention.key_heads < model.attention.heads:
        heads += f" for {model.attention.key_heads} of keys and values"
    if model.attention.softmax_slices > 1:
        heads += f" in {model.attention.softmax_slices} softmax slices"
    network = f"feed-forward {model.feed_forward.intermediate_size}"
    if experts := model.feed_forward.experts:
        network = f"{experts.count} experts of {model.feed_forward.intermediate_size}, top {experts.top_k}"
    return f"{heads}, {network}, gated" if model.feed_forward.gated else f"{heads}, {network}"


def team_words(layout: Layout, rank: int) -> list[str]:
    """The stage and the replica of a rank, ``stage 1``, ``replica 0``, if there are several."""
    stage, replica = layout.team_of(rank)
    places = (("stage", stage, layout.pipeline), ("replica", replica, layout.data))
    return [f"{word} {at}" for word, at, size in places if size > 1]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
