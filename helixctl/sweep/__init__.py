"""Sweeps: one model planned for many batches, prompt lengths and numbers of devices, as data and as plots."""

from helixctl.sweep.document import Point, Sweep
from helixctl.sweep.points import Grid, Wanted, sweep

__all__ = ["Grid", "Point", "Sweep", "Wanted", "sweep"]
