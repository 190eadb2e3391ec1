"""Sockets between the CPU ranks of one host: what a rank sends to its neighbours goes from its own thread to theirs.

A collective of gloo passes through two threads of every rank. Where ranks share cores each of these waits for a core,
so that little data takes many times as long as its bytes. Here a rank writes into a socket when a collective begins,
and reads what has arrived when it waits for the end.

What two ranks send to each other arrives in the order in which it was sent. They meet in all collectives in one order,
which is proved (HX409), so that nothing has to say which collective it belongs to.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import torch.distributed as dist

from helixctl_runtime.comm.shared_memory import Segment, SharedMemory

_TOKEN_NBYTES: Final = 16
_RANK_NBYTES: Final = 4


class Arrival:
    """What comes in for one collective."""

    def __init__(self, links: Links, missing: int) -> None:
        """Wait for a number of pieces."""
        self._links = links
        self.missing = missing

    def wait(self) -> None:
        """Return when all pieces are there.

        Raises:
            torch.distributed.DistError: a rank is gone, or sent nothing within the timeout.
        """
        self._links.turn_until(self)


class _Neighbour:
    """A rank at the other end of a socket, and the pieces that are due from it, in order."""

    def __init__(self, rank: int, end: socket.socket) -> None:
        self.rank, self.end, self.number = rank, end, end.fileno()
        self.due: deque[tuple[memoryview, Arrival]] = deque()


class Links:
    """The sockets of one rank to others of its host, and the memory that it shares with them."""

    def __init__(self, ends: dict[int, socket.socket], timeout: float, memory: SharedMemory | None = None) -> None:
        """Take the sockets and the memory over.

        Args:
            ends: a connected stream socket by the rank at its other end.
            timeout: seconds that this rank waits for another.
            memory: what this rank shares with those of them whose system has such memory; None if its own has none.
        """
        self.memory = memory
        self._timeout_ms = timeout * 1e3
        self._neighbours = {rank: _Neighbour(rank, end) for rank, end in ends.items()}
        self._by_number = {each.number: each for each in self._neighbours.values()}
        self._poll = select.poll()
        for end in ends.values():
            end.settimeout(0)

    def __contains__(self, rank: object) -> bool:
        """Whether there is a socket to a rank."""
        return rank in self._neighbours

    def exchange(self, sends: Iterable[tuple[int, memoryview]], receives: Sequence[tuple[int, memoryview]]) -> Arrival:
        """Send bytes to ranks, and say where bytes of ranks belong.

        Args:
            sends: ranks and what goes to each; it has left when this returns.
            receives: ranks and the memory for what each sends; it is filled when the arrival's ``wait`` returns.

        Raises:
            torch.distributed.DistError: as ``Arrival.wait``.
        """
        arrival = Arrival(self, len(receives))
        # Ahead of the sends: while a full socket holds a send up, what others send here is taken in.
        for rank, memory in receives:
            neighbour = self._neighbours[rank]
            if not neighbour.due:
                self._poll.register(neighbour.number, select.POLLIN)
            neighbour.due.append((memory, arrival))
        for rank, data in sends:
            self._send(self._neighbours[rank], data)
        return arrival

    def turn_until(self, arrival: Arrival) -> None:
        """Take in what arrives, for any collective, until one is complete."""
        while arrival.missing:
            self._turn()

    def close(self) -> None:
        """Close all sockets, and what the memory is known by."""
        for neighbour in self._neighbours.values():
            neighbour.end.close()
        if self.memory:
            self.memory.close()

    def _send(self, neighbour: _Neighbour, data: memoryview) -> None:
        while len(data):
            try:
                data = data[neighbour.end.send(data) :]
            except BlockingIOError:
                taken_in = select.POLLIN if neighbour.due else 0
                self._poll.register(neighbour.number, select.POLLOUT | taken_in)
                self._turn()
                self._watch(neighbour)
            except OSError as error:
                raise _gone(neighbour) from error

    def _watch(self, neighbour: _Neighbour) -> None:
        """Look at a socket as long as something is due from it; what comes sooner than that stays in it."""
        if neighbour.due:
            self._poll.register(neighbour.number, select.POLLIN)
        else:
            with suppress(KeyError):  # what was due may have come while a send was held up
                self._poll.unregister(neighbour.number)

    def _turn(self) -> None:
        found = self._poll.poll(self._timeout_ms)
        if not found:
            late = sorted(each.rank for each in self._neighbours.values() if each.due)
            raise dist.DistError(f"timed out waiting for {', '.join(f'rank {rank}' for rank in late)}")
        for number, event in found:
            if event != select.POLLOUT:
                self._receive(self._by_number[number])

    def _receive(self, neighbour: _Neighbour) -> None:
        memory, arrival = neighbour.due.popleft() if neighbour.due else (memoryview(bytearray(1)), None)
        try:
            got = neighbour.end.recv_into(memory)
        except OSError as error:
            raise _gone(neighbour) from error
        if not got or arrival is None:
            raise _gone(neighbour)
        if got < len(memory):
            neighbour.due.appendleft((memory[got:], arrival))
            return
        arrival.missing -= 1
        if not neighbour.due:
            self._watch(neighbour)


def _gone(neighbour: _Neighbour) -> dist.DistError:
    return dist.DistError(f"connection closed by rank {neighbour.rank}")


def connected(rank: int, sets: Collection[tuple[int, ...]], timeout: float) -> Links | None:
    """Sockets to the ranks of this host with which a rank meets in sets of ranks that are all of one host.

    All ranks of the default process group call it, with the same sets.

    Args:
        rank: this rank.
        sets: the ranks of each collective.
        timeout: seconds that this rank waits for another.

    Returns:
        None where there are none: each rank is on a host of its own, or the system has no such sockets.
    """
    with ExitStack() as opened:
        token = secrets.token_bytes(_TOKEN_NBYTES)
        host, listener, segment = _host(), None, None
        if host:
            listener = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.bind("")  # a name that the system finds, in no folder: it goes with the socket
            listener.listen(dist.get_world_size())
            listener.settimeout(timeout)
            segment = _segment(opened)
        told = [("", b"", b"", False)] * dist.get_world_size()
        dist.all_gather_object(told, (host, listener.getsockname() if listener else b"", token, segment is not None))
        alike = [its for its in sets if rank in its and len({told[each][0] for each in its}) == 1]
        others = {each for its in alike for each in its} - {rank}
        if listener is None or not others:
            return None
        ends = dict[int, socket.socket]()
        for other in sorted(each for each in others if each < rank):
            ends[other] = end = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            end.settimeout(timeout)
            _, address, its, _ = told[other]
            end.connect(address)
            end.sendall(its + rank.to_bytes(_RANK_NBYTES, "big"))
        while len(ends) < len(others):
            end, _ = listener.accept()
            opened.enter_context(end)
            end.settimeout(timeout)
            said = end.recv(_TOKEN_NBYTES + _RANK_NBYTES, socket.MSG_WAITALL)
            other = int.from_bytes(said[_TOKEN_NBYTES:], "big")
            if secrets.compare_digest(said[:_TOKEN_NBYTES], token) and other in others:
                ends[other] = end
            else:
                end.close()  # another program of this machine
        sharing = {other: end for other, end in ends.items() if told[other][3]}
        memory = _shared(segment, sharing, opened) if segment else None
        opened.pop_all()
        listener.close()
    return Links(ends, timeout, memory)


def _segment(opened: ExitStack) -> Segment | None:
    """Memory to share; None where the system has none."""
    try:
        segment = Segment()
    except OSError:
        return None
    opened.callback(os.close, segment.descriptor)
    return segment


def _shared(segment: Segment, ends: Mapping[int, socket.socket], opened: ExitStack) -> SharedMemory:
    """Give the ranks that share memory this rank's segment, and take theirs."""
    descriptors = dict[int, int]()
    for end in ends.values():
        socket.send_fds(end, [b"s"], [segment.descriptor])
    for other, end in ends.items():
        _, received, *_ = socket.recv_fds(end, 1, 1)
        if not received:
            raise _gone(_Neighbour(other, end))
        (descriptors[other],) = received
        opened.callback(os.close, descriptors[other])
    return SharedMemory(segment, descriptors)


def _host() -> str:
    """What ranks have in common that can reach each other so: a running system, and a network namespace of it."""
    try:
        system = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{system} {Path('/proc/self/ns/net').readlink()}"
    except OSError:
        return ""  # not Linux: names without a folder are its own
