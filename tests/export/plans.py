"""Plans of models that engines serve."""

from __future__ import annotations

from functools import cache

from helixctl.plan import Layout, Plan
from helixctl.spec.load import for_planning, load_specs
from tests.documents import ROOT

MODELS = ROOT / "plans/models"


@cache
def plan_of(
    model: str,
    cluster: str,
    batch: int = 16,
    output_len: int | None = 128,
    sets: tuple[str, ...] = (),
    **axes: int | str,
) -> Plan:
    """A plan of a published model for prompts of 1,024 tokens; ``axes`` are of the layout."""
    workload = [f"workload.batch={batch}", "workload.seq_len=1024", "workload.logits=last"]
    workload += [f"workload.output_len={output_len}"] if output_len else []
    document, devices = load_specs(str(MODELS / model), cluster, (*workload, *sets))
    document = for_planning(document, devices)
    layout = Layout.model_validate({"slices": 1, "combine": "reduce", **axes})
    return Plan.of(document.model, devices, document.workload, layout)
