"""Pictures of the report for the documentation, from the data folder of a finished run.

    python -m tests.benchmarks.screenshots data docs

Writes ``report.png`` and ``report_dark.png`` (1280 x 900) and ``report_phone.png`` (390 x 844): the
first screen as Chromium draws it; and ``report_print.png``: the first printed pages side by side,
where poppler's ``pdftoppm`` is installed.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDE, PHONE = (1280, 900), (390, 844)
PICTURES = {
    "report": ("light", WIDE),
    "report_dark": ("dark", WIDE),
    "report_phone": ("light", PHONE),
}
PAGES = 3
LEAST_WINDOW = 500
"""Pixels below which Chromium makes no window: narrower pages stand in a frame, cut out after."""


def find_page(data: Path) -> Path:
    """The report in the reporting folder of ``data``."""
    for page in sorted(data.glob("08_reporting*/report.html")):
        return page
    raise SystemExit(f"{data} holds no 08_reporting/report.html: give the data folder of a run.")


def picture(browser: str, page: str, target: Path, theme: str, size: tuple[int, int]) -> None:
    """The first screen of ``page`` (HTML) in that theme and size."""
    width, height = size
    themed = page.replace('<html lang="en">', f'<html lang="en" data-theme="{theme}">', 1)
    if themed == page:
        raise SystemExit("the page has no place for its theme: was it written by this version?")
    frame = (
        '<body style="margin:0;overflow:hidden"><iframe src="page.html" style="border:0;'
        f'width:{width}px;height:{height}px"></iframe>'
    )
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "page.html").write_text(themed, encoding="utf-8")
        (here / "frame.html").write_text(frame, encoding="utf-8")
        subprocess.run(
            [
                browser,
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--virtual-time-budget=10000", f"--user-data-dir={here / 'profile'}"),
                f"--window-size={max(width, LEAST_WINDOW)},{height}",
                f"--screenshot={here / 'shot.png'}",
                f"file://{here / 'frame.html'}",
            ],
            check=True,
            capture_output=True,
            timeout=600,
        )
        with Image.open(here / "shot.png") as shot:
            shot.convert("RGB").crop((0, 0, width, height)).save(target, optimize=True)


def printed(browser: str, page: Path, target: Path) -> None:
    """The first :data:`PAGES` pages of the report as it is printed, side by side."""
    with tempfile.TemporaryDirectory() as folder:
        pdf = Path(folder) / "report.pdf"
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer")
        subprocess.run(
            [
                *(browser, *flags, f"--user-data-dir={folder}/profile"),
                *("--virtual-time-budget=10000", f"--print-to-pdf={pdf}", page.absolute().as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=600,
        )
        subprocess.run(
            ["pdftoppm", "-r", "48", "-png", "-l", str(PAGES), str(pdf), f"{folder}/page"],
            check=True,
        )
        sheets = [Image.open(file).convert("RGB") for file in sorted(Path(folder).glob("*.png"))]
    gap, (width, height) = 12, sheets[0].size
    shown = Image.new("RGB", ((width + gap) * len(sheets) + gap, height + 2 * gap), "#d0d0d0")
    for number, sheet in enumerate(sheets):
        shown.paste(sheet, (gap + number * (width + gap), gap))
    shown.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)


def main(data: str, docs: str) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("these pictures need Chromium")
    file = find_page(Path(data))
    page = file.read_text(encoding="utf-8")
    for name, (theme, size) in PICTURES.items():
        target = Path(docs) / f"{name}.png"
        picture(browser, page, target, theme, size)
        print(f"{target}: {target.stat().st_size // 1024} KB")
    if shutil.which("pdftoppm"):
        printed(browser, file, Path(docs) / "report_print.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
