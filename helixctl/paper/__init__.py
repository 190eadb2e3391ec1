"""The paper's experiment: what it reports, and what helixctl predicts and measures for the same two methods."""

from helixctl.paper.experiment import MEASURED, METHODS, MODELS, REPORTED, Case, Comparison, Row, Way, comparisons

__all__ = ["MEASURED", "METHODS", "MODELS", "REPORTED", "Case", "Comparison", "Row", "Way", "comparisons"]
