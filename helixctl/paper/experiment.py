"""The paper's table: its models, methods and figures, and what helixctl predicts for the same on 16 H100.

Nothing is fitted to the paper's figures. Batch 1,024, one token a sequence: the reading under which its throughput and
its "TPOT" fit together (docs/paper.md).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

from helixctl.paper.between_hosts import BEST, WORST
from helixctl.paper.spec_files import Size, specs_of
from helixctl.plan import Layout, Plan
from helixctl.simulate import Forecast
from helixctl.solve import decide
from helixctl.solve.candidate import simulated
from helixctl.solve.problem import Specs
from helixctl.spec.load import load_specs

Way = Literal["base", "helix"]
Axes = Mapping[str, int | str]


class Reported(NamedTuple):
    """What the paper reports: tokens per second, and its "TPOT", synchronisation and communication a token, in ms."""

    tokens_per_s: int
    overhead_ms: float


class Method(NamedTuple):
    """A method of the paper: how its table is labelled here, and its layout without the spread of experts."""

    label: str
    axes: Axes


class Variant(NamedTuple):
    """A model of the paper as it is planned: its spec file, and ``--set`` texts. The paper leaves top-k open."""

    name: str
    sets: tuple[str, ...] = ()


# The partition of the baseline; the paper does not say how many microbatches it had.
MEGATRON: Final[Axes] = {"groups": 8, "slices": 1, "combine": "reduce", "pipeline": 2}
METHODS: Final[dict[Way, Method]] = {
    "base": Method("TP=8, PP=2", {**MEGATRON, "microbatches": 4}),
    "helix": Method("Helix 4 x 4", {"groups": 4, "slices": 4}),
}
REPORTED: Final[dict[tuple[str, Way], Reported]] = {
    ("dense", "base"): Reported(1_200_000, 0.35),
    ("dense", "helix"): Reported(1_580_000, 0.22),
    ("moe", "base"): Reported(850_000, 0.45),
    ("moe", "helix"): Reported(1_150_000, 0.30),
}
_TOP_K: Final = "feed_forward.experts.top_k"
MODELS: Final = {
    "dense": Variant("dense"),
    "MoE top-1": Variant("moe", (f"{_TOP_K}=1",)),
    "MoE top-2": Variant("moe", (f"{_TOP_K}=2",)),
}
_SPREAD: Final = 8  # the experts over as many devices of a stage
MEASURED: Final = "h100:2x8"  # the paper's cluster by name: the same figures, with rates measured inside a host


@dataclass(frozen=True)
class Row:
    """A layout and its prediction."""

    layout: Layout
    forecast: Forecast


class Case:
    """A model of the paper, or its small twin, with a workload."""

    def __init__(self, model: str, *sets: str, size: Size = "paper", cluster: str | None = None) -> None:
        """Load the specs.

        Args:
            model: a key of ``MODELS``.
            sets: ``--set`` texts beside those of the model.
            size: the paper's sizes on 16 H100, or a sixteenth of its widths on 16 CPU ranks.
            cluster: another cluster than that of the size, by its file or name.
        """
        variant = MODELS[model]
        self.name = variant.name
        own = specs_of(self.name, size)
        self.files = (own[0], cluster or own[1])
        self.sets = (*variant.sets, *sets)
        document, hosts = load_specs(*self.files, self.sets)
        self.specs = Specs(document.model, hosts, document.workload)

    def layout(self, axes: Axes) -> Layout:
        """A layout; a mixture's experts are spread over eight devices, where a stage has as many."""
        layout = Layout.model_validate(dict(axes))
        spread = self.name == "moe" and layout.partitions >= _SPREAD
        return Layout.model_validate({"experts": _SPREAD, **axes}) if spread else layout

    def row(self, **axes: Any) -> Row:
        """A layout and its prediction; where it does not fit, its microbatches are doubled until it does.

        Raises:
            ValueError: it does not fit, however many microbatches.
        """
        layout = self.layout(axes)
        while True:
            found = simulated(*self.specs, layout).forecast
            if found is None:
                raise TypeError  # of a legal layout there is one
            if found.memory_nbytes <= self.specs.cluster.only.device.available:
                return Row(layout, found)
            if layout.microbatches == self.specs.workload.batch:
                raise ValueError(f"{layout} does not fit, however many microbatches")
            layout = layout.model_copy(update={"microbatches": 2 * layout.microbatches})

    def best(self, **axes: Any) -> Row:
        """The best layout that the search finds with these axes fixed."""
        decision = decide(*self.specs, axes)
        return Row(decision.plan.layout, decision.forecast)

    def plan(self, way: Way) -> Plan:
        """The plan of a method."""
        return Plan.of(*self.specs, self.layout(METHODS[way].axes))

    def command(self, way: Way, output: str) -> str:
        """The ``helixctl plan`` command that writes the plan of a method, as a shell takes it."""
        layout = self.layout(METHODS[way].axes).model_dump(exclude_defaults=True)
        axes = {"slices": 1, **layout}
        groups, slices = axes.pop("groups"), axes.pop("slices")
        words = ["helixctl", "plan", *self.files]
        for text in self.sets:
            words += ["--set", text]
        words += ["--plain", "--groups", str(groups), "--slices", str(slices)]
        if axes:
            words += ["--layout", ",".join(f"{axis}={value}" for axis, value in axes.items())]
        return shlex.join([*words, "-q", "-o", output])


@dataclass(frozen=True)
class Comparison:
    """The two methods for one model: what the paper reports, and what is predicted here.

    Attributes:
        model: a key of ``MODELS``.
        case: its specs.
        rows: the prediction of each method.
    """

    model: str
    case: Case
    rows: Mapping[Way, Row]

    @cached_property
    def ends(self) -> tuple[Mapping[Way, Row], Mapping[Way, Row]]:
        """The same predictions at the best and at the worst that is published of collectives between hosts."""
        link = self.case.specs.cluster.only.between_hosts
        if link is None:
            raise TypeError  # the paper has two hosts
        best, worst = (_rows(Case(self.model, *end.sets(link), cluster=self.case.files[1])) for end in (BEST, WORST))
        return best, worst

    @property
    def gains(self) -> tuple[float, float]:
        """The gain at both ends, the smaller first."""
        least, most = sorted(map(_gain, self.ends))
        return least, most

    def reported(self, way: Way) -> Reported:
        """What the paper reports of a method."""
        return REPORTED[self.case.name, way]

    @property
    def reported_gain(self) -> float:
        """By which part the paper's method has more tokens per second than its baseline, as reported."""
        return self.reported("helix").tokens_per_s / self.reported("base").tokens_per_s - 1

    @property
    def gain(self) -> float:
        """The same as predicted."""
        return _gain(self.rows)


def comparisons(cluster: str | None = None) -> Iterator[Comparison]:
    """The paper's table, model by model, at one token a sequence.

    Args:
        cluster: instead of the paper's file, such as ``MEASURED``.
    """
    for model in MODELS:
        case = Case(model, cluster=cluster)
        yield Comparison(model, case, _rows(case))


def _rows(case: Case) -> Mapping[Way, Row]:
    return {way: case.row(**method.axes) for way, method in METHODS.items()}


def _gain(rows: Mapping[Way, Row]) -> float:
    return rows["helix"].forecast.tokens_per_s / rows["base"].forecast.tokens_per_s - 1
