"""Every legal layout, why each other one is not, and the choice."""

from helixctl.solve.candidates import Candidate, candidates, layouts
from helixctl.solve.decide import Decision, Row, decide
from helixctl.solve.wish import Wish, parse_wish

__all__ = ["Candidate", "Decision", "Row", "Wish", "candidates", "decide", "layouts", "parse_wish"]
