"""The rounds of the probe on samples and answers that are known: nothing is sampled or trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from versatune.artifacts import FolderRef
from versatune.data.config import Domains
from versatune.errors import VersatuneError
from versatune.probing.config import ProbeParams
from versatune.probing.estimate import estimate_shares, narrow_enough
from versatune.probing.judges.base import About, Background, Judgement, Labelled, Status
from versatune.probing.probe import (
    JudgementStore,
    about_judge,
    any_failed,
    batch_size,
    draw_samples,
    facts_of,
    join,
    judge_in_rounds,
    judge_samples,
    load_judgements,
    load_probe,
)
from versatune.samplers.base import Sample, Sampler
from versatune.work import make_folder


class Known(Sampler):
    """Of any four samples the first is empty, the others are about law, law and medicine."""

    begins = "<s>"

    def __init__(self) -> None:
        self.about = {"base": "known"}

    def batch(self, indices: range, seed: int) -> Iterator[Sample]:
        for i in reversed(indices):
            text = ("", "law", "law", "medicine")[i % 4]
            yield Sample(index=i, text=text, n_tokens=seed, ended=True)


class ByName:
    """Sure of a text that is a domain's name, and at first without an answer to some."""

    def __init__(self, unanswered: int = 0) -> None:
        self.unanswered = unanswered
        self.asked: list[int] = []

    def judge(self, texts: Sequence[str]) -> Judgement:
        self.asked.append(len(texts))
        probabilities = np.eye(2)[[int(text == "medicine") for text in texts]]
        status: list[Status] = ["ok"] * len(texts)
        for i in range(min(self.unanswered, len(texts))):
            status[i], probabilities[i] = "failed", np.nan
        self.unanswered = 0
        return Judgement(probabilities, status, np.full(len(texts), 0.25))


def params(**rounds: Any) -> ProbeParams:
    given = {"samples_per_round": 12, "min_rounds": 2, "max_rounds": 4, "half_width": 0.001}
    return ProbeParams.model_validate(
        {
            "seed": 5,
            "sampling": {"batch_size": 8},
            "rounds": {**given, **rounds},
            "estimate": {"bootstrap": 100, "correction": "none"},
        }
    )


@pytest.fixture
def trained(tmp_path: Path) -> FolderRef:
    Labelled.oracle(2).save(tmp_path)
    metadata = {"domains": ["law", "medicine"], "name": "by name", "accuracy": 1.0}
    return FolderRef(path=tmp_path, fingerprint="by name", metadata=metadata)


def probe(
    trained: FolderRef, judge: ByName, wanted: ProbeParams, looks: Any = None
) -> tuple[FolderRef, FolderRef]:
    folder = trained.path
    samples = make_folder(draw_samples(Known(), wanted), folder / "samples")
    piece = judge_in_rounds(Known(), samples, trained, wanted, lambda: judge, looks)
    return samples, make_folder(piece, folder / "judgements")


def test_all_rounds_are_judged_batch_by_batch(trained: FolderRef) -> None:
    """Twelve samples a round in batches of eight, of which each fourth is not asked about."""
    judge, looks = ByName(), []
    samples, judged = probe(trained, judge, params(), lambda n, e: looks.append((n, e.share)))
    assert samples.metadata["drawn"] == 24
    assert judge.asked == [6] * 6, "48 samples"
    assert [n for n, _ in looks] == [2, 3, 4]
    for _, share in looks:
        assert share == pytest.approx([2 / 3, 1 / 3])
    facts = dict(judged.metadata)
    assert facts.pop("asked")["rounds"]["samples_per_round"] == 12
    p = np.eye(2)[[0, 0, 1] * 12]
    widest = estimate_shares(p, Labelled.oracle(2), "none", 100, 5).half_widths.max()
    assert facts == {"n": 48, "rounds": 4, "stopped": "limit", "half_width": widest}
    drawn, said = load_probe(FolderRef.load(samples.path), judged)
    assert [s.index for s in drawn] == list(range(48))
    assert said.status == ["empty", "ok", "ok", "ok"] * 12
    np.testing.assert_array_equal(said.vocab_coverage, [np.nan, 0.25, 0.25, 0.25] * 12)
    np.testing.assert_array_equal(said.probabilities[said.ok], p)
    assert not any_failed(judged)


def test_rounds_end_when_the_judged_samples_are_enough(trained: FolderRef) -> None:
    """27 of 36 samples have a judgement: by these and not by all Anscombe's term is worked out."""
    p = np.eye(2)[[0, 0, 1] * 9]
    found = estimate_shares(p, Labelled.oracle(2), "none", 100, 5)
    width = float(found.half_widths.max())
    between = float(np.sqrt(width**2 + (1.96 / 31) ** 2))
    assert narrow_enough(found, 36, between) and not narrow_enough(found, 27, between)
    for folder, asked, rounds in (("a", between, 4), ("b", between + 0.01, 3)):
        (trained.path / folder).mkdir()
        Labelled.oracle(2).save(trained.path / folder)
        judge = trained.model_copy(update={"path": trained.path / folder})
        _, judged = probe(judge, ByName(), params(half_width=asked))
        assert (judged.metadata["rounds"], judged.metadata["n"]) == (rounds, 12 * rounds)
        assert judged.metadata["stopped"] == "half_width"


