"""Valid dags that ``lower`` never makes: levels for the builder, and cases that combine them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from helixctl.dag import AllGather, AllReduce, AllToAll, Broadcast, Dag, Task, Value
from helixctl.dag import Level as LevelName
from helixctl.dag.function import hidden_states
from helixctl.lower.builder import Builder, Cut
from helixctl.lower.equations import add_equations
from helixctl.lower.reshard import distribute_input
from helixctl.plan import Interval
from helixctl.plan.layout import share
from tests.documents import SMALL, TINY, plan_of

Level = Callable[[Builder, int], None]
NONE: Cut = {}

# The attention output is as wide as the residual stream: buffers of one size are used again for the other.
MODEL = (*TINY, "layers=2", "hidden_size=16", "attention.heads=4", "feed_forward.intermediate_size=32", "dtype=float64")


@dataclass(frozen=True)
class Case:
    """The levels of every layer, the layouts to try them on, and what else is set."""

    levels: tuple[Level, ...]
    layouts: tuple[tuple[int, int], ...] = ((2, 1), (1, 2), (2, 2))
    sets: tuple[str, ...] = ()

    def dag(self, groups: int, slices: int) -> Dag:
        """The dag of these levels, layer by layer."""
        builder = Builder(plan_of(SMALL, groups, slices, *MODEL, *self.sets))
        for layer in range(builder.model.layers):
            for level in self.levels:
                level(builder, layer)
        return builder.build()


def groups(b: Builder) -> list[tuple[int, tuple[int, ...]]]:
    """Every group of the team, and its ranks."""
    return [(int(end.removeprefix("g")), ranks) for end, ranks in b.along("slices")]


def crossings(b: Builder) -> list[tuple[int, tuple[int, ...]]]:
    """Every slice of the team, and its ranks in all groups."""
    return [(int(end.removeprefix("s")), ranks) for end, ranks in b.along("groups")]


def put_off_uses(dag: Dag) -> Dag:
    """The same tasks in another order: collectives are issued as early, and waited for as late, as can be."""
    left, issued = list(dag.tasks), dict[str, int]()
    made = {value.id for value in dag.values} - dag.producer.keys()

    def wait(task: Task) -> int:
        if task.is_collective:
            return -1
        return max((issued[before.id] for before in dag.predecessors(task) if before.is_collective), default=-1)

    while left:
        ready = [task for task in left if made.issuperset(task.inputs)]
        task = min(ready, key=wait)  # what waits for nothing, else for the collective that has had the longest time
        left.remove(task)
        issued[task.id] = len(issued)
        made.update(task.outputs)
    done = [dag.task[name] for name in issued]
    return replace(dag, order=tuple(tuple(t.id for t in done if rank in t.ranks) for rank in range(len(dag.order))))


# --- what lower makes ------------------------------------------------------------------------------------------------


def add_level(b: Builder, layer: int, level: LevelName) -> None:
    """The equations of one level of a layer, and the collectives behind them."""
    add_equations(b, [equation for equation in b.function.layers[layer] if equation.level == level])


def distribute(b: Builder, layer: int) -> None:
    """The input, before the first layer, and Q, K and V."""
    if layer == 0:
        distribute_input(b)
    add_level(b, layer, "distribute")


def attend(b: Builder, layer: int) -> None:
    """Attention, and what puts its output together."""
    add_level(b, layer, "attend")


def project(b: Builder, layer: int) -> None:
    """The output projection."""
    add_level(b, layer, "project")


def feed_forward(b: Builder, layer: int) -> None:
    """The feed-forward network."""
    add_level(b, layer, "feed_forward")


# --- what the levels have in common ----------------------------------------------------------------------------------


def columns_of_position(b: Builder, position: int) -> Interval:
    """One of as many equal parts of the residual stream's columns as there are ranks."""
    return share(b.model.hidden_size, b.layout.partitions, position)


def width_of(b: Builder, rank: int) -> Interval:
    """A rank's equal part of the feed-forward width."""
    return share(b.model.feed_forward.intermediate_size, b.layout.partitions, rank)


