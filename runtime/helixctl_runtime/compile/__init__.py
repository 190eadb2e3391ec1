"""One rank's part of a dag, compiled once into a flat list of actions over buffers that are there already."""

from helixctl_runtime.compile.rank import compile_rank

__all__ = ["compile_rank"]
