"""The figures: each a function from artifacts to one Plotly figure with exactly their numbers.

A figure's ``layout.meta`` holds what the page needs beside it: ``caption`` (how to read it) and
``grid`` (how to lay its panels out at another width). Where there is nothing to draw, the figure
says why.
"""

from versatune.reporting.figures.data import knowledge, rejects
from versatune.reporting.figures.forecasts import forecast, forecast_and_outcome
from versatune.reporting.figures.results import before_after
from versatune.reporting.figures.rounds import held_out_losses, potential_and_forgetting, shares
from versatune.reporting.figures.strategies import differences, shares_by_strategy

__all__ = [
    "before_after",
    "differences",
    "forecast",
    "forecast_and_outcome",
    "held_out_losses",
    "knowledge",
    "potential_and_forgetting",
    "rejects",
    "shares",
    "shares_by_strategy",
]
