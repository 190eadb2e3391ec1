"""Packed exchanges: what each rank sends to each other lies together, and what has arrived is read where it lies.

Memory of all dtypes travels in words of 8 bytes. A rank's parcel to another holds, move after move, the part of each
tensor that goes there, each with room for the largest of the ranks' pieces and from the begin of a word. Where all
moves are gathers a rank has one parcel for all. Then pieces of one dtype that are alike in their outermost dims lie row
by row side by side, as a product with several weights makes them: it is sent as it lies.

All that depends on the task and its values' regions alone, so that all ranks have one idea of a parcel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Final

from helixctl.dag import AllGather, AllToAll
from helixctl.dag.ops import wire_kind
from helixctl.program.actions import Exchange
from helixctl.program.axes import Axes, Axis, plain
from helixctl.program.draft import Draft
from helixctl.program.part import Own, carried
from helixctl.program.view import Buffer, View, row_major
from helixctl.records import record
from helixctl.spec import DTYPE_NBYTES

_WORD: Final = 8  # bytes
_WORDS: Final = "int64"


@record
class _Place:
    """Where the part of one tensor lies in a parcel.

    Attributes:
        word: the first word of its matrix or of itself, of the parcel's.
        start: its first element behind that.
        strides: of its axes.
    """

    word: int
    start: int
    strides: tuple[int, ...]

    def view(self, block: View, first: int, sizes: tuple[int, ...], dtype: str) -> View:
        """The part of these sizes in the parcel that begins at word ``first`` of a block."""
        return View(block.block, dtype, _elements(first + self.word, dtype) + self.start, sizes, self.strides)


@record
class _Part:
    """One tensor in the parcels.

    Attributes:
        own: its move.
        dim: along which the ranks' pieces are put together, and ``axis``, its place among the tensor's.
        pieces: their extents.
        shares: of an all-to-all, the extents of the parts into which each rank cuts its piece.
    """

    own: Own
    dim: str
    axis: int
    pieces: tuple[int, ...]
    shares: tuple[int, ...] = ()

    @property
    def even(self) -> bool:
        return len(set(self.pieces)) == 1


def packed(draft: Draft, own: Own) -> None:
    """Pack the parcels, unless they lie so; what arrives is read where it lies, if the pieces are of one size."""
    parts = [_part(draft, its) for its in carried(own)]
    if wire_kind(own.task.op) == "all_gather":
        _gather(draft, own, parts)
    else:
        _all_to_all(draft, own, parts)


def _part(draft: Draft, own: Own) -> _Part:
    dims = draft.dims(own.inputs[0])
    match own.task.op:
        case AllGather(dim):
            return _Part(own, dim, dims.index(dim), draft.pieces.gathered(own.task, dim))
        case AllToAll(split, gather):
            pieces, shares = draft.pieces.gathered(own.task, gather), draft.pieces.split(own.task, split)
            return _Part(own, gather, dims.index(gather), pieces, shares)
        case op:
            raise TypeError(op)


def _gather(draft: Draft, own: Own, parts: Sequence[_Part]) -> None:
    """One parcel for all ranks."""
    values = [draft.dag.value[part.own.inputs[0]] for part in parts]
    shapes = [value.shape for value in values]
    rows = _rows(parts, shapes, [value.dtype for value in values])
    places, words = _side_by_side(shapes, values[0].dtype, rows) if rows else _in_turn(draft, parts, shapes)
    sources = [draft.plain(part.own.inputs[0]).view for part in parts]
    send = _as_it_lies(draft, sources, places, words)
    if send is None:
        send = draft.flat(words, _WORDS)
        draft.copy(
            [
                (place.view(send, 0, source.sizes, source.dtype), source)
                for place, source in zip(places, sources, strict=True)
            ]
        )
    receive = draft.flat(words * len(own.task.ranks), _WORDS)
    _issue(draft, own, parts, Exchange(draft.place, own.task, send, receive), places, words)


def _all_to_all(draft: Draft, own: Own, parts: Sequence[_Part]) -> None:
    """A parcel for each rank; what is gathered is in all of them."""
    ranks = len(own.task.ranks)
    shapes = [_shapes(draft, part, ranks) for part in parts]
    parcels = [_in_turn(draft, parts, [its[i] for its in shapes]) for i in range(ranks)]
    leave = tuple([words for _, words in parcels])
    firsts = [0, *accumulate(leave)]
    send, pairs = draft.flat(firsts[-1], _WORDS), list[tuple[View, View]]()
    for number, part in enumerate(parts):
        x = draft.plain(part.own.inputs[0]).view
        op = part.own.task.op
        sources = (
            x.parts(draft.dims(part.own.inputs[0]).index(op.split), part.shares)
            if isinstance(op, AllToAll)
            else [x] * ranks
        )
        targets = [
            parcels[i][0][number].view(send, firsts[i], source.sizes, x.dtype) for i, source in enumerate(sources)
        ]
        pairs += _alike(targets, sources)
    draft.copy(pairs)
    mine = [draft.dag.value[part.own.outputs[0]].shape for part in parts]
    own_shapes = [_piece(part, shape, part.pieces[0]) for part, shape in zip(parts, mine, strict=True)]
    places, words = _in_turn(draft, parts, own_shapes)
    receive = draft.flat(words * ranks, _WORDS)
    exchange = Exchange(draft.place, own.task, send, receive, leave, (words,) * ranks)
    _issue(draft, own, parts, exchange, places, words)


def _issue(
    draft: Draft, own: Own, parts: Sequence[_Part], exchange: Exchange, places: Sequence[_Place], words: int
) -> None:
    """Send the parcels, and say where what they bring lies: in the parcels, or unpacked where pieces differ in size."""
    receive, unpack = exchange.receive, list[tuple[View, View]]()
    firsts = range(0, words * len(own.task.ranks), words)
    for part, place in zip(parts, places, strict=True):
        out_id = part.own.outputs[0]
        value = draft.dag.value[out_id]
        if part.even:
            piece = place.view(receive, 0, _piece(part, value.shape, part.pieces[0]), value.dtype)
            draft.hold(out_id, _put_together(part, piece, plain(draft.dag, value), _elements(words, value.dtype)))
            continue
        out = draft.new(out_id).view
        for first, target in zip(firsts, out.parts(part.axis, part.pieces), strict=True):
            source = View(
                receive.block,
                value.dtype,
                _elements(first + place.word, value.dtype),
                target.sizes,
                row_major(target.sizes),
            )
            unpack.append((target, source))
    flight = draft.issue(exchange, unpack)
    draft.pending |= dict.fromkeys(own.outputs, flight)


# --- parcels ---------------------------------------------------------------------------------------------------------


def _rows(parts: Sequence[_Part], shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> int:
    """How many outermost axes the pieces have in common, where they can lie side by side; else 0."""
    if len(set(dtypes)) > 1 or not all(part.even for part in parts):
        return 0
    common = min(part.axis for part in parts)
    while common and len({shape[:common] for shape in shapes}) > 1:
        common -= 1
    return common


def _side_by_side(shapes: Sequence[tuple[int, ...]], dtype: str, rows: int) -> tuple[list[_Place], int]:
    """Pieces as columns of one matrix, and its words."""
    widths = [prod(shape[rows:]) for shape in shapes]
    total = sum(widths)
    outer = tuple([total * n for n in row_major(shapes[0][:rows])])
    starts = [0, *accumulate(widths)]
    places = [_Place(0, start, (*outer, *row_major(its[rows:]))) for start, its in zip(starts, shapes, strict=False)]
    return places, _words(prod(shapes[0][:rows]) * total, dtype)


def _in_turn(draft: Draft, parts: Sequence[_Part], shapes: Sequence[tuple[int, ...]]) -> tuple[list[_Place], int]:
    """Parts one after the other, each with room for the largest piece, and their words."""
    places, at = list[_Place](), 0
    for part, shape in zip(parts, shapes, strict=True):
        places.append(_Place(at, 0, row_major(shape)))
        at += _words(prod(_piece(part, shape, max(part.pieces))), draft.dag.value[part.own.inputs[0]].dtype)
    return places, at


def _shapes(draft: Draft, part: _Part, ranks: int) -> list[tuple[int, ...]]:
    """The shape of what goes to each rank."""
    shape, op = draft.dag.value[part.own.inputs[0]].shape, part.own.task.op
    if not isinstance(op, AllToAll):
        return [shape] * ranks
    axis = draft.dims(part.own.inputs[0]).index(op.split)
    return [(*shape[:axis], each, *shape[axis + 1 :]) for each in part.shares]


def _as_it_lies(draft: Draft, sources: Sequence[View], places: Sequence[_Place], words: int) -> View | None:
    """A parcel that is in memory already, from the begin of a block; None where it is not."""
    first = sources[0]
    if draft.numel_of_block(View(first.block, _WORDS, 0, (), ())) < words:
        return None
    for source, place in zip(sources, places, strict=True):
        its = place.view(first, 0, source.sizes, source.dtype)
        steps = zip(source.sizes, source.strides, its.strides, strict=True)
        same = (source.block, source.start) == (its.block, its.start)
        if not same or any(size > 1 and one != other for size, one, other in steps):
            return None
    return View(first.block, _WORDS, 0, (words,), (1,))


def _alike(targets: Sequence[View], sources: Sequence[View]) -> list[tuple[View, View]]:
    """Pairs of targets and sources; one pair of all where they follow each other at equal distances."""
    if len({view.sizes for view in sources}) > 1:
        return list(zip(targets, sources, strict=True))
    both = []
    for views in (targets, sources):
        steps = {b.start - a.start for a, b in pairwise(views)}
        if len(steps) > 1 or len({view.strides for view in views}) > 1:
            return list(zip(targets, sources, strict=True))
        first = views[0]
        sizes, strides = (len(views), *first.sizes), (*steps, *first.strides)
        both.append(View(first.block, first.dtype, first.start, sizes, strides))
    return [(both[0], both[1])]


def _put_together(part: _Part, piece: View, axes: Axes, step: int) -> Buffer:
    """All ranks' pieces, ``step`` elements from one to the next; ``axes`` are those of the whole in order."""
    ranks, axis = len(part.pieces), part.axis
    if piece.sizes[axis] == 1:
        sizes = (*piece.sizes[:axis], ranks, *piece.sizes[axis + 1 :])
        strides = (*piece.strides[:axis], step, *piece.strides[axis + 1 :])
        return Buffer(View(piece.block, piece.dtype, piece.start, sizes, strides), axes)
    view = View(piece.block, piece.dtype, piece.start, (ranks, *piece.sizes), (step, *piece.strides))
    inner = [Axis(a.dim, 1, piece.sizes[axis]) if a.dim == part.dim else a for a in axes]
    return Buffer(view, (Axis(part.dim, 0, ranks), *inner))


def _piece(part: _Part, shape: tuple[int, ...], extent: int) -> tuple[int, ...]:
    """A shape with another extent along the gathered dim."""
    return (*shape[: part.axis], extent, *shape[part.axis + 1 :])


def _words(numel: int, dtype: str) -> int:
    return -(-numel * DTYPE_NBYTES[dtype] // _WORD)


def _elements(words: int, dtype: str) -> int:
    """The elements that a number of words hold."""
    return words * _WORD // DTYPE_NBYTES[dtype]
