"""dag x cluster -> timeline, and what it means for a user: the forecast. Predictions, never measurements."""

from helixctl.simulate.critical_path import KindOnPath, critical_path, kinds_on_path
from helixctl.simulate.forecast import Forecast, KindForecast, forecast, forecast_of
from helixctl.simulate.step import simulate
from helixctl.simulate.timeline import Timeline

__all__ = [
    "Forecast",
    "KindForecast",
    "KindOnPath",
    "Timeline",
    "critical_path",
    "forecast",
    "forecast_of",
    "kinds_on_path",
    "simulate",
]
