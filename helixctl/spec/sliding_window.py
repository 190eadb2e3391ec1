"""Where a sliding window would change the function that is planned."""

from __future__ import annotations

from helixctl.spec.explain import Finding
from helixctl.spec.model import ModelSpec, WorkloadSpec


def window_that_bites(model: ModelSpec, workload: WorkloadSpec) -> Finding | None:
    """HX111 where sequences are longer than the window; up to its length a window masks nothing."""
    windows = [model.alike(kind).attention.sliding_window for kind in model.kinds]
    window = min((window for window in windows if window is not None), default=None)
    if window is None or workload.positions <= window:
        return None
    message = f"a sliding window of {window} tokens bites at {workload.positions} tokens a sequence"
    least = "--seq-len" if workload.output_len is None else "--input-len and --output-len together"
    hint = f"windows are not modelled; plan for at most {window} tokens: {least} {window}"
    return Finding("HX111", message, hint, ("attention", "sliding_window"), of_key=True)
