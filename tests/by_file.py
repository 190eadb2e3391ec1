"""Which test process runs which tests: those of a file go to one, the files that take longest first."""

from __future__ import annotations

from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

# Longest first; what stands at the end leaves no process without work while another still has much. Others follow by
# their number of tests. A name that is missing or out of its place costs seconds, and nothing else.
LONGEST: Final[tuple[str, ...]] = ()


class ByFile(LoadGroupScheduling):
    """Tests of one file share what they have made (fixtures, cached plans and references), and so does a group."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        self._place = {f"tests/{name}": place for place, name in enumerate(LONGEST)}

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)  # the test itself, where it has no group
        return scope.partition("::")[0] if scope == nodeid else scope

    def _assign_work_unit(self, node: WorkerController) -> None:
        last = len(LONGEST)
        first = min(self.workqueue, key=lambda file: (self._place.get(file, last), -len(self.workqueue[file])))
        self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)
