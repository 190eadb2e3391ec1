"""A stored model on ranks, beside transformers' model of the numbers that it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from helixctl.dag import Tensor
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.spec import ModelSpec
from helixctl_runtime.check.reference import relative_error
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.runtime.test_small_families import reference
from tests.runtime.test_transformers import WORK, cluster, cuts, output_of_all_ranks

CPU = torch.device("cpu")


def holds_in_every_cut(
    theirs: torch.nn.Module,
    model: ModelSpec,
    stored: Path,
    dense: Path,
    vocabulary: int,
    cut: slice = slice(None),
) -> None:
    """Every region is that of the dense checkpoint, and logits are within twice transformers' float32 error.

    Args:
        theirs: transformers' model in float32.
        model: with all weights in the dtype of the computation.
        stored: the file or the folder that is tried.
        dense: a folder with the numbers that are meant.
        vocabulary: below which token ids are.
        cut: which of all cuts of the model are tried.
    """
    ids = torch.randint(3, vocabulary, (WORK.batch, WORK.seq_len), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = theirs(ids).logits
    expected = reference(dense, model, ids, WORK)
    tolerated = 2 * relative_error(logits, expected)
    assert tolerated < 1e-5
    weights, whole = TensorSource(0, str(stored), None), TensorSource(0, str(dense), None)

    def numbers(tensor: Tensor, region: Any) -> torch.Tensor:
        if tensor.role == "input":
            return ids[tuple(slice(*interval) for interval in region)]
        found = weights.region(tensor, region, torch.float32, CPU)
        assert torch.equal(found, whole.region(tensor, region, torch.float32, CPU)), (tensor.name, region)
        return found

    every = [layout for devices in (1, 2, 3, 4) for layout in cuts(devices, model)]
    for layout in every[cut]:
        dag = lower(Plan.of(model, cluster(layout.devices), WORK, layout))
        weights.check(dag)
        assert relative_error(output_of_all_ranks(dag, numbers), expected) <= tolerated, layout
