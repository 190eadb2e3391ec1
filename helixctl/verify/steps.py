"""Steps: the dags of one plan hold the same weights and states, cut alike, so that a step can follow any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from helixctl.dag import Dag, Tensor, Value
from helixctl.errors import Diagnostic
from helixctl.verify.findings import region_text

_KEPT = ("weight", "state")  # what lives between steps


def check_steps(dags: Sequence[Dag]) -> Iterator[Diagnostic]:
    """Every rank holds of every weight and state the same regions in all dags (HX415).

    Each dag alone is proved to leave a state as it was given it. Here the dags are held against the first: what one
    leaves another takes. It is read off the values of the dags, not off the layout, so that it also holds where both
    dags agree with a layout that is read in two ways. A state has dims for the cycles, the lanes and the places in a
    block of its positions: equal shapes are equal capacity, lanes and blocks.

    Args:
        dags: of the steps of one plan, each proved.
    """
    first, *others = dags
    for other in others:
        yield from _compared(first, other)


def _compared(first: Dag, other: Dag) -> Iterator[Diagnostic]:
    mine, theirs = _kept(first), _kept(other)
    for name in sorted(mine.keys() | theirs.keys()):
        one, two = mine.get(name), theirs.get(name)
        if one is None or two is None:
            has, lacks = (first, other) if two is None else (other, first)
            message = f"{name} is kept between steps in the {has.step} step, and not in the {lacks.step} step"
            yield Diagnostic("HX415", message, path=name)
        elif _declared(one) != _declared(two):
            shapes = f"{_shape(two)} in the {other.step} step, {_shape(one)} in the {first.step} step"
            yield Diagnostic("HX415", f"{two.role} {name} is {shapes}", path=name)
    held, holds = _held(first), _held(other)
    both, wrong = mine.keys() & theirs.keys(), set[str]()
    for name, rank in sorted(held.keys() | holds.keys()):
        there, here = held.get((name, rank), []), holds.get((name, rank), [])
        if name in wrong or name not in both or _places(here) == _places(there):
            continue
        wrong.add(name)
        tensor = theirs[name]
        where = f"{_texts(tensor, here)} in the {other.step} step, {_texts(tensor, there)} in the {first.step} step"
        message = f"{tensor.role} {name}: rank {rank} has {where}"
        yield Diagnostic("HX415", message, path=here[0].id if here else name)


def _kept(dag: Dag) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in dag.tensors if tensor.role in _KEPT}


def _declared(tensor: Tensor) -> object:
    return (tensor.role, tensor.dims, tensor.shape, tensor.init, tensor.next, tensor.lean)


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(f'{dim} {size}' for dim, size in zip(tensor.dims, tensor.shape, strict=True))}]"


def _held(dag: Dag) -> dict[tuple[str, int], list[Value]]:
    """What each rank is given of what lives between steps, by tensor and rank."""
    kept, found = _kept(dag), dict[tuple[str, int], list[Value]]()
    for value in dag.values:
        if value.tensor in kept and value.id not in dag.producer:
            found.setdefault((value.tensor, value.rank), []).append(value)
    return found


def _places(values: Sequence[Value]) -> object:
    return Counter((value.region, value.dtype) for value in values)


def _texts(tensor: Tensor, values: Sequence[Value]) -> str:
    texts = [f"{value.dtype} [{region_text(tensor, value.region)}]" for value in values]
    return " and ".join(texts[:2] + ["more"] * (len(texts) > 2)) or "none"  # noqa: PLR2004
