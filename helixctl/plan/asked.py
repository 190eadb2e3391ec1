"""What a plan was asked for with: the options of ``helixctl plan``, which ``--check`` gives again."""

from __future__ import annotations

from typing import Literal

from helixctl.spec.base import Spec, added


class Asked(Spec):
    """The options that decide what is planned; one that is not given is left out of a document.

    Attributes:
        sets: fields of the specs that are overridden, ``workload.batch=8``, those with options of their own too.
        layout: the axes that are fixed, and ``partitions``, the product of groups and slices.
        plain: every other axis keeps its default.
        objective: what is best.
        max_ttft_s, max_tpot_s: limits of a generation.
    """

    sets: tuple[str, ...] = added(())
    layout: dict[str, int | str] = added({})
    plain: bool = added(False)  # noqa: FBT003  the default of a field
    objective: Literal["throughput", "latency", "memory", "ttft", "tpot"] = added("throughput")
    max_ttft_s: float | None = added(None)
    max_tpot_s: float | None = added(None)

    def __str__(self) -> str:
        """As on the command line; empty where nothing was given."""
        texts = [f"--set {text}" for text in self.sets]
        texts += (
            [f"--layout {','.join(f'{axis}={value}' for axis, value in self.layout.items())}"] if self.layout else []
        )
        texts += ["--plain"] if self.plain else []
        texts += [f"--objective {self.objective}"] if self.objective != "throughput" else []
        limits = (("--max-ttft", self.max_ttft_s), ("--max-tpot", self.max_tpot_s))
        return " ".join([*texts, *(f"{option} {seconds}s" for option, seconds in limits if seconds is not None)])
