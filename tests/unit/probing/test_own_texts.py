"""Which samples stand for rows: filters one by one, splits, counts, and judges without rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.probe_rows import WORDS, cleaned, sentence
from versatune.artifacts import FolderRef
from versatune.data.config import CleanParams, Domains
from versatune.data.leaks import LeakIndex
from versatune.data.own_rows import read_own_texts
from versatune.errors import VersatuneError
from versatune.probing.config import ClassifierParams, OwnTextParams
from versatune.probing.judges.base import About, Background, Judgement, Labelled
from versatune.probing.judges.classifier import Classifier, train
from versatune.probing.own_texts import (
    _check_enough,
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
from versatune.work import WorkFolder, make_folder

DOMAINS = ("law", "medicine", "other")
PARAMS = OwnTextParams(min_confidence=0.6, min_tokens=5)
QUESTION = "which statute governs the sale of a garden by a person who does not own it"


def sample(index: int, text: str, n_tokens: int = 9, ended: bool = True) -> Sample:
    return Sample(index=index, text=text, n_tokens=n_tokens, ended=ended)


def judged(*rows: tuple[float, float, float] | None) -> Judgement:
    probabilities = [(np.nan,) * 3 if row is None else row for row in rows]
    status = ["failed" if row is None else "ok" for row in rows]
    return Judgement(np.array(probabilities), status, np.zeros(len(rows)))  # type: ignore[arg-type]


LAW, UNSURE = (0.8, 0.1, 0.1), (0.5, 0.3, 0.2)
LONG = " ".join(f"word{i}" for i in range(60))
CASES = [
    ("a river in the mountains is cold", LAW, 9, ""),
    ("A  river in the mountains IS cold", LAW, 9, "duplicate"),
    (f"{LONG} end", LAW, 70, ""),
    (f"{LONG} stop", LAW, 70, "near_duplicate"),
    ("river", LAW, 4, "too_short"),
    ("a river in the mountains is warm", UNSURE, 9, "unsure"),
    ("a river in the mountains is wet", None, 9, "not_judged"),
    ("", None, 0, "empty"),
    ("loop " * 200, LAW, 200, "loop"),
    ("a river \ufffd\ufffd in the mountains", LAW, 9, "garbage"),
    ("{}[];:((**))!!--++ab", LAW, 9, "garbage"),
    (f"Q: {QUESTION}? A: none", LAW, 20, "leaked"),
]


def test_each_filter_leaves_out_its_own() -> None:
    samples = [sample(i, text, n) for i, (text, _, n, _) in enumerate(CASES)]
    judgement = judged(*(row for _, row, _, _ in CASES))
    found = rejections(samples, judgement, PARAMS, LeakIndex([QUESTION], 13), 0.85)
    assert found == [reason for *_, reason in CASES]
    kept = rejections(samples, judgement, PARAMS, LeakIndex([], 13), None)
    assert kept[3] == kept[11] == "" and kept[1] == "duplicate"


def test_a_question_needs_an_answer_that_was_ended() -> None:
    asked = {"question": "what is a river", "index": 0, "n_tokens": 9}
    samples = [
        Sample(
            text="what is a river\nwater that flows", ended=True, answer="water that flows", **asked
        ),
        Sample(text="what is a river\nwater that", ended=False, answer="water that", **asked),
        Sample(text="what is a river", ended=True, **asked),
    ]
    found = rejections(samples, judged(LAW, LAW, LAW), PARAMS, LeakIndex([], 13), None)
    assert found == ["", "no_answer", "no_answer"]
    (text,) = sorted_out(samples, judged(LAW, LAW, LAW), found, DOMAINS, ["law"], [], PARAMS, 0)
    assert (text.question, text.answer) == ("what is a river", "water that flows")


def test_splits_and_counts_add_up() -> None:
    rng = np.random.default_rng(0)
    samples = [sample(i, f"text {i} of the model itself") for i in range(900)]
    rows = [tuple(np.roll(LAW, int(j))) for j in rng.integers(0, 3, 900)]
    judgement, reasons = judged(*rows), ["unsure" if i % 9 == 0 else "" for i in range(900)]
    params = OwnTextParams(held_out=0.4)
    alone, trained_on = ["other"], ["medicine", "other"]
    texts = sorted_out(samples, judgement, reasons, DOMAINS, trained_on, alone, params, 7)
    assert [t.domain for t in texts] == sorted((t.domain for t in texts), key=DOMAINS.index)
    report = account(texts, judgement, reasons, DOMAINS, trained_on)
    own = {name: entry["own"] for name, entry in report["domains"].items()}
    assert own["law"]["train"] == own["law"]["steering"] == own["medicine"]["steering"] == 0
    assert report["rejected"] == {"unsure": 100}
    assert sum(sum(of.values()) for of in own.values()) + 100 == report["samples"] == 900
    assert sum(e["rejected"]["unsure"] for e in report["domains"].values()) == 100
    n = sum(own["other"].values())
    for split, share in (("train", 0.6), ("steering", 0.2), ("report", 0.2)):
        assert own["other"][split] / n == pytest.approx(share, abs=0.08)
    assert own["medicine"]["train"] / sum(own["medicine"].values()) == pytest.approx(0.6, abs=0.08)
    again = sorted_out(samples, judgement, reasons, DOMAINS, trained_on, alone, params, 7)
    other = sorted_out(samples, judgement, reasons, DOMAINS, trained_on, alone, params, 8)
    assert texts == again != other
    assert "left out: " in in_words(report["domains"]["other"])


def project(**domains: list) -> Domains:
    sources = {name: [{"path": f"{name}.jsonl"}] for name in DOMAINS} | domains
    return Domains.model_validate(
        {name: {"description": name, "sources": sources[name]} for name in DOMAINS}
    )


def probed(folder: Path, n: int = 60) -> tuple[FolderRef, FolderRef]:
    """A probe's two folders as its stages leave them: every third text is of each domain."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(1)
    texts = [sentence(rng, DOMAINS[i % 3], purity=1, words=12) for i in range(n)]
    drawn = WorkFolder.open(folder / "samples", {"n": n})
    lines = [sample(i, text, ended=i % 2 == 0).model_dump_json() for i, text in enumerate(texts)]
    (drawn.path / "wave_00000.jsonl").write_text("\n".join(lines) + "\n")
    judgements = WorkFolder.open(folder / "judgements", {"of": n})
    save_file(
        {
            "probabilities": np.array([np.roll(LAW, i % 3) for i in range(n)]),
            "status": np.zeros(n, dtype=np.int64),
            "vocab_coverage": np.zeros(n),
        },
        judgements.path / "wave_00000.safetensors",
    )
    return drawn.seal(drawn=n), judgements.seal(n=n)


