"""The paper's experiment: what it reports, and what helixctl predicts and measures for the same two methods."""

from helixctl.paper.experiment import METHODS, MODELS, REPORTED, Case, Comparison, Row, comparisons

__all__ = ["METHODS", "MODELS", "REPORTED", "Case", "Comparison", "Row", "comparisons"]
