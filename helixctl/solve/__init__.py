"""Every legal layout, why each other one is not, and the choice."""

from helixctl.solve.candidates import Candidate, candidates, layouts
from helixctl.solve.decide import Decision, Row, decide

__all__ = ["Candidate", "Decision", "Row", "candidates", "decide", "layouts"]
