"""The loop of generation: the prompt in chunks, then one token of every sequence a step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
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

    def logits(self) -> Iterator[tuple[tuple[slice, ...], torch.Tensor]]:
        """The logits of the last step that ranks of this process have: their region in (batch, vocab), and numbers."""
        for feed in self.feeds:
            yield from feed.parts("logits")

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


Kept = Callable[[Stage, int, torch.Tensor], object]


def generate(
    prefill: Stage,
    decode: Stage,
    prompts: Prompts,
    *,
    chunk: int,
    new: int,
    ends: Collection[int] = (),
    seed: int = 0,
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
        logits: (batch, new, vocab); takes those that each token was chosen by, as far as ranks of this process have
            them.

    Returns:
        The tokens of the sequences that ranks of this process know.
    """
    kept = None if logits is None else whole_logits(logits)
    return in_turns([turns(prefill, decode, prompts, chunk=chunk, new=new, ends=ends, seed=seed, kept=kept)])[0]


def whole_logits(target: torch.Tensor) -> Kept:
    """For ``turns``: put the logits of every token into a tensor of (batch, new, vocab)."""
    return lambda stage, step, sequences: stage.keep_logits(target[:, step], sequences)


def turns(
    prefill: Stage,
    decode: Stage,
    prompts: Prompts,
    *,
    chunk: int,
    new: int,
    ends: Collection[int] = (),
    seed: int = 0,
    said: Callable[[torch.Tensor], object] | None = None,
    kept: Kept | None = None,
    meets: bool = False,
) -> Generator[None, None, Generated]:
    """Continue prompts; others may take a turn after the prefill and after every decode step.

    Args:
        prefill: the step that takes ``chunk`` tokens of every sequence.
        decode: the step that takes one.
        prompts: what to continue.
        chunk: tokens of a sequence in a step of the prefill.
        new: tokens after each prompt, at most.
        ends: tokens that end a sequence; it keeps the token.
        seed: of the random numbers, where the steps draw tokens.
        said: called after every step with its tokens, int64 (batch), -1 where a sequence has ended.
        kept: called after every step that chooses, outside its time, with the step, the number of the token, from 0,
            and the sequences that it is chosen for, bool (batch).
        meets: ranks of this process meet those of other replicas in a step: they go through all steps, although the
            sequences that they know may have ended before.

    Returns:
        The tokens of the sequences that ranks of this process know, after at most ``new`` + 1 turns.
    """
    batch, longest = prompts.ids.shape
    tokens = torch.full((batch, new), -1, dtype=torch.int64)
    token = torch.full((batch,), -1, dtype=torch.int64)
    made = torch.empty_like(token)
    for stage in (prefill, decode):
        stage.give_seeds(torch.full((batch,), signed(seed)))
    prefill_s, decode_s = 0.0, list[float]()
    for start in range(0, longest, chunk):
        moment = perf_counter()
        ids = torch.zeros(batch, chunk, dtype=torch.int64)
        part = prompts.ids[:, start : start + chunk]
        ids[:, : part.shape[1]] = part
        length, count = prompts.lengths.clamp(max=start), (prompts.lengths - start).clamp(0, chunk)
        made.fill_(-1)
        prefill(ids, length, count, made)
        chosen = (count > 0) & (length + count == prompts.lengths)
        token = torch.where(chosen, made, token)
        prefill_s += perf_counter() - moment
        if kept:
            kept(prefill, 0, chosen)
    ended = token < 0
    for step in range(new):
        yield
        moment = perf_counter()
        tokens[:, step] = token
        if said:
            said(token)
        ended = ended | torch.isin(token, torch.tensor(list(ends), dtype=torch.int64))
        if step + 1 == new or (bool(ended.all()) and not meets):
            break
        made.fill_(-1)
        decode(token.clamp(min=0).unsqueeze(1), prompts.lengths + step, (~ended).long(), made)
        token = torch.where(ended, -1, made)
        decode_s.append(perf_counter() - moment)
        if kept:
            kept(decode, step + 1, ~ended)
    return Generated(tokens, prefill_s, decode_s)


def in_turns(
    runs: Sequence[Generator[None, None, Generated]], together: Callable[[int], object] | None = None, rounds: int = 0
) -> list[Generated]:
    """Run several generations, a step of each in turn, so that the noise of the machine meets all alike.

    Args:
        runs: what ``turns`` gives.
        together: called before every turn with the number of the run.
        rounds: how often each has a turn at least, also where it is done: as often on every rank, where ranks meet in
            ``together``.
    """
    made: dict[int, Generated] = {}
    turn = 0
    while turn < rounds or len(made) < len(runs):
        for which, run in enumerate(runs):
            if together:
                together(which)
            if which in made:
                continue
            try:
                next(run)
            except StopIteration as end:
                made[which] = end.value
        turn += 1
    return [made[which] for which in range(len(runs))]
