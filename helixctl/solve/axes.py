"""Which axes of a layout decide what a layer computes and what stages exchange: it is priced once for many layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

from helixctl.plan import Layout
from helixctl.spec import StepName

# Axes that change where a rank stands, how many others do the same, and in which order it communicates, but not what it
# computes in a layer of a microbatch of a number of sequences. An axis that is not named here is taken to change it.
_AROUND_A_LAYER: Final = frozenset(
    {"data", "pipeline", "microbatches", "interleave", "placement", "gather_order", "stages", "batch_shares"},
)
IN_A_LAYER: Final = tuple(name for name in Layout.model_fields if name not in _AROUND_A_LAYER)
# Axes of a layer that leave the residual stream as it is, which is what stages send to each other.
_INSIDE_A_LAYER: Final = frozenset(
    {"slicing", "combine", "reduction_dtype", "experts", "expert_data", "latent_prefill", "key_prefill"}
)
_OF_THE_RESIDUAL_STREAM: Final = tuple(name for name in IN_A_LAYER if name not in _INSIDE_A_LAYER)
# Axes that change what is computed around a feed-forward network, not in it.
_BESIDE_A_FEED_FORWARD: Final = frozenset(
    {"slicing", "combine", "residual", "key_block", "latent_prefill", "key_prefill"}
)
_OF_THE_FEED_FORWARD: Final = tuple(name for name in IN_A_LAYER if name not in _BESIDE_A_FEED_FORWARD)
# Axes that change the layers with experts alone, and those that change a prefill alone.
_OF_EXPERTS: Final = frozenset({"experts", "expert_data"})
_OF_A_PREFILL: Final = frozenset({"latent_prefill", "key_prefill"})
# Axes that say in which order a rank does its work, and where the ranks stand, with their values: gather order,
# placement, microbatches, and how many of these take turns.
Order = Mapping[str, Any]


class LayerAxes(NamedTuple):
    """The axes on which the computation of a layer depends.

    Attributes:
        names: of the axes.
        of: their values, from the attributes of a layout.
    """

    names: tuple[str, ...]
    of: Callable[[Mapping[str, object]], tuple[object, ...]]


def layer_axes(step: StepName | None, *, experts: bool) -> LayerAxes:
    """The axes on which a layer depends.

    Args:
        step: in which it is computed; by default the first of a plan.
        experts: whether the layer has experts.
    """
    others = (frozenset() if experts else _OF_EXPERTS) | (_OF_A_PREFILL if step == "decode" else frozenset())
    names = tuple([name for name in IN_A_LAYER if name not in others])
    return LayerAxes(names, itemgetter(*names))


def of_the_residual_stream(layout: Layout) -> tuple[object, ...]:
    """The values of the axes on which the size of the residual stream on a rank depends."""
    values = layout.__dict__
    return tuple([values[name] for name in _OF_THE_RESIDUAL_STREAM])


def of_the_feed_forward(layout: Layout) -> tuple[object, ...]:
    """The values of the axes on which what a rank computes of a feed-forward network depends."""
    values = layout.__dict__
    return tuple([values[name] for name in _OF_THE_FEED_FORWARD])
