"""The loop of generation: the prompt in chunks, then one token of every sequence a step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

from helixctl.dag.function import COUNT, LENGTH, SEED, TOKEN
from helixctl_runtime.generate.feed import Feed
from helixctl_runtime.splitmix64 import signed


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is to be continued.

    Attributes:
        ids: int64 (batch, longest); what stands behind a sequence's length has no effect.
        lengths: int64 (batch), each at least 1.
    """

    ids: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True, slots=True)
class Generated:
    """What came of it.

    Attributes:
        tokens: int64 (batch, steps), the tokens after each prompt; behind the token that ends a sequence, and of
            sequences of other ranks, -1.
        prefill_s: seconds until every sequence had its first token: the steps of the prefill and the choice.
        decode_s: seconds of each step after it.
    """

    tokens: torch.Tensor
    prefill_s: float
    decode_s: list[float]


@dataclass(frozen=True, slots=True)
class Stage:
    """One kind of step: the feeds of the ranks in this process, and the call that walks a step of all of them."""

    feeds: Sequence[Feed]
    walk: Callable[[], object]

    def __call__(self, ids: torch.Tensor, length: torch.Tensor, count: torch.Tensor, token: torch.Tensor) -> None:
        """Run a step over new tokens; the next tokens of the sequences that ranks of this process know go to token."""
        for feed in self.feeds:
            feed.put("input_ids", ids)
            feed.put(LENGTH, length)
            feed.put(COUNT, count)
        self.walk()
        for feed in self.feeds:
            feed.take(TOKEN, token)

    def give_seeds(self, seeds: torch.Tensor) -> None:
        """Give the ranks that draw tokens the seed of every sequence, int64 (batch), for all steps that follow."""
        for feed in self.feeds:
            feed.put(SEED, seeds)

    def keep_logits(self, target: torch.Tensor, sequences: torch.Tensor) -> None:
        """Put the logits of the last step into (batch, vocab), for some sequences: bool (batch)."""
        held = target.clone()
        for feed in self.feeds:
            feed.take("logits", held)
        target[sequences] = held[sequences]


def generate(
    prefill: Stage,
    decode: Stage,
    prompts: Prompts,
    *,
    chunk: int,
    new: int,
    ends: Collection[int] = (),
    seed: int = 0,
    said: Callable[[torch.Tensor], object] | None = None,
    logits: torch.Tensor | None = None,
) -> Generated:
    """Continue prompts.

    Args:
        prefill: the step that takes ``chunk`` tokens of every sequence.
        decode: the step that takes one.
        prompts: what to continue.
        chunk: tokens of a sequence in a step of the prefill.
        new: tokens after each prompt, at most.
        ends: tokens that end a sequence; it keeps the token.
        seed: of the random numbers, where the steps draw tokens.
        said: called after every step with its tokens, int64 (batch), -1 where a sequence has ended.
        logits: (batch, new, vocab); takes those that each token was chosen by, as far as ranks of this process have
            them.

    Returns:
        The tokens of the sequences that ranks of this process know.
    """
    batch, longest = prompts.ids.shape
    tokens = torch.full((batch, new), -1, dtype=torch.int64)
    token = torch.full((batch,), -1, dtype=torch.int64)
    made = torch.empty_like(token)
    for stage in (prefill, decode):
        stage.give_seeds(torch.full((batch,), signed(seed)))
    begin = perf_counter()
    for start in range(0, longest, chunk):
        ids = torch.zeros(batch, chunk, dtype=torch.int64)
        part = prompts.ids[:, start : start + chunk]
        ids[:, : part.shape[1]] = part
        length, count = prompts.lengths.clamp(max=start), (prompts.lengths - start).clamp(0, chunk)
        made.fill_(-1)
        prefill(ids, length, count, made)
        chosen = (count > 0) & (length + count == prompts.lengths)
        token = torch.where(chosen, made, token)
        if logits is not None:
            prefill.keep_logits(logits[:, 0], chosen)
    decode_s, ended = list[float](), token < 0
    moment = perf_counter()
    prefill_s = moment - begin
    for step in range(new):
        tokens[:, step] = token
        if said:
            said(token)
        ended = ended | torch.isin(token, torch.tensor(list(ends), dtype=torch.int64))
        if step + 1 == new or bool(ended.all()):
            break
        made.fill_(-1)
        decode(token.clamp(min=0).unsqueeze(1), prompts.lengths + step, (~ended).long(), made)
        token = torch.where(ended, -1, made)
        if logits is not None:
            decode.keep_logits(logits[:, step + 1], ~ended)
        before, moment = moment, perf_counter()
        decode_s.append(moment - before)
    return Generated(tokens, prefill_s, decode_s)
