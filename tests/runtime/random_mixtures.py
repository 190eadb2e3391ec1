"""Random mixtures of experts: routers of every kind, shared experts, biases, clamps, gates on inputs."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


@st.composite
def routers(draw: st.DrawFn, count: int, top_k: int) -> dict[str, Any]:
    """A router that chooses ``top_k`` of ``count`` experts by scores of its own."""
    divisors = [n for n in range(2, count + 1) if count % n == 0]
    groups = None
    if draw(st.booleans()):
        number = draw(st.sampled_from(divisors))
        each = count // number
        score = draw(st.sampled_from(["sum_of_two", "best"])) if each > 1 else "best"
        groups = {"count": number, "top_k": draw(st.integers(-(-top_k // each), number)), "score": score}
    return {
        "scores": draw(st.sampled_from(["softmax", "sigmoid"])),
        "logits_scale": draw(st.sampled_from([1.0, 0.3])),
        "gate_scales": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "choice_bias": draw(st.booleans()),
        "groups": groups,
        "scale": draw(st.sampled_from([1.0, 2.5])),
        "sum_eps": draw(st.sampled_from([0.0, 1e-20, 0.25])),
        "least_sum": draw(st.sampled_from([0.0, 1e-12, 0.5])),
    }


@st.composite
def mixtures(draw: st.DrawFn, partitions: int, least: int, *, around: bool) -> dict[str, Any]:
    """The experts of a feed-forward network, at least so many, on so many devices; ``around``: norms are."""
    count = draw(st.integers(least, least + 2))
    experts: dict[str, Any] = {"count": count, "top_k": draw(st.integers(1, count)), "renormalise": draw(st.booleans())}
    if draw(st.booleans()):
        experts["router"] = draw(routers(count, experts["top_k"]))
    elif draw(st.booleans()):
        jitter, bias = draw(st.sampled_from([0.0, 0.01, 0.2])), draw(st.booleans())
        experts |= {"top_k": 2, "renormalise": False}
        experts["router"] = {"scores": "sparse_mixer", "jitter": jitter, "bias": bias}
    if draw(st.booleans()):
        width = draw(st.integers(partitions, partitions + 5))
        experts["shared"] = {"intermediate_size": width, "scored": draw(st.booleans())}
        experts["norms"] = draw(st.sampled_from(["shared", "apart"])) if around else "shared"
    experts["gates_on"] = draw(st.sampled_from(["output", "input"]))
    return experts


CLAMP = {"limit": 0.5, "alpha": 1.702}
