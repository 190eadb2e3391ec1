"""Layers with and without a sliding window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Derived, Windowed, pattern_of

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


class Alternating(Windowed):
    """Layers with and without a window, as ``layer_types`` says, or else one in ``full_every`` without.

    The layers with a window are the model's ``main`` block, those without it the block ``full``.
    """

    layer_kinds: ClassVar[frozenset[str]] = frozenset({FULL, SLIDING})
    full_every: ClassVar[int] = 4

    sliding_window: Count | None = 4096

    def kinds(self) -> Sequence[str]:
        """Of which kind each layer is."""
        if self.layer_types is not None:
            return self.layer_types
        every = getattr(self, "sliding_window_pattern", None) or self.full_every
        return [FULL if (layer + 1) % every == 0 else SLIDING for layer in range(self.num_hidden_layers)]

    def full(self, attention: Mapping[str, Any]) -> dict[str, Any]:
        """The attention of the layers without a window."""
        return {**attention, "sliding_window": None}

    def apart(self, attention: Mapping[str, Any]) -> Iterator[Derived]:
        """The block of the layers without a window."""
        kinds = ["full" if kind == FULL else "main" for kind in self.kinds()]
        full = self.full(attention)
        if "full" in kinds and full != attention:
            keys = ("layer_types",) if self.layer_types is not None else ()
            yield Derived("blocks", [{"name": "full", "attention": full}], keys)
            yield Derived("pattern", pattern_of(kinds), keys)


class TwoRotaries(Alternating):
    """Layers with a window have a plain rotary embedding of their own; the config scales that of the others.

    The layers without a window are the model's ``main`` block, those with it the block ``sliding``.

    Attributes:
        keys_of_windows: what the rotary embedding of layers with a window may say.
    """

    keys_of_windows: ClassVar[frozenset[str]] = frozenset({"rope_type", "rope_theta"})

    rope_of_windows: dict[str, Any] | None = None  # what ``flattened`` makes of ``rope_parameters``
    rope_local_base_freq: Positive | None = None

    @classmethod
    def flattened(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """With the rotary embeddings of both kinds of layers, as transformers 5 writes them, apart."""
        rope = config.get("rope_parameters")
        if not isinstance(rope, dict) or not isinstance(rope.get(FULL), dict) or set(rope) - {FULL, SLIDING}:
            return config
        windows = rope.get(SLIDING) or {}
        plain = windows.get("rope_type", "default") == "default" and set(windows) <= cls.keys_of_windows
        if not plain:
            return config  # refused: rotary embeddings that differ by layer
        return {**config, "rope_parameters": rope[FULL], "rope_of_windows": windows}

    def theta_of_windows(self, attention: Mapping[str, Any]) -> float:
        """The base of the rotary embedding of layers with a window, where the config does not give it."""
        return float(attention["rotary"]["theta"])

    def main_window(self) -> tuple[str | None, int | None]:
        """None: the block ``sliding`` has it."""
        return None, None

    def apart(self, attention: Mapping[str, Any]) -> Iterator[Derived]:
        """The block of the layers with a window."""
        kinds = ["main" if kind == FULL else "sliding" for kind in self.kinds()]
        if "sliding" in kinds:
            theta = (self.rope_of_windows or {}).get("rope_theta") or self.rope_local_base_freq
            rotary = {"theta": theta or self.theta_of_windows(attention), "scaling": None}
            own = {**attention, "sliding_window": self.sliding_window, "rotary": rotary}
            yield Derived("blocks", [{"name": "sliding", "attention": own}], ("sliding_window",))
            yield Derived("pattern", pattern_of(kinds), ("layer_types",) if self.layer_types is not None else ())
