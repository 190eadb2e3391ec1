"""Compiling one rank: its tasks in their order, each to actions."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from helixctl.dag import Dag, Task
from helixctl.dag.liveness import last_needed
from helixctl_runtime.compile.computations import Computations
from helixctl_runtime.compile.exchanges import Exchanges
from helixctl_runtime.program import Load, Program


def compile_rank(dag: Dag, rank: int, device: torch.device, load: Load) -> Program:
    """Compile a rank's tasks.

    Args:
        dag: a proved document.
        rank: whose part.
        device: where it runs.
        load: gives the numbers of a weight's or an input's value, in the tensor's order of dims, on ``device``.

    Raises:
        HelixError: HX508, no fused attention for this device and dtype; whatever ``load`` raises.
    """
    return _Compiler(dag, rank, device, load).compile()


class _Compiler(Computations, Exchanges):
    def compile(self) -> Program:
        last = last_needed(self.dag, self.rank)
        inputs = {v: self._buffer(v) for v in self._given("input")}
        for place, name in enumerate(self.dag.order[self.rank]):
            self.place = place
            task = self.dag.task[name]
            self._await(task.inputs)
            self._task(task)
            self._release(self._copies())
            for value_id in [v for v in self.buffers if last.get(v, -1) == self.place]:
                self.pool.release(value_id)
        self.place = len(self.dag.order[self.rank])  # after every task
        self._await(list(self.pending))
        self._await_send()
        outputs = {v: self._plain(v) for v in list(self.buffers) if self._role(v) == "output"}
        return Program(
            rank=self.rank,
            tasks=len(self.dag.order[self.rank]),
            actions=tuple(self.actions),
            inputs=inputs,
            outputs=outputs,
            attention=frozenset(self.attention),
            weight_nbytes=_nbytes(self.weights.values()),
            buffer_nbytes=self.pool.nbytes
            + _nbytes(self.constants.values())
            + _nbytes(b.data for b in inputs.values()),
        )

    def _task(self, task: Task) -> None:
        if task.is_collective:
            self._collective(task)
        else:
            self._computation(task)


def _nbytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes that tensors take, of views of one memory once."""
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())
