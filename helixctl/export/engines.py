"""The engines by the name that ``--to`` has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from helixctl.export import megatron, sglang, tensorrt_llm, torchtitan, vllm
from helixctl.export.engine import Engine

ENGINES: Final[Mapping[str, Engine]] = {
    "vllm": vllm.ENGINE,
    "sglang": sglang.ENGINE,
    "tensorrt-llm": tensorrt_llm.ENGINE,
    "megatron": megatron.ENGINE,
    "torchtitan": torchtitan.ENGINE,
}
