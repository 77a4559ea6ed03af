"""Numbers and lists as a person reads them."""

import math
from collections.abc import Iterable
from typing import Any


def number(value: Any, digits: int = 3, signed: bool = False) -> str:
    """A number with fixed digits; a dash when it is missing or not finite. Zero has no sign."""
    if not finite(value):
        return "–"
    text = f"{float(value):{'+' if signed else ''}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def percent(value: Any, digits: int = 1, signed: bool = False) -> str:
    """A share as per cent, with a true minus sign."""
    return "–" if not finite(value) else f"{number(100 * float(value), digits, signed)} %"


def points(value: Any, digits: int = 1) -> str:
    """A change as a part, or of a share: per cent or percentage points, without the unit."""
    return "–" if not finite(value) else number(100 * float(value), digits, signed=True)


def span(low: Any, high: Any, digits: int = 1, scale: float = 100) -> str:
    """An interval of ``scale`` times its ends, or nothing where it is not known."""
    if not (finite(low) and finite(high)):
        return ""
    return " to ".join(number(scale * end, digits, signed=True) for end in (low, high))


def thousands(value: Any) -> str:
    """A count with commas between the thousands."""
    return "–" if not finite(value) else f"{int(value):,}"


def gibibytes(value: Any) -> str:
    """Bytes as GiB."""
    return "–" if not finite(value) else f"{float(value) / 2**30:.2f} GiB"


def memory(value: Any) -> str:
    """Bytes as GiB, or as MiB where it is little."""
    if not finite(value) or float(value) >= 2**30 / 10:
        return gibibytes(value)
    return f"{float(value) / 2**20:.1f} MiB"


def duration(seconds: Any) -> str:
    """Seconds in the unit a person would say."""
    if not finite(seconds):
        return "–"
    seconds = float(seconds)
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def finite(value: Any) -> bool:
    """Whether ``value`` is a number that can be shown."""
    try:
        return value is not None and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def comma(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