def columns(b: Builder, rank: int) -> dict[str, Interval]:
    """A rank's equal part of the residual stream's columns."""
    return {"hidden": columns_of_position(b, b.layout.position(rank))}


def columns_of(b: Builder, ranks: Sequence[int]) -> dict[str, Interval]:
    """The columns of ranks that follow each other, together."""
    return {"hidden": (columns(b, ranks[0])["hidden"][0], columns(b, ranks[-1])["hidden"][1])}


def always(cut: Cut) -> Callable[[int], Cut]:
    """The same part for every rank of a collective."""
    return lambda _: cut


def tokens(b: Builder, rank: int, dim: str) -> dict[str, Interval]:
    """A rank's equal part of the batch, or of every sequence."""
    tensor = b.function.tensors["input"]
    return {dim: share(tensor.shape[tensor.dims.index(dim)], b.layout.devices, rank)}


def linear(b: Builder, level: LevelName, name: str, rank: int, weight: str, output: str, cut: Cut = NONE) -> None:
    """A product with a weight that the rank has only the part of that it needs."""
    b.own(weight, rank, cut)
    b.compute(level, name, rank, output, cut)


def activated(b: Builder, layer: int, rank: int, cut: Cut) -> None:
    """The feed-forward up to the activation."""
    p = f"l{layer}."
    b.own(p + "feed_forward_norm", rank)
    b.compute("feed_forward", "norm", rank, p + "feed_forward_in", cut)
    linear(b, "feed_forward", "up", rank, p + "w_up", p + "up", cut)
    b.compute("feed_forward", "activation", rank, p + "activated", cut)


def parts_of_down(b: Builder, layer: int, ffn: Callable[[int], Interval]) -> None:
    """On every rank the sum over its part of the feed-forward width, which ``ffn`` gives."""
    p = f"l{layer}."
    for rank in b.ranks:
        activated(b, layer, rank, {"ffn": ffn(rank)})
        linear(b, "feed_forward", "down", rank, p + "w_down", p + "down", {"ffn": ffn(rank)})


def equal_parts_of_down(b: Builder, layer: int) -> None:
    """The parts that the layout gives."""
    parts_of_down(b, layer, lambda rank: width_of(b, rank))


def reduce_down(b: Builder, layer: int, stage: str = "full") -> None:
    """The sum of what all ranks hold of ``down``."""
    b.collective(layer, "feed_forward", f"reduce_{stage}", AllReduce(), b.ranks, f"l{layer}.down", stage)


def add_down(b: Builder, layer: int) -> None:
    """The last task of a layer, on every rank."""
    for rank in b.ranks:
        b.compute("feed_forward", "add", rank, hidden_states(b.model, layer + 1))


def add_projection(b: Builder, layer: int) -> None:
    """The residual stream after attention, on every rank."""
    for rank in b.ranks:
        b.compute("project", "add", rank, f"l{layer}.residual")


def hold_partial(b: Builder, tensor: str, rank: int, over: Interval) -> None:
    """Say that what a collective gave is still a sum over part of the feed-forward width (the builder does not)."""
    value = b.held[tensor, rank]
    partial = replace(value, partial=(("ffn", over),))
    b._values[value.id] = b.held[tensor, rank] = partial


def hold_again(b: Builder, values: Sequence[Value]) -> None:
    """Go back to what ranks held before."""
    for value in values:
        b.held[value.tensor, value.rank] = value


# --- sums ------------------------------------------------------------------------------------------------------------


def reduce_in_two_steps(b: Builder, layer: int) -> None:
    """A sum in each group, then across the groups: in place twice, and between them the result is still partial."""
    equal_parts_of_down(b, layer)
    tensor, ffn = f"l{layer}.down", lambda rank: width_of(b, rank)
    for group, ranks in groups(b):
        b.collective(layer, "feed_forward", f"inside.g{group}", AllReduce(), ranks, tensor, "group")
        for rank in ranks:
            hold_partial(b, tensor, rank, (ffn(ranks[0])[0], ffn(ranks[-1])[1]))
    for slice_, ranks in crossings(b):
        b.collective(layer, "feed_forward", f"across.s{slice_}", AllReduce(), ranks, tensor, "full")
    add_down(b, layer)


