"""Every legal layout, why each other one is not, the search and its reasons."""

from helixctl.solve.decide import Decision, decide
from helixctl.solve.objective import OBJECTIVES, Objective
from helixctl.solve.proof import Proof, proof
from helixctl.solve.space import pairs, space
from helixctl.solve.verdict import Row
from helixctl.solve.wish import parse_wish, read_as

__all__ = [
    "OBJECTIVES",
    "Decision",
    "Objective",
    "Proof",
    "Row",
    "decide",
    "pairs",
    "parse_wish",
    "proof",
    "read_as",
    "space",
]
