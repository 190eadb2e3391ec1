"""Where the ranks of a layout exchange, in words, where links inside hosts differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from helixctl.cost.links import in_words, link_names, widest_link
from helixctl.plan import Layout
from helixctl.solve.families import Layouts, every
from helixctl.solve.objective import Key
from helixctl.spec import ClusterSpec


def where_it_exchanges(layout: Layout, cluster: ClusterSpec) -> str:
    """``slices exchange inside a pair, groups across pairs``; empty where links are alike, or nothing is exchanged."""
    names = link_names(cluster)
    if not names:
        return ""
    found: dict[str, list[str]] = {}
    for axis, sets in _exchanges(layout):
        widest = max((widest_link(ranks, cluster) for ranks in sets), key=names.index)
        found.setdefault(in_words(widest, cluster), []).append(axis)
    parts = [f"{' and '.join(axes)} {where}" for where, axes in found.items()]
    if not parts:
        return ""
    first, space, rest = parts[0].partition(f" {next(iter(found))}")
    return ", ".join([f"{first} exchange{space}{rest}", *parts[1:]])


def other_orders(layout: Layout, layouts: Iterable[tuple[Key, Layouts]]) -> list[Layout]:
    """The layouts that have all axes of one but the placement, the simplest first."""
    axes = layout.model_dump(exclude={"placement"})
    same = (x for _, x in layouts if x.mesh == layout.mesh)
    return [x for x in every(same) if x != layout and x.model_dump(exclude={"placement"}) == axes]


def _exchanges(layout: Layout) -> Iterator[tuple[str, list[Sequence[int]]]]:
    """The axes whose ranks exchange, and all sets of ranks that do along each, the most frequent first."""
    teams = [(stage, replica) for stage in range(layout.pipeline) for replica in range(layout.data)]
    if layout.slices > 1:
        yield "slices", [layout.ranks_of_group(group, *at) for at in teams for group in range(layout.groups)]
    if layout.groups > 1:
        yield "groups", [layout.ranks_of_slice(slice_, *at) for at in teams for slice_ in range(layout.slices)]
    if layout.expert_data > 1:
        yield (
            "replicas",
            [[layout.rank(0, 0, stage, one) for one in layout.sharing(replica)] for stage, replica in teams],
        )
    if layout.pipeline > 1:
        yield (
            "stages",
            [
                [layout.rank(0, 0, stage, replica), layout.rank(0, 0, stage + 1, replica)]
                for stage, replica in teams
                if stage + 1 < layout.pipeline
            ],
        )