def reduce_uneven_parts(b: Builder, layer: int) -> None:
    """The last rank has almost all of the width: ranks run kernels, and take buffers, of different sizes."""
    last, width = b.ranks[-1], b.model.feed_forward.intermediate_size
    parts_of_down(b, layer, lambda rank: (rank, width if rank == last else rank + 1))
    reduce_down(b, layer)
    add_down(b, layer)


def reduce_parts_in_reverse(b: Builder, layer: int) -> None:
    """The first rank has the last part of the width: a sum, unlike a gather, has no order."""
    parts_of_down(b, layer, lambda rank: width_of(b, b.ranks[-1] - rank))
    reduce_down(b, layer)
    add_down(b, layer)


def reduce_parts_twice(b: Builder, layer: int) -> None:
    """Two sums read the same parts: the first must not be made in place. Nobody reads its result."""
    equal_parts_of_down(b, layer)
    parts = [b.held[f"l{layer}.down", rank] for rank in b.ranks]
    reduce_down(b, layer, "once")
    hold_again(b, parts)
    reduce_down(b, layer)
    add_down(b, layer)


def reduce_copies_of_a_part(b: Builder, layer: int) -> None:
    """Two sums read two copies of the first rank's part: not in place, as they lie where the part lies."""
    equal_parts_of_down(b, layer)
    parts = [b.held[f"l{layer}.down", rank] for rank in b.ranks]
    for copy, stage in (("a", "once"), ("b", "full")):
        hold_again(b, parts)
        b.collective(layer, "feed_forward", f"broadcast_{copy}", Broadcast(), b.ranks, parts[0].tensor, copy)
        for rank in b.ranks:
            hold_partial(b, parts[0].tensor, rank, parts[0].partial[0][1])
        hold_again(b, parts[1:])
        reduce_down(b, layer, stage)
    add_down(b, layer)


# --- gathers ---------------------------------------------------------------------------------------------------------


def columns_of_down(b: Builder, layer: int) -> None:
    """The activation is gathered, and each rank makes its columns of down from all of it."""
    p = f"l{layer}."
    for rank in b.ranks:
        activated(b, layer, rank, {"ffn": width_of(b, rank)})
    b.collective(layer, "feed_forward", "gather_activated", AllGather("ffn"), b.ranks, p + "activated", "full")
    for rank in b.ranks:
        linear(b, "feed_forward", "down", rank, p + "w_down", p + "down", columns(b, rank))


def down_by_columns(b: Builder, layer: int) -> None:
    """The activation is gathered, down made by columns: a gathered dim is contracted that does not lie outermost."""
    columns_of_down(b, layer)
    b.collective(layer, "feed_forward", "gather_down", AllGather("hidden"), b.ranks, f"l{layer}.down", "full")
    add_down(b, layer)


def norm_by_tokens(dim: str) -> Level:
    """Tokens are cut before attention only."""

    def level(b: Builder, layer: int) -> None:
        """The normalised input is gathered along tokens: the rows of a matrix are not in the order of the tokens."""
        if layer > 0:
            distribute(b, layer)
            return
        for rank in b.ranks:
            b.own("input", rank, tokens(b, rank, dim))
            b.own("l0.attention_norm", rank)
            b.compute("distribute", "norm", rank, "l0.attention_in", tokens(b, rank, dim))
        for tensor in ("l0.attention_in", "input"):
            b.collective(0, "distribute", f"gather_{tensor}", AllGather(dim), b.ranks, tensor, "full")
        for rank in b.ranks:
            project_heads(b, 0, rank)

    return level


def project_heads(b: Builder, layer: int, rank: int) -> None:
    """Q, K and V of a rank's heads and head dims."""
    p, cut = f"l{layer}.", b.cut(b.shares.of("w_q").made, rank)
    for weight in ("w_q", "w_k", "w_v"):
        b.own(p + weight, rank, cut)
    b.compute("distribute", "qkv", rank, p + "q", cut)


