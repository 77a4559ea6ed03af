"""A hub data set that can't be loaded is refused in a sentence, at once."""

import time
from pathlib import Path
from typing import Any

import pytest

from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains, Source
from versatune.data.hub import check_hub
from versatune.errors import VersatuneError
from versatune.work import make_folder


def hub_error(kind: str) -> Exception:
    """One of the client's own errors, around an answer of the hub."""
    import huggingface_hub.errors

    made: type[Exception] = getattr(huggingface_hub.errors, kind)
    return made.__new__(made, kind)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("RepositoryNotFoundError", "there is no such data set, or it is private"),
        ("GatedRepoError", "grants access on request"),
        ("RevisionNotFoundError", "no such revision"),
        ("HfHubHTTPError", "can't be reached .* no copy in the cache; go online"),
    ],
)
def test_what_the_hub_answers_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, error: str, words: str
) -> None:
    def refuse(*_: Any, **_how: Any) -> None:
        raise hub_error(error)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    with pytest.raises(VersatuneError, match=rf"'nobody/nothing' can't be loaded: .*{words}"):
        check_hub(Source(hub="nobody/nothing"))


@pytest.mark.parametrize("hub", ["nobody/nothing-at-all", "no name!", "a/b/c"])
def test_a_wrong_name_ends_before_anything_is_read(tmp_path: Path, hub: str) -> None:
    domains = {
        "law": {"description": "l", "sources": [{"path": str(tmp_path / "a.jsonl")}]},
        "code": {"description": "c", "sources": [{"hub": hub}]},
    }
    (tmp_path / "a.jsonl").write_text("not read\n")
    with pytest.raises(VersatuneError, match=rf"the hub data set '{hub}' can't be loaded: "):
        make_folder(clean(Domains.model_validate(domains), CleanParams(seed=0)), tmp_path / "clean")


def test_an_unreachable_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's download would wait 1, 2, 4, 8 and 8 seconds between its attempts."""
    asked = []

    def unreachable(_: Any, repo: str, **_how: Any) -> None:
        asked.append(repo)
        raise ConnectionError("no route")

    def never(seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", never)
    with pytest.raises(VersatuneError, match="can't be reached"):
        check_hub(Source(hub="nobody/nothing"))
    assert asked == ["nobody/nothing"]


ROWS = [
    {
        "instruction": f"What is item {i} of the list that law {i % 7} names?",
        "output": f"It is {i}.",
    }
    for i in range(2500)
] + [{"instruction": "No answer?", "output": ""}]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as the hub has it, in two files."""
    import pandas as pd

    folder = tmp_path_factory.mktemp("hub") / "laws"
    folder.mkdir()
    for part, rows in enumerate((ROWS[:1300], ROWS[1300:])):
        pd.DataFrame(rows).to_parquet(folder / f"train-{part:05}-of-00002.parquet")
    return folder


def test_a_stream_has_the_rows_of_the_data_set_in_their_order(clone: Path) -> None:
    from versatune.data.hub import read_hub

    whole, stream = (
        list(read_hub(Source(hub=str(clone), streaming=streaming))) for streaming in (False, True)
    )
    assert len(whole) == len(ROWS)
    assert stream == whole


def test_a_stream_writes_no_copy(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from versatune.data.hub import read_hub

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a copy is prepared on the disk")

    monkeypatch.setattr(datasets.DatasetBuilder, "download_and_prepare", never)
    assert next(read_hub(Source(hub=str(clone), streaming=True))).values == ROWS[0]  # type: ignore[union-attr]
    with pytest.raises(VersatuneError, match="a copy is prepared"):
        next(read_hub(Source(hub=str(clone))))


def test_the_checks_of_a_stream_are_the_same(clone: Path, tmp_path: Path) -> None:
    reports = []
    lines = (f'{{"instruction": "Sort list {i}.", "output": "sorted(x{i})"}}' for i in range(40))
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    for streaming in (False, True):
        source = {"hub": str(clone), "streaming": streaming}
        domains = Domains.model_validate(
            {
                "law": {"description": "l", "sources": [source]},
                "code": {"description": "c", "sources": [{"path": str(tmp_path / "a.jsonl")}]},
            }
        )
        piece = clean(domains, CleanParams(seed=0, max_reject_rate=1))
        ref = make_folder(piece, tmp_path / str(streaming))
        reports.append((piece.inputs, ref.metadata, (ref.path / "report.json").read_text()))
    assert reports[0] == reports[1]
    assert '"rejected"' in reports[0][2]