def test_a_folder_of_own_texts(tmp_path: Path) -> None:
    folders = probed(tmp_path)
    domains = project(other=[{"self": True}])
    asked = (DOMAINS, domains.active, CleanParams(seed=0))
    piece = own_texts(*folders, *asked, OwnTextParams())
    made = make_folder(piece, tmp_path / "own")
    texts = read_own_texts(made)
    assert len(texts) == 60 and {t.split for t in texts if t.domain != "other"} == {"report"}
    assert made.metadata["trained_on"] == ["other"] == own_rows_of(made, domains.active)
    assert read_report(made)["domains"]["other"]["own"] == made.metadata["own"]["other"]
    assert all(t.ended == (t.index % 2 == 0) for t in texts)
    with pytest.raises(VersatuneError, match="run the probe pipeline again"):
        own_rows_of(made, project(law=[{"self": True}]).active)
    # What is asked for decides the folder; a file of questions too.
    other = own_texts(*folders, *asked, OwnTextParams(held_out=0.5))
    assert other.fingerprint != piece.fingerprint


def test_too_few_own_texts_are_refused_with_counts(tmp_path: Path) -> None:
    folders = probed(tmp_path)
    params = OwnTextParams(min_confidence=0.9)
    domains = project(other=[{"self": True}]).active
    piece = own_texts(*folders, DOMAINS, domains, CleanParams(seed=0), params)
    with pytest.raises(VersatuneError, match=r"domains.other: of 60 texts.*0 are left.*20 unsure"):
        make_folder(piece, tmp_path / "own")
    # A domain with rows of its own needs none.
    both = project(other=[{"self": True}, {"path": "other.jsonl"}]).active
    piece = own_texts(*folders, DOMAINS, both, CleanParams(seed=0), params)
    assert make_folder(piece, tmp_path / "own").metadata["rejected"] == {"unsure": 60}


