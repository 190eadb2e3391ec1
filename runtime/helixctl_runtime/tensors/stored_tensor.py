"""How a tensor of the model is stored in tensors with other axes, and how a region of it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, product
from math import prod

import torch

from helixctl.dag import Tensor
from helixctl.plan import Interval
from helixctl_runtime.tensors.tensor_files import TensorFiles


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """How one tensor of the model is stored.

    Attributes:
        names: the stored tensors, all of one shape: a single one, or one for every index along ``expert_dim``.
        axes: the model's dims that each stored axis merges, outermost first.
        shape: the shape of each stored tensor.
        start: where the model's tensor begins along each stored axis; not 0 if several share a stored tensor.
        expert_dim: the dim whose indices have a stored tensor each; None if there is a single stored tensor.
        inside: by stored axis, if its innermost dim is a part of a longer one: where it begins there, and how long that
            is.
        steps: from one index of the model's tensor to the next along each stored axis; more than 1 where several share
            it in turn. None: 1 along all.
    """

    names: tuple[str, ...]
    axes: tuple[tuple[str, ...], ...]
    shape: tuple[int, ...]
    start: tuple[int, ...]
    expert_dim: str | None = None
    inside: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    steps: tuple[int, ...] | None = None

    @property
    def dims(self) -> tuple[str, ...]:
        """The model's dims, in the order in which they are stored."""
        merged = tuple(dim for axis in self.axes for dim in axis)
        return (self.expert_dim, *merged) if self.expert_dim else merged


def stored_as_is(tensor: Tensor) -> StoredTensor:
    """The storage of a tensor that has its own name and its own axes in the files."""
    axes = tuple((dim,) for dim in tensor.dims)
    return StoredTensor((tensor.name,), axes, tensor.shape, (0,) * len(axes))


def read_region(
    files: TensorFiles,
    tensor: Tensor,
    stored: StoredTensor,
    region: Sequence[Interval],
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """Read a region of a tensor, and nothing outside it, into new memory.

    Args:
        files: the files that hold it.
        tensor: the tensor.
        stored: how it is stored.
        region: an interval for each of its dims.
        dtype: the dtype of the result.
        device: the device of the result.

    Returns:
        The region, in the tensor's order of dims.
    """
    interval, size = dict(zip(tensor.dims, region, strict=True)), dict(zip(tensor.dims, tensor.shape, strict=True))
    first, last = interval[stored.expert_dim] if stored.expert_dim else (0, 1)
    along = []
    for i, axis in enumerate(stored.axes):
        if not axis:
            along.append(_runs((), ()))
            continue
        begin, length = stored.inside.get(i, (0, size[axis[-1]]))
        start, stop = interval[axis[-1]]
        sizes = [*[size[d] for d in axis[:-1]], length]
        along.append(_runs([*[interval[d] for d in axis[:-1]], (begin + start, begin + stop)], sizes))
    steps = stored.steps or (1,) * len(stored.axes)
    places = [list(pairwise(accumulate((b - a for a, b in runs), initial=0))) for runs in along]
    found = torch.empty([last - first, *(runs[-1][1] for runs in places)], dtype=dtype, device=device)
    for into, name in zip(found, stored.names[first:last], strict=True):
        for which in product(*(range(len(runs)) for runs in along)):
            ends = [runs[i] for runs, i in zip(along, which, strict=True)]
            places_of = zip(ends, stored.start, steps, strict=True)
            box = [(a * step + at, (b - 1) * step + at + 1) for (a, b), at, step in places_of]
            place = tuple(slice(*runs[i]) for runs, i in zip(places, which, strict=True))
            into[place].copy_(files.part(name, box)[tuple(slice(None, None, step) for step in steps)])
    dims = stored.dims
    whole = found.view([interval[d][1] - interval[d][0] for d in dims])
    # The copy above keeps the stored order, so that a GPU, not the host, transposes.
    return whole.permute([dims.index(d) for d in tensor.dims]).contiguous()


def used_numel(stored: StoredTensor, tensor: Tensor) -> int:
    """The number of elements of each stored tensor that belong to the model's tensor."""
    return prod(tensor.shape) // len(stored.names)


def _runs(intervals: Sequence[Interval], sizes: Sequence[int]) -> list[Interval]:
    """The runs of indices along an axis that merges dims: a single run if only the outermost dim is cut.

    An axis of no dims has one index.
    """
    if not intervals:
        return [(0, 1)]
    runs, inner = [intervals[-1]], sizes[-1]
    for (start, stop), size in zip(intervals[-2::-1], sizes[-2::-1], strict=True):
        if runs == [(0, inner)]:
            runs = [(start * inner, stop * inner)]
        else:
            runs = [(i * inner + a, i * inner + b) for i in range(start, stop) for a, b in runs]
        inner *= size
    return runs
