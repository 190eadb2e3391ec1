"""All-to-alls and gathers of uneven pieces: by gloo, by sockets between ranks, and with all ranks in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from helixctl.dag import AllGather, AllReduce, AllToAll, Broadcast, Dag, Packed, ReduceScatter
from helixctl.dag.retype import retyped
from helixctl.program import kernels
from helixctl.program.part import Pieces
from helixctl.verify import verify
from helixctl_runtime.comm.by_links import by_links
from helixctl_runtime.comm.collectives import exchange_together, issue
from helixctl_runtime.comm.group import Group, groups_of
from helixctl_runtime.comm.one_round import MOST_NBYTES, one_round
from helixctl_runtime.compile.bound import Compute, Exchange, Wait
from helixctl_runtime.ranks import Rank, run_ranks
from helixctl_runtime.run import Options, run
from tests.runtime.models import EXPERTS, real
from tests.runtime.together import run_together

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Of every (sender, receiver) another number of elements.
PARTS = [[5 * i + j + 1 for j in range(4)] for i in range(4)]


def group_of(rank: Rank, members: tuple[int, ...], way: str = "gloo") -> Group | None:
    """The group of some ranks, if this one belongs to it: with sockets between them (``links``), or without."""
    rank.init_process_group()
    processes = rank.new_groups([members])
    group = groups_of(processes, [members], rank.rank, rank.device, rank.timeout).get(members)
    if group is None:
        return None
    assert group.links is not None
    return group if way == "links" else Group(group.process)


def on_ranks(worker: Callable[[Rank], list[Any]], members: tuple[int, ...]) -> list[Any]:
    """What a worker gives on every rank; all its cases run on the same ranks, whose start takes longer than they do."""
    return run_ranks(worker, world_size=max(members) + 1, device="cpu", timeout=20, task_name=lambda _, __: "t")


def numbers(rank: int, parts: list[int], dtype: torch.dtype) -> torch.Tensor:
    return (torch.arange(sum(parts)) + 100 * rank).to(dtype)


def all_to_all(rank: int, members: tuple[int, ...], dtype: torch.dtype) -> Exchange:
    """What a member sends of every size to each."""
    at, dag = members.index(rank), real(1, len(members), slicing="batch")
    task = replace(next(t for t in dag.tasks if isinstance(t.op, AllToAll)), ranks=members)
    leave, arrive = (PARTS[at][: len(members)], [PARTS[i][at] for i in range(len(members))])
    receive = torch.zeros(sum(arrive), dtype=dtype)
    return Exchange(0, task, numbers(rank, leave, dtype), receive, tuple(leave), tuple(arrive))


def groups(*members: tuple[int, ...], swept: tuple[tuple[int, ...], ...]) -> list[Any]:
    """Ranks that meet: in each run and, with ``swept``, in the sweep."""
    return [*(pytest.param(x, id=str(x)) for x in members),
            *(pytest.param(x, id=str(x), marks=pytest.mark.sweep) for x in swept)]  # fmt: skip


@pytest.mark.parametrize("members", groups((0, 1, 2, 3), (1, 3), swept=((0, 1, 2), (0, 2, 3))))
def test_parts_of_all_sizes_go_where_they_belong(members: tuple[int, ...]) -> None:
    """gloo and one process alike, in every dtype; also in a group of some ranks."""

    def worker(rank: Rank) -> list[torch.Tensor]:
        group = group_of(rank, members)
        if group is None:
            return []
        exchanges = [all_to_all(rank.rank, members, dtype) for dtype in DTYPES]
        for exchange in exchanges:
            issue(exchange, rank.rank, group)().wait()
        return [exchange.receive for exchange in exchanges]

    received = on_ranks(worker, members)
    for number, dtype in enumerate(DTYPES):
        together = [all_to_all(rank, members, dtype) for rank in members]
        exchange_together(together)
        for at, rank in enumerate(members):
            sent = [numbers(other, PARTS[i][: len(members)], dtype) for i, other in enumerate(members)]
            wanted = torch.cat([s.split(PARTS[i][: len(members)])[at] for i, s in enumerate(sent)])
            assert torch.equal(received[rank][number], wanted)
            assert torch.equal(together[at].receive, wanted)


@pytest.mark.parametrize("members", groups((0, 1), (0, 2, 3), swept=((0, 1, 2), (0, 1, 2, 3))))
def test_little_data_goes_in_one_round(members: tuple[int, ...]) -> None:
    """Sums are in the order of the ranks and rounded once, the same on all; gathered pieces are what was sent."""
    n, each = len(members), 6 * len(members)
    gather = next(t for t in real(n, 1).tasks if isinstance(t.op, AllGather))
    cases = [(op, dtype) for op in (AllReduce(), ReduceScatter(dim="x"), AllGather(dim="x")) for dtype in DTYPES]

    def held(at: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(each, generator=torch.Generator().manual_seed(at)).to(dtype)

    def worker(rank: Rank) -> list[torch.Tensor]:
        group, found = group_of(rank, members), []
        for op, dtype in cases if group is not None else ():
            assert group is not None
            send = held(members.index(rank.rank), dtype)
            sizes = {"all_reduce": None, "reduce_scatter": each // n, "all_gather": n * each}
            size = sizes[op.kind]
            exchange = Exchange(
                0, replace(gather, op=op, ranks=members), send, send if size is None else send.new_empty(size)
            )
            assert (one_round(exchange, group.process) is None) == (op.kind == "all_gather" and n == 2)
            issue(exchange, rank.rank, group)().wait()
            found.append(exchange.receive)
        return found

    received = on_ranks(worker, members)
    for number, (op, dtype) in enumerate(cases):
        whole = torch.stack([held(at, dtype) for at in range(n)])
        total = whole.double().sum(0) if dtype == torch.float64 else whole.float().sum(0).to(dtype)
        for at, rank in enumerate(members):
            due = {"all_reduce": total, "reduce_scatter": total.chunk(n)[at], "all_gather": whole.flatten()}
            assert torch.equal(received[rank][number], due[op.kind]), (op, dtype)


GATHERS = Packed((AllGather("x"), AllGather("y")))
MIXED = Packed((AllToAll("x", "y"), AllGather("z")))


def parcels(rank: int, members: tuple[int, ...], op: Packed, numel: int) -> Exchange:
    """A member's exchange of words: the same to all, or of every size to each."""
    at, n = members.index(rank), len(members)
    task = replace(next(t for t in real(n, 1).tasks if isinstance(t.op, AllGather)), op=op, ranks=members)
    if op == GATHERS:
        return Exchange(0, task, torch.arange(numel) - 7 * rank, torch.zeros(n * numel, dtype=torch.int64))
    leave, arrive = (PARTS[at][:n], [PARTS[i][at] for i in range(n)])
    receive = torch.zeros(sum(arrive), dtype=torch.int64)
    return Exchange(0, task, numbers(rank, leave, torch.int64), receive, tuple(leave), tuple(arrive))


