"""The source of weights and inputs: files, or the seed; and the file of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from helixctl.dag import Dag, Tensor, Value
from helixctl.dag.function import LENGTH
from helixctl.errors import Diagnostic, HelixError
from helixctl.output import write_output
from helixctl.plan import Interval
from helixctl_runtime.tensors.checkpoint import Checkpoint
from helixctl_runtime.tensors.difference import RowShare
from helixctl_runtime.tensors.inputs import InputRules, inspect_input, lengths
from helixctl_runtime.tensors.seeded import seeded_numbers
from helixctl_runtime.tensors.stored_tensor import read_region, stored_as_is
from helixctl_runtime.tensors.tensor_files import TensorFiles


class TensorSource:
    """Gives the numbers of weights and inputs, region by region.

    Attributes:
        seed: the seed of the numbers that come from no file.
        notes: sentences about the input file, filled by ``check``.
    """

    def __init__(self, seed: int, weights: str | None, inputs: str | None, prefix: str | None = None) -> None:
        """Store the arguments; no file is opened yet.

        Args:
            seed: the seed of the numbers that come from no file.
            weights: the path of a checkpoint; None for seeded weights.
            inputs: the path of an input file; None for a seeded input.
            prefix: the prefix of one of several models in the checkpoint.
        """
        self.seed = seed
        self._weights = Checkpoint(weights, prefix) if weights is not None else None
        self._inputs = TensorFiles(inputs) if inputs is not None else None
        self.notes: list[str] = []

    def check(self, dag: Dag, *, rows: bool = True) -> None:
        """Check that the files hold the inputs and exactly the weights of a dag, and fill ``notes``.

        Args:
            dag: the dag to run.
            rows: also compare stored heads, which reads them (``check_heads``).

        Raises:
            HelixError: HX507, with all problems.
        """
        problems: list[Diagnostic] = []
        if self._weights:
            problems += self._weights.problems(_weights(dag), rows=rows)
        if self._inputs:
            for tensor in (t for t in dag.tensors if t.role == "input" and t.name != LENGTH):
                found = inspect_input(self._inputs, self._input_rules(dag, tensor))
                problems += found.problems
                self.notes += [note for note in found.notes if note not in self.notes]
        if problems:
            raise HelixError(problems)

    def check_heads(self, dag: Dag, share: RowShare) -> None:
        """Check that a stored head that is not read equals the tensor that is read instead.

        Args:
            dag: the dag to run.
            share: ``(i, n)``: compare the i-th of n parts of the rows.

        Raises:
            HelixError: HX507, they differ.
        """
        if self._weights and (problems := self._weights.heads(_weights(dag), share)):
            raise HelixError(problems)

    @property
    def prefix(self) -> str | None:
        """The prefix of the weights' names in the files; None for helixctl's own names, and without files."""
        return self._weights.names.prefix if self._weights else None

    def account(self, dag: Dag) -> dict[str, Any] | None:
        """What is read from the weight files for a dag, and what is left out; None if the weights are seeded."""
        return self._weights.account(_weights(dag)) if self._weights else None

    def _input_rules(self, dag: Dag, tensor: Tensor) -> InputRules:
        model, allowed = dag.plan.model, frozenset[str]()
        if self._weights and self._inputs and Path(self._weights.files.path) == Path(self._inputs.path):
            allowed = frozenset(self._weights.stored_names(_weights(dag)))
        size = model.vocabulary.size if model.vocabulary else None
        last = any(t.name == LENGTH for t in dag.tensors)
        return InputRules(tensor, size, model.attention.causal, last, allowed)

    def region(
        self, tensor: Tensor, region: tuple[Interval, ...], dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """The numbers of a region of a tensor.

        Args:
            tensor: the tensor.
            region: an interval for each of its dims.
            dtype: the dtype of the result.
            device: the device of the result.

        Returns:
            The numbers, in the tensor's order of dims.
        """
        if self._weights and tensor.role == "weight":
            return self._weights.read(tensor, region, dtype, device)
        if self._inputs and tensor.name == LENGTH and tensor.init:
            found = lengths(self._inputs, tensor.shape[0], int(tensor.init[0]))
            return found[slice(*region[0])].to(device, dtype)
        if self._inputs and tensor.role == "input":
            return read_region(self._inputs, tensor, stored_as_is(tensor), region, dtype, device)
        if self._weights and tensor.lean is not None:
            tensor = replace(tensor, lean=None)  # routers that are read choose as they do
        return seeded_numbers(tensor, region, self.seed, dtype, device)

    def value(self, dag: Dag, value: Value, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """The numbers of a value; arguments as for ``region``."""
        return self.region(dag.tensor[value.tensor], value.region, dtype, device)

    def fingerprints(self) -> dict[str, str]:
        """A digest of the weight files and of the input file, if given, because hosts may have different copies."""
        found = {"--weights": self._weights.files if self._weights else None, "--input": self._inputs}
        return {option: files.fingerprint() for option, files in found.items() if files}

    @property
    def weights_read_nbytes(self) -> int:
        """Bytes that were read from weight files so far."""
        return self._weights.read_nbytes if self._weights else 0

    def weights_nbytes(self, dag: Dag) -> int:
        """Bytes of the weights of a dag in their files, each counted once; 0 if they are seeded."""
        return self._weights.nbytes(_weights(dag)) if self._weights else 0

    def close(self) -> None:
        """Close the files; a later use opens them again."""
        if self._weights:
            self._weights.files.close()
        if self._inputs:
            self._inputs.close()


def write_tensor(path: str, name: str, data: torch.Tensor) -> None:
    """Write one tensor to a safetensors file, in one step: the file is never half-written.

    Args:
        path: the file.
        name: the name of the tensor in it.
        data: the tensor.

    Raises:
        HelixError: HX511, the file cannot be written.
    """
    write_output(path, save({name: data.contiguous().cpu()}))


def _weights(dag: Dag) -> Sequence[Tensor]:
    return [tensor for tensor in dag.tensors if tensor.role == "weight"]
