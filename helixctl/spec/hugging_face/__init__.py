"""Hugging Face's config.json as a model: read by a normaliser of our own, never by transformers."""

from helixctl.spec.hugging_face.normalise import CONFIG_NAME, model_of_config, quantisation_beside

__all__ = ["CONFIG_NAME", "model_of_config", "quantisation_beside"]
