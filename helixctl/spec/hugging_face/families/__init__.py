"""The families of models that are read: the keys of each one's config and the defaults of its class in transformers.

Sizes have no default here, though transformers gives them those of one checkpoint: a config that lacks them is broken.
"""

from __future__ import annotations

from typing import Final

from helixctl.spec.hugging_face.families.decoder import Decoder, Derived, pattern_of
from helixctl.spec.hugging_face.families.dense import Llama, Mistral, Qwen2, Qwen3
from helixctl.spec.hugging_face.families.mixtures import Dots1, Mixtral, Qwen2Moe, Qwen3Moe

FAMILIES: Final[dict[str, type[Decoder]]] = {
    "dots1": Dots1,
    "llama": Llama,
    "mistral": Mistral,
    "mixtral": Mixtral,
    "qwen2": Qwen2,
    "qwen2_moe": Qwen2Moe,
    "qwen3": Qwen3,
    "qwen3_moe": Qwen3Moe,
}

__all__ = ["FAMILIES", "Decoder", "Derived", "pattern_of"]
