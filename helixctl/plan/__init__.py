"""What was decided: the layout and the plan document."""

from helixctl.plan.document import Plan, canonical_json, digest
from helixctl.plan.layout import Interval, Layout, Whole, illegalities, share

__all__ = ["Interval", "Layout", "Plan", "Whole", "canonical_json", "digest", "illegalities", "share"]