def input_by_columns(b: Builder, layer: int) -> None:
    """The input is given by columns and gathered: a norm reads a dim whose parts are not contiguous."""
    if layer == 0:
        for rank in b.ranks:
            b.own("input", rank, columns(b, rank))
        b.collective(0, "distribute", "gather_input", AllGather("hidden"), b.ranks, "input", "full")
    for rank in b.ranks:
        b.own(f"l{layer}.attention_norm", rank)
        b.compute("distribute", "norm", rank, f"l{layer}.attention_in")
        project_heads(b, layer, rank)


def project_in_two_gathers(b: Builder, layer: int) -> None:
    """The projection is gathered in groups, then across: the sum with an input that was gathered in one step."""
    p = f"l{layer}."
    for rank in b.ranks:
        linear(b, "project", "linear", rank, p + "w_o", p + "projection", columns(b, rank))
    for group, ranks in groups(b):
        inside = AllGather("hidden"), ranks, p + "projection", "group"
        b.collective(layer, "project", f"inside.g{group}", *inside, always(columns_of(b, ranks)))
    gather_across(b, layer)
    add_projection(b, layer)


def project_groups_in_two_ways(b: Builder, layer: int) -> None:
    """The first group gathers its columns, the others broadcast theirs: pieces of one gather lie differently."""
    p, gathering = f"l{layer}.", next(iter(groups(b)))[1]
    for rank in gathering:
        linear(b, "project", "linear", rank, p + "w_o", p + "projection", columns(b, rank))
    for group, ranks in groups(b):
        cut = columns_of(b, ranks)
        if ranks != gathering:
            linear(b, "project", "linear", ranks[0], p + "w_o", p + "projection", cut)
        op = AllGather("hidden") if ranks == gathering else Broadcast()
        b.collective(layer, "project", f"inside.g{group}", op, ranks, p + "projection", "group", always(cut))
    gather_across(b, layer)
    add_projection(b, layer)


def gather_across(b: Builder, layer: int) -> None:
    """From the columns of groups to the whole projection."""
    for slice_, ranks in crossings(b):
        across = AllGather("hidden"), ranks, f"l{layer}.projection", "full"
        b.collective(layer, "project", f"across.s{slice_}", *across)


def add_columns(b: Builder, layer: int, level: LevelName, stream: str, output: str) -> None:
    """Add to the columns of the residual stream that a rank had before it was gathered, and gather the sum."""
    pieces = {value.id: value for value in b._values.values()}
    for rank in b.ranks:
        whole = b.held[stream, rank]
        hold_again(b, [pieces[f"{stream}@{rank}"]])
        b.compute(level, "add", rank, output, columns(b, rank))
        hold_again(b, [whole])
    b.collective(layer, level, "gather_sum", AllGather("hidden"), b.ranks, output, "full")


def project_stream_by_columns(b: Builder, layer: int) -> None:
    """The residual stream is added by columns, then gathered: pieces are needed after they have been gathered."""
    p = f"l{layer}."
    for rank in b.ranks:
        linear(b, "project", "linear", rank, p + "w_o", p + "projection", columns(b, rank))
    add_columns(b, layer, "project", hidden_states(b.model, layer), p + "residual")


def feed_forward_stream_by_columns(b: Builder, layer: int) -> None:
    """As the projection; the model's output is gathered and has to be laid out again at the end of the step."""
    columns_of_down(b, layer)
    add_columns(b, layer, "feed_forward", f"l{layer}.residual", hidden_states(b.model, layer + 1))


def project_columns(b: Builder, layer: int, hidden: Callable[[int], Interval]) -> None:
    """The projection by columns, which ``hidden`` gives, and a gather."""
    p = f"l{layer}."
    for rank in b.ranks:
        linear(b, "project", "linear", rank, p + "w_o", p + "projection", {"hidden": hidden(rank)})
    b.collective(layer, "project", "gather", AllGather("hidden"), b.ranks, p + "projection", "full")
    add_projection(b, layer)


def project_uneven_columns(b: Builder, layer: int) -> None:
    """Pieces of a gather differ in size."""
    last, width = b.ranks[-1], b.model.hidden_size
    project_columns(b, layer, lambda rank: (rank, width if rank == last else rank + 1))


# --- every rank has all weights and part of the tokens ---------------------------------------------------------------


