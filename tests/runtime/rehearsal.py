"""A rehearsal on CUDA without a GPU: every kernel of a rank's program is called with tensors that have no numbers.

Under torch's FakeTensorMode a tensor of device "cuda" has a shape, strides and a dtype and no memory, also where torch
was built for CPU alone. ``rehearse`` compiles a rank for CUDA so, and calls what it compiled. Three modes do it:

- FakeTensorMode runs each op by its shapes, and refuses operands that do not fit.
- ``_Routes``, above it: indexing, ``copy_``, ``contiguous`` and ``nonzero`` ask for CUDA before FakeTensorMode sees
  them; they go to the ops of aten that they come to. Fused attention goes to the kernel that a card would run.
- ``_OpChecker``, between: sees every op that a kernel is made of, and holds it against cuda_rules.py.

What is not seen: the kernels in Triton (tests/runtime/test_streaming.py), numbers, speed, memory, launches that fail,
and rules of kernels on CUDA that are in none of these.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from helixctl import program
from helixctl.dag import Best, Dag, Rotate, RotateAt, Task, Value
from helixctl.dag.ops import wire_kind
from helixctl_runtime.comm.collectives import issue
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.compile.bound import Compute, Exchange
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.kernels import basic, grouped
from helixctl_runtime.kernels import fused as fused_kernels
from helixctl_runtime.measure.walk import fused
from tests.runtime.cuda_attention import attend
from tests.runtime.cuda_rules import made_of_others, refusal, tensors, waits, written

CUDA, CUDNN = torch.device("cuda", 0), 91900
aten = torch.ops.aten
_ASKED_BY_THE_HOST = {getattr(torch.Tensor, name) for name in ("tolist", "numpy", "__int__", "__float__", "__index__")}


@dataclass
class Rehearsed:
    """What was found.

    Attributes:
        kernels, exchanges: how many were called, and looked at.
        faults: what CUDA would refuse, or do elsewhere than its action says; each with its task.
        waits: where the host would wait for the device in a step, by kind of task.
        attention: the fused kernels that would run.
    """

    kernels: int = 0
    exchanges: int = 0
    faults: list[str] = field(default_factory=list)
    waits: dict[str, set[str]] = field(default_factory=dict)
    attention: set[SDPBackend] = field(default_factory=set)


class _OpChecker(TorchDispatchMode):
    """Sees every op. Of those in a step it also knows what they write, and whether the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.in_step = False
        self.faults: list[str] = []
        self.waits: list[str] = []
        self.writes: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if made_of_others(func):  # in inference mode these come here whole
            with self:
                return func.decompose(*args, **kwargs)
        if (why := refusal(func, args, kwargs)) is not None:
            self.faults.append(why)
        if self.in_step and (why := waits(func, args, kwargs)) is not None:
            self.waits.append(why)
            if func is aten.nonzero.default:  # as if all were found, so that what follows is called too
                return torch.empty((args[0].numel(), args[0].dim()), dtype=torch.int64, device=args[0].device)
            if func is aten._local_scalar_dense.default and not args[0].is_floating_point():
                return 1
        targets = [args[i] if i < len(args) else kwargs[name] for i, name in written(func)]
        before = [(t, _form(t)) for t in tensors(targets)]
        made = func(*args, **kwargs)
        self.faults += [f"{func} makes {form} {_form(t)}" for t, form in before if _form(t) != form]
        if self.in_step:
            self.writes += tensors(targets)
            if not before and (why := waits(func, args, kwargs, made)) is not None and why not in self.waits:
                self.waits.append(why)
        return made


def _form(t: torch.Tensor) -> tuple[object, ...]:
    return t.dtype, tuple(t.shape), t.stride(), t.storage_offset()


class _Routes(TorchFunctionMode):
    """Calls that ask for CUDA itself go to the ops that they come to."""

    def __init__(self, checker: _OpChecker, capability: tuple[int, int]) -> None:
        super().__init__()
        self._checker, self._capability = checker, capability
        self.attention: set[SDPBackend] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.__getitem__:
            return _item(*args)
        if func is torch.Tensor.copy_:
            return aten.copy_.default(*args, **kwargs)
        if func is torch.Tensor.contiguous:
            whole = args[0].is_contiguous()
            return args[0] if whole else aten.clone(args[0], memory_format=torch.contiguous_format)
        if func in {torch.nonzero, torch.Tensor.nonzero} and not kwargs.get("as_tuple"):
            return aten.nonzero.default(args[0])
        if func in _ASKED_BY_THE_HOST:
            self._checker.waits.append(func.__name__)
        if func is F.scaled_dot_product_attention:
            return attend(*args, **kwargs, capability=self._capability, called=self.attention)
        return func(*args, **kwargs)


