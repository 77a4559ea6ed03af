"""The base model's own texts: where each rule begins, what is written down, what is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.probing.test_own_texts import DOMAINS, LAW, judged, probed, project
from versatune.artifacts import FolderRef, file_digest, read_json
from versatune.data.config import CleanParams, DomainConfig
from versatune.data.leaks import LeakIndex
from versatune.errors import VersatuneError
from versatune.probing.config import OwnTextParams
from versatune.probing.judges.base import Judgement
from versatune.probing.own_texts import (
    REPORT,
    VERSION,
    _check_enough,
    _split,
    account,
    in_words,
    own_rows_of,
    own_texts,
    read_report,
    rejections,
    sorted_out,
    unmeasured,
)
from versatune.samplers.base import Sample
from versatune.work import make_folder

PARAMS = OwnTextParams(min_confidence=0.5, min_tokens=5)


def sample(index: int, text: str, **more: Any) -> Sample:
    return Sample(**{"index": index, "text": text, "n_tokens": 5, "ended": True, **more})


def reason(one: Sample, row: tuple[float, float, float] | None = LAW, status: str = "ok") -> str:
    seen = Judgement(
        np.array([(np.nan,) * 3 if row is None else row]),
        [status],  # type: ignore[list-item]
        np.zeros(1),
    )
    return rejections([one], seen, PARAMS, LeakIndex([], 13), None)[0]


@pytest.mark.parametrize(
    ("one", "row", "said"),
    [
        (sample(0, "a river"), (0.5, 0.3, 0.2), ""),
        (sample(0, "a river"), (0.49, 0.31, 0.2), "unsure"),
        (sample(0, "a river", n_tokens=4), LAW, "too_short"),
        (sample(0, "a-r-"), LAW, ""),  # letters are half of it
        (sample(0, "a-r--"), LAW, "garbage"),
        (sample(0, "a b c---"), LAW, ""),  # blanks count as letters here
        (sample(0, "a river\x07 and more"), LAW, "garbage"),
        (sample(0, "a river\n\tand more"), LAW, ""),
        (sample(0, "a river", question="a", answer=" "), LAW, "no_answer"),
        (sample(0, "a river", question="a", answer="river"), LAW, ""),
        (sample(0, "a river", ended=False), LAW, ""),
        (sample(0, " - "), LAW, "empty"),
    ],
)
def test_where_a_rule_begins(one: Sample, row: Any, said: str) -> None:
    assert reason(one, row) == said


def test_a_text_without_a_judgement() -> None:
    assert reason(sample(0, "a river"), None, "refused") == "not_judged"
    assert reason(sample(0, "a river"), None, "empty") == "empty"


def test_the_split_of_a_draw() -> None:
    """Of 0.4 that are held out the lower half steers, where texts steer."""
    draws = (0.0, 0.19, 0.2, 0.39, 0.4, 0.9)
    assert [_split(d, 0.4, True) for d in draws] == [
        *("steering", "steering", "report", "report", "train", "train"),
    ]
    assert [_split(d, 0.4, False) for d in draws] == ["report"] * 4 + ["train"] * 2


def test_a_text_is_written_down_with_what_was_drawn() -> None:
    samples = [
        sample(7, "of medicine", ended=False),
        sample(8, "left out"),
        sample(9, "of law", question="what", answer="law", thought="hm"),
        sample(3, "of law too"),
    ]
    rows = [(0.1, 0.712345, 0.187655), LAW, (0.8, 0.1, 0.1), (0.9, 0.1, 0.0)]
    found = sorted_out(samples, judged(*rows), ["", "unsure", "", ""], DOMAINS, [], [], PARAMS, 0)
    assert [vars(text) for text in found] == [
        {
            "index": index,
            "domain": domain,
            "split": "report",
            "ended": ended,
            "confidence": confidence,
            "text": text,
            "question": question,
            "answer": answer,
            "thought": thought,
        }
        for index, domain, ended, confidence, text, question, answer, thought in (
            (3, "law", True, 0.9, "of law too", "", "", ""),
            (9, "law", True, 0.8, "of law", "what", "law", "hm"),
            (7, "medicine", False, 0.7123, "of medicine", "", "", ""),
        )
    ]


def test_where_every_sample_went() -> None:
    """Four judged to be of law, of which two stay; one of medicine; two that no domain lost."""
    samples = [sample(i, f"text {i}") for i in range(7)]
    rows = [LAW, LAW, LAW, LAW, (0.1, 0.8, 0.1), None, None]
    reasons = ["", "unsure", "unsure", "", "loop", "not_judged", "not_judged"]
    texts = sorted_out(samples, judged(*rows), reasons, DOMAINS, ["medicine"], [], PARAMS, 0)
    report = account(texts, judged(*rows), reasons, DOMAINS, ["medicine"])
    assert report["rejected"] == {"unsure": 2, "not_judged": 2, "loop": 1}
    assert report["samples"] == 7
    none = {"train": 0, "steering": 0, "report": 0}
    assert report["domains"] == {
        "law": {"trained_on": False, "own": {**none, "report": 2}, "rejected": {"unsure": 2}},
        "medicine": {"trained_on": True, "own": none, "rejected": {"loop": 1}},
        "other": {"trained_on": False, "own": none, "rejected": {}},
    }
    assert in_words(report["domains"]["law"]) == (
        "2 texts of the base model's own (0 to train, 0 to steer, 2 to report); left out: 2 unsure"
    )
    assert in_words({"own": {"train": 4, "steering": 3, "report": 2}, "rejected": {}}) == (
        "9 texts of the base model's own (4 to train, 3 to steer, 2 to report); left out: none"
    )
    two = {"own": none, "rejected": {"unsure": 2, "loop": 1}}
    assert in_words(two).endswith("left out: 2 unsure, 1 loop")


ENOUGH = {"train": 1, "steering": 2, "report": 2}


def test_how_few_texts_are_enough() -> None:
    _check_enough("other", {"own": ENOUGH, "rejected": {}}, 9)
    for split, least in ENOUGH.items():
        few = {**ENOUGH, split: least - 1}
        with pytest.raises(VersatuneError, match="and the domain has no other rows"):
            _check_enough("other", {"own": few, "rejected": {}}, 9)


TEXT = "take a base model that writes text (most of this one's is none)"


@pytest.mark.parametrize(
    ("rejected", "remedy"),
    [
        ({"unsure": 3, "loop": 1}, ", lower probe.own_texts.min_confidence"),
        ({"too_short": 3}, ", lower probe.own_texts.min_tokens"),
        ({"no_answer": 3}, ", raise probe.sampling.max_new_tokens"),
        ({"garbage": 3}, f", {TEXT}"),
        ({"loop": 3, "unsure": 1}, f", {TEXT}"),
        ({"empty": 3}, f", {TEXT}"),
        ({"leaked": 3}, ""),
        ({}, ""),
    ],
)
def test_what_is_said_of_too_few(rejected: dict[str, int], remedy: str) -> None:
    with pytest.raises(VersatuneError) as told:
        _check_enough("other", {"own": {**ENOUGH, "steering": 0}, "rejected": rejected}, 9)
    lost = ", ".join(f"{n} {name}" for name, n in rejected.items()) or "none left out"
    assert str(told.value) == (
        "domains.other: of 9 texts that the base model wrote, 1 are left to train on, 0 to steer "
        f"and 2 to report ({lost}), and the domain has no other rows. Draw more "
        f"(probe.rounds.min_rounds){remedy}, or give the domain rows."
    )


def test_what_is_said_of_domains_without_rows(tmp_path: Path) -> None:
    clean = FolderRef(path=tmp_path, fingerprint="clean", metadata={"only_own": ["other"]})
    assert unmeasured(clean) == [
        "other has no rows, so the judge's errors on it are unknown: its share is not corrected, "
        "and no measurement."
    ]


def test_a_probe_that_was_left_out_has_no_texts(tmp_path: Path) -> None:
    skipped = FolderRef(path=tmp_path, fingerprint="none", metadata={"skipped": True})
    assert read_report(skipped) == {"samples": 0, "rejected": {}, "domains": {}}


def test_what_a_folder_hangs_on_and_holds(tmp_path: Path) -> None:
    folders = probed(tmp_path)
    questions = tmp_path / "exam.jsonl"
    questions.write_text(json.dumps({"question": "is it so?", "answer": "yes"}) + "\n")
    domains = project(other=[{"self": True}], law=[{"self": True}, {"path": "law.jsonl"}])
    active = dict(domains.active)
    law = {"description": "law", "sources": [{"self": True}, {"path": "law.jsonl"}]}
    active["law"] = DomainConfig.model_validate({**law, "evaluation": [{"path": str(questions)}]})
    clean, params = CleanParams(seed=4, leak_words=9), OwnTextParams(min_tokens=3, held_out=0.6)
    piece = own_texts(*folders, DOMAINS, active, clean, params)
    assert piece.inputs == {
        "version": VERSION,
        "samples": folders[0].fingerprint,
        "judgements": [folders[1].fingerprint, 60],
        "params": params,
        "trained_on": [["law", "other"], ["other"]],
        "ingest": [4, 9, clean.near_duplicate_threshold],
        "questions": [file_digest(questions)],
    }
    made = make_folder(piece, tmp_path / "own")
    report = read_json(made.path / REPORT)
    assert made.metadata == {
        "domains": list(DOMAINS),
        "trained_on": ["law", "other"],
        "own": {name: entry["own"] for name, entry in report["domains"].items()},
        "rejected": report["rejected"],
    }
    assert report["samples"] == 60 and sum(report["domains"]["law"]["own"].values()) == 20
    assert report["domains"]["law"]["own"]["steering"] == 0
    assert own_rows_of(made, active) == ["law", "other"]
    lines = (made.path / "texts.jsonl").read_text().splitlines()
    assert len(lines) == 60
    first = json.loads(lines[0])
    assert list(first)[:6] == ["index", "domain", "split", "ended", "confidence", "text"]
    with pytest.raises(VersatuneError) as told:
        own_rows_of(made, project(law=[{"self": True}]).active)
    assert str(told.value) == (
        "law: the base model's own texts were not selected for `self: true` there: run the probe "
        "pipeline again."
    )
