"""How generations by several plans are printed: their figures side by side, and where their tokens part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from helixctl.cli.console import table
from helixctl.cli.measurements import different_work, what_ran
from helixctl.cli.sampling import choice
from helixctl.cli.tables import Column
from helixctl.units import counted, human_bytes, human_rate

if TYPE_CHECKING:
    from rich.console import Console

    from helixctl.dag import Dag

_FEW: Final = 4  # sequences that are named where a plan's tokens part


def print_generations(out: Console, result: dict[str, Any], dags: Sequence[Dag], device: str) -> None:
    """What plans that took turns measured, and whether they made the same tokens.

    Args:
        out: where the answer goes.
        result: the report of the comparison.
        dags: of the prefill of each plan.
        device: cpu or cuda.
    """
    reports, plan = result["methods"], dags[0].plan
    out.print(what_ran(reports[0], plan, device, layout=False))
    out.print(f"{plan.workload}; a static batch, without a queue")
    if different := different_work(dags):
        out.print(f"not the same {different}: the methods do different work")
    out.print()
    rows = table(
        Column("method", fold=4, least=16),
        ">TTFT",
        ">per output token",
        Column("p50 / p90 / p99", right=True, drop=2),
        ">tokens/s",
        Column("cache per rank", right=True, drop=3),
        Column("all ranks", right=True, drop=1),
        ">p50 against the first",
    )
    for row in result["comparison"]:
        each, cache, change = row["time_per_output_token_ms"], row["cache"], row["time_per_output_token_change"]
        rows.add_row(
            row["method"],
            f"{row['ttft_ms']:.1f} ms",
            f"{each['mean']:.3f} ms" if each else "-",
            f"{each['p50']:.3f} / {each['p90']:.3f} / {each['p99']:.3f} ms" if each else "-",
            human_rate(row["output_tokens_per_s"], 1),
            human_bytes(cache["cache_nbytes_per_rank"]),
            human_bytes(cache["cache_nbytes"]),
            "" if row is result["comparison"][0] or change is None else f"{change:+.1%}",
        )
    out.print(rows)
    out.print()
    made = counted(reports[0]["output_tokens"], "token")
    how = " | ".join(dict.fromkeys(choice(dag.plan.workload.sampling, reports[0]["seed"]) for dag in dags))
    out.print(f"{made} of {counted(reports[0]['sequences'], 'sequence')}, {how}; a step of each plan in turn")
    drawn = any(dag.plan.workload.sampling is not None for dag in dags)
    for line in _tokens(result["comparison"], reports[0]["sequences"], "scores" if drawn else "logits"):
        out.print(line)


def _tokens(rows: Sequence[dict[str, Any]], sequences: int, numbers: str) -> Iterator[str]:
    """Whether each plan made the tokens of the first; or where they part, and how near the choice was."""
    first, *others = rows
    for row in others:
        parted = row["parted"]
        if not parted:
            yield f"{row['method']}: the same tokens as {first['method']}"
            continue
        of = f"{len(parted)} of {counted(sequences, 'sequence')}"
        yield f"{row['method']}: other tokens than {first['method']} in {of}"
        for its in parted[:_FEW]:
            a, b = its["chosen"]
            near, other = (_apart(margin) for margin in its["margins"])
            yield (
                f"  sequence {its['sequence']}, token {its['token']}: {b}, not {a}; there the best two {numbers} are "
                f"{near} apart in {first['method']}, {other} in {row['method']}"
            )
        if len(parted) > _FEW:
            yield f"  and {len(parted) - _FEW} more sequences"


def _apart(margin: float | None) -> str:
    """A margin; without end where no second token may be drawn."""
    return "infinitely far" if margin is None else f"{margin:.3g}"