def rows_without(folder: Path, *empty: str) -> FolderRef:
    rng = np.random.default_rng(0)
    return cleaned(
        folder,
        {
            name: [
                (sentence(rng, name), sentence(rng, name))
                for _ in range(0 if name in empty else 60)
            ]
            for name in WORDS
        },
    )


def test_a_classifier_takes_samples_for_the_one_domain_without_rows(tmp_path: Path) -> None:
    rows = rows_without(tmp_path / "rows", "other")
    samples, _ = probed(tmp_path, 240)
    params = ClassifierParams()
    about = About(background=Background(samples, 240))
    judge = make_folder(train(rows, params, about), tmp_path / "judge")
    assert judge.metadata["domains"] == list(WORDS)
    rng = np.random.default_rng(5)
    texts = [sentence(rng, "other", purity=1) for _ in range(40)]
    said = Classifier.load(judge).judge(texts).probabilities.argmax(axis=1)
    assert (said == 2).mean() > 0.9
    # Other samples make another judge; where every domain has rows, they make no difference.
    other = About(background=Background(samples, 100))
    assert train(rows, params, other).fingerprint != judge.fingerprint
    full = rows_without(tmp_path / "full")
    of_full = train(full, params, About(background=Background(samples, 9)))
    assert of_full.inputs == train(full, params, About()).inputs


def test_a_classifier_refuses_several_domains_without_rows(tmp_path: Path) -> None:
    rows = rows_without(tmp_path / "rows", "law", "other")
    assert [w.split()[0] for w in unmeasured(rows)] == ["law", "other"]
    assert unmeasured(rows_without(tmp_path / "full")) == []
    with pytest.raises(VersatuneError, match=r"law, other have none.*likelihood"):
        train(rows, ClassifierParams(), About())


def test_domains_without_labelled_rows_are_trusted() -> None:
    labelled = Labelled(np.array([[0.7, 0.2, 0.1]]), np.array([0]), np.array([1.0]))
    found = labelled.with_oracle([1, 2])
    assert found.labels.tolist() == [0, 1, 2]
    assert found.probabilities.tolist() == [[0.7, 0.2, 0.1], [0, 1, 0], [0, 0, 1]]
    assert json.dumps(labelled.with_oracle([]).labels.tolist()) == "[0]"


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("unsure", "lower probe.own_texts.min_confidence"),
        ("too_short", "lower probe.own_texts.min_tokens"),
        ("garbage", "take a base model that writes text"),
        ("duplicate", "(probe.rounds.min_rounds), or give the domain rows"),
    ],
)
def test_too_few_texts_are_refused_with_what_helps(reason: str, remedy: str) -> None:
    entry = {"own": {"train": 1, "steering": 0, "report": 0}, "rejected": {reason: 9, "leaked": 1}}
    with pytest.raises(VersatuneError) as refused:
        _check_enough("other", entry, 11)
    assert f"1 are left to train on, 0 to steer and 0 to report (9 {reason}, 1 leaked)" in str(
        refused.value
    )
    assert remedy in str(refused.value)
