"""Where a tensor of the model stands in stored tensors that have other axes, and how a region of it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from math import prod

import torch

from helixctl.dag import Tensor
from helixctl.plan import Interval
from helixctl_runtime.tensors.tensor_files import TensorFiles


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of the model as it is stored.

    Attributes:
        names: the stored tensors, all alike: one, or one for every index along ``apart``.
        axes: the model's dims that each stored axis merges, outermost first.
        shape: of each stored tensor.
        start: where the model's tensor begins along each stored axis; not 0 where several share a stored tensor.
        apart: the dim along which ``names`` run.
    """

    names: tuple[str, ...]
    axes: tuple[tuple[str, ...], ...]
    shape: tuple[int, ...]
    start: tuple[int, ...]
    apart: str | None = None

    @property
    def dims(self) -> tuple[str, ...]:
        """The model's dims in the order in which they are stored."""
        merged = tuple(dim for axis in self.axes for dim in axis)
        return (self.apart, *merged) if self.apart else merged


def as_it_is(tensor: Tensor) -> Stored:
    """A tensor that is stored under its own name, with its own axes."""
    axes = tuple((dim,) for dim in tensor.dims)
    return Stored((tensor.name,), axes, tensor.shape, (0,) * len(axes))


def read_region(
    files: TensorFiles,
    tensor: Tensor,
    stored: Stored,
    region: Sequence[Interval],
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """A region of a tensor, in the tensor's order of dims, in memory of its own; nothing outside it is read."""
    interval, size = dict(zip(tensor.dims, region, strict=True)), dict(zip(tensor.dims, tensor.shape, strict=True))
    first, last = interval[stored.apart] if stored.apart else (0, 1)
    along = [_runs([interval[d] for d in axis], [size[d] for d in axis]) for axis in stored.axes]
    places = [list(pairwise(accumulate((b - a for a, b in runs), initial=0))) for runs in along]
    found = torch.empty([last - first, *(runs[-1][1] for runs in places)], dtype=dtype, device=device)
    for into, name in zip(found, stored.names[first:last], strict=True):
        for which in product(*(range(len(runs)) for runs in along)):
            box = [(runs[i][0] + at, runs[i][1] + at) for runs, i, at in zip(along, which, stored.start, strict=True)]
            place = tuple(slice(*runs[i]) for runs, i in zip(places, which, strict=True))
            into[place].copy_(files.part(name, box))
    dims = stored.dims
    whole = found.view([interval[d][1] - interval[d][0] for d in dims])
    # In the stored order up to here: so a GPU, not the host, turns what is stored transposed.
    return whole.permute([dims.index(d) for d in tensor.dims]).contiguous()


def used_numel(stored: Stored, tensor: Tensor) -> int:
    """How many elements of each stored tensor are the model's tensor."""
    return prod(tensor.shape) // len(stored.names)


def _runs(intervals: Sequence[Interval], sizes: Sequence[int]) -> list[Interval]:
    """The runs of indices along an axis that merges dims: one, where only the outermost dim is cut."""
    runs, inner = [intervals[-1]], sizes[-1]
    for (start, stop), size in zip(intervals[-2::-1], sizes[-2::-1], strict=True):
        if runs == [(0, inner)]:
            runs = [(start * inner, stop * inner)]
        else:
            runs = [(i * inner + a, i * inner + b) for i in range(start, stop) for a, b in runs]
        inner *= size
    return runs
