"""Collectives: what is packed, issued, waited for and unpacked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from helixctl.dag import AllGather, AllReduce, AllToAll, Broadcast, Dag, ReduceScatter, SendReceive, Task
from helixctl_runtime import kernels
from helixctl_runtime.axes import even, plain
from helixctl_runtime.buffers import in_turn, lies_in_turn
from helixctl_runtime.compile.workspace import Workspace
from helixctl_runtime.program import Exchange, Load, Wait


@dataclass(frozen=True, slots=True)
class _Flight:
    """A collective that has been issued: how to unpack what arrives, and the memory that it needs until then."""

    exchange: Exchange
    unpack: kernels.Step | None
    copies: tuple[str, ...]


class Exchanges(Workspace):
    """One method a kind of collective."""

    def __init__(self, dag: Dag, rank: int, device: torch.device, load: Load) -> None:
        super().__init__(dag, rank, device, load)
        self.pending: dict[str, _Flight] = {}
        self.sending: _Flight | None = None

    def _collective(self, task: Task) -> None:
        match task.op:
            case AllToAll(split, gather):
                self._all_to_all(task, split, gather)
            case AllGather() if even(self.dag, task):
                self._all_gather(task)
            case AllGather(dim):
                self._uneven_gather(task, dim)
            case AllReduce():
                self._all_reduce(task)
            case ReduceScatter(dim):
                self._reduce_scatter(task, dim)
            case Broadcast():
                self._broadcast(task)
            case SendReceive():
                self._send_receive(task)

    def _all_to_all(self, task: Task, split: str, gather: str) -> None:
        """Pack the parts for each rank in turn, and unpack those of each rank, unless they lie so anyway."""
        in_id, out_id = self._mine(task)
        x, out, dims = self._plain(in_id).data, self._new(out_id).data, self._dims(in_id)
        leaving, arriving = dims.index(split), dims.index(gather)
        shares = [self.dag.value[v].shape[leaving] for v in task.outputs]
        pieces = [self.dag.value[v].shape[arriving] for v in task.inputs]
        if lies_in_turn(x, leaving) and x.is_contiguous():
            send = x.view(-1)
        else:
            send = self._copy(x.numel(), x.dtype)
            self._do(kernels.copy([(place, part) for part, place in in_turn(x, leaving, shares, send)]))
        receive, unpack = out.view(-1), None
        if not lies_in_turn(out, arriving):
            receive = self._copy(out.numel(), out.dtype)
            unpack = kernels.copy(in_turn(out, arriving, pieces, receive))
        leave = tuple(x.numel() // x.shape[leaving] * n for n in shares)
        arrive = tuple(out.numel() // out.shape[arriving] * n for n in pieces)
        self._exchange(Exchange(self.place, task, send, receive, leave, arrive), out_id, unpack)

    def _reduce_scatter(self, task: Task, dim: str) -> None:
        """Pack the shares for each rank in turn, each as long as the largest; unpack the one that arrives."""
        in_id, out_id = self._mine(task)
        x, out, axis = self._plain(in_id).data, self._new(out_id).data, self._dims(in_id).index(dim)
        shares = [self.dag.value[v].shape[axis] for v in task.outputs]
        row = x.numel() // x.shape[axis]
        largest, even = row * max(shares), len(set(shares)) == 1
        if even and lies_in_turn(x, axis) and x.is_contiguous():
            send = x.view(-1)
        else:
            send = self._copy(largest * len(shares), x.dtype)
            parts = zip(x.split(shares, axis), send.split(largest), strict=True)
            self._do(kernels.copy([(place[: part.numel()].view(part.shape), part) for part, place in parts]))
        receive, unpack = out.view(-1), None
        if out.numel() < largest:
            receive = self._copy(largest, out.dtype)
            unpack = kernels.copy([(out, receive[: out.numel()].view(out.shape))])
        self._exchange(Exchange(self.place, task, send, receive), out_id, unpack)

    def _all_gather(self, task: Task) -> None:
        in_id, out_id = self._mine(task)
        piece = self._sent(task, in_id, self._name())
        self._exchange(Exchange(self.place, task, piece.data, self._new(out_id).data.view(-1)), out_id)

    def _uneven_gather(self, task: Task, dim: str) -> None:
        """Pieces padded to the largest, which is what torch.distributed gathers; unpacked when they are there."""
        in_id, out_id = self._mine(task)
        piece, out = self._buffer(in_id), self._new(out_id).data
        values = [self.dag.value[v] for v in task.inputs]
        largest, axis = max(v.numel for v in values), self._dims(in_id).index(dim)
        if piece.axes == plain(self.dag, in_id) and piece.data.is_contiguous() and piece.data.numel() == largest:
            send = piece.data.view(-1)
        else:
            send = self._copy(largest, out.dtype)
            self._fill(send[: piece.data.numel()], in_id)
        receive = self._copy(largest * len(values), out.dtype)
        parts = out.split([v.shape[axis] for v in values], axis)
        places = [
            place[: part.numel()].view(part.shape) for part, place in zip(parts, receive.split(largest), strict=True)
        ]
        unpack = kernels.copy(list(zip(parts, places, strict=True)))
        self._exchange(Exchange(self.place, task, send, receive), out_id, unpack)

    def _all_reduce(self, task: Task) -> None:
        in_id, out_id = self._mine(task)
        piece = self._sent(task, in_id, out_id)
        if piece is self._buffer(in_id):
            if self.dag.consumers[in_id] != (task,) or not self.pool.alone(in_id):
                source, piece = piece.data, self._new(out_id)
                self._do(kernels.copy([(piece.data, source)]))
            else:
                self.pool.share(out_id, in_id)  # summed in place
        self.buffers[out_id] = piece
        self._exchange(Exchange(self.place, task, piece.data, piece.data), out_id)

    def _broadcast(self, task: Task) -> None:
        out_id = task.outputs[task.ranks.index(self.rank)]
        if self.rank == task.ranks[0]:
            source = self._sent(task, task.inputs[0], out_id)
            if source is self._buffer(task.inputs[0]):
                self.pool.share(out_id, task.inputs[0])
            self.buffers[out_id] = source
        else:
            source = self._new(out_id)
        self._exchange(Exchange(self.place, task, source.data, source.data), out_id)

    def _send_receive(self, task: Task) -> None:
        if self.rank == task.ranks[1]:
            target = self._new(task.outputs[0])
            self._exchange(Exchange(self.place, task, target.data, target.data), task.outputs[0])
            return
        source = self._sent(task, task.inputs[0], self._name())
        # The sender has no output whose use would be waited for: it goes on until its next send, or the step's end.
        self._await_send()
        self.sending = self._issue(Exchange(self.place, task, source.data, source.data))

    def _mine(self, task: Task) -> tuple[str, str]:
        """This rank's input and output of a collective."""
        mine = task.ranks.index(self.rank)
        return task.inputs[mine], task.outputs[mine]

    def _exchange(self, exchange: Exchange, out_id: str, unpack: kernels.Step | None = None) -> None:
        self.pending[out_id] = self._issue(exchange, unpack)

    def _issue(self, exchange: Exchange, unpack: kernels.Step | None = None) -> _Flight:
        self.actions.append(exchange)
        return _Flight(exchange, unpack, self._copies())

    def _await(self, values: Iterable[str]) -> None:
        for value_id in values:
            if (flight := self.pending.pop(value_id, None)) is not None:
                self._land(flight)

    def _await_send(self) -> None:
        if self.sending is not None:
            self._land(self.sending)
            self.sending = None

    def _land(self, flight: _Flight) -> None:
        """Wait for a collective; what unpacks is a computation of the task that needs it."""
        self.actions.append(Wait(flight.exchange.place, flight.exchange))
        if flight.unpack is not None:
            self._do(flight.unpack)
        self._release(flight.copies)
