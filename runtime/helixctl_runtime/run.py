"""The runtime's entry point: run proved dags on ranks of this machine, or as one rank of an outer launcher."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from helixctl.dag import Dag
from helixctl.errors import fail
from helixctl_runtime.execute import Options, Work
from helixctl_runtime.generate import Prompts, text
from helixctl_runtime.generate.chat import chats
from helixctl_runtime.measure.task_numbering import TaskNumbering
from helixctl_runtime.ranks import Rank, run_ranks
from helixctl_runtime.ranks.launchers.environment import detect
from helixctl_runtime.report.comparison import comparison
from helixctl_runtime.report.generations import Generations, comparison_of_generations
from helixctl_runtime.report.result import Result
from helixctl_runtime.session import Asked, Generation
from helixctl_runtime.tensors.inputs import read_ids
from helixctl_runtime.tensors.seeded import seeded_numbers
from helixctl_runtime.tensors.tensor_source import TensorSource

__all__ = [
    "Asked",
    "Options",
    "Prompts",
    "Result",
    "chats",
    "comparison",
    "comparison_of_generations",
    "generate",
    "prints_output",
    "run",
    "seeded_prompts",
    "starts_ranks",
    "stored_prompts",
    "text",
]


def prints_output() -> bool:
    """Whether this process prints the output of the run: it starts the ranks, or is rank 0 of an outer launcher."""
    launched = detect(os.environ)
    return launched is None or launched.rank == 0


def starts_ranks() -> bool:
    """Whether this process starts the ranks, and so can see their progress."""
    return detect(os.environ) is None


def run(
    dags: Sequence[Dag],
    names: Sequence[str],
    options: Options,
    *,
    device: Literal["cpu", "cuda"],
    timeout: float,
    log_dir: Path | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[Result] | None:
    """Run dags side by side: on the same ranks, measured in turn, step by step.

    Args:
        dags: one or more dags, for the same number of ranks.
        names: their names in messages.
        options: the options, the same for all.
        device: one CUDA device per rank, or the CPU for all.
        timeout: seconds that a rank waits for another.
        log_dir: the folder for the logs of the ranks.
        on_progress: ``on_progress(phase, step, steps)`` is called a few times a second while ranks of this machine run.

    Returns:
        The result of each dag, or None if another process is rank 0.

    Raises:
        HelixError: HX5xx, with the rank, the task and the log if a rank failed.
    """
    prefix, notes = _check_files(dags, options)
    options = replace(options, weights_prefix=prefix)
    numbering = TaskNumbering(tuple(dags), tuple(names))
    work = Work(numbering, options, tuple(dag.digest for dag in dags))
    found = _on_ranks(work, numbering, device, timeout, log_dir, on_progress)
    for result in found or ():
        result.report["input"] = options.inputs and {"path": options.inputs, "notes": notes}
    return found


def generate(
    plans: Sequence[Sequence[Dag]],
    names: Sequence[str],
    asked: Asked,
    *,
    device: Literal["cpu", "cuda"],
    timeout: float,
    log_dir: Path | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Generations | None:
    """Continue prompts by the steps of a plan; or by those of several on the same ranks, a step of each in turn.

    Args:
        plans: of each plan the dags of the prefill and of the decode step.
        names: their names in messages, where they are several.
        asked: the prompts, and what to do with them.
        device: one CUDA device per rank, or the CPU for all.
        timeout: seconds that a rank waits for another.
        log_dir: where the logs of the ranks are kept.
        on_progress: as of ``run``.

    Returns:
        The report of each plan, with the tokens; None where another process is rank 0.

    Raises:
        HelixError: HX5xx, as ``run``.
    """
    options = Options(seed=asked.seed, weights=asked.weights, weights_prefix=asked.weights_prefix)
    prefix, _ = _check_files([dags[0] for dags in plans], options)
    dags = tuple(dag for its in plans for dag in its)
    steps = [
        (f"{name}, " if len(plans) > 1 else "") + dag.step
        for name, its in zip(names, plans, strict=True)
        for dag in its
    ]
    numbering = TaskNumbering(dags, tuple(steps))
    work = Generation(numbering, replace(asked, weights_prefix=prefix), tuple(dag.digest for dag in dags))
    return _on_ranks(work, numbering, device, timeout, log_dir, on_progress)


def _on_ranks(
    work: Callable[[Rank], object],
    numbering: TaskNumbering,
    device: Literal["cpu", "cuda"],
    timeout: float,
    log_dir: Path | None,
    on_progress: Callable[[str, int, int], None] | None,
) -> Any:
    """What rank 0 makes of the work on all ranks of the dags; None if another process is rank 0."""
    results = run_ranks(
        work,
        world_size=numbering.dags[0].plan.layout.devices,
        device=device,
        timeout=timeout,
        task_name=numbering.name,
        log_dir=log_dir,
        on_progress=on_progress and (lambda at: on_progress(at.phase.name.lower(), at.step, at.steps)),
    )
    return results[0]


def seeded_prompts(dag: Dag, seed: int) -> Prompts:
    """Prompts of the plan's length, of seeded token ids."""
    work = dag.plan.workload
    shape = (work.batch, work.seq_len)
    ids = replace(dag.tensor["input_ids"], shape=shape)
    made = seeded_numbers(ids, ids.full, seed, torch.int64, torch.device("cpu"))
    return Prompts(made, torch.full((work.batch,), work.seq_len))


def stored_prompts(path: str, dag: Dag) -> tuple[Prompts, list[str]]:
    """The prompts of a safetensors file: ``input_ids`` (batch, tokens), and their lengths by ``attention_mask``.

    Args:
        path: of the file.
        dag: of the prefill of a model with a vocabulary.

    Returns:
        The prompts, and notes on the tensors beside them.

    Raises:
        HelixError: HX507, it has no such tensor, or one that does not fit the plan.
    """
    vocabulary = dag.plan.model.vocabulary
    ids, lengths, notes = read_ids(path, vocabulary.size if vocabulary else 0)
    return Prompts(ids, lengths), notes


def _check_files(dags: Sequence[Dag], options: Options) -> tuple[str | None, list[str]]:
    """Check the weight and input files; the prefix of the weights, and notes on the input.

    Raises:
        HelixError: HX507, they do not hold what the dags need.
    """
    found: set[str | None] = set()
    with closing(TensorSource(options.seed, options.weights, options.inputs, options.weights_prefix)) as numbers:
        for dag in dags:
            numbers.check(dag, rows=starts_ranks())
            found.add(numbers.prefix)
    if len(found) > 1:
        which = " and ".join(sorted(repr(prefix) for prefix in found))
        raise fail("HX507", f"the plans are of different models in {options.weights}: {which}", "run each alone")
    return found.pop(), numbers.notes