def test_what_failed_is_asked_again_by_another_run_alone(trained: FolderRef) -> None:
    judge = ByName(unanswered=1)
    _, judged = probe(trained, judge, params(max_rounds=2))
    assert judge.asked == [6] * 3 and any_failed(judged)
    assert load_judgements(judged.path, 24).status[:3] == ["empty", "failed", "ok"]
    _, again = probe(trained, judge, params(max_rounds=2))
    assert judge.asked == [6] * 4 and not any_failed(again)
    probe(trained, judge, params(max_rounds=2))
    assert judge.asked == [6] * 4


def test_other_rounds_look_again_and_judge_nothing_twice(trained: FolderRef) -> None:
    judge = ByName()
    probe(trained, judge, params(max_rounds=2))
    _, judged = probe(trained, judge, params(max_rounds=3))
    assert (judged.metadata["n"], judge.asked) == (36, [6] * 4 + [6])
    _, judged = probe(trained, judge, params(max_rounds=2))
    assert (judged.metadata["n"], judge.asked) == (24, [6] * 5)


def test_no_judgement_at_all_is_told(trained: FolderRef) -> None:
    with pytest.raises(VersatuneError) as told:
        probe(trained, ByName(unanswered=9), params(samples_per_round=4, min_rounds=1))
    assert str(told.value).startswith(
        "none of 4 samples could be judged (1 empty, 3 failed): look at what the base model says"
    )


def test_a_store_reads_what_it_has_and_opens_its_judge_when_it_must(tmp_path: Path) -> None:
    opened = []

    def opens() -> ByName:
        opened.append(1)
        return ByName()

    samples = [Sample(index=i, text="law", n_tokens=1, ended=True) for i in range(3)]
    store = JudgementStore(tmp_path, opens)
    for batch in (0, 1, 0):
        assert store.of(batch, samples).status == ["ok"] * 3
    assert opened == [1]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "wave_00000.safetensors",
        "wave_00001.safetensors",
    ]
    assert JudgementStore(tmp_path, opens).of(1, samples).vocab_coverage.tolist() == [0.25] * 3
    assert opened == [1]


def test_the_first_judgements_of_several() -> None:
    one, other = (ByName().judge(texts) for texts in (["law", "medicine"], ["medicine", "law"]))
    joined = join([one, other], 3)
    assert joined.probabilities.tolist() == [[1, 0], [0, 1], [0, 1]]
    assert joined.status == ["ok"] * 3 and joined.vocab_coverage.tolist() == [0.25] * 3


def test_empty_samples_have_no_probabilities() -> None:
    samples = list(Known().batch(range(4), 0))
    found = judge_samples(ByName(), samples)
    assert found.status == ["ok", "ok", "ok", "empty"]
    np.testing.assert_array_equal(found.probabilities, [[0, 1], [1, 0], [1, 0], [np.nan, np.nan]])
    np.testing.assert_array_equal(found.vocab_coverage, [0.25, 0.25, 0.25, np.nan])


def test_a_batch_is_no_larger_than_a_round() -> None:
    assert batch_size(params()) == 8
    assert batch_size(params(samples_per_round=5)) == 5


def test_samples_of_some_rounds(tmp_path: Path) -> None:
    """To the end of a batch: one round of 12 are two batches of 8, two rounds three."""
    one = make_folder(draw_samples(Known(), params(), 1), tmp_path)
    assert one.metadata["drawn"] == 16 and one.metadata["seed"] == 5
    assert make_folder(draw_samples(Known(), params()), tmp_path).metadata["drawn"] == 24


def test_what_a_judge_is_told(tmp_path: Path) -> None:
    plain = about_judge(params(), tmp_path, SecretStr("key"))
    assert plain == About({}, 5, tmp_path, "key", "probe.judge", None)
    domains = Domains.model_validate(
        {
            name: {"description": f"of {name}", "sources": [{"path": f"{name}.jsonl"}]}
            for name in ("law", "medicine")
        }
    )
    samples = FolderRef(path=tmp_path, fingerprint="samples")
    told = about_judge(params(), tmp_path, SecretStr(""), domains, samples, "probe.audit.judge")
    assert told.descriptions == {"law": "of law", "medicine": "of medicine"}
    assert told.background == Background(samples, 24) and told.key == "probe.audit.judge"


def test_odd_samples_are_counted() -> None:
    texts = ["a", "a", "b", " ", "loop " * 100]
    samples = [Sample(index=i, text=text, n_tokens=i, ended=i > 1) for i, text in enumerate(texts)]
    assert facts_of(samples) == {
        "empty": 1,
        "repeated": 1,
        "loop": 1,
        "cut_at_limit": 2,
        "mean_tokens": 2.0,
    }
