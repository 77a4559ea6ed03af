"""The picture at the top of README and documentation, from the files of a finished run.

    python -m tests.benchmarks.overview data docs/overview.png

1280 x 500, drawn by Chromium: each domain's held-out loss before and after, and the shares of
each round.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from versatune.reporting.style import domain_styles, label

SIZE = (1280, 500)


def figure(results: pd.DataFrame, history: pd.DataFrame) -> go.Figure:
    """Losses with their 95 % intervals on the left, shares by round on the right."""
    losses = results[results["metric"] == "nats_per_token"]
    domains = losses["domain"].tolist()
    styles = domain_styles(domains)
    better = int((losses["verdict"] == "better").sum())
    drawn = make_subplots(
        cols=2,
        column_widths=[0.5, 0.5],
        horizontal_spacing=0.09,
        subplot_titles=(
            "Held-out loss, base model (ring) to tuned (dot), 95 % intervals",
            "Share of each domain, by round",
        ),
    )
    for row in losses.itertuples():
        colour, name = styles[row.domain].colour, label(row.domain)
        drawn.add_scatter(
            x=[row.base, row.tuned],
            y=[name, name],
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={
                "size": 13,
                "symbol": ["circle-open", "circle"],
                "line": {"width": 2, "color": colour},
            },
            error_x={
                "array": [row.base_high - row.base, row.tuned_high - row.tuned],
                "arrayminus": [row.base - row.base_low, row.tuned - row.tuned_low],
                "thickness": 1.5,
            },
            showlegend=False,
            row=1,
            col=1,
        )
    rounds = history[history["round"] > 0]
    for domain in domains:
        own = rounds[rounds["domain"] == domain]
        drawn.add_scatter(
            x=own["round"],
            y=own["weight"],
            name=label(domain),
            line={"color": styles[domain].colour, "dash": styles[domain].dash, "width": 3},
            row=1,
            col=2,
        )
    drawn.update_layout(
        template="plotly_white",
        width=SIZE[0],
        height=SIZE[1],
        font={"size": 15},
        title={
            "text": f"<b>{better} of {len(domains)} domains have a lower held-out loss after "
            f"{int(rounds['round'].max())} rounds</b>",
            "x": 0.02,
            "font": {"size": 22},
        },
        margin={"l": 90, "r": 20, "t": 105, "b": 55},
        legend={"font": {"size": 14}},
    )
    drawn.update_yaxes(autorange="reversed", row=1, col=1)
    drawn.update_xaxes(title="nats per token", rangemode="tozero", row=1, col=1)
    drawn.update_yaxes(tickformat=".0%", rangemode="tozero", row=1, col=2)
    drawn.update_xaxes(title="round", dtick=1, row=1, col=2)
    return drawn


def main(data: Path, picture: Path) -> None:
    results = pd.read_csv(data / "08_reporting" / "results.csv")
    history = pd.read_parquet(data / "07_model_output" / "mixture_history.parquet")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "overview.html"
        figure(results, history).write_html(page, config={"staticPlot": True})
        browser = shutil.which("chromium") or shutil.which("google-chrome")
        if browser is None:
            raise SystemExit("Chromium is needed to draw the picture")
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--hide-scrollbars"),
                f"--window-size={SIZE[0]},{SIZE[1]}",
                "--virtual-time-budget=5000",
                f"--screenshot={picture.resolve()}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
