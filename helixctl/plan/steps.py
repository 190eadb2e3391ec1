"""The steps of a plan: what each dag that it is lowered to works on."""

from __future__ import annotations

from helixctl.plan.layout import Layout, chunk
from helixctl.spec import Step, StepName, WorkloadSpec


def steps_of(workload: WorkloadSpec) -> tuple[StepName, ...]:
    """The names of a plan's steps, in the order in which they run."""
    return ("pass",) if workload.output_len is None else ("prefill", "decode")


def new_tokens(workload: WorkloadSpec, layout: Layout, name: StepName | None = None) -> int:
    """Tokens of a sequence in a step, as ``step_of`` has them, without the rest of it.

    Args:
        workload: what the plan is for.
        layout: gives the sequences of a replica, which bound the tokens of a prefill.
        name: which step; by default the first.
    """
    if workload.output_len is None:
        return workload.seq_len
    return 1 if name == "decode" else chunk(workload, layout)


def step_of(workload: WorkloadSpec, layout: Layout, name: StepName | None = None) -> Step:
    """One step of a plan.

    Args:
        workload: what the plan is for.
        layout: gives the lanes of the cache, and the sequences of a replica, which bound the tokens of a prefill.
        name: which step; by default the first.

    Raises:
        ValueError: the workload has no such step.
    """
    names = steps_of(workload)
    name = names[0] if name is None else name
    if name not in names:
        raise ValueError(f"no step {name}; the steps are {', '.join(names)}")
    if workload.output_len is None:
        return workload.in_one_pass
    prompt, made = workload.seq_len, workload.output_len
    new = new_tokens(workload, layout, name)
    return Step(
        name,
        workload.batch,
        new,
        "last",
        # Of all steps of this kind the mean: prefills begin at 0, new, 2 x new, ...; decode steps follow the prompt.
        cached=(-(-prompt // new) - 1) * new // 2 if name == "prefill" else prompt + (made - 1) // 2,
        positions=prompt + made,
        lanes=layout.slices if layout.shared_dim == "key" else 1,
        block=layout.key_block,
        vocabulary_shares=layout.partitions,
        sampling=workload.sampling,
        by_rows=name == "prefill" and layout.shared_dim == "key" and layout.key_prefill == "query",
        cache_dtype=workload.cache_dtype,
        routing=workload.routing,
        expanded=name == "prefill" and layout.latent_prefill == "expanded",
    )