def _item(x: torch.Tensor, index: Any) -> torch.Tensor:
    """``x[index]``, by whole numbers, slices, None, an ellipsis and tensors."""
    index = index if isinstance(index, tuple) else (index,)
    used = sum(each is not None and each is not Ellipsis for each in index)
    dim, picks = 0, dict[int, torch.Tensor]()
    for each in index:
        if each is Ellipsis:
            dim += x.dim() - used
        elif each is None:
            x, dim = aten.unsqueeze(x, dim), dim + 1
        elif isinstance(each, slice):
            if each != slice(None):
                x = aten.slice(x, dim, each.start, each.stop, each.step or 1)
            dim += 1
        elif isinstance(each, torch.Tensor):
            picks[dim], dim = each, dim + 1
        else:
            x = aten.select(x, dim, each)
    return aten.index(x, [picks.get(i) for i in range(max(picks) + 1)]) if picks else x


@contextmanager
def stage(capability: tuple[int, int] = (9, 0)) -> Iterator[tuple[_OpChecker, _Routes]]:
    """Where all tensors are fake, and CUDA is a card of this compute capability."""
    checker = _OpChecker()
    routes = _Routes(checker, capability)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.cuda, "get_device_capability", return_value=capability))
        for module in (fused_kernels, grouped):
            stack.enter_context(mock.patch.object(module, "cuda_device", return_value=(capability, CUDNN)))
        # Triton's kernels take pointers, which fake tensors lack: torch's own stand in for them.
        for module in (basic, grouped):
            stack.enter_context(mock.patch.object(module, "streaming", return_value=None))
        settle = mock.patch.object(
            torch.cuda, "synchronize", side_effect=lambda *_: checker.waits.append("synchronize")
        )
        stack.enter_context(settle)
        for mode in (FakeTensorMode(), checker, routes):
            stack.enter_context(mode)
        yield checker, routes


def empty(value: Value) -> torch.Tensor:
    """A weight or an input without numbers."""
    return torch.empty(value.shape, dtype=TORCH[value.dtype], device=CUDA)


def rehearse(
    dag: Dag, capability: tuple[int, int] = (9, 0), load: Callable[[Value], torch.Tensor] = empty
) -> Rehearsed:
    """Compile one rank of each program for CUDA, call all its kernels, and check its exchanges."""
    found, programs = Rehearsed(), program.Programs(dag)
    # A kernel may also depend on which share of the vocabulary its rank has, which no program does.
    alike = {(programs[rank].rank, _first_tokens(dag, rank)): rank for rank in reversed(programs.ranks)}
    for rank in sorted(alike.values()):
        with stage(capability) as (checker, routes):
            _rank(dag, rank, load, checker, found)
            found.attention |= routes.attention
    return found


def _first_tokens(dag: Dag, rank: int) -> tuple[int, ...]:
    tasks = [dag.task[name] for name in dag.order[rank]]
    return tuple([dag.value[its.inputs[0]].region[1][0] for its in tasks if isinstance(its.op, Best)])


def _rank(dag: Dag, rank: int, load: Callable[[Value], torch.Tensor], checker: _OpChecker, found: Rehearsed) -> None:
    made, bound = program.program_of(dag, rank), compile_rank(dag, rank, CUDA, load)
    found.faults += [f"rank {rank}, compiled: {why}" for why in dict.fromkeys(checker.faults)]
    held = (bound.weight_nbytes, bound.buffer_nbytes, bound.state_nbytes)
    if sum(held) != bound.proved_nbytes:
        found.faults.append(f"rank {rank}: {' + '.join(map(str, held))} bytes, not as proved")
    received = (a.receive for a in bound.actions if isinstance(a, Exchange))
    arena = next(itertools.chain(bound.inputs.values(), bound.outputs.values(), received)).untyped_storage()
    checker.in_step, waiting = True, False
    with torch.inference_mode(), fused([bound]):
        for action, its in zip(made.actions, bound.actions, strict=True):
            if isinstance(its, Compute):
                kind, name = ("copy", str(action.place)) if isinstance(action, program.Copy) else _named(action.task)
                faults = call(its.run, checker, arena, _spans(made, action))
                found.faults += [f"rank {rank}, {kind} {name}: {why}" for why in faults]
                waiting |= bool(checker.waits)
                if checker.waits:
                    found.waits.setdefault(kind, set()).update(checker.waits)
                found.kernels += 1
            elif isinstance(its, Exchange):
                kind, name = _named(its.task)
                found.faults += [f"rank {rank}, {kind} {name}: {why}" for why in exchanged(its, rank)]
                found.exchanges += 1
    if bound.on_device == waiting:
        found.faults.append(
            f"rank {rank}: on_device is {bound.on_device}, and the host {'waits' if waiting else 'does not'}"
        )


