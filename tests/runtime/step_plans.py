"""Random plans of a generation: models, layouts and lengths of which no two need divide each other."""

from __future__ import annotations

from hypothesis import strategies as st

from helixctl.plan import Plan
from helixctl.plan.layout import illegalities
from helixctl.spec import SamplingSpec, VocabularySpec
from tests.runtime.test_interpreter import small_plans


def samplings() -> st.SearchStrategy[SamplingSpec]:
    """Ways to draw a token of a small vocabulary."""
    temperatures = st.sampled_from([0.05, 0.7, 1.0, 3.0])
    top_ks, top_ps = st.sampled_from([None, 1, 3, 10, 11, 99]), st.sampled_from([1.0, 0.01, 0.5, 0.9])
    return st.builds(SamplingSpec, temperature=temperatures, top_k=top_ks, top_p=top_ps)


@st.composite
def step_plans(draw: st.DrawFn) -> Plan:
    """A plan of ``small_plans`` with a KV cache; what was sliced by query rows is sliced by key."""
    one = draw(small_plans())
    model = one.model
    if model.vocabulary is None and draw(st.booleans()):
        model = model.model_copy(update={"vocabulary": VocabularySpec(size=11)})
    layout = one.layout.model_copy(
        update={
            "slicing": "key" if one.layout.slicing == "query" else one.layout.slicing,
            "key_block": draw(st.sampled_from([1, 2, 3, 16])),
        }
    )
    batch = one.workload.batch
    if layout.residual == "sharded":  # a decode step has one row of every sequence
        batch = max(batch, layout.partitions * layout.data * layout.microbatches)
    workload = one.workload.model_copy(
        update={
            "batch": batch,
            "output_len": draw(st.integers(1, 9)),
            "sampling": draw(st.none() | samplings()) if model.vocabulary else None,
            "prefill_tokens": draw(st.integers(1, batch * (one.workload.seq_len + 1))),
        }
    )
    by_rows = layout.model_copy(update={"key_prefill": "query"})
    if illegalities(by_rows, model, workload, layout.devices) == [] and draw(st.booleans()):
        layout = by_rows
    plan = Plan.of(model, one.cluster, workload, layout)
    assert illegalities(layout, plan.model, plan.workload, layout.devices) == []
    return plan
