"""Pictures of MLflow's and kedro-viz's pages for the documentation, from servers that run.

    pip install playwright     # no part of the project's environment; Chromium is the system's
    kedro mlflow ui --port 5123 & kedro viz run --port 5124 &
    python -m tests.benchmarks.tool_screenshots mlflow http://127.0.0.1:5123 RUN_ID docs
    python -m tests.benchmarks.tool_screenshots viz http://127.0.0.1:5124 trained_model docs

Writes ``mlflow_runs.png``, ``mlflow_compare.png`` and ``mlflow_run.png``, or ``kedro_viz.png``.
Look at them: the hints that are clicked away stand where MLflow 3.17 and kedro-viz 12.5 put them.
SECONDS_TO_WAIT in the environment gives a page more time than 9 seconds.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = 96
RUNS = "/#/experiments/1/runs"
TRAINING = "workflowType=machine_learning"
WAIT = 1000 * int(os.environ.get("SECONDS_TO_WAIT", "9"))
"""Milliseconds that a page gets to draw itself; a busy machine needs more."""


def save(page: Any, target: Path, height: int) -> None:
    """The page's upper part, with few colours: a tenth of the bytes."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        page.screenshot(path=str(shot))
        with Image.open(shot) as seen:
            small = seen.convert("RGB").crop((0, 0, seen.width, height))
            small.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size // 1024} KB")


def mlflow(page: Any, server: str, run: str, docs: Path) -> None:
    page.goto(f"{server}{RUNS}?{TRAINING}&viewStateShareKey=runs")
    page.wait_for_timeout(WAIT)
    page.mouse.click(1239, 36)  # MLflow's assistant
    page.wait_for_timeout(2000)
    save(page, docs / "mlflow_runs.png", 480)
    page.goto(f"{server}{RUNS}?{TRAINING}&viewStateShareKey=losses&compareRunsMode=CHART")
    page.wait_for_timeout(WAIT)
    page.mouse.click(1239, 36)  # MLflow's assistant
    page.mouse.move(300, 700)
    page.wait_for_timeout(4000)
    save(page, docs / "mlflow_compare.png", 940)
    page.goto(f"{server}{RUNS}/{run}?{TRAINING}")
    page.wait_for_timeout(WAIT)
    page.get_by_text("Show more").first.click()
    page.wait_for_timeout(1500)
    save(page, docs / "mlflow_run.png", 720)


def viz(page: Any, server: str, entry: str, docs: Path) -> None:
    page.goto(server)
    page.wait_for_timeout(WAIT)
    page.get_by_text("Dismiss").first.click()
    page.mouse.click(1225, 489)  # the hints
    page.wait_for_timeout(800)
    page.get_by_text(entry, exact=True).first.click(force=True)
    page.wait_for_timeout(3500)
    page.mouse.click(808, 489)  # the hints, where they are by now
    page.wait_for_timeout(1200)
    save(page, docs / "kedro_viz.png", 735)


def main(what: str, server: str, name: str, docs: str) -> None:
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("these pictures need Chromium")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": 1280, "height": 940 if what == "mlflow" else 860})
        page.set_default_timeout(10 * WAIT)
        {"mlflow": mlflow, "viz": viz}[what](page, server, name, Path(docs))
        opened.close()


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] not in ("mlflow", "viz"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
