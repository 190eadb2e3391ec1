"""Agreement: all ranks of a run hold the same documents and files, and were given the same options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.distributed as dist

from helixctl.errors import fail
from helixctl_runtime.ranks import Rank
from helixctl_runtime.tensors.tensor_source import TensorSource


def agree(rank: Rank, digests: Sequence[str], options: Mapping[str, object], numbers: TensorSource) -> None:
    """See that no rank differs from the first; all ranks call it.

    Args:
        rank: this rank.
        digests: of the dags that it holds.
        options: what it was told, by the option's name.
        numbers: where its weights and inputs come from.

    Raises:
        HelixError: HX503, with the rank and what it has otherwise.
    """
    # Ranks that were started by one process have what it has.
    files = numbers.fingerprints() if rank.peers else {}
    mine = (str(rank), list(digests), dict(options), files)
    held = [mine] * rank.world_size
    dist.all_gather_object(held, mine)
    (first, expected, its_options, read), *others = held
    for name, its_digests, its, theirs in others:
        if its_digests != expected:
            message = f"{name} holds {_dags(its_digests)}, {first} {_dags(expected)}"
            raise fail("HX503", message, "give all hosts the same files, --dtype and version of helixctl")
        if different := [option for option in read if read[option] != theirs.get(option)]:
            message = f"{name} reads other files for {' and '.join(different)} than {first}"
            raise fail("HX503", message, "give all hosts the same files")
        if different := [f"--{key} {its[key]}, not {its_options[key]}" for key in its if its[key] != its_options[key]]:
            raise fail("HX503", f"{name} has {', '.join(different)} as {first}", "start all ranks with one command")


def _dags(digests: Sequence[str]) -> str:
    return ("the dag " if len(digests) == 1 else "the dags ") + ", ".join(f"{digest[:19]}..." for digest in digests)
