"""A step as a CUDA graph, on a machine without CUDA: what is captured is recorded, and a replay runs it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl_runtime import bound_plan, session
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.compile.bound import BoundProgram, Compute
from helixctl_runtime.measure import cuda_graph as module
from helixctl_runtime.measure.cuda_graph import capture_step, uses_cuda_graph
from helixctl_runtime.ranks import Rank, run_ranks
from helixctl_runtime.run import Asked, generate, seeded_prompts
from tests.cli.command import helixctl
from tests.documents import ROOT, SMALL, TINY, plan_of
from tests.runtime.rehearsal import CUDA, empty, stage

Call = Callable[[], object]


class Graph:
    """What a ``torch.cuda.CUDAGraph`` is to those who replay it."""

    def __init__(self, replay: Callable[[], object]) -> None:
        self.replay = replay


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with the device."""
    done: list[str] = []

    class Stream(SimpleNamespace):
        def wait_stream(self, _: object) -> None:
            done.append("wait")

    @contextmanager
    def graph(_: object) -> Iterator[None]:
        done.append("capture")
        yield

    cuda = SimpleNamespace(Stream=Stream, current_stream=Stream, stream=lambda _: nullcontext(), graph=graph)
    monkeypatch.setattr(module.torch, "cuda", cuda)
    return done


def replayed(
    monkeypatch: pytest.MonkeyPatch, output: torch.Tensor, step: Callable[[], object], replay: object
) -> object:
    monkeypatch.setattr(module.torch.cuda, "CUDAGraph", lambda: Graph(replay), raising=False)
    return capture_step(step, [output], "rank 0")


@pytest.mark.usefixtures("recorded")
class TestComparison:
    """Every capture is replayed once, and compared bit for bit."""

    def test_equal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        output = torch.zeros(3)

        def step() -> None:
            output.fill_(7.0)

        assert replayed(monkeypatch, output, step, step) is step
        assert output.tolist() == [7.0] * 3

    def test_not_a_number_is_equal_to_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        output = torch.zeros(2)

        def step() -> None:
            output.copy_(torch.tensor([float("nan"), -0.0]))

        replayed(monkeypatch, output, step, step)

    @pytest.mark.parametrize("other", [7.000001, float("nan")])
    def test_other_bits(self, monkeypatch: pytest.MonkeyPatch, other: float) -> None:
        output = torch.zeros(3)
        with pytest.raises(HelixError, match="HX514 rank 0: the replay of a CUDA graph wrote other numbers"):
            replayed(monkeypatch, output, lambda: output.fill_(7.0), lambda: output.fill_(other))

    def test_a_replay_that_writes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        output = torch.zeros(3)
        with pytest.raises(HelixError, match="HX514"):
            replayed(monkeypatch, output, lambda: output.fill_(7.0), lambda: None)

    def test_a_zero_of_the_other_sign(self, monkeypatch: pytest.MonkeyPatch) -> None:
        output = torch.ones(1)
        with pytest.raises(HelixError, match="HX514"):
            replayed(monkeypatch, output, lambda: output.fill_(0.0), lambda: output.fill_(-0.0))


@pytest.mark.usefixtures("recorded")
class TestStates:
    """What a step keeps for the next one is not among its outputs, and is unsettled before the replay."""

    def test_tokens_are_whole_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        token = torch.zeros(3, dtype=torch.int64)

        def step() -> None:
            token.fill_(7)

        assert replayed(monkeypatch, token, step, step) is step
        with pytest.raises(HelixError, match="HX514"):
            replayed(monkeypatch, token, step, lambda: None)

    @pytest.mark.parametrize("writes", [True, False])
    def test_a_replay_that_does_not_write_the_cache(self, monkeypatch: pytest.MonkeyPatch, writes: bool) -> None:
        cache, output = torch.zeros(3), torch.zeros(3)

        def step() -> None:
            cache[1] = 5.0
            output.copy_(cache)

        def replay() -> None:
            step() if writes else output.copy_(cache)

        monkeypatch.setattr(module.torch.cuda, "CUDAGraph", lambda: Graph(replay), raising=False)
        if writes:
            capture_step(step, [output], "rank 0", lambda: cache[1].fill_(6.0))
        else:
            with pytest.raises(HelixError, match="HX514"):
                capture_step(step, [output], "rank 0", lambda: cache[1].fill_(6.0))


def test_the_step_is_warm_before_it_is_captured(monkeypatch: pytest.MonkeyPatch, recorded: list[str]) -> None:
    replayed(monkeypatch, torch.zeros(0), lambda: recorded.append("step"), lambda: None)
    assert recorded == ["wait", *["step"] * 3, "wait", "capture", "step"]


def test_a_step_that_cannot_be_captured(monkeypatch: pytest.MonkeyPatch, recorded: list[str]) -> None:
    def step() -> None:
        if "capture" in recorded:
            raise RuntimeError("operation not permitted when stream is capturing\nlong C++ text")

    with pytest.raises(HelixError) as caught:
        replayed(monkeypatch, torch.zeros(1), step, lambda: None)
    (found,) = caught.value.diagnostics
    assert found.code == "HX514"
    assert found.message.endswith("in a CUDA graph: operation not permitted when stream is capturing")
    assert found.hint == "run it with --no-cuda-graph"


