"""Rules that several engines have, each with the engine's own source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from helixctl.export.engine import Rule
from helixctl.plan import Layout
from helixctl.solve.problem import Specs
from helixctl.spec import ModelSpec


def blocks_of(specs: Specs) -> Iterator[ModelSpec]:
    """The model's kinds of layers, each as a model of such layers alone."""
    return (specs.model.alike(kind) for kind in specs.model.kinds)


def blackwell(specs: Specs) -> bool:
    """Whether the GPUs are of the generation of B200 and GB200."""
    return re.search(r"\bG?B[123]00\b", specs.cluster.only.device.name) is not None


def known_model(source: str, dtypes: Sequence[str] = ("float16", "bfloat16", "float32")) -> Rule:
    """Tokens in, logits out, one softmax a head, and a dtype that the engine has."""

    def unmet(_: Layout, specs: Specs) -> str | None:
        model = specs.model
        if model.vocabulary is None:
            return "a model from tokens to logits: this one has no vocabulary"
        slices = max(block.attention.softmax_slices for block in blocks_of(specs))
        if slices > 1:
            return f"one softmax a head: the model has softmax_slices {slices}"
        if model.dtype not in dtypes:
            return f"one of the dtypes {', '.join(dtypes)}: the model has {model.dtype}"
        return None

    return Rule(f"tokens in, logits out, one softmax a head; {', '.join(dtypes)}", source, unmet)


def even_heads(source: str, *, over: str = "partitions") -> Rule:
    """The heads of queries are divided evenly; ``over`` is what of the layout divides them."""

    def unmet(layout: Layout, specs: Specs) -> str | None:
        ways = getattr(layout, over)
        for block in blocks_of(specs):
            if block.attention.heads % ways:
                return f"the heads divided evenly: {block.attention.heads} on {ways}"
        return None

    return Rule("heads divide evenly", source, unmet)


def even_kv_heads(source: str, *, over: str = "partitions", copies: bool = True) -> Rule:
    """KV heads are divided evenly, or with ``copies`` each is held by equally many ranks; a latent is held by all."""

    def unmet(layout: Layout, specs: Specs) -> str | None:
        ways = getattr(layout, over)
        for block in blocks_of(specs):
            heads = block.attention.key_heads
            copied = copies and ways % heads == 0
            if block.attention.latent is None and heads % ways and not copied:
                what = "the KV heads divided evenly, or each held equally often" if copies else "the KV heads divided"
                return f"{what}: {heads} on {ways}"
        return None

    return Rule(
        "KV heads divide evenly, or each is held equally often" if copies else "KV heads divide evenly", source, unmet
    )


def even_widths(source: str) -> Rule:
    """Feed-forward networks, shared experts, and experts as far as they are cut, are cut evenly."""

    def unmet(layout: Layout, specs: Specs) -> str | None:
        for block in blocks_of(specs):
            experts, width = block.feed_forward.experts, block.feed_forward.intermediate_size
            ways = layout.ways("expert_tensor") if experts else layout.partitions
            if width % ways:
                return f"the feed-forward width divided evenly: {width} on {ways}"
            shared = experts.shared.intermediate_size if experts and experts.shared else 0
            if shared % layout.partitions:
                return f"the width of shared experts divided evenly: {shared} on {layout.partitions}"
        return None

    return Rule("widths of feed-forward networks divide evenly", source, unmet)


def even_experts(source: str) -> Rule:
    """As many experts on each rank."""

    def unmet(layout: Layout, specs: Specs) -> str | None:
        for block in blocks_of(specs):
            experts = block.feed_forward.experts
            if experts and experts.count % layout.experts:
                return f"the experts divided evenly: {experts.count} on {layout.experts}"
        return None

    return Rule("experts divide evenly", source, unmet)


def own_experts(source: str) -> Rule:
    """Every replica has all experts: replicas that meet are not written."""

    def unmet(layout: Layout, _: Specs) -> str | None:
        if layout.expert_data == 1:
            return None
        return f"all experts in each replica: in the plan {layout.expert_data} replicas share them (expert_data)"

    return Rule("all experts in each replica", source, unmet)


