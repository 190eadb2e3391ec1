"""dag x cluster -> timeline, and what it means for a user: the forecast. Predictions, never measurements."""

from helixctl.simulate.forecast import Forecast, KindForecast, forecast, forecast_of
from helixctl.simulate.step import simulate
from helixctl.simulate.timeline import Timeline

__all__ = ["Forecast", "KindForecast", "Timeline", "forecast", "forecast_of", "simulate"]
