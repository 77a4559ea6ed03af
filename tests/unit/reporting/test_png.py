"""The pictures that MLflow shows: each figure of ours, with the figure's own points."""

import io
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from tests.helpers.example_run import SIX, artifacts, compared
from versatune.reporting import figures, forecast, tables
from versatune.reporting.colours import COLOURS, PAPER
from versatune.reporting.png import SCALE, png
from versatune.reporting.style import PAGE_WIDTH

RUN = artifacts()
RESULTS = tables.results(RUN["evaluation"], RUN["forgetting"])
LOSSES, HISTORY = tables.only_losses(RESULTS), RUN["mixture_history"]
MANY = tuple(f"domain_{i}" for i in range(12))


def drawn() -> dict[str, go.Figure]:
    many = artifacts(MANY)["mixture_history"]
    outcome = forecast.outcome(RUN["forecast"], HISTORY, LOSSES)
    both = compared()
    return {
        "losses": figures.before_after(LOSSES, SIX, "loss"),
        "accuracies": figures.before_after(tables.only_accuracies(RESULTS), SIX, "accuracy"),
        "shares": figures.shares(HISTORY, SIX, "tokens"),
        "shares of many": figures.shares(many, MANY, "tokens"),
        "held out": figures.held_out_losses(HISTORY, SIX, RUN["reference_losses"]),
        "potential": figures.potential_and_forgetting(HISTORY, SIX),
        "potential of many": figures.potential_and_forgetting(many, MANY),
        "knowledge": figures.knowledge(RUN["knowledge_distribution"], SIX),
        "rejects": figures.rejects(RUN["ingest_report"], SIX),
        "forecast": figures.forecast(RUN["forecast"], SIX),
        "outcome": figures.forecast_and_outcome(outcome, SIX),
        "differences": figures.differences(both["comparison"], SIX, "uniform"),
        "strategies": figures.shares_by_strategy(both["comparison_history"], SIX),
        "empty": figures.before_after(LOSSES.iloc[:0], SIX, "loss"),
    }


FIGURES = drawn()


def pixels(fig: go.Figure) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(png(fig))).convert("RGB"))


def near(picture: np.ndarray[Any, Any], colour: str) -> np.ndarray[Any, Any]:
    """Rows and columns of the pixels of about that colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.argwhere(np.abs(picture.astype(int) - wanted).max(axis=2) < 12)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_at_its_size_within_its_edges(name: str) -> None:
    picture = pixels(FIGURES[name])
    height = FIGURES[name].layout.height
    assert picture.shape[:2] == pytest.approx((SCALE * height, SCALE * PAGE_WIDTH), abs=1)
    paper = [int(PAPER[i : i + 2], 16) for i in (1, 3, 5)]
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (edge == paper).all(), "nothing is cut off"
    if name not in ("empty", "potential of many"):
        assert all(len(near(picture, colour)) > 20 for colour in COLOURS[: len(SIX)])


def test_a_point_stands_where_its_number_says() -> None:
    """One dot, drawn at 1, 3 and 2: the last stands in the middle of the others."""
    fig = figures.before_after(LOSSES.assign(base=4.0, tuned=1.0), SIX, "loss")
    fig.data = [fig.data[2]]
    fig.data[0].update(x=[1.0], error_x=None)
    fig.update_xaxes(range=[0.5, 5])
    at_one = near(pixels(fig), COLOURS[0])[:, 1].mean()
    fig.data[0].x = [3.0]
    at_three = near(pixels(fig), COLOURS[0])[:, 1].mean()
    fig.data[0].x = [2.0]
    assert near(pixels(fig), COLOURS[0])[:, 1].mean() == pytest.approx(
        (at_one + at_three) / 2, abs=1.5
    )


def test_the_first_domain_stands_at_the_top() -> None:
    picture = pixels(FIGURES["knowledge"])
    rows = [near(picture, colour)[:, 0].mean() for colour in COLOURS[: len(SIX)]]
    assert rows == sorted(rows)


def test_names_are_text_and_no_markup() -> None:
    """Neither tags nor mathematics: a dollar sign would be an error of Matplotlib's."""
    odd = ("$x^{2}", "a <b>")
    shares = {
        "domains": {d: {"share": 0.5, "low": 0.4, "high": 0.6, "raw_share": 0.5} for d in odd}
    }
    assert len(near(pixels(figures.knowledge(shares, odd)), COLOURS[1])) > 20