def layer_by_tokens(dim: str) -> Level:
    """Tokens are cut all the way; the output stays cut."""

    def level(b: Builder, layer: int) -> None:
        """K and V are gathered out of the memory of Q, K and V, and queries begin in the middle of a sequence."""
        p = f"l{layer}."
        for rank in b.ranks:
            cut = tokens(b, rank, dim)
            if layer == 0:
                b.own("input", rank, cut)
            b.own(p + "attention_norm", rank)
            b.compute("distribute", "norm", rank, p + "attention_in", cut)
            for weight in ("w_q", "w_k", "w_v"):
                b.own(p + weight, rank)
            b.compute("distribute", "qkv", rank, p + "q", cut)
        for tensor in ("k", "v") if dim == "seq" else ():
            b.collective(layer, "attend", f"gather_{tensor}", AllGather("seq"), b.ranks, p + tensor, "full")
        for rank in b.ranks:
            after_attention_inputs(b, layer, rank, tokens(b, rank, dim))

    return level


def after_attention_inputs(b: Builder, layer: int, rank: int, cut: Cut) -> None:
    """A layer from attention on, for some tokens."""
    b.compute("attend", "", rank, f"l{layer}.attention", cut)
    after_attention(b, layer, rank, cut)


def after_attention(b: Builder, layer: int, rank: int, cut: Cut) -> None:
    """A layer from the projection on, for some tokens."""
    p = f"l{layer}."
    linear(b, "project", "linear", rank, p + "w_o", p + "projection", cut)
    b.compute("project", "add", rank, p + "residual", cut)
    activated(b, layer, rank, cut)
    linear(b, "feed_forward", "down", rank, p + "w_down", p + "down", cut)
    b.compute("feed_forward", "add", rank, hidden_states(b.model, layer + 1), cut)


def gather_output(dim: str) -> Level:
    """After a layer by tokens."""

    def level(b: Builder, layer: int) -> None:
        """A gather is the last task of the step, and nobody reads its result: it is waited for all the same."""
        if layer + 1 == b.model.layers:
            b.collective(layer, "feed_forward", "gather_output", AllGather(dim), b.ranks, "output", "full")

    return level


def layer_by_positions_and_heads(b: Builder, layer: int) -> None:
    """Tokens are cut, and attention is cut by heads (Ulysses): heads are split and gathered, never dims."""
    p = f"l{layer}."
    for rank in b.ranks:
        cut = tokens(b, rank, "seq")
        if layer == 0:
            b.own("input", rank, cut)
        b.own(p + "attention_norm", rank)
        b.compute("distribute", "norm", rank, p + "attention_in", cut)
        for weight in ("w_q", "w_k", "w_v"):
            b.own(p + weight, rank)
        b.compute("distribute", "qkv", rank, p + "q", cut)
    for name in "qkv":
        dim = "head" if name == "q" else "kv_head"
        heads = AllToAll(dim, "seq"), b.ranks, p + name, "heads"
        b.collective(layer, "exchange", name, *heads, lambda rank, dim=dim: {dim: some_heads(b, rank)})
    for rank in b.ranks:
        b.compute("attend", "", rank, p + "attention", {"head": some_heads(b, rank)})
    back = AllToAll("seq", "head"), b.ranks, p + "attention", "tokens"
    b.collective(layer, "project", "return", *back, lambda rank: tokens(b, rank, "seq"))
    for rank in b.ranks:
        after_attention(b, layer, rank, tokens(b, rank, "seq"))


def some_heads(b: Builder, rank: int) -> Interval:
    """A rank's share of the heads, as even as can be."""
    return share(b.model.attention.heads, b.layout.devices, rank)


def columns_become_tokens(b: Builder, layer: int) -> None:
    """The projection by columns is split by tokens, a gathered value sent on: the residual stream is added by tokens.

    What an all-to-all sends lies in a strided way here, and what it makes is gathered at once.
    """
    p = f"l{layer}."
    for rank in b.ranks:
        linear(b, "project", "linear", rank, p + "w_o", p + "projection", columns(b, rank))
    cut = AllToAll("seq", "hidden"), b.ranks, p + "projection", "tokens"
    b.collective(layer, "project", "turn", *cut, lambda rank: tokens(b, rank, "seq"))
    b.collective(layer, "project", "gather", AllGather("seq"), b.ranks, p + "projection", "full")
    add_projection(b, layer)


