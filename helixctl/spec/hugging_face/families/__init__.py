"""The families of models that are read: the keys of each one's config and the defaults of its class in transformers.

Sizes have no default here, though transformers gives them those of one checkpoint: a config that lacks them is broken.
"""

from __future__ import annotations

from typing import Final

from helixctl.spec.hugging_face.families.biased import Ernie45, MiMo, SeedOss, SmolLM3, Starcoder2
from helixctl.spec.hugging_face.families.cohere import Cohere
from helixctl.spec.hugging_face.families.decoder import Decoder, Derived, pattern_of
from helixctl.spec.hugging_face.families.deepseek import DeepseekV2, DeepseekV3, KimiK2, KimiK25Text
from helixctl.spec.hugging_face.families.dense import Llama, Mistral, Qwen2, Qwen3
from helixctl.spec.hugging_face.families.ernie import Ernie45Moe
from helixctl.spec.hugging_face.families.gemma import Gemma
from helixctl.spec.hugging_face.families.glm import Glm4, Glm4Moe
from helixctl.spec.hugging_face.families.gpt_oss import GptOss
from helixctl.spec.hugging_face.families.granite import Granite, GraniteMoe
from helixctl.spec.hugging_face.families.minimax import MiniMaxM2
from helixctl.spec.hugging_face.families.mixtures import Dots1, Mixtral, Qwen2Moe, Qwen3Moe
from helixctl.spec.hugging_face.families.olmo import Olmo2, Olmoe
from helixctl.spec.hugging_face.families.phi import Phi3, Phimoe
from helixctl.spec.hugging_face.families.qwen3_vl import Qwen3VLMoeText, Qwen3VLText
from helixctl.spec.hugging_face.families.windows import Cohere2, Exaone4, Gemma2, Gemma3Text, Olmo3

FAMILIES: Final[dict[str, type[Decoder]]] = {
    "deepseek_v2": DeepseekV2,
    "deepseek_v3": DeepseekV3,
    "kimi_k2": KimiK2,
    "kimi_k25_text": KimiK25Text,
    "dots1": Dots1,
    "llama": Llama,
    "mistral": Mistral,
    "mixtral": Mixtral,
    "qwen2": Qwen2,
    "qwen2_moe": Qwen2Moe,
    "qwen3": Qwen3,
    "qwen3_moe": Qwen3Moe,
    "gpt_oss": GptOss,
    "gemma": Gemma,
    "gemma2": Gemma2,
    "gemma3_text": Gemma3Text,
    "olmo2": Olmo2,
    "olmo3": Olmo3,
    "exaone4": Exaone4,
    "glm4": Glm4,
    "cohere": Cohere,
    "cohere2": Cohere2,
    "granite": Granite,
    "seed_oss": SeedOss,
    "ernie4_5": Ernie45,
    "starcoder2": Starcoder2,
    "smollm3": SmolLM3,
    "mimo": MiMo,
    "phi3": Phi3,
    "olmoe": Olmoe,
    "granitemoe": GraniteMoe,
    "phimoe": Phimoe,
    "glm4_moe": Glm4Moe,
    "ernie4_5_moe": Ernie45Moe,
    "minimax_m2": MiniMaxM2,
    "qwen3_vl_text": Qwen3VLText,
    "qwen3_vl_moe_text": Qwen3VLMoeText,
}

__all__ = ["FAMILIES", "Decoder", "Derived", "pattern_of"]