def experts_whole_or_cut(source: str) -> Rule:
    """Experts are whole, spread over all of a tensor-parallel group, or each is cut over all of it."""

    def unmet(layout: Layout, _: Specs) -> str | None:
        if layout.experts in {1, layout.expert_devices}:
            return None
        cut = f"{layout.experts} x {layout.expert_devices // layout.experts}"
        return f"experts spread over all ranks of a tensor-parallel group, or each cut over all: {cut}"

    return Rule("experts spread over all ranks of a tensor-parallel group, or each cut over all", source, unmet)


def no_slices(source: str) -> Rule:
    """A layer is cut by heads alone."""

    def unmet(layout: Layout, _: Specs) -> str | None:
        if layout.slices == 1:
            return None
        return f"attention cut by heads alone: the plan has {layout.slices} slices by {layout.slicing}"

    return Rule("no slices", source, unmet)


def slices_by_key(source: str, option: str, *, latent: bool) -> Rule:
    """Slices share the positions of a KV cache, and nothing else; with ``latent`` of models with a latent cache."""

    def unmet(layout: Layout, specs: Specs) -> str | None:
        if layout.slices == 1:
            return None
        if layout.slicing != "key":
            return f"slices that share the KV cache by positions ({option}): the plan slices by {layout.slicing}"
        if latent and any(block.attention.latent is None for block in blocks_of(specs)):
            return f"a latent cache (MLA) where slices share it by positions ({option})"
        return None

    return Rule(f"slices by key alone, as {option}{', and of latent caches' if latent else ''}", source, unmet)


def in_order(source: str, *orders: Sequence[str]) -> Rule:
    """The axes are laid over the ranks in one of these orders, innermost first; others than these do not matter."""

    def unmet(layout: Layout, _: Specs) -> str | None:
        axes = [axis for axis in layout.placement.split("-") if getattr(layout, axis) > 1]
        for order in orders:
            wanted = [axis for axis in order if getattr(layout, axis) > 1]
            if [axis for axis in axes if axis in order] == wanted:
                return None
        wanted = [axis for axis in orders[0] if getattr(layout, axis) > 1]
        return f"the placement {'-'.join(wanted)}, innermost first: the plan has {layout.placement}"

    return Rule(f"placement {' or '.join('-'.join(order) for order in orders)}", source, unmet)


def whole_hosts(source: str) -> Rule:
    """A replica over several hosts has equally many devices on each, host after host in the order of its ranks."""

    def unmet(layout: Layout, specs: Specs) -> str | None:
        for replica in range(layout.data):
            ranks = [rank for stage in range(layout.pipeline) for rank in layout.team(stage, replica)]
            hosts = [specs.cluster.host_of(rank) for rank in ranks]
            each = len(hosts) // len(set(hosts))
            if any(len(set(hosts[at : at + each])) > 1 for at in range(0, len(hosts), each)):
                return f"equally many devices of each host, host after host: replica {replica} has not"
        return None

    return Rule("equally many devices of each host in a replica", source, unmet)


def even_batch(source: str) -> Rule:
    """All microbatches have equally many sequences."""

    def unmet(layout: Layout, specs: Specs) -> str | None:
        if layout.batch_shares:
            return f"microbatches of one size: the plan has batch_shares {layout.batch_shares}"
        batch, parts = specs.workload.batch, layout.data * layout.microbatches
        return f"microbatches of one size: a batch of {batch} in {parts}" if batch % parts else None

    return Rule("microbatches of one size", source, unmet)


def equal_shares(source: str) -> Rule:
    """All ranks of a tensor-parallel group have equal shares."""

    def unmet(layout: Layout, _: Specs) -> str | None:
        if layout.group_shares is None:
            return None
        return f"equal shares of the ranks of a tensor-parallel group: the plan has group_shares {layout.group_shares}"

    return Rule("equal shares in a tensor-parallel group", source, unmet)
