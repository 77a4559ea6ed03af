"""Colours, grids and labels."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.reporting.colours import (
    COLOURS,
    DARK,
    DARK_COLOURS,
    DARK_PAPER,
    INK,
    MUTED,
    PAPER,
    TEXT_CONTRAST,
    as_text,
    contrast,
)
from versatune.reporting.figures.rounds import MANY
from versatune.reporting.style import (
    domain_styles,
    figure,
    label,
    lay_out_grid,
    numbers,
    spread,
    within,
)

# Simulated colour vision (Machado et al. 2009, severity 1): linear RGB -> linear RGB.
VISION = {
    "normal": np.eye(3),
    "protan": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deutan": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x = XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("palette", [COLOURS, DARK_COLOURS])
def test_colours_that_share_a_chart_differ_for_every_eye(
    vision: str, palette: tuple[str, ...]
) -> None:
    seen = [lab(VISION[vision] @ linear(colour)) for colour in palette[:MANY]]
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(one - other) > 24


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.005)  # the known near miss
    assert contrast("#FF0000", "#FFFFFF") == pytest.approx(4.00, abs=0.005)


def test_charts_have_the_contrast_of_level_aa_in_both_themes() -> None:
    for colour in COLOURS:
        assert contrast(colour, PAPER) >= 3, colour
        assert contrast(as_text(colour), PAPER) >= TEXT_CONTRAST, colour
        assert contrast(DARK[colour], DARK_PAPER) >= TEXT_CONTRAST, colour
        assert DARK[as_text(colour)] == DARK[colour]
    for text in (INK, MUTED):
        assert contrast(text, PAPER) >= TEXT_CONTRAST
        assert contrast(DARK[text], DARK_PAPER) >= TEXT_CONTRAST
    assert as_text(INK) == INK and as_text("#3397DB") != "#3397DB"


def test_styles_follow_the_order_alone_and_stay_apart_for_dozens() -> None:
    names = [f"d{i}" for i in range(40)]
    styles = domain_styles(names)
    assert len({(s.colour, s.dash) for s in styles.values()}) == 40
    assert domain_styles(names[:3]) == {n: styles[n] for n in names[:3]}


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.floats(0.01, 2))
def test_spread_keeps_order_and_parts_neighbours(positions: list[float], gap: float) -> None:
    placed = spread(positions, gap)
    order = sorted(range(len(positions)), key=positions.__getitem__)
    for one, other in itertools.pairwise(order):
        assert placed[other] - placed[one] >= gap - 1e-9
    assert sum(placed) == pytest.approx(sum(positions), abs=1e-6)


def test_spread_leaves_what_is_apart() -> None:
    assert spread([3.0, 1.0, 1.2], 0.5) == pytest.approx([3.0, 0.85, 1.35])


def test_labels_stay_within_the_axis_and_apart() -> None:
    """Four lines end together at the top: spread alone puts a label above the axis."""
    ends, gap = [0.183, 0.178, 0.177, 0.169], 0.011
    placed = within(spread(ends, gap), gap, 0.0, 0.19)
    assert max(spread(ends, gap)) > 0.19
    assert placed == pytest.approx([0.19, 0.179, 0.168, 0.157])
    assert within([-0.1, 0.5], 0.1, 0.0, 1.0) == [0.0, 0.5]
    assert within([0.2, 0.5], 0.1, 0.0, 1.0) == [0.2, 0.5]


def test_numbers_and_labels() -> None:
    assert numbers([1, None, float("nan"), float("inf"), 2.5]) == [1.0, None, None, None, 2.5]
    assert label("a" * 40, 10) == "a" * 9 + "…"
    assert label("<b>") == "&lt;b&gt;"


@pytest.mark.parametrize("n", [1, 2, 3, 7, 30])
def test_grid_panels_do_not_overlap(n: int) -> None:
    fig = figure("t", "c", 100)
    for i in range(n):
        suffix = str(i + 1) if i else ""
        fig.add_scatter(x=[0], y=[0], xaxis=f"x{suffix}", yaxis=f"y{suffix}")
    lay_out_grid(fig, [str(i) for i in range(n)], row_height=100, min_width=200)
    boxes = []
    for i in range(n):
        suffix = str(i + 1) if i else ""
        x, y = fig.layout[f"xaxis{suffix}"].domain, fig.layout[f"yaxis{suffix}"].domain
        assert 0 <= x[0] < x[1] <= 1.000001 and 0 <= y[0] < y[1] <= 1.000001
        boxes.append((x, y))
    for (x, y), (u, v) in itertools.combinations(boxes, 2):
        assert x[1] < u[0] or u[1] < x[0] or y[1] < v[0] or v[1] < y[0]
