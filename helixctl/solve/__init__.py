"""Every legal layout, why each other one is not, the search and its reasons."""

from helixctl.solve.constraints import constraints_of, parse_constraints, read_as
from helixctl.solve.decide import Decision, decide
from helixctl.solve.objective import OBJECTIVES, Objective
from helixctl.solve.proof import Proof, proof
from helixctl.solve.space import pairs, space
from helixctl.solve.verdict import Row

__all__ = [
    "OBJECTIVES",
    "Decision",
    "Objective",
    "Proof",
    "Row",
    "constraints_of",
    "decide",
    "pairs",
    "parse_constraints",
    "proof",
    "read_as",
    "space",
]
