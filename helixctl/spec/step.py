"""Step: the work of one dag. A pass without a cache is one step; generation has a prefill and a decode step."""

from __future__ import annotations

from typing import Literal

from helixctl.records import record
from helixctl.spec.routing import EVEN
from helixctl.spec.sampling import SamplingSpec

StepName = Literal["pass", "prefill", "decode"]


@record
class Step:
    """``batch`` sequences of ``seq_len`` new tokens each, behind what a KV cache holds of them.

    Attributes:
        name: which step of a plan it is.
        batch, seq_len: sequences, and new tokens of each.
        logits: the tokens whose logits are made: all, or the last of each sequence.
        cached: tokens of a sequence in the cache before the step, as predictions take them (the numbers of a run are
            data); None: the step has no cache.
        positions: tokens of a sequence for which the cache has room.
        lanes: shares in which the positions are dealt, in turns of ``block`` positions.
        block: positions that lie in one lane before the next lane has its turn.
        vocabulary_shares: shares of the vocabulary, each of which is searched for the best next token.
        sampling: how the next token is drawn; None: it is the best.
        by_rows: whether slices, each of which holds a lane of the cache, share query rows, over the positions of all
            lanes; else each attends over its lane.
        cache_dtype: what the cache is stored in; None: the model's dtype.
        expanded: whether latent attention over the cache has keys and values of every head (else it is absorbed).
        routing: how evenly tokens go to experts, as predictions take it and seeded routers choose.
    """

    name: StepName
    batch: int
    seq_len: int
    logits: Literal["all", "last"] = "all"
    cached: int | None = None
    positions: int = 0
    lanes: int = 1
    block: int = 1
    vocabulary_shares: int = 1
    sampling: SamplingSpec | None = None
    by_rows: bool = False
    expanded: bool = False
    cache_dtype: Literal["float8"] | None = None
    routing: str = EVEN

    @property
    def attends_to_lanes(self) -> bool:
        """Whether attention is over each lane of the cache alone, and merged."""
        return self.lanes > 1 and not self.by_rows

    @property
    def room(self) -> int:
        """Positions of a sequence that the cache has memory for: as many blocks of every lane as all tokens need."""
        turn = self.lanes * self.block
        return -(-self.positions // turn) * turn

    @property
    def tokens(self) -> int:
        """New tokens of all sequences."""
        return self.batch * self.seq_len
