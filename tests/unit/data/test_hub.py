"""A hub data set that can't be had is told in a sentence, at once."""

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
    with pytest.raises(VersatuneError, match=rf"'nobody/nothing' can't be had: .*{words}"):
        check_hub(Source(hub="nobody/nothing"))


@pytest.mark.parametrize("hub", ["nobody/nothing-at-all", "no name!", "a/b/c"])
def test_a_wrong_name_ends_before_anything_is_read(tmp_path: Path, hub: str) -> None:
    domains = {
        "law": {"description": "l", "sources": [{"path": str(tmp_path / "a.jsonl")}]},
        "code": {"description": "c", "sources": [{"hub": hub}]},
    }
    (tmp_path / "a.jsonl").write_text("not read\n")
    with pytest.raises(VersatuneError, match=rf"the hub data set '{hub}' can't be had: "):
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
