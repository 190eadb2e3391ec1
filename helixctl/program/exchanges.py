"""Collectives: what is packed, what is sent and received where, and what is unpacked. A case a kind."""

from __future__ import annotations

from collections.abc import Sequence

from helixctl.dag import AllGather, AllReduce, AllToAll, Broadcast, Packed, ReduceScatter, SendReceive
from helixctl.program.actions import Exchange
from helixctl.program.axes import gathered, plain
from helixctl.program.draft import Draft
from helixctl.program.packed import packed
from helixctl.program.part import Own
from helixctl.program.view import View, in_turn, lies_in_turn


def collective(draft: Draft, own: Own) -> None:
    """Add the actions of a collective at the draft's place."""
    match own.task.op:
        case AllToAll(split, gather):
            _all_to_all(draft, own, split, gather)
        case AllGather(dim) if draft.pieces.even(own.task):
            _all_gather(draft, own, dim)
        case AllGather(dim):
            _uneven_gather(draft, own, dim)
        case AllReduce():
            _all_reduce(draft, own)
        case ReduceScatter(dim):
            _reduce_scatter(draft, own, dim)
        case Broadcast():
            _broadcast(draft, own)
        case SendReceive():
            _send_receive(draft, own)
        case Packed():
            packed(draft, own)


def _all_to_all(draft: Draft, own: Own, split: str, gather: str) -> None:
    """Pack the parts for each rank in turn, and unpack those of each rank, unless they lie so anyway."""
    (in_id,), (out_id,), task = own.inputs, own.outputs, own.task
    dims = draft.dims(in_id)
    leaving, arriving = dims.index(split), dims.index(gather)
    x = draft.plain(in_id).view
    shares = draft.pieces.split(task, split)
    send = parts_in_turn(draft, x, leaving, shares)
    out = draft.new(out_id).view
    pieces = draft.pieces.gathered(task, gather)
    receive, unpack = out.flat(), list[tuple[View, View]]()
    if not lies_in_turn(out, arriving):
        receive = draft.flat(out.numel, out.dtype)
        unpack = in_turn(out, arriving, pieces, receive)
    leave = tuple([x.numel // x.sizes[leaving] * n for n in shares])
    arrive = tuple([out.numel // out.sizes[arriving] * n for n in pieces])
    draft.pending[out_id] = draft.issue(Exchange(draft.place, task, send, receive, leave, arrive), unpack)


def parts_in_turn(draft: Draft, x: View, axis: int, shares: Sequence[int]) -> View:
    """The parts of a plain value along an axis one after the other: as they lie, or copied."""
    if lies_in_turn(x, axis) and x.contiguous:
        return x.flat()
    send = draft.flat(x.numel, x.dtype)
    draft.copy([(place, part) for part, place in in_turn(x, axis, shares, send)])
    return send


def _all_gather(draft: Draft, own: Own, dim: str) -> None:
    (in_id,), (out_id,), task = own.inputs, own.outputs, own.task
    axes = plain(draft.dag, draft.dag.value[in_id], draft.leading(task))
    piece = draft.packed(in_id, axes)
    out = draft.new(out_id, gathered(axes, dim, len(task.ranks)))
    draft.pending[out_id] = draft.issue(Exchange(draft.place, task, piece.view.flat(), out.view.flat()))


def _uneven_gather(draft: Draft, own: Own, dim: str) -> None:
    """Pieces padded to the largest, which is what torch.distributed gathers; unpacked when they are there."""
    (in_id,), (out_id,), task = own.inputs, own.outputs, own.task
    sizes, axis = draft.pieces.gathered(task, dim), draft.dims(in_id).index(dim)
    value = draft.dag.value[in_id]
    row = value.numel // value.shape[axis]
    largest, axes = row * max(sizes), plain(draft.dag, value)
    piece = draft.buffers[in_id]
    if piece.axes != axes or not piece.view.contiguous or not _has_room(draft, piece.view, largest):
        piece = draft.copied(in_id, axes, largest)
    receive = draft.flat(largest * len(sizes), value.dtype)
    out = draft.new(out_id).view
    unpack = [(part, place) for place, part in _in_padded_turn(out, axis, sizes, receive, largest)]
    exchange = Exchange(draft.place, task, piece.view.shaped((largest,)), receive)
    draft.pending[out_id] = draft.issue(exchange, unpack)


def _in_padded_turn(x: View, axis: int, sizes: Sequence[int], flat: View, largest: int) -> list[tuple[View, View]]:
    """The parts of a value along an axis, each behind its place in flat memory; places are of one length."""
    places = flat.parts(0, [largest] * len(sizes))
    return [(place.shaped(part.sizes), part) for part, place in zip(x.parts(axis, sizes), places, strict=True)]


def _has_room(draft: Draft, view: View, numel: int) -> bool:
    """Whether ``numel`` elements from where a view begins are in its block, and no other value is among them."""
    if view.numel == numel:
        return True
    room = draft.numel_of_block(view) - view.start
    return room >= numel and len(draft.in_block.get(view.block, ())) == 1


def _all_reduce(draft: Draft, own: Own) -> None:
    """Summed in place, unless somebody else needs the partial sum."""
    (in_id,), (out_id,) = own.inputs, own.outputs
    axes = plain(draft.dag, draft.dag.value[in_id])
    held = draft.buffers[in_id]
    piece = draft.packed(in_id, axes)
    if piece is held and not draft.spare(in_id):
        piece = draft.copied(in_id, axes)
    draft.hold(out_id, piece)
    view = piece.view.flat()
    draft.pending[out_id] = draft.issue(Exchange(draft.place, own.task, view, view))


def _reduce_scatter(draft: Draft, own: Own, dim: str) -> None:
    """Pack the shares for each rank in turn, each as long as the largest; the one that arrives has that much room."""
    (in_id,), (out_id,), task = own.inputs, own.outputs, own.task
    x, axis, shares = draft.plain(in_id).view, draft.dims(in_id).index(dim), draft.pieces.split(task, dim)
    largest = x.numel // x.sizes[axis] * max(shares)
    if len(set(shares)) == 1:
        send = parts_in_turn(draft, x, axis, shares)
    else:
        send = draft.flat(largest * len(shares), x.dtype)
        draft.copy(_in_padded_turn(x, axis, shares, send, largest))
    receive = draft.new(out_id, room=largest).view.shaped((largest,))
    draft.pending[out_id] = draft.issue(Exchange(draft.place, task, send, receive))


def _broadcast(draft: Draft, own: Own) -> None:
    (out_id,) = own.outputs
    if own.inputs:
        (in_id,) = own.inputs
        buffer = draft.hold(out_id, draft.packed(in_id))
    else:
        buffer = draft.new(out_id)
    view = buffer.view.flat()
    draft.pending[out_id] = draft.issue(Exchange(draft.place, own.task, view, view))


def _send_receive(draft: Draft, own: Own) -> None:
    if own.outputs:
        view = draft.new(own.outputs[0]).view.flat()
        draft.pending[own.outputs[0]] = draft.issue(Exchange(draft.place, own.task, view, view))
        return
    (in_id,) = own.inputs
    # The sender has no output whose use would be waited for: it goes on until its next send, or the step's end.
    if draft.sending is not None:
        draft.land(draft.sending)
    view = draft.packed(in_id).view.flat()
    draft.sending = draft.issue(Exchange(draft.place, own.task, view, view))
