"""Which token logits give, evaluated as docs/formats.md has it, one sequence after another."""

from __future__ import annotations

import torch

from helixctl.spec import SamplingSpec
from helixctl_runtime.splitmix64 import shift, signed, words


def chosen(
    logits: torch.Tensor, sampling: SamplingSpec | None, *, seed: int = 0, sequence: int = 0, position: int = 0
) -> int:
    """The next token of a sequence.

    Args:
        logits: (vocab), float64.
        sampling: how tokens are drawn; None: the largest logit, of equal ones the lowest token.
        seed: of the run.
        sequence: its place in the batch.
        position: the token's place in the sequence, its prompt included.
    """
    if sampling is None:
        return int(logits.argmax())
    probable = torch.softmax((logits - logits.max()) / sampling.temperature, 0)
    order = logits.sort(descending=True, stable=True).indices[: sampling.top_k]
    share = probable[order] / probable[order].sum()
    before = torch.cat((torch.zeros(1, dtype=share.dtype), share.cumsum(0)[:-1]))
    order = order[before < sampling.top_p].sort().values
    state = torch.tensor(signed(seed))
    for number in (sequence, position):
        state = words(state, torch.tensor(number))
    uniform = (shift(words(state, order), 12).double() + 0.5) / 2**52
    # Of independent exponential variables with these rates the first to come has a token with its probability.
    return int(order[((logits[order] - logits.max()) / sampling.temperature - (-uniform.log()).log()).argmax()])
