"""The colours of pages and figures: as figures hold them (for white), and for a dark page."""

COLOURS = (
    *("#195FC8", "#9C2C06", "#1FA766", "#AB5E90", "#C98400", "#372430", "#3397DB", "#5F276A"),
    *("#88884A", "#D8606C", "#0F5132", "#7A6FF0"),
)
"""The first eight (as many as share a chart) were searched for: at least 24 apart in CIE Lab for
normal, protanopic and deuteranopic eyes. All have at least 3 : 1 against white (WCAG 1.4.11)."""

DARK_COLOURS = (
    *("#5B79FF", "#F0603C", "#41D97D", "#C35FA8", "#F5BC30", "#B8AEA9", "#80E6FF", "#A8A2FF"),
    *("#B9B97A", "#FF9AA5", "#6FCF97", "#8F86FF"),
)
"""The same for a dark page, with at least 4.5 : 1 against it, so that they serve as text, too."""

PAPER, INK, MUTED, RULE = "#FFFFFF", "#1F2933", "#5D6778", "#E4E7EC"
DARK_PAPER, DARK_INK, DARK_MUTED, DARK_RULE = "#14181F", "#E6E9EE", "#A3ADBB", "#2E3642"

TEXT_CONTRAST = 4.5
"""Least contrast of text, WCAG 2.2 level AA."""


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` as WCAG defines it, in [0, 1]."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Contrast of two colours as WCAG defines it, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def as_text(colour: str) -> str:
    """``colour``, darkened until text in it can be read on white."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    for step in range(101):
        shade = "#" + "".join(f"{round(part * (100 - step) / 100):02X}" for part in parts)
        if contrast(shade, PAPER) >= TEXT_CONTRAST:
            return shade
    raise AssertionError("black can be read on white")


DARK = {
    **dict(zip(COLOURS, DARK_COLOURS, strict=True)),
    **{as_text(one): dark for one, dark in zip(COLOURS, DARK_COLOURS, strict=True)},
    **{PAPER: DARK_PAPER, INK: DARK_INK, MUTED: DARK_MUTED, RULE: DARK_RULE},
}
"""What takes the place of each colour of a figure on a dark page."""