@pytest.mark.parametrize("members", groups((1, 3), (0, 2, 3), swept=((0, 1), (0, 1, 2))))
def test_packed_words_go_in_one_exchange(members: tuple[int, ...]) -> None:
    """On gloo, little of them in one round where that is better, and in one process."""
    cases = [(op, numel) for op in (GATHERS, MIXED) for numel in (3, MOST_NBYTES // 8 + 1)]

    def worker(rank: Rank) -> list[torch.Tensor]:
        group, found = group_of(rank, members), []
        for op, numel in cases if group is not None else ():
            assert group is not None
            exchange = parcels(rank.rank, members, op, numel)
            quick = op == GATHERS and len(members) > 2 and numel == 3
            assert (one_round(exchange, group.process) is not None) == quick
            issue(exchange, rank.rank, group)().wait()
            found.append(exchange.receive)
        return found

    received = on_ranks(worker, members)
    for number, (op, numel) in enumerate(cases):
        together = [parcels(rank, members, op, numel) for rank in members]
        exchange_together(together)
        for at, rank in enumerate(members):
            if op == GATHERS:
                due = torch.cat([e.send for e in together])
            else:
                due = torch.cat([e.send.split([*e.leave])[at] for e in together])
            assert torch.equal(together[at].receive, due), (op, numel)
            assert torch.equal(received[rank][number], due), (op, numel)


@pytest.mark.parametrize("members", [(0, 1), (0, 2, 3)], ids=str)
def test_by_sockets_ranks_receive_what_they_do_by_gloo(members: tuple[int, ...]) -> None:
    """Every kind of collective, in every dtype, bit for bit: sums are in the order of the ranks either way."""
    n = len(members)
    task = replace(next(t for t in real(n, 1).tasks if isinstance(t.op, AllGather)), ranks=members)

    def exchanges(rank: int) -> Iterator[Exchange]:
        for dtype in DTYPES:
            send = torch.randn(6 * n, generator=torch.Generator().manual_seed(rank)).to(dtype)
            yield all_to_all(rank, members, dtype)
            yield Exchange(0, replace(task, op=AllGather("x")), send, send.new_zeros(6 * n * n))
            yield Exchange(0, replace(task, op=ReduceScatter("x")), send, send.new_zeros(6))
            for op in (AllReduce(), Broadcast()):
                its = send.clone()
                yield Exchange(0, replace(task, op=op), its, its)
        for numel in (3, MOST_NBYTES // 8 + 1):
            yield from (parcels(rank, members, op, numel) for op in (GATHERS, MIXED))

    def worker(rank: Rank) -> list[bool]:
        group = group_of(rank, members, "links")
        if group is None or group.links is None:
            return [rank.rank in members]
        alike, direct = [], 0
        for one, other in zip(exchanges(rank.rank), exchanges(rank.rank), strict=True):
            direct += by_links(one, rank.rank, group.links) is not None
            issue(one, rank.rank, group)().wait()
            issue(other, rank.rank, Group(group.process))().wait()
            alike.append(torch.equal(one.receive, other.receive))
        assert direct == len(alike) - 1  # but for what is much
        return [not each for each in alike]

    wrong = on_ranks(worker, members)
    assert not any(any(its) for its in wrong), wrong


def test_much_data_goes_around_a_ring_but_where_that_is_an_all_reduce() -> None:
    task = next(t for t in real(3, 1).tasks if isinstance(t.op, AllGather))
    for numel in (MOST_NBYTES // 4, MOST_NBYTES // 4 + 3):
        data, little = torch.empty(numel), numel * 4 <= MOST_NBYTES
        for op, quick in ((AllReduce(), little), (AllGather(dim="x"), little), (ReduceScatter(dim="x"), True)):
            assert (one_round(Exchange(0, replace(task, op=op), data, data), None) is not None) == quick


SLICINGS: list[dict[str, Any]] = [
    {"slicing": slicing, "combine": combine, "gather_order": order}
    for slicing in ("batch", "query")
    for combine, order in (("concat", "slices_first"), ("concat", "groups_first"), ("reduce", "slices_first"))
]
MESHES = [(1, 3), (3, 1), (2, 2), (1, 4)]
# Each mesh with every slicing; in each run every other of them, so that each slicing meets whole and cut heads.
CUTS = [
    pytest.param(mesh, axes, id=f"{mesh}-{' '.join(axes.values())}", marks=() if (i + j) % 2 else pytest.mark.sweep)
    for i, mesh in enumerate(MESHES)
    for j, axes in enumerate(SLICINGS)
]


def runs_alike(dag: Dag) -> None:
    """On gloo ranks and with all ranks in one process: both within the tolerance."""
    assert verify(dag) == []
    results = run([dag], ["real"], Options(warmup=1, iters=2, check=True), device="cpu", timeout=30)
    assert results is not None
    report = results[0].report
    assert report["check"]["passed"], report["check"]
    ran = run_together(dag)
    assert ran.error <= max(2 * ran.unpartitioned, 1e-13)
    assert report["check"]["error"] == pytest.approx(ran.overall, rel=0.2 if dag.plan.model.dtype != "float64" else 9)


@pytest.mark.parametrize(("mesh", "axes"), CUTS)
def test_real_models_on_three_and_four_ranks(mesh: tuple[int, int], axes: dict[str, Any]) -> None:
    dag = real(*mesh, **axes)
    assert any(isinstance(t.op, AllToAll) for t in dag.tasks) == (mesh[1] > 1)
    uneven = any(isinstance(t.op, AllGather) and not Pieces(dag).even(t) for t in dag.tasks)
    assert uneven or axes["combine"] == "reduce"
    runs_alike(dag)


@pytest.mark.parametrize(
    ("slicing", "dtype"),
    [
        ("batch", "float64"),
        ("query", "bfloat16"),
        ("batch", "float16"),
        *(
            pytest.param(slicing, dtype, marks=pytest.mark.sweep)
            for slicing, dtype in (("query", "float64"), ("batch", "bfloat16"), ("query", "float16"))
        ),
    ],
)
def test_in_other_dtypes(slicing: str, dtype: Any) -> None:
    runs_alike(retyped(real(1, 3, slicing=slicing), dtype))


def test_stages_replicas_and_microbatches() -> None:
    runs_alike(real(1, 2, slicing="batch", combine="reduce", data=1, pipeline=2, microbatches=3))
    runs_alike(real(1, 2, {"feed_forward": EXPERTS}, slicing="query", data=2, microbatches=2, interleave=2))


# --- how they are compiled -------------------------------------------------------------------------------------------


def test_what_arrives_is_unpacked_after_the_wait_and_before_its_use() -> None:
    dag = real(1, 3, slicing="batch")
    program = run_together(dag, steps=1).programs[1]
    order = dag.order[1]
    for at, action in enumerate(program.actions):
        if not isinstance(action, Exchange) or not isinstance(action.task.op, AllToAll | AllGather):
            continue
        wait = program.actions.index(Wait(action.place, action))
        unpack = program.actions[wait + 1]
        assert isinstance(unpack, Compute)
        reader = dag.task[order[unpack.place]]
        assert set(reader.inputs) & set(action.task.outputs)
        assert at < wait


def test_parts_that_lie_in_turn_are_not_copied() -> None:
    """Biased Q, K and V lie sequence by sequence and are sent so; what comes back by sequence arrives in its place."""
    sets = {"attention": {"qk_norm": False, "rotary": None}}
    dag = real(1, 2, sets, slicing="batch", combine="reduce")
    program = run_together(dag, steps=1).programs[0]
    exchanged = [
        i for i, a in enumerate(program.actions) if isinstance(a, Exchange) and isinstance(a.task.op, AllToAll)
    ]
    for i in exchanged:
        exchange, before = program.actions[i], program.actions[i - 1]
        packed = isinstance(before, Compute) and before.place == exchange.place
        assert packed == (exchange.task.op == AllToAll("head_dim", "batch"))
    computations = [dag.task[name] for name in dag.order[0] if not dag.task[name].is_collective]
    alone = [t for t in computations if kernels(dag, 0).get(t.id) != "next"]
    expected = sum(len(t.outputs) if t.kind == "bias" else 1 for t in alone)
    # In each of two layers Q, K and V are unpacked, and the attention output is packed.
    assert sum(isinstance(a, Compute) for a in program.actions) == expected + 2 * (3 + 1)


def test_packing_memory_is_used_again_from_layer_to_layer() -> None:
    sizes = []
    for layers in (2, 4):
        dag = real(1, 3, {"layers": layers}, slicing="query")
        sizes.append(run_together(dag, steps=1).programs[0].buffer_nbytes)
    assert sizes[0] == sizes[1]


def test_a_tied_table_is_in_memory_once() -> None:
    nbytes = {}
    for tied in (False, True):
        dag = real(2, 1, {"vocabulary": {"size": 53, "tied": tied}})
        program = run_together(dag, steps=1).programs[0]
        held = [v for v in dag.values if v.rank == 0 and dag.tensor[v.tensor].role == "weight"]
        nbytes[tied] = program.weight_nbytes
        # Biases, norms and matrices: what the dag says, and not a byte more.
        assert program.weight_nbytes == sum(v.nbytes for v in held)
    assert nbytes[True] == nbytes[False] - 27 * 37 * 4