def gathered_and_cut_again(b: Builder, layer: int) -> None:
    """Columns are gathered in groups, and what lies in factors is split by tokens across the groups, then gathered."""
    p = f"l{layer}."
    for rank in b.ranks:
        linear(b, "project", "linear", rank, p + "w_o", p + "projection", columns(b, rank))
    for group, ranks in groups(b):
        inside = AllGather("hidden"), ranks, p + "projection", "group"
        b.collective(layer, "project", f"inside.g{group}", *inside, always(columns_of(b, ranks)))
    for slice_, ranks in crossings(b):
        shares = {rank: {"seq": share(b.plan.workload.seq_len, len(ranks), i)} for i, rank in enumerate(ranks)}
        turn = AllToAll("seq", "hidden"), ranks, p + "projection", "tokens"
        b.collective(layer, "project", f"turn.s{slice_}", *turn, shares.__getitem__)
        b.collective(layer, "project", f"across.s{slice_}", AllGather("seq"), ranks, p + "projection", "full")
    add_projection(b, layer)


# --- broadcasts ------------------------------------------------------------------------------------------------------


def residual_from_one_rank(b: Builder, layer: int) -> None:
    """One rank projects, adds and broadcasts: nobody reads what the others have gathered, and it arrives all the same.

    The broadcast's result lies where its input lies, which must stay as long as the result is needed.
    """
    p = f"l{layer}."
    linear(b, "project", "linear", 0, p + "w_o", p + "projection")
    b.compute("project", "add", 0, p + "residual")
    b.collective(layer, "project", "broadcast", Broadcast(), b.ranks, p + "residual", "copy")


def project_on_the_first_group(b: Builder, layer: int) -> None:
    """One group projects by columns and gathers, its first rank broadcasts: receivers lay out as the gather does."""
    p, first = f"l{layer}.", next(iter(groups(b)))[1]
    for rank in first:
        cut = {"hidden": share(b.model.hidden_size, len(first), rank)}
        linear(b, "project", "linear", rank, p + "w_o", p + "projection", cut)
    b.collective(layer, "project", "gather", AllGather("hidden"), first, p + "projection", "group")
    others = [rank for rank in b.ranks if rank not in first]
    b.collective(layer, "project", "broadcast", Broadcast(), (0, *others), p + "projection", "copy")
    add_projection(b, layer)


def project_with_weights_sent(b: Builder, layer: int) -> None:
    """Weights are on one rank at first and broadcast: the output of a task is read as a weight."""
    p = f"l{layer}."
    for weight in ("w_o", "feed_forward_norm"):
        b.own(p + weight, 0)
        b.collective(layer, "project", f"broadcast_{weight}", Broadcast(), b.ranks, p + weight, "copy")
    for rank in b.ranks:
        b.compute("project", "linear", rank, p + "projection")
    add_projection(b, layer)


# --- not valid -------------------------------------------------------------------------------------------------------


def project_columns_in_reverse(b: Builder, layer: int) -> None:
    """Pieces of a gather stand in the wrong order."""
    project_columns(b, layer, lambda rank: columns_of_position(b, b.ranks[-1] - rank))


def reduce_with_a_gap(b: Builder, layer: int) -> None:
    """Ranks that do not follow each other sum their parts of the width: what lies between them is left out."""
    equal_parts_of_down(b, layer)
    for slice_, ranks in crossings(b):
        b.collective(layer, "feed_forward", f"across.s{slice_}", AllReduce(), ranks, f"l{layer}.down", "slice")
    add_down(b, layer)


def add_a_part(b: Builder, layer: int) -> None:
    """A sum over part of the width is added as if it were whole."""
    equal_parts_of_down(b, layer)
    add_down(b, layer)


