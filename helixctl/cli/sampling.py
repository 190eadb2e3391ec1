"""How tokens are chosen, as the command line says it: options of ``helixctl plan`` and ``helixctl run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from helixctl.dag import Dag
from helixctl.errors import fail
from helixctl.plan import Plan
from helixctl.records import record
from helixctl.spec import SamplingSpec

F = TypeVar("F", bound=Callable[..., Any])

_HOTTEST = 2**60  # it bounds the spec's numbers as well; no help names it
_OF_TEMPERATURE = "Of a generation: draw tokens, from the softmax of logits / T. 0: take the likeliest (default)."
_TOP_K = "Draw among the K likeliest tokens; 0: among all."
_TOP_P = "Draw among the fewest tokens whose probability together is P or more."
_PLAN = "plan with --input-len and --output-len, and run the plan"


def sampling_options(command: F) -> F:
    """Add ``--temperature``, ``--top-k`` and ``--top-p``; the command takes them as ``temperature``, and so on."""
    for option in (
        click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), metavar="P", help=_TOP_P),
        click.option("--top-k", type=click.IntRange(min=0), metavar="K", help=_TOP_K),
        click.option("--temperature", type=click.FloatRange(min=0), metavar="T", help=_OF_TEMPERATURE),
    ):
        command = option(command)
    return command


@record
class Drawing:
    """What the options say; None where one is not given."""

    temperature: float | None
    top_k: int | None
    top_p: float | None

    def __post_init__(self) -> None:
        """Refuse numbers that are none.

        Raises:
            click.BadParameter: NaN, which is in no range and yet passes for one; a temperature beyond all.
        """
        if self.temperature is not None and self.temperature > _HOTTEST:
            raise click.BadParameter(f"{self.temperature:g} is above 2^60", param_hint="--temperature")
        for option, number in (("--temperature", self.temperature), ("--top-p", self.top_p)):
            if number is not None and number != number:  # noqa: PLR0124  NaN
                raise click.BadParameter("not a number", param_hint=option)

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return (self.temperature, self.top_k, self.top_p) != (None, None, None)

    def over(self, before: SamplingSpec | None) -> SamplingSpec | None:
        """How tokens are chosen with these options in the place of what was said before."""
        if not self.given:
            return before
        if self.temperature == 0:
            return None
        start = before or SamplingSpec()
        return SamplingSpec(
            temperature=start.temperature if self.temperature is None else self.temperature,
            top_k=start.top_k if self.top_k is None else self.top_k or None,
            top_p=start.top_p if self.top_p is None else self.top_p,
        )

    @property
    def sets(self) -> list[str]:
        """The same as fields of a spec, for ``--set``."""
        if self.temperature == 0:
            return ["workload.sampling=null"]
        given = {"temperature": self.temperature, "top_k": self.top_k or None, "top_p": self.top_p}
        found = [f"workload.sampling.{name}={value}" for name, value in given.items() if value is not None]
        return [*found, *(["workload.sampling.top_k=null"] if self.top_k == 0 else [])]


def redrawn(planned: Plan | Dag, document: str, drawing: Drawing) -> Plan | Dag:
    """A plan whose tokens are chosen as the options say, to be lowered and proved so.

    Args:
        planned: what was read.
        document: its path.
        drawing: the options.

    Raises:
        HelixError: HX509, there are options, and no tokens to choose.
    """
    if not drawing.given:
        return planned
    if isinstance(planned, Dag) or planned.workload.output_len is None:
        message = f"{document} is {'a dag' if isinstance(planned, Dag) else 'of one pass without a cache'}"
        raise fail("HX509", f"{message}: --temperature, --top-k and --top-p are of a plan that generates", _PLAN)
    chosen = drawing.over(planned.workload.sampling)
    workload = planned.workload.model_copy(update={"sampling": chosen})
    return Plan.of(planned.model, planned.cluster, workload, planned.layout)


def replaced(read: Plan | Dag, run: Plan | Dag) -> str | None:
    """How a plan's file says that tokens are chosen, where the options say otherwise."""
    return choice(read.workload.sampling) if isinstance(read, Plan) and read != run else None


def choice(sampling: SamplingSpec | None, seed: int | None = None) -> str:
    """How tokens are chosen: ``greedy``, or ``drawn: temperature 0.7, top_p 0.9, seed 0``, of a run with its seed."""
    if sampling is None:
        return "greedy"
    return f"drawn: {sampling}" + ("" if seed is None else f", seed {seed}")
