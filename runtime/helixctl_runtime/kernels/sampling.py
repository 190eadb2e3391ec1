"""Drawing a token: the softmax of the logits as probabilities, and random numbers that are the same on every layout.

The draw is the Gumbel-max one: of the scores ``logit / temperature - log(-log u)``, one random number u for each token,
the largest has its token drawn with the softmax as probability. Where two layouts' logits differ by rounding they draw
different tokens only if two scores are as close as that; the place of one random number among cumulated probabilities
would move with the rounding of all tokens before it.

All is computed in float64, so that rounding here decides next to nothing, and by calls of torch that never wait for the
host.
"""

from __future__ import annotations

from typing import Final

import torch

from helixctl.spec import SamplingSpec
from helixctl_runtime.kernels.basic import Step
from helixctl_runtime.splitmix64 import shift, words

_BITS: Final = 52  # of a random number, so that half a step more than all of them is exact in float64
_NOTHING: Final = float("-inf")


def sample(
    sampling: SamplingSpec, logits: torch.Tensor, numbers: tuple[torch.Tensor, ...], first: int, out: torch.Tensor
) -> Step:
    """The next token of every sequence, as docs/formats.md defines it.

    Args:
        sampling: temperature, top_k and top_p.
        logits: (batch, vocab), the whole vocabulary.
        numbers: seed, length and count of every sequence, each int64 (batch).
        first: the place of the first sequence in the whole batch.
        out: int64 (batch).
    """
    seed, length, count = numbers
    vocab, device = logits.shape[1], logits.device
    sequence = torch.arange(first, first + logits.shape[0], device=device)

    def run() -> None:
        scores, tokens = scored(sampling, logits, seed, sequence, length + count)
        best = scores.amax(1, keepdim=True)
        torch.amin(tokens.masked_fill(scores != best, vocab), 1, out=out)

    return run


def scored(
    sampling: SamplingSpec, logits: torch.Tensor, seed: torch.Tensor, sequence: torch.Tensor, position: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores of the tokens that may be drawn, and these: float64 and int64 (batch, at most vocab).

    Args:
        sampling: temperature, top_k and top_p.
        logits: (batch, vocab), the whole vocabulary.
        seed: of every sequence, int64 (batch).
        sequence: its place in the whole batch, int64 (batch).
        position: the next token's place in it, int64 (batch).
    """
    vocab = logits.shape[1]
    if sampling.leaves_out(vocab):
        scores, tokens = kept(sampling, logits)
    else:
        scores, tokens = scaled(sampling, logits), torch.arange(vocab, device=logits.device).expand_as(logits)
    state = words(words(seed, sequence), position)
    return scores.sub_(uniform(state.unsqueeze(1), tokens).log_().neg_().log_()), tokens


def kept(sampling: SamplingSpec, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scaled logits of the tokens that may be drawn, and these: twice (batch, at most vocab).

    The likeliest come first. Where top_p leaves out a token its logit is minus infinity.
    """
    ordered = torch.sort(logits, dim=1, descending=True, stable=True)
    many = min(sampling.top_k or logits.shape[1], logits.shape[1])
    values, tokens = scaled(sampling, ordered.values[:, :many]), ordered.indices[:, :many]
    if sampling.top_p < 1:
        before = torch.softmax(values, 1).cumsum_(1)[:, :-1]
        values[:, 1:].masked_fill_(before >= sampling.top_p, _NOTHING)
    return values, tokens


def scaled(sampling: SamplingSpec, logits: torch.Tensor) -> torch.Tensor:
    """Logits / temperature in float64, less the largest: whatever the temperature, that one is 0."""
    wide = logits.to(torch.float64, copy=True)
    return wide.sub_(wide.amax(1, keepdim=True)).div_(sampling.temperature)


def uniform(state: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    """Random numbers of generators in (0, 1), float64: by splitmix64, from states and numbers of one shape."""
    steps = shift(words(state, number), 64 - _BITS)
    return steps.to(torch.float64).add_(0.5).mul_(2.0**-_BITS)