def one_rank_has_the_whole(b: Builder, layer: int) -> None:
    """The first rank makes all of ``down`` and broadcasts it; the others make parts that overlap with it."""
    width = b.model.feed_forward.intermediate_size
    parts_of_down(b, layer, lambda rank: width_of(b, rank) if rank else (0, width))
    b.collective(layer, "feed_forward", "broadcast", Broadcast(), b.ranks, f"l{layer}.down", "full")
    add_down(b, layer)


# --- cases -----------------------------------------------------------------------------------------------------------

TO_FEED_FORWARD = (distribute, attend, project)
TO_PROJECT = (distribute, attend)
TWO_STEPS = ((2, 2), (4, 2))  # layouts of several groups of several ranks
BY_TOKENS = ((2, 1), (2, 2), (3, 1))
BATCH_OF_4 = ("workload.batch=4",)
SEQ_LEN_4 = ("workload.seq_len=4",)
CAUSAL = ("workload.seq_len=4", "attention.causal=true")

VALID = {
    "reduce in two steps": Case((*TO_FEED_FORWARD, reduce_in_two_steps), TWO_STEPS),
    "reduce uneven parts": Case((*TO_FEED_FORWARD, reduce_uneven_parts)),
    "reduce parts in reverse": Case((*TO_FEED_FORWARD, reduce_parts_in_reverse)),
    "reduce parts twice": Case((*TO_FEED_FORWARD, reduce_parts_twice)),
    "reduce copies of a part": Case((*TO_FEED_FORWARD, reduce_copies_of_a_part)),
    "down by columns": Case((*TO_FEED_FORWARD, down_by_columns)),
    "norm by sequences": Case((norm_by_tokens("batch"), attend, project, feed_forward), BY_TOKENS, BATCH_OF_4),
    "norm by positions": Case((norm_by_tokens("seq"), attend, project, feed_forward), BY_TOKENS, SEQ_LEN_4),
    "two factorings in one sum": Case((input_by_columns, attend, project_in_two_gathers, feed_forward), TWO_STEPS),
    "groups in two ways": Case((*TO_PROJECT, project_groups_in_two_ways, feed_forward), TWO_STEPS),
    "stream by columns": Case((input_by_columns, attend, project_stream_by_columns, feed_forward_stream_by_columns)),
    "layers by sequences": Case((layer_by_tokens("batch"), gather_output("batch")), BY_TOKENS, BATCH_OF_4),
    "layers by positions": Case((layer_by_tokens("seq"), gather_output("seq")), BY_TOKENS, SEQ_LEN_4),
    "causal layers by positions": Case((layer_by_tokens("seq"), gather_output("seq")), BY_TOKENS, CAUSAL),
    "layers by positions and heads": Case((layer_by_positions_and_heads, gather_output("seq")), BY_TOKENS, SEQ_LEN_4),
    "causal layers by positions and heads": Case(
        (layer_by_positions_and_heads, gather_output("seq")), BY_TOKENS, CAUSAL
    ),
    "columns become tokens": Case((*TO_PROJECT, columns_become_tokens, feed_forward), BY_TOKENS, SEQ_LEN_4),
    "gathered and cut again": Case((*TO_PROJECT, gathered_and_cut_again, feed_forward), TWO_STEPS, SEQ_LEN_4),
    "output left cut": Case((layer_by_tokens("seq"),), BY_TOKENS, CAUSAL),
    "gather of uneven pieces": Case((*TO_PROJECT, project_uneven_columns, feed_forward)),
    "residual from one rank": Case((*TO_PROJECT, residual_from_one_rank, feed_forward)),
    "one group projects": Case((*TO_PROJECT, project_on_the_first_group, feed_forward), TWO_STEPS),
    "weights sent": Case((*TO_PROJECT, project_with_weights_sent, feed_forward)),
}

REFUSED = {
    "gather in reverse": (Case((*TO_PROJECT, project_columns_in_reverse, feed_forward)), {"HX406"}),
    "reduce with a gap": (Case((*TO_FEED_FORWARD, reduce_with_a_gap)), {"HX406"}),
    "add a part": (Case((*TO_FEED_FORWARD, add_a_part)), {"HX406"}),
    "one rank has the whole": (Case((*TO_FEED_FORWARD, one_rank_has_the_whole)), {"HX407", "HX408"}),
}
