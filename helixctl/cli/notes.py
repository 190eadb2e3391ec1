"""What a person should know beside the numbers: where a step, or a figure, is not what it may be taken for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from helixctl.cli.console import tell
from helixctl.dag.retype import as_run
from helixctl.errors import one_line
from helixctl.plan import Plan
from helixctl.simulate import Forecast
from helixctl.solve.proof import memory_of_devices
from helixctl.solve.verdict import held_by
from helixctl.spec.rates import doubts
from helixctl.spec.routing import EVEN
from helixctl.units import human_bytes

# Engines keep about this share for the workspace of kernels and of communication.
_LITTLE: Final = 0.1


def warn_of_slips(sentences: Iterable[str], path: str) -> None:
    """Say on standard error which figures of a cluster, in a file or by name, are likely not what was meant."""
    for sentence in sentences:
        tell(one_line(f"warning: {path}: {sentence}"))


def notes(plan: Plan, forecast: Forecast) -> Iterator[str]:
    """Sentences on a plan, without the word "note".

    Args:
        plan: what is planned.
        forecast: what it is predicted to take.
    """
    model, attention, work = plan.model, plan.model.attention, plan.workload
    yield from doubts(plan.cluster)
    if attention.softmax_slices > 1:
        yield (
            f"softmax_slices {attention.softmax_slices}: every head normalises in {attention.softmax_slices} "
            f"slices of {attention.softmax_width} dims; this is another function than softmax_slices 1"
        )
    if any(model.alike(kind).feed_forward.experts for kind in model.kinds):
        routing = "an even routing" if work.routing == EVEN else f"the fullest device under {work.routing}"
        yield f"experts are priced for {routing}; all tokens are computed, whatever the routing"
    if work.seq_len == 1 and work.output_len is None:
        yield (
            "a step is one pass over sequences of one token, without a KV cache: it is no decode step, "
            "whose tokens attend to those before them"
        )
    if model.max_positions is not None and work.positions > model.max_positions:
        yield (
            f"{work.positions:,} tokens a sequence are beyond the {model.max_positions:,} positions of the model "
            "(max_position_embeddings): it computes them, but was not trained for them"
        )
    if (run := as_run(plan)) is not plan:
        yield _of_a_run(plan, run)
    for device, nbytes in held_by(forecast, plan.cluster):
        free = device.memory - nbytes
        if free < _LITTLE * device.memory:
            which = f" {device.name}" if plan.cluster.differs else " device"
            yield (
                f"{human_bytes(free)} of {human_bytes(device.memory)} a{which} are left (device.reserve "
                f"{device.reserve * 100:.3g} %); engines keep about a tenth for the workspace of kernels and "
                "communication"
            )


def _of_a_run(plan: Plan, run: Plan) -> str:
    """What a run takes of a plan with quantised weights or cache: it has them in the dtype of the computation."""
    needed = memory_of_devices(run)
    most = max(nbytes for _, nbytes in needed)
    what = f"dequantises weights to {run.model.dtype} on loading"
    if run.model is plan.model:
        what = f"has the KV cache in {run.model.dtype}"
    text = f"helixctl run {what}: it takes {human_bytes(most)} a device"
    if all(nbytes <= device.available for device, nbytes in needed):
        return text
    return f"{text}, more than there is; engines run them as they are stored"
