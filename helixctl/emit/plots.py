"""The small plots of a page: memory of a device, time by level, and what a device receives. Bars, drawn as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from helixctl.emit.svg import COLOURS, escape
from helixctl.emit.text_width import text_width
from helixctl.emit.views import Figures, LevelTime, Memory
from helixctl.records import record
from helixctl.units import human_bytes, human_seconds

_LABEL: Final = 118  # the room for the names of the rows, in pixels
_LENGTH: Final = 250  # of the longest bar
_ROW: Final = 22
_BAR: Final = 12
_FONT: Final = 11
_FEWEST: Final = 0.0005
_FEW: Final = 0.095  # a share below that is said with a decimal


@record
class _Bar:
    """A row of a plot: its name, its parts (class, amount, what it is) one behind the other, and the text behind it."""

    name: str
    parts: tuple[tuple[str, float, str], ...]
    text: str


def plots(figures: Figures) -> str:
    """The plots as HTML."""
    made = [_plot("Memory of the fullest device", _memory(figures.memory), ())]
    step = f"Step: {human_seconds(figures.step_s)} predicted"
    if figures.measured_s is not None:
        step += f", {human_seconds(figures.measured_s)} measured"
    legend = (("pale", "computes"), ("strong", "waits for communication"))
    made.append(_plot(f"{step}. Time by level", list(_times(figures)), legend))
    legend = (("inside", "inside a host"), ("across", "between hosts"))
    made.append(_plot("Received by one device in a step", list(_traffic(figures)), legend))
    return "".join(made)


def _memory(memory: Memory) -> list[_Bar]:
    rows = (
        ("weights", memory.weights),
        ("KV cache", memory.cache),
        ("arenas", memory.arenas),
        ("reserve", memory.reserve),
        ("free", memory.free),
    )
    every = sum(nbytes for _, nbytes in rows)
    shown = [(name, nbytes) for name, nbytes in rows if nbytes]
    return [
        _Bar(
            name, ((f"memory {name.split()[-1]}", nbytes, name),), f"{human_bytes(nbytes)}, {_percent(nbytes / every)}"
        )
        for name, nbytes in shown
    ]


def _percent(share: float) -> str:
    if share < _FEWEST:
        return "under 0.1%"
    return f"{share:.1%}" if share < _FEW else f"{share:.0%}"


def _times(figures: Figures) -> Iterator[_Bar]:
    for level in COLOURS:
        for what, times in (("", figures.predicted), ("measured", figures.measured)):
            if parts := _parts(level, times):
                text = human_seconds(sum(seconds for _, seconds, _ in parts))
                yield _Bar(what or level, tuple(parts), text)


def _parts(level: str, times: Sequence[LevelTime]) -> list[tuple[str, float, str]]:
    """The computation of a level, then its communication."""
    found = []
    for lane, words in (("compute", "computes"), ("communication", "waits for communication")):
        if seconds := sum(time.seconds for time in times if (time.level, time.lane) == (level, lane)):
            found.append((f"{level} {lane}", seconds, f"{level} {words}"))
    return found


def _traffic(figures: Figures) -> Iterator[_Bar]:
    for one in figures.traffic:
        parts = (("inside", one.inside_nbytes, "inside a host"), ("across", one.between_nbytes, "between hosts"))
        its = tuple((f"traffic {kind}", float(nbytes), words) for kind, nbytes, words in parts if nbytes)
        yield _Bar(one.level, its, " + ".join(human_bytes(nbytes) for _, nbytes, _ in its))


def _plot(title: str, bars: Sequence[_Bar], legend: Sequence[tuple[str, str]]) -> str:
    if not bars:
        return f"<figure><figcaption>{escape(title)}</figcaption><p>Nothing.</p></figure>"
    longest = max(sum(amount for _, amount, _ in bar.parts) for bar in bars) or 1.0
    after = max(text_width(bar.text, _FONT) for bar in bars)
    width, height = _LABEL + _LENGTH + 8 + after, _ROW * len(bars)
    rows = "".join(_row(bar, i * _ROW, longest) for i, bar in enumerate(bars))
    keys = "".join(f'<li><span class="swatch {kind}"></span>{words}</li>' for kind, words in legend)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg class="plot" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{rows}</svg>'
        + (f'<ul class="legend">{keys}</ul>' if keys else "")
        + "</figure>"
    )


def _row(bar: _Bar, y: int, longest: float) -> str:
    middle = y + _ROW // 2
    classes = "end note" if bar.name == "measured" else "end"
    parts = [f'<text class="{classes}" x="{_LABEL - 8}" y="{middle + 4}">{escape(bar.name)}</text>']
    x = float(_LABEL)
    for kind, amount, words in bar.parts:
        width = max(1.0, amount / longest * _LENGTH)
        parts.append(
            f'<rect class="part {escape(kind)}" x="{x:.1f}" y="{middle - _BAR // 2}" width="{width:.1f}" '
            f'height="{_BAR}"><title>{escape(words)}</title></rect>'
        )
        x += width
    parts.append(f'<text x="{x + 6:.1f}" y="{middle + 4}">{escape(bar.text)}</text>')
    return f"<g>{''.join(parts)}</g>"
