"""What the parent reads of a child that trains."""

from pathlib import Path

from versatune.training.launch import _follow


def test_events_end_at_line_feeds_alone_and_unfinished_ones_wait(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": "x\u2028y\x85z"}\n{"b": 1', encoding="utf-8")
    events = _follow(path)
    assert next(events) == '{"a": "x\u2028y\x85z"}'
    assert next(events) is None
    with path.open("a", encoding="utf-8") as out:
        out.write("}\n")
    assert next(events) == '{"b": 1}'
    assert next(events) is None
