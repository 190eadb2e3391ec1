"""Places of several dags in one count, so that one number tells which task of which dag a rank is at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helixctl.dag import Dag


@dataclass(frozen=True)
class Places:
    """Where each dag's tasks lie in the count of a step that walks one dag after the other.

    Attributes:
        names: of the dags, in messages.
    """

    dags: Sequence[Dag]
    names: Sequence[str]

    def first(self, which: int) -> int:
        """The count at the start of a dag, before its first task; the same on all ranks."""
        return which * (1 + max(len(order) for dag in self.dags for order in dag.order))

    def name(self, rank: int, place: int) -> str:
        """What a rank does that has counted ``place + 1``: a task, or the start of a dag."""
        which, begun = divmod(place + 1, self.first(1))
        if not begun:
            return f"the start ({self.names[which]})"
        task = self.dags[which].order[rank][begun - 1]
        return f"{task} ({self.names[which]})" if len(self.dags) > 1 else task
