"""Where the numbers of weights and inputs come from, and where those of the output go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from helixctl.dag import Dag, Tensor, Value
from helixctl.dag.function import LENGTH
from helixctl.errors import Diagnostic, HelixError
from helixctl.output import write_output
from helixctl.plan import Interval
from helixctl_runtime.tensors.alike import Share
from helixctl_runtime.tensors.checkpoint import Checkpoint
from helixctl_runtime.tensors.inputs import Reader, lengths, look
from helixctl_runtime.tensors.seeded import seeded_numbers
from helixctl_runtime.tensors.stored import as_it_is, read_region
from helixctl_runtime.tensors.tensor_files import TensorFiles


class Numbers:
    """The numbers of weights and inputs: from files where given, else from the seed; only the regions asked for."""

    def __init__(self, seed: int, weights: str | None, inputs: str | None, prefix: str | None = None) -> None:
        """Remember the sources; nothing is opened yet."""
        self.seed = seed
        self._weights = Checkpoint(weights, prefix) if weights is not None else None
        self._inputs = TensorFiles(inputs) if inputs is not None else None
        self.notes: list[str] = []

    def check(self, dag: Dag, *, rows: bool = True) -> None:
        """See that the files hold the inputs and exactly the weights of the dag; ``notes`` say what is worth knowing.

        Args:
            dag: what is to be run.
            rows: also compare stored heads that are not read with what is read, which takes reading both; see
                ``check_heads``.

        Raises:
            HelixError: HX507, everything that is wrong.
        """
        problems: list[Diagnostic] = []
        if self._weights:
            problems += self._weights.problems(_weights(dag), rows=rows)
        if self._inputs:
            for tensor in (t for t in dag.tensors if t.role == "input" and t.name != LENGTH):
                found = look(self._inputs, self._reader(dag, tensor))
                problems += found.problems
                self.notes += [note for note in found.notes if note not in self.notes]
        if problems:
            raise HelixError(problems)

    def check_heads(self, dag: Dag, share: Share) -> None:
        """See, in one share of the rows, that a stored head that is not read is what is read in its place.

        Raises:
            HelixError: HX507, it is another one.
        """
        if self._weights and (problems := self._weights.heads(_weights(dag), share)):
            raise HelixError(problems)

    @property
    def prefix(self) -> str | None:
        """What stands ahead of the weights' names in the files; None for helixctl's own names, and without files."""
        return self._weights.names.prefix if self._weights else None

    def account(self, dag: Dag) -> dict[str, Any] | None:
        """What is read of the weights' files for a dag, and what is not; None where they are seeded."""
        return self._weights.account(_weights(dag)) if self._weights else None

    def _reader(self, dag: Dag, tensor: Tensor) -> Reader:
        model, allowed = dag.plan.model, frozenset[str]()
        if self._weights and self._inputs and Path(self._weights.files.path) == Path(self._inputs.path):
            allowed = frozenset(self._weights.stored_names(_weights(dag)))
        size = model.vocabulary.size if model.vocabulary else None
        last = any(t.name == LENGTH for t in dag.tensors)
        return Reader(tensor, size, model.attention.causal, last, allowed)

    def region(
        self, tensor: Tensor, region: tuple[Interval, ...], dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """A region of a tensor, in the tensor's order of dims."""
        if self._weights and tensor.role == "weight":
            return self._weights.read(tensor, region, dtype, device)
        if self._inputs and tensor.name == LENGTH and tensor.init:
            found = lengths(self._inputs, tensor.shape[0], int(tensor.init[0]))
            return found[slice(*region[0])].to(device, dtype)
        if self._inputs and tensor.role == "input":
            return read_region(self._inputs, tensor, as_it_is(tensor), region, dtype, device)
        return seeded_numbers(tensor, region, self.seed, dtype, device)

    def value(self, dag: Dag, value: Value, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """The numbers of a value."""
        return self.region(dag.tensor[value.tensor], value.region, dtype, device)

    def fingerprints(self) -> dict[str, str]:
        """A digest for the weights' files and for the input's, where they are given: hosts may have other copies."""
        found = {"--weights": self._weights.files if self._weights else None, "--input": self._inputs}
        return {option: files.fingerprint() for option, files in found.items() if files}

    @property
    def weights_read_nbytes(self) -> int:
        """Bytes of weight files that were asked for so far."""
        return self._weights.read_nbytes if self._weights else 0

    def weights_nbytes(self, dag: Dag) -> int:
        """Bytes that the weights of a dag have in their files, each once; 0 where they are seeded."""
        return self._weights.nbytes(_weights(dag)) if self._weights else 0

    def close(self) -> None:
        """Let go of the files; what is asked for later opens them again."""
        if self._weights:
            self._weights.files.close()
        if self._inputs:
            self._inputs.close()


def write_tensor(path: str, name: str, data: torch.Tensor) -> None:
    """Write one tensor to a safetensors file, so that the file is never seen half-written.

    Raises:
        HelixError: HX511, it cannot be written.
    """
    write_output(path, save({name: data.contiguous().cpu()}))


def _weights(dag: Dag) -> Sequence[Tensor]:
    return [tensor for tensor in dag.tensors if tensor.role == "weight"]
