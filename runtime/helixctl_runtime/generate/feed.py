"""Feed: what a step of one rank is given before it, and what is taken from it afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from helixctl.dag import Dag
from helixctl_runtime.compile.bound import BoundProgram


class Feed:
    """A rank's values of one step, beside the whole tensors that they are regions of."""

    def __init__(self, dag: Dag, program: BoundProgram) -> None:
        """Find the regions.

        Args:
            dag: of the step.
            program: the rank's part of it.
        """
        self._inputs = _by_tensor(dag, program.inputs)
        self._outputs = _by_tensor(dag, program.outputs)

    def put(self, name: str, whole: torch.Tensor) -> None:
        """Give the rank its regions of an input; nothing where it has none."""
        for region, target in self._inputs.get(name, ()):
            target.copy_(whole[region])

    def take(self, name: str, whole: torch.Tensor) -> None:
        """Put the rank's regions of an output into the whole tensor; nothing where it has none."""
        for region, source in self._outputs.get(name, ()):
            whole[region] = source.to(whole.device, whole.dtype)

    def parts(self, name: str) -> Sequence[tuple[tuple[slice, ...], torch.Tensor]]:
        """The rank's regions of an output, each with its numbers; none where it has none."""
        return self._outputs.get(name, ())


_Regions = dict[str, list[tuple[tuple[slice, ...], torch.Tensor]]]


def _by_tensor(dag: Dag, values: Mapping[str, torch.Tensor]) -> _Regions:
    found: _Regions = {}
    for value_id, data in values.items():
        value = dag.value[value_id]
        found.setdefault(value.tensor, []).append((tuple(slice(*part) for part in value.region), data))
    return found