def test_measured_steps_are_replayed_and_traced_ones_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    from helixctl_runtime.measure import measure as measuring

    seen: list[str] = []

    def work(rank: Rank) -> list[str]:
        rank.init_process_group()
        its = BoundProgram(0, 1, (Compute(0, lambda: seen.append("walk")),), {}, {}, frozenset(), 0, 0)
        monkeypatch.setattr(measuring, "capture_step", lambda *_: lambda: seen.append("replay"))
        measuring.measure([its], [0], {}, rank, warmup=1, iters=3, trace_steps=2, graph=True)
        return seen

    (found,) = run_ranks(work, world_size=1, device="cpu", timeout=60, task_name=lambda r, p: str(p))
    assert found == ["replay"] * 4 + ["walk"] * 2


DRAWN = ("workload.sampling.temperature=2.0", "workload.sampling.top_k=15")


def generated(plans: Sequence[Plan], *, cuda_graph: bool, new: int = 6) -> list[dict[str, Any]]:
    """The reports of generations by plans on CPU ranks; no short run comes first, if it need not."""
    dags = [[lower(plan, step=step) for step in plan.steps] for plan in plans]
    asked = Asked(seeded_prompts(dags[0][0], 0), new, seed=3, warm=False, cuda_graph=cuda_graph)
    found = generate(dags, [str(plan.layout) for plan in plans], asked, device="cpu", timeout=60)
    assert found
    return found.reports


@pytest.mark.parametrize(("count", "drawn"), [(1, ()), (2, ()), (2, DRAWN)])
def test_every_decode_step_is_replayed(
    count: int, drawn: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On CPU ranks, where a replay runs the captured walk again, over other tokens and lengths: they make those due."""
    sets = (*TINY, "vocabulary.size=19", "workload.seq_len=5", "workload.output_len=7", "attention.softmax_slices=1")
    sets += drawn
    plans = [plan_of(SMALL, 1, 2, *sets, slicing="key", key_block=2), plan_of(SMALL, 2, 1, *sets)][:count]
    walked = generated(plans, cuda_graph=False)
    assert [its["cuda_graph"] for its in walked] == [False] * count

    def capture(step: Call, outputs: Sequence[torch.Tensor], what: str, unsettle: Call | None = None) -> Call:
        assert {output.dtype for output in outputs} >= {torch.int64}

        def replay() -> None:
            with (tmp_path / what.replace("/", "-")).open("a") as counted:
                counted.write("r")
            step()

        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(replay))
        return capture_step(step, outputs, what, unsettle)

    side = SimpleNamespace(wait_stream=lambda _: None)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: side)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    monkeypatch.setattr(bound_plan, "capture_step", capture)
    monkeypatch.setattr(session, "uses_cuda_graph", lambda _, wanted: wanted)
    replays = generated(plans, cuda_graph=True)
    assert [its["tokens"] for its in replays] == [its["tokens"] for its in walked]
    assert [its["cuda_graph"] for its in replays] == [True] * count
    assert all(its["communication"]["decode_exposed_ms"] > 0 for its in replays)
    # Of each plan one replay that is compared, and the five decode steps of the measured generation.
    assert [path.read_text() for path in tmp_path.iterdir()] == ["r" * 6 * count] * 2
    assert [its["cuda_graph"] for its in generated(plans, cuda_graph=True, new=1)] == [False] * count


def test_a_decode_step_can_be_captured() -> None:
    """Compiled for CUDA it needs nothing of the host, whatever the layout; test_cuda_rehearsal.py calls its kernels."""
    sets = (*TINY, "vocabulary.size=19", "workload.seq_len=5", "workload.output_len=7", "attention.softmax_slices=1",
            "attention.head_dim=16", "dtype=bfloat16")  # fmt: skip
    layouts = ({"slicing": "key"}, {"slicing": "batch"}, {"slicing": "key", "pipeline": 2})
    for axes, drawn in [(axes, drawn) for axes in layouts for drawn in ((), DRAWN)]:
        layers = ("layers=2",) if "pipeline" in axes else ()
        dag = lower(plan_of(SMALL, 1, 2, *sets, *layers, *drawn, **axes), step="decode")
        for rank in range(len(dag.order)):
            with stage():
                bound = compile_rank(dag, rank, CUDA, empty)
                assert bound.on_device
                # What it is given lies where the graph reads it, in each step.
                assert all(data.device.type == "cuda" for data in (*bound.inputs.values(), *bound.outputs.values()))


@pytest.mark.parametrize(
    ("wanted", "able", "replays"),
    [
        (None, [True], True),
        (None, [False], False),
        (None, [True, True], False),  # until several GPUs have shown it
        (True, [True, True], True),
        (False, [True], False),
        (False, [False], False),
    ],
)
def test_when_steps_are_replayed(wanted: bool | None, able: list[bool], replays: bool) -> None:
    assert uses_cuda_graph(able, wanted=wanted) is replays


def test_what_was_asked_for_and_cannot_be() -> None:
    with pytest.raises(HelixError, match="HX514 a step of rank 1 cannot be a CUDA graph: its experts need the host"):
        uses_cuda_graph([True, False, True], wanted=True)


def test_a_graph_is_of_cuda() -> None:
    done = helixctl("run", ROOT / "plans/small/dense.4x4.plan.json", "--cuda-graph")
    assert (done.status, done.out) == (2, b"")
    assert "--cuda-graph is for CUDA devices, and these ranks are on cpu" in done.err
