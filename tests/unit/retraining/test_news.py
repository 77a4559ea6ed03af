"""What counts as news: content and values, not times and names."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from versatune.data.config import CleanParams, TokenizeParams
from versatune.evaluation.config import EvaluateParams, HarnessParams
from versatune.modeling.checkpoints import CheckpointRef
from versatune.retraining import news
from versatune.retraining.challenger import what_matters
from versatune.retraining.config import RetrainParams
from versatune.training.config import TrainParams


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


def test_task_files_of_ones_own_are_news_by_content(tmp_path: Path) -> None:
    def matters(folder: str, **changes: Any) -> dict[str, Any]:
        named = HarnessParams(tasks={"law": ("courts",)}, include_path=tmp_path / folder)
        found = what_matters(
            RetrainParams(),
            CleanParams(seed=0),
            TokenizeParams(),
            TrainParams(),
            EvaluateParams(harness=named, **changes),
            CheckpointRef(name="base", path=tmp_path, fingerprint="0"),
            tmp_path / "knowledge.json",
        )
        assert json.loads(json.dumps(found)) == found, "as it is read back the next night"
        return found

    for folder in ("one", "moved"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "courts.yaml").write_text("task: courts")
    before = matters("one")
    assert matters("moved") == before
    assert matters("one", batch_tokens=99, rows_per_domain=7) == before
    (tmp_path / "one" / "courts.yaml").write_text("task: judges")
    assert matters("one") != before


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
