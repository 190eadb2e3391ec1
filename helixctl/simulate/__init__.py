"""dag x cluster -> timeline and forecast. Both are predictions, never measurements."""

from helixctl.simulate.critical_path import KindOnPath, critical_path, kinds_on_path
from helixctl.simulate.forecast import (
    Forecast,
    Generation,
    KindForecast,
    KindMemory,
    forecast,
    forecast_from,
    generated,
)
from helixctl.simulate.step import simulate
from helixctl.simulate.timeline import Timeline

__all__ = [
    "Forecast",
    "Generation",
    "KindForecast",
    "KindMemory",
    "KindOnPath",
    "Timeline",
    "critical_path",
    "forecast",
    "forecast_from",
    "generated",
    "kinds_on_path",
    "simulate",
]
