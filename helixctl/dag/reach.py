"""Which keys a causal token attends to: all up to itself, those of a window, or those of its chunk."""

from __future__ import annotations

from helixctl.dag.ops import Attention, CachedAttention, PartialAttention

AnyAttention = Attention | CachedAttention | PartialAttention


def reaches_back(op: AnyAttention) -> int | None:
    """Positions that any token attends to at most, itself among them; None: as many as there are."""
    return op.window or op.chunk


def first_key(op: AnyAttention, position: int) -> int:
    """The first position that the token at ``position`` attends to."""
    if op.window is not None:
        return max(0, position - op.window + 1)
    return position - position % op.chunk if op.chunk is not None else 0


def pairs_of_all(first: int, rows: int) -> int:
    """Pairs of one of ``rows`` tokens from position ``first`` on and a position up to its own."""
    return _triangle(first + rows) - _triangle(first)


def causal_pairs(op: AnyAttention, first: int, rows: int) -> int:
    """Pairs of one of ``rows`` tokens from position ``first`` on and a position that it attends to."""
    return _pairs_before(op, first + rows) - _pairs_before(op, first)


def _pairs_before(op: AnyAttention, position: int) -> int:
    """Those of all tokens before a position."""
    most = op.window or op.top_k
    if most is not None and position > most:
        return _triangle(most) + (position - most) * most
    if op.chunk is not None:
        whole, rest = divmod(position, op.chunk)
        return whole * _triangle(op.chunk) + _triangle(rest)
    return _triangle(position)


def _triangle(size: int) -> int:
    return size * (size + 1) // 2
