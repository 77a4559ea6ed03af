"""What counts as news: content and values, not times and names."""

import os
from pathlib import Path
from typing import Any

import pytest

from versatune.retraining import news


def state(files: dict[str, str], **parameters: Any) -> dict[str, Any]:
    return {"data": {"law": {"settings": {}, "files": files}}, "parameters": parameters}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (None, state({}), ["the first retraining"]),
        (state({"a": "1"}), state({"a": "1"}), []),
        (state({"a": "1"}), state({"a": "1", "x/b": "2"}), ["law: 1 file new (b)"]),
        (
            state({"a": "1", "b": "1"}),
            state({"a": "2"}),
            ["law: 1 file changed (a), 1 file gone (b)"],
        ),
        (state({}, rate=1), state({}, rate=2), ["parameters: rate: 1 -> 2"]),
    ],
)
def test_differences_are_told(before: Any, after: Any, said: list[str]) -> None:
    assert news.what_is_new(before, after) == said


def test_a_digest_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("one")
    os.utime(file, (1, 1))
    first = news.Digests(tmp_path / "digests.json")
    digest = first.of(file)
    first.save()
    with monkeypatch.context() as patch:
        patch.setattr(news, "file_digest", lambda _path: pytest.fail("read again"))
        assert news.Digests(tmp_path / "digests.json").of(file) == digest
    file.write_text("two")
    assert news.Digests(tmp_path / "digests.json").of(file) != digest


def test_a_file_changed_just_now_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("one")
    first = news.Digests(tmp_path / "digests.json")
    before, stamp = first.of(file), file.stat()
    first.save()
    file.write_text("two")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert news.Digests(tmp_path / "digests.json").of(file) != before
