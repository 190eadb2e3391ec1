"""The time of a kernel on one rank, while the other ranks of its host run the same."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import cycle, islice
from math import ceil, prod
from typing import Final

import torch
from torch.nn.attention import sdpa_kernel

from helixctl.dag import Attention, Norm
from helixctl.spec import DTYPE_NBYTES, Dtype
from helixctl_runtime import kernels
from helixctl_runtime.calibrate.points import KernelPoint, Sizes
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.ranks import Rank

_MOST_WEIGHTS: Final = 256
_LOOPS: Final = 5
_LONGEST_LOOP: Final = 2000
_EPS: Final = 1e-5


def kernel_work(point: KernelPoint) -> int:
    """Flops of a product or an attention, else bytes read and written, counted as in the tasks of a dag."""
    numel, size = prod(point.shape), DTYPE_NBYTES[point.dtype]
    match point.kernel:
        case "matmul":
            return 2 * numel
        case "attention":
            return 2 * numel * (point.shape[1] + 1)  # causal: a row sees half of them on average
        case "copy" | "activation":
            return 2 * numel * size
        case "norm":
            return (2 * numel + point.shape[-1]) * size
        case _:  # an addition, also the one of a single number that measures the start of a task
            return 3 * numel * size


class KernelTimer:
    """Times kernels on one rank, through the functions that run a dag."""

    def __init__(self, sizes: Sizes, rank: Rank) -> None:
        """Store the arguments; nothing is allocated yet.

        Args:
            sizes: the sizes of the kernels and the number of repetitions.
            rank: the rank that runs them.
        """
        self._sizes, self._rank, self._device = sizes, rank, rank.device
        self._pools: dict[Dtype, torch.Tensor] = {}

    def seconds(self, point: KernelPoint) -> float:
        """Seconds of one repetition on the device, or on one core if ranks share cores: a median.

        Raises:
            HelixError: HX508, no fused attention for this device, dtype and width.
        """
        with self._fused(point):
            steps = cycle(self._steps(point))
            next(steps)()
            return self._on_cuda(steps) if self._device.type == "cuda" else self._on_cpu(steps)

    def _on_cpu(self, steps: Iterator[kernels.Step]) -> float:
        """Processor time of this thread, whose clock stops while another process has the core.

        A rank of several threads has its own cores and is done when the last thread is, so its time is wall time.
        Another task runs before each repetition, untimed, because in a step the data and the code of a kernel are not
        in the fastest caches either. In a loop without it an elementwise task takes a third of the time.
        """
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        cell, index, spent = self._rank.progress.cell, self._rank.progress.cell[0], [0.0]
        while len(spent) <= self._sizes.repeat[0] or (
            sum(spent) < self._sizes.kernel_s and len(spent) <= self._sizes.repeat[1]
        ):
            self.other_task()
            begin = clock()
            cell[0] = index
            next(steps)()
            spent.append(clock() - begin)
        return statistics.median(spent[1:])

    def _on_cuda(self, steps: Iterator[kernels.Step]) -> float:
        """Device time of a loop in a CUDA graph, because a step is one too: between two events, a median."""
        once = _replayed(_graph(steps, 1))
        repeat = min(_LONGEST_LOOP, max(1, ceil(self._sizes.kernel_s / _LOOPS / max(once, 1e-9))))
        graph = _graph(steps, repeat)
        return statistics.median(_replayed(graph) / repeat for _ in range(_LOOPS))

    def other_task(self) -> None:
        """Run a task as a step has it between others: a product of the residual stream with a new weight each time."""
        next(self._others)()

    @cached_property
    def _others(self) -> Iterator[kernels.Step]:
        stream = (self._sizes.tokens, self._sizes.hidden, self._sizes.hidden)
        return cycle(self._products(KernelPoint("matmul", "float32", stream)))

    def _steps(self, point: KernelPoint) -> list[kernels.Step]:
        match point.kernel:
            case "matmul":
                return self._products(point)
            case "attention":
                q, k, v, out = (self._random(point) for _ in range(4))
                return [kernels.attention(_op(point), (q, k, v), 0, out)]
            case "norm":
                x, out = self._random(point), self._random(point)
                return [kernels.norm(Norm("rms_norm", "hidden", _EPS), x, [x[0].clone()], out)]
            case "activation":
                return [kernels.activation("gelu", self._random(point), self._random(point))]
            case "copy":
                x, out = self._random(point), self._random(point)
                return [lambda: out.copy_(x)]
            case _:
                return [kernels.add(self._random(point), self._random(point), self._random(point))]

    def _products(self, point: KernelPoint) -> list[kernels.Step]:
        rows, columns, depth = point.shape
        dtype, numel = TORCH[point.dtype], columns * depth
        pool = self._pools.get(point.dtype)
        if pool is None or pool.numel() < numel:
            size = max(numel, self._sizes.weights_nbytes // DTYPE_NBYTES[point.dtype])
            pool = self._pools[point.dtype] = torch.randn(size, dtype=dtype, device=self._device)
        x = torch.randn(rows, depth, dtype=dtype, device=self._device)
        out = torch.empty(rows, columns, dtype=dtype, device=self._device)
        weights = pool[: pool.numel() // numel * numel].view(-1, depth, columns)[:_MOST_WEIGHTS]
        return [kernels.linear(x, weight, out) for weight in weights]

    def _random(self, point: KernelPoint) -> torch.Tensor:
        return torch.randn(point.shape, dtype=TORCH[point.dtype], device=self._device)

    def _fused(self, point: KernelPoint) -> AbstractContextManager[None]:
        if point.kernel != "attention":
            return nullcontext()
        _, rows, _, width = point.shape
        return sdpa_kernel([kernels.fused_attention(self._device.type, TORCH[point.dtype], width, rows=rows)])


def _op(point: KernelPoint) -> Attention:
    return Attention(softmax_width=point.shape[-1], causal=True)


def _graph(steps: Iterator[kernels.Step], repeat: int) -> torch.cuda.CUDAGraph:
    """A CUDA graph of the next ``repeat`` kernels."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for step in islice(steps, repeat):
            step()
    return graph


def _replayed(graph: torch.cuda.CUDAGraph) -> float:
    """The seconds of one replay of a graph."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    graph.replay()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) * 1e-3
