"""The families of models that are read: the keys of each one's config and the defaults of its class in transformers.

Sizes have no default here, though transformers gives them those of one checkpoint: a config that lacks them is broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final, cast

from helixctl.spec.hugging_face.families.decoder import Decoder, Derived, pattern_of

# model_type -> the module here, and the class in it.
_CLASSES: Final = {
    "afmoe": "afmoe.Afmoe",
    "deepseek_v2": "deepseek.DeepseekV2",
    "deepseek_v3": "deepseek.DeepseekV3",
    "kimi_k2": "deepseek.KimiK2",
    "kimi_k25_text": "deepseek.KimiK25Text",
    "deepseek_v32": "sparse.DeepseekV32",
    "glm_moe_dsa": "sparse.GlmMoeDsa",
    "dots1": "mixtures.Dots1",
    "llama": "dense.Llama",
    "llama4_text": "llama4.Llama4Text",
    "mistral": "dense.Mistral",
    "ministral3": "mistral.Ministral3",
    "mistral4": "mistral.Mistral4",
    "mixtral": "mixtures.Mixtral",
    "qwen2": "dense.Qwen2",
    "qwen2_moe": "mixtures.Qwen2Moe",
    "qwen3": "dense.Qwen3",
    "qwen3_moe": "mixtures.Qwen3Moe",
    "gpt_oss": "gpt_oss.GptOss",
    "gemma": "gemma.Gemma",
    "gemma2": "windows.Gemma2",
    "gemma4_text": "gemma4.Gemma4Text",
    "gemma3_text": "windows.Gemma3Text",
    "olmo2": "olmo.Olmo2",
    "olmo3": "windows.Olmo3",
    "exaone4": "windows.Exaone4",
    "glm4": "glm.Glm4",
    "cohere": "cohere.Cohere",
    "cohere2": "windows.Cohere2",
    "granite": "granite.Granite",
    "seed_oss": "biased.SeedOss",
    "ernie4_5": "biased.Ernie45",
    "starcoder2": "biased.Starcoder2",
    "smollm3": "biased.SmolLM3",
    "mimo": "biased.MiMo",
    "mimo_v2_flash": "mimo_v2.MiMoV2Flash",
    "phi3": "phi.Phi3",
    "olmoe": "olmo.Olmoe",
    "granitemoe": "granite.GraniteMoe",
    "phimoe": "phi.Phimoe",
    "glm4_moe": "glm.Glm4Moe",
    "ernie4_5_moe": "ernie.Ernie45Moe",
    "minimax_m2": "minimax.MiniMaxM2",
    "qwen3_vl_text": "qwen3_vl.Qwen3VLText",
    "qwen3_vl_moe_text": "qwen3_vl.Qwen3VLMoeText",
}


class _Families(Mapping[str, type[Decoder]]):
    """The class of each model_type, imported when it is asked for: a command reads one config, if any."""

    def __getitem__(self, family: str) -> type[Decoder]:
        module, _, name = _CLASSES[family].partition(".")
        return cast("type[Decoder]", getattr(import_module(f"{__name__}.{module}"), name))

    def __contains__(self, family: object) -> bool:
        return family in _CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


FAMILIES: Final = _Families()

__all__ = ["FAMILIES", "Decoder", "Derived", "pattern_of"]
