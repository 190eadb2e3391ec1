"""The text model of a config of several modalities: planned by itself, the rest left out and named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from helixctl.spec.explain import Finding
from helixctl.spec.hugging_face.families import FAMILIES
from helixctl.spec.yaml_reader import DocumentPath

_INNER: Final = "text_config"
# Outer model_type -> that of the text model, or those that ``text_config`` may have, the first where it does not say.
_TEXT_MODELS: Final[dict[str, tuple[str, ...]]] = {
    "gemma4": ("gemma4_text",),
    "kimi_k25": ("kimi_k25_text",),
    "llama4": ("llama4_text",),
    "mistral3": ("mistral", "ministral3", "mistral4"),
    "qwen3_vl": ("qwen3_vl_text",),
    "qwen3_vl_moe": ("qwen3_vl_moe_text",),
}
_TIE: Final = "tie_word_embeddings"
# Whose text model is a whole language model, which ties its own head; elsewhere the whole model ties it.
_TIED_INSIDE: Final = {"llama4"}
# Whose whole model ties it where its config does not say.
_TIED: Final = {"gemma4", "kimi_k25", "mistral3"}
# Outer keys of the whole model that hold for its text model.
_SHARED: Final = (_TIE, "dtype", "torch_dtype", "architectures", "_name_or_path", "name_or_path",
                  "quantization_config")  # fmt: skip
_LEFT_OUT: Final = {"vision_config": "the vision model", "audio_config": "the audio model"}
# Tokens that stand for pictures and the like, none of which is in a text, and sizes of what makes them.
_TOKENS: Final = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id",
                  "media_placeholder_token_id", "video_placeholder", "ignore_index", "use_unified_vision_chunk",
                  "boi_token_index", "eoi_token_index", "boi_token_id", "eoi_token_id",
                  "boa_token_id", "eoa_token_id", "eoa_token_index", "audio_token_id", "vision_soft_tokens_per_image",
                  "image_token_index", "vision_feature_layer",
                  "projector_hidden_act", "multimodal_projector_bias", "spatial_merge_size",
                  "projection_hidden_size", "projection_layer_norm_eps")  # fmt: skip


def model_types() -> list[str]:
    """What a config may say in ``model_type``, in alphabetical order."""
    return sorted({*FAMILIES, *_TEXT_MODELS})


class TextModel(NamedTuple):
    """A config as if the text model were alone.

    Attributes:
        config: its keys, and those of the whole that hold for it.
        left_out: what else the whole has.
        inner: the keys that are in ``text_config``.
    """

    config: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    inner: frozenset[str] = frozenset()

    def path(self, path: DocumentPath) -> DocumentPath:
        """Where a path of ``config`` is in the file."""
        return (_INNER, *path) if path and path[0] in self.inner else path

    def placed(self, findings: list[Finding]) -> list[Finding]:
        """Findings, with the paths of the file."""
        return [replace(finding, path=self.path(finding.path)) for finding in findings]


def text_model(config: Mapping[str, Any]) -> TextModel:
    """The text model of a config; where its family has no other parts the config itself."""
    kind, inner = config.get("model_type"), config.get(_INNER)
    if not isinstance(kind, str) or kind not in _TEXT_MODELS or not isinstance(inner, dict):
        return TextModel(config)
    inside = kind in _TIED_INSIDE  # of the two keys the other one says nothing
    own = {key: value for key, value in inner.items() if key != "model_type" and (inside or key != _TIE)}
    passed_over = {_INNER, *_TOKENS, *_LEFT_OUT, *([_TIE] if inside else [])}
    whole = {key: value for key, value in config.items() if key not in passed_over}
    if kind in _TIED:
        whole = {_TIE: True, **whole}
    shared = {key: value for key, value in whole.items() if key in _SHARED or key not in own}
    first, *others = _TEXT_MODELS[kind]
    said = inner.get("model_type")
    merged = {**own, **shared, "model_type": said if said in others else first}
    return TextModel(merged, tuple(_left_out(config)), frozenset(own.keys() - shared.keys()))


def _left_out(config: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{noun} ({key})" for key, noun in _LEFT_OUT.items() if config.get(key))
