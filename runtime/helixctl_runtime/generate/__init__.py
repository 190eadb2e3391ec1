"""Generation: prefill and decode steps over one cache, token after token."""

from helixctl_runtime.generate.feed import Feed
from helixctl_runtime.generate.loop import Generated, Prompts, generate

__all__ = ["Feed", "Generated", "Prompts", "generate"]