def _named(task: Task) -> tuple[str, str]:
    return task.kind, task.id


Span = tuple[int, int, int]


def _spans(made: program.Program, action: Any) -> list[Span]:
    """First byte, last byte and elements of all that an action says it writes."""
    views = action.writes if isinstance(action, program.Compute) else [target for target, _ in action.pairs]
    found = []
    states = {buffer.view.block for buffer in made.states.values()}  # outside the arena
    for view in views:
        if view.block in states:
            continue
        start = made.arena.offsets[view.block] // TORCH[view.dtype].itemsize + view.start
        like = torch.empty_strided(view.sizes, view.strides, dtype=TORCH[view.dtype], device="meta")
        first, last, count = _span(like, start)
        found.append((first, last, count * _turned(action, view) // view.sizes[-1]))
    return found


def _turned(action: Any, view: program.View) -> int:
    """How much of the last dim must be written: over its operand a rotation leaves some of it as it is."""
    whole: int = view.sizes[-1]
    if not isinstance(action, program.Compute) or view not in action.reads:
        return whole
    op = action.task.op
    return min(whole, op.last or op.rotary.dims or whole) if isinstance(op, Rotate | RotateAt) else whole


def _span(t: torch.Tensor, start: int) -> Span:
    reach = sum((size - 1) * step for size, step in zip(t.shape, t.stride(), strict=True))
    return start * t.element_size(), (start + reach + 1) * t.element_size(), t.numel()


def call(
    run: Callable[[], object], checker: _OpChecker, arena: Any = None, spans: list[Span] | None = None
) -> list[str]:
    """Run a kernel; the faults that it has. ``spans``: the bytes of the arena that it must write, and no others."""
    checker.faults, checker.waits, checker.writes = [], [], []
    try:
        run()
    except (DataDependentOutputException, DynamicOutputShapeException):
        return checker.faults if checker.waits else [*checker.faults, "depends on numbers"]
    except Exception as error:  # noqa: BLE001  every kernel is called, whatever becomes of the one before
        return [*checker.faults, f"{type(error).__name__}: {error}".splitlines()[0]]
    if spans is None or arena is None:
        return checker.faults
    wrote = [_span(t, t.storage_offset()) for t in checker.writes if t.untyped_storage() is arena]
    outside = [w for w in wrote if not any(s[0] <= w[0] and w[1] <= s[1] for s in spans)]
    checker.faults += [
        f"writes bytes {start} to {stop} of the arena, which are not its own" for start, stop, _ in outside
    ]
    for start, stop, count in spans:
        if sum(n for first, last, n in wrote if start <= first and last <= stop) < count:
            checker.faults.append(f"does not write all {count} elements in bytes {start} to {stop} of the arena")
    return checker.faults


def exchanged(exchange: Exchange, rank: int) -> list[str]:
    """The reasons why NCCL would refuse an exchange, or misread its data."""
    send, receive, kind = exchange.send, exchange.receive, wire_kind(exchange.task.op)
    found = [f"{n} has holes" for n, t in (("send", send), ("receive", receive)) if not t.is_contiguous()]
    ranks, both = len(exchange.task.ranks), (send.numel(), receive.numel())
    if kind == "all_gather":
        due = (both[0], both[0] * ranks)
    elif kind == "reduce_scatter":
        due = (both[1] * ranks, both[1])
    elif kind == "all_to_all" and exchange.leave:
        due = (sum(exchange.leave), sum(exchange.arrive))
    else:
        due = (both[0], both[0])
    if both != due or send.dtype != receive.dtype:
        found.append(f"{both} elements of {send.dtype} and {receive.dtype}, not {due}")
    if not found:
        issue(exchange, rank, None)
    return found
