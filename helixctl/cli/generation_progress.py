"""How far a generation is: chunks of the prefill and decode steps that are done and left, and the time they take."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from helixctl.cli.watching import ShownLine, duration
from helixctl.units import counted

if TYPE_CHECKING:
    from helixctl_runtime.generate.schedule import Part


class GenerationWatched:
    """The position of a generation in its schedule, in words; a chunk of a prompt and a decode step differ in time."""

    def __init__(self, what: str, parts: Sequence[Part], *, may_end: bool = False, beside_text: bool = False) -> None:
        """Nothing is done yet.

        Args:
            what: the run, in words.
            parts: its schedule.
            may_end: whether sequences may end early, so that there are at most as many decode steps.
            beside_text: whether the text is printed, as it comes, where the progress is. Then no line is written
                over, and nothing is said from the first token on.
        """
        self._what, self._parts, self._may_end, self._beside_text = what, parts, may_end, beside_text
        self._line = ShownLine(live=not beside_text)
        self._silent = False
        self._last: tuple[int, int, float] | None = None  # the part, the step in it, and the moment
        self._spent: dict[str, float] = {"prefill": 0.0, "decode": 0.0}  # seconds that are known of each kind of step
        self._done = Counter[str]()  # and of how many steps

    def __call__(self, phase: str, step: int, _steps: int = 0) -> None:
        """As of ``Watch``; how many steps there are the schedule says."""
        which, done = self._place(step) if phase == "running" else (0, 0)
        if self._beside_text and (phase in {"checking", "done"} or self._has_text(which)):
            self._silent = True
        if self._silent:
            return
        if phase != "running":
            self._line.show(f"{self._what}: {phase}")
            return
        self._time(which, done)
        self._line.show(f"{self._what}: {self._text(which, done)}")

    def end(self) -> None:
        """The run is over."""
        self._line.end()

    def _place(self, step: int) -> tuple[int, int]:
        """The part that a step belongs to, and its number in there; behind the last one the end of that."""
        for which, part in enumerate(self._parts):
            if step < part.steps:
                return which, step
            step -= part.steps
        return len(self._parts) - 1, self._parts[-1].steps

    def _has_text(self, which: int) -> bool:
        """Whether the first token of the measured run is there in a part."""
        part = self._parts[which]
        return part.run == "traced" or (part.run == "measured" and part.step == "decode")

    def _time(self, which: int, done: int) -> None:
        """Add to what is known of the time of a step of each kind."""
        now = time.monotonic()
        if self._last is not None:
            before, then_done, moment = self._last
            kind = self._parts[before].step
            # Where a part has ended, the steps of the next are so few that their time is none.
            self._done[kind] += (done if before == which else self._parts[before].steps) - then_done
            self._spent[kind] += now - moment
        self._last = (which, done, now)

    def _text(self, which: int, done: int) -> str:
        part = self._parts[which]
        most = "at most " if self._may_end and (part.run, part.step) == ("measured", "decode") else ""
        unit = "chunk" if part.step == "prefill" else "step"
        name = part.step if part.run == "measured" else f"{part.run}, {part.step}"
        texts = [f"{name}, {done:,} of {most}{counted(part.steps, unit)} done, {part.steps - done:,} left"]
        later = Counter[str]()
        for its in self._parts[which + 1 :]:
            later[its.step] += its.steps
        names = {"prefill": "prefill chunk", "decode": "decode step"}
        texts += [f"then {counted(later[kind], noun)}" for kind, noun in names.items() if later[kind]]
        later[part.step] += part.steps - done
        if left := self._left(later):
            texts.append(f"{left}{' at most' if self._may_end else ''}")
        return ", ".join(texts)

    def _left(self, steps: Counter[str]) -> str:
        """The time of steps by their kind, as far as steps of a kind have been timed."""
        known = [kind for kind in steps if steps[kind] and self._done[kind]]
        if not known:
            return ""
        seconds = sum(steps[kind] * self._spent[kind] / self._done[kind] for kind in known)
        of = "" if all(kind in known for kind in steps if steps[kind]) else f" of {' and '.join(known)}"
        return f"about {duration(seconds)}{of}"


def one_stream(first: Any, second: Any) -> bool:
    """Whether two streams lead to the same place, a terminal or a file."""
    try:
        return os.path.samestat(os.fstat(first.fileno()), os.fstat(second.fileno()))
    except (OSError, ValueError, AttributeError):  # closed, or nothing that has a number
        return False
