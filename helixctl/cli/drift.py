"""``plan --check``: is the plan on disk what the specs give now?"""

from __future__ import annotations

from typing import Final

from helixctl.cli.console import say
from helixctl.documents import read_document, read_plan
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Plan
from helixctl.plan.compare import Difference, differences

_MOST_LINES: Final = 12


def plan_on_disk(path: str) -> Plan:
    """The plan to hold against what the specs give; not proved, since any change in it is what we look for.

    Raises:
        HelixError: it cannot be read, is malformed, or (HX110) is no plan.
    """
    source = read_document(path)
    if source.kind != "plan":
        hint = "give the file that helixctl plan -o wrote"
        raise HelixError(Diagnostic("HX110", f"is a {source.kind}; --check takes a plan", hint, path))
    return read_plan(source, request=True)


def check_drift(path: str, old: Plan, new: Plan, *artifacts: str | None, quiet: bool) -> None:
    """Say in one line that the plans are equal; or print what has changed from the old one to the new, and refuse it.

    Args:
        path: the file of the old plan.
        old: what it holds.
        new: what the specs give.
        artifacts: where the command writes to; an answer moves from a standard output that is taken.
        quiet: print only errors.

    Raises:
        HelixError: HX204.
    """
    found = differences(old, new)
    if not found:
        if not quiet:
            say([f"{path}: is what the specs give now, layout {old.layout}, {old.digest[:19]}"], *artifacts)
        return
    width = max(len(_name(d)) for d in found[:_MOST_LINES])
    lines = []
    for difference in found[:_MOST_LINES]:
        before, after = difference.texts
        lines.append(f"  {_name(difference):{width}}  {before} -> {after}")
    if len(found) > _MOST_LINES:
        lines.append(f"  and {len(found) - _MOST_LINES} more")
    say(lines, *artifacts)
    fields = "1 field differs" if len(found) == 1 else f"{len(found)} fields differ"
    message = f"is not what the specs give now: {fields}, old -> new"
    raise HelixError(Diagnostic("HX204", message, _hint({d.part for d in found}), path))


def _name(difference: Difference) -> str:
    return f"{difference.part}.{difference.field}"


def _hint(parts: set[str]) -> str:
    anew = "write it anew with -o in place of --check"
    if parts == {"layout"}:
        options = "--groups, --slices, --layout, --plain, --objective"
        return f"the specs are the same: give the options with which it was planned ({options}), or {anew}"
    if parts == {"digests"}:
        return f"it was edited: {anew}"
    options = "--batch, --seq-len, --set" if "workload" in parts else "--set"
    return f"{anew}, unless it was planned with other options ({options})"
