"""What is known of a program that runs or trains models: which layouts it can run, and how it is told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from helixctl.plan import Layout, Plan
from helixctl.records import record
from helixctl.solve.problem import Specs
from helixctl.spec import ClusterSpec


@record
class Rule:
    """Something that an engine needs of a layout.

    Attributes:
        needs: what it is, in a few words; docs/export.md lists them.
        source: the file and the function of the engine that need it.
        unmet: what is needed and not there, as it follows "vLLM needs"; None where nothing is missing.
    """

    needs: str
    source: str
    unmet: Callable[[Layout, Specs], str | None]


@record
class Engine:
    """A program that runs or trains models.

    Attributes:
        name: as its people write it.
        version: of the sources that rules and flags were read from.
        flags: the files of the engine that declare its flags, or where else they are described.
        rules: what it needs of a layout.
        ways: axes of the layout that the engine has one value for, whatever the plan has.
        write: the text that deploys a plan; the second argument is the model that the engine shall load.
    """

    name: str
    version: str
    flags: str
    rules: tuple[Rule, ...]
    ways: Mapping[str, str | int]
    write: Callable[[Plan, str], str]

    def unmet(self, layout: Layout, specs: Specs) -> tuple[str, ...]:
        """What the engine needs and the layout does not have, each once; nothing where the engine can run it.

        None of them is told how hosts differ: they take all devices to be equal.
        """
        if specs.cluster.differs:
            return (equal_hosts(specs.cluster),)
        found = (rule.unmet(layout, specs) for rule in self.rules)
        return tuple(dict.fromkeys(text for text in found if text))

    def as_run(self, layout: Layout) -> Layout:
        """The layout as the engine runs it: axes that it decides for itself have its own value."""
        ways = dict(self.ways)
        if layout.partitions == 1:  # nothing is gathered or summed
            ways.pop("combine", None)
        return layout.model_copy(update=ways)


def equal_hosts(cluster: ClusterSpec) -> str:
    """What is needed and not there, where hosts differ."""
    return f"equal hosts: those of {cluster.name} differ, {cluster.devices_text}"


def specs_of(plan: Plan) -> Specs:
    """Model, cluster and workload of a plan."""
    return Specs(plan.model, plan.cluster, plan.workload)
