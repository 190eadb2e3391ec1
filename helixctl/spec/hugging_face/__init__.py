"""Hugging Face's config.json as a model: read by a normaliser of our own, never by transformers."""

from helixctl.spec.hugging_face.normalise import CONFIG_NAME, model_of_config, quantisation_beside
from helixctl.spec.hugging_face.text_model import model_types

__all__ = ["CONFIG_NAME", "model_of_config", "model_types", "quantisation_beside"]
