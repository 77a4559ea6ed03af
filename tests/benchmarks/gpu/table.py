"""What was measured, as one table."""

from collections.abc import Mapping
from typing import Any

HEAD = ("line", "tokens/s", "MFU", "peak GB", "planned", "/ TRL", "/ bare", "adaptivity", "note")


def table(results: Mapping[str, Any]) -> str:
    """The checks, then a row a model; columns as wide as their longest entry."""
    rows = [HEAD, *(_row(name, found) for name, found in results["lines"].items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = [f"{name}: {said(check)}" for name, check in results["checks"].items()]
    for row in rows:
        cells = (
            cell.ljust(width) if i in (0, len(HEAD) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def said(check: Mapping[str, Any]) -> str:
    """A check in a sentence."""
    if "error" in check:
        return f"not finished ({check['error']})"
    return f"{check['said']} in {check['seconds']:.0f} s"


def _row(name: str, found: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    failed = [f"{who}: {given['error']}" for who, given in found.items() if "error" in given]
    if "batch 1" in found or "static" in found:
        return _sampled(name, found, failed)
    mine = found.get("ours", {"error": "not begun"})
    note = "; ".join(failed)
    if "error" in mine:
        return (name, *[""] * (len(HEAD) - 2), note)
    notes = ["activations made again"] if mine["gradient_checkpointing"] else []
    if "attention" in found.get("trl", {}):
        notes.append(f"TRL: {found['trl']['attention']}")
    if mine["layout"] != "varlen":
        notes.append(f"layout {mine['layout']}")
    return (
        name,
        f"{mine['tokens_per_second']:,.0f}",
        "" if mine["mfu"] is None else f"{mine['mfu']:.2f}",
        f"{mine['peak_gb']:.1f}" if mine["peak_gb"] else "",
        f"{mine['planned_gb']:.1f}",
        _ratio(mine, found.get("trl")),
        _ratio(mine, found.get("bare")),
        f"{mine['adaptivity']:.1%}",
        "; ".join([*notes, *failed]),
    )


def _sampled(
    name: str, found: Mapping[str, Mapping[str, Any]], failed: list[str]
) -> tuple[str, ...]:
    """What was drawn by a static cache; the others, and how many times batch 1 it is, noted."""
    speeds = {who: f["tokens_per_second"] for who, f in found.items() if "error" not in f}
    first = speeds.get("static")
    notes = [f"{who} {speed:,.0f}" for who, speed in speeds.items() if who != "static"]
    if first and "batch 1" in speeds:
        notes.append(f"{first / speeds['batch 1']:.0f} times batch 1")
    peak = found.get("static", {}).get("peak_gb") or 0.0
    cells = (f"{first:,.0f}" if first else "", "", f"{peak:.1f}" if peak else "")
    return (name, *cells, *[""] * (len(HEAD) - 5), "; ".join([*notes, *failed]))


def _ratio(mine: Mapping[str, Any], other: Mapping[str, Any] | None) -> str:
    if other is None or "error" in other:
        return ""
    return f"{mine['tokens_per_second'] / other['tokens_per_second']:.2f}"
