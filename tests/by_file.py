"""Which test process runs which tests: those of a file go to one, the files that take longest first."""

from __future__ import annotations

from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

# Files and groups that take longest, by processor time, so that what is left at the end is short and no
# process waits long for another. The others follow by their number of tests. A name that is missing here, or out of its
# place, costs seconds and nothing else.
LONGEST: Final = (
    "browser",
    "tests/docs/test_commands.py",
    "tests/runtime/test_cuda_rehearsal.py",
    "tests/faults/test_faults.py",
    "tests/solve/test_search.py",
    "tests/runtime/test_run.py",
    "tests/cli/test_generate.py",
    "tests/runtime/test_interpreted_steps.py",
    "tests/attack/test_mutants.py",
    "tests/hosts/test_two_hosts.py",
    "tests/runtime/test_launchers.py",
    "tests/runtime/test_ranks.py",
    "tests/runtime/test_program.py",
    "tests/runtime/test_small_families.py",
    "tests/runtime/test_exchanges.py",
    "tests/cli/test_plan_of_generation.py",
    "tests/solve/test_sentences.py",
    "tests/solve/test_decide.py",
    "tests/runtime/test_generation.py",
    "tests/runtime/test_unusual_dags.py",
    "tests/runtime/test_interpreter.py",
    "tests/solve/test_differing.py",
    "tests/runtime/test_sparse.py",
    "tests/cli/test_validate.py",
    "tests/cli/test_outputs.py",
    "tests/runtime/test_latent.py",
    "tests/cli/test_streams.py",
    "tests/cli/test_plan_check.py",
    "tests/cli/test_ci_files.py",
)


class ByFile(LoadGroupScheduling):
    """Tests of one file share what they have made (fixtures, cached plans and references), and so does a group."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        self._place = {scope: place for place, scope in enumerate(LONGEST)}

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)  # the test itself, where it has no group
        return scope.partition("::")[0] if scope == nodeid else scope

    def _assign_work_unit(self, node: WorkerController) -> None:
        last = len(LONGEST)
        first = min(self.workqueue, key=lambda scope: (self._place.get(scope, last), -len(self.workqueue[scope])))
        self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)
