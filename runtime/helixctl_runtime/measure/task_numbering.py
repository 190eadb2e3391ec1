"""One numbering for the tasks of several dags, so that one number says which task of which dag a rank is at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helixctl.dag import Dag


@dataclass(frozen=True)
class TaskNumbering:
    """The numbers of the tasks in a step that walks several dags, one after the other.

    Attributes:
        dags: the dags, in the order in which they are walked.
        names: their names in messages.
    """

    dags: Sequence[Dag]
    names: Sequence[str]

    def first(self, which: int) -> int:
        """The number of the start of a dag, before its first task; the same on all ranks."""
        return which * (1 + max(len(order) for dag in self.dags for order in dag.order))

    def name(self, rank: int, number: int) -> str:
        """The task that a rank is at, or the start of a dag.

        Args:
            rank: the rank.
            number: the number in its cell, less one.
        """
        which, begun = divmod(number + 1, self.first(1))
        if not begun:
            return f"the start ({self.names[which]})"
        task = self.dags[which].order[rank][begun - 1]
        return f"{task} ({self.names[which]})" if len(self.dags) > 1 else task
