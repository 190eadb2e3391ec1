"""A step as a CUDA graph, on a machine without CUDA: what is captured is recorded, and a replay runs it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from helixctl.errors import HelixError
from helixctl_runtime.compile.bound import BoundProgram, Compute
from helixctl_runtime.measure import cuda_graph as module
from helixctl_runtime.measure.cuda_graph import capture_step, uses_cuda_graph
from helixctl_runtime.ranks import Rank, run_ranks
from tests.cli.command import helixctl
from tests.documents import ROOT

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
