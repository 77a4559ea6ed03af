"""The probe's result, its checks and its table: every number by hand, from answers that are known.

No model and no training: a judge's folder, an audit's and the samples are written down."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from versatune.artifacts import FolderRef
from versatune.probing import result
from versatune.probing.audit import CHOICE, check_audit, load_audit
from versatune.probing.config import FEW_ANSWERS, ProbeParams
from versatune.probing.estimate import Audit, Estimate, bounds, estimate_shares
from versatune.probing.judges.base import Judgement, Labelled
from versatune.probing.probe import STATUSES
from versatune.samplers.base import Sample

DOMAINS = ["law", "medicine", "other"]
ORDER = [0] * 6 + [1] * 3 + [2] + [0] * 4 + [1] * 2 + [2] * 2
"""Domains of the samples that are judged: ten of the first round, eight of the second."""


def rows() -> Labelled:
    """Ten rows a domain: eight named rightly, one for each other domain."""
    one = [np.eye(3)[[j] * 8 + [(j + 1) % 3, (j + 2) % 3]] for j in range(3)]
    return Labelled(np.concatenate(one), np.repeat(np.arange(3), 10), np.full(30, np.nan))


@pytest.fixture
def judge(tmp_path: Path) -> FolderRef:
    rows().save(tmp_path)
    metadata = {"domains": DOMAINS, "name": "a judge of words", "accuracy": 0.8}
    return FolderRef(path=tmp_path, fingerprint="judge", metadata=metadata)


def drawn() -> list[Sample]:
    texts = [f"text  {i}\nof a sample" for i in range(19)] + ["text 0"]
    return [
        Sample(index=i, text=text, n_tokens=2 * i, ended=i != 3) for i, text in enumerate(texts)
    ]


def judged() -> Judgement:
    """Eighteen sure answers and, at the end, two texts without one."""
    probabilities = np.full((20, 3), np.nan)
    probabilities[:18] = np.eye(3)[ORDER]
    return Judgement(probabilities, ["ok"] * 18 + ["refused", "failed"], np.full(20, np.nan))


def params(correction: str = "pacc", **more: Any) -> ProbeParams:
    given = {"seed": 3, "estimate": {"bootstrap": 100, "correction": correction}, **more}
    return ProbeParams.model_validate(given)


FACTS = {"rounds": 2, "stopped": "limit", "begins": "<s>"}


def test_the_whole_result(judge: FolderRef) -> None:
    """A judge that is right in 8 of 10 rows and else names each other domain once gives a domain
    0.1 + 0.7 of its share: 10, 5 and 3 of 18 texts are shares of (raw - 0.1) / 0.7."""
    found = result.knowledge_distribution(
        drawn(), judged(), judge, FACTS, params(), "tiny", {"law": 0.25, "other": 0.75}
    )
    raw = np.array([10, 5, 3]) / 18
    share = (raw - 0.1) / 0.7
    same = estimate_shares(np.eye(3)[ORDER], rows(), "pacc", 100, 3)
    domains, checks = found.pop("domains"), (found.pop("warnings"), found.pop("doubts"))
    assert list(domains) == DOMAINS
    for j, (name, own) in enumerate(zip(DOMAINS, (0.25, None, 0.75), strict=True)):
        worst = bounds(same.low[j], same.high[j], 0.1)
        assert domains[name] == {
            "share": pytest.approx(share[j]),
            "low": same.low[j],
            "high": same.high[j],
            "raw_share": pytest.approx(raw[j]),
            "raw_low": same.raw_low[j],
            "raw_high": same.raw_high[j],
            "worst_low": pytest.approx(worst[0]),
            "worst_high": pytest.approx(worst[1]),
            "data_share": own,
        }
    assert list(checks[1]) == ["too_wide", "not_judged"]
    assert checks[0] == list(checks[1].values())
    assert checks[0][1] == "10.0% of the samples have no judgement; see worst_low, worst_high."
    assert found == {
        "n_samples": 20,
        "n_rejected": 2,
        "rejected": {"refused": 1, "failed": 1},
        "judge": "a judge of words",
        "base_model": "tiny",
        "seed": 3,
        "rounds": 2,
        # (0.6, 0.3, 0.1) and (0.5, 0.25, 0.25), corrected
        "round_shares": [[0.714286, 0.285714, 0.0], [0.571429, 0.214286, 0.214286]],
        "stopped": "limit",
        "half_width": {
            "asked": params().rounds.half_width,
            "reached": pytest.approx(max(*(same.high - same.share), *(same.share - same.low))),
        },
        "correction": "pacc",
        "labelled_rows": 30,
        "judge_accuracy": 0.8,
        "response_matrix": [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]],
        "samples": {
            "empty": 0,
            "repeated": 0,
            "loop": 0,
            "cut_at_limit": 1,
            "mean_tokens": 19.0,
            "begin_with": "<s>",
        },
        "audit": None,
        "shift": {
            "confidence_distance": pytest.approx(0.0),
            # 1.36 sqrt(18 / 18^2 + sum of 10 (share / 10)^2)
            "by_chance": pytest.approx(1.36 * np.sqrt(1 / 18 + (share**2).sum() / 10)),
            "unfamiliar_share": None,
            "doubtful": False,
        },
    }


def test_a_response_is_told_to_four_places(judge: FolderRef) -> None:
    """Two of three rows are 0.6667 of them."""
    few = Labelled(np.eye(3)[[0, 0, 1, 1, 2]], np.array([0, 0, 0, 1, 2]), np.full(5, np.nan))
    few.save(judge.path)
    found = result.knowledge_distribution(drawn(), judged(), judge, FACTS, params(), "tiny", {})
    assert found["response_matrix"] == [[0.6667, 0.3333, 0.0], [0, 1, 0], [0, 0, 1]]


def test_a_round_without_a_judgement_has_no_shares(judge: FolderRef) -> None:
    seen = judged()
    seen.probabilities[:10], seen.status[:10] = np.nan, ["failed"] * 10
    found = result.knowledge_distribution(drawn(), seen, judge, FACTS, params("none"), "tiny", {})
    assert found["round_shares"] == [[0.5, 0.25, 0.25]]
    assert found["domains"]["law"]["share"] == 0.5 and found["n_rejected"] == 12


@pytest.fixture
def audited(tmp_path: Path) -> FolderRef:
    """A second judge that was asked about samples 9 to 17 and could not say of the last one."""
    folder = tmp_path / "audit"
    folder.mkdir()
    said = np.full((9, 3), np.nan)
    said[:8] = np.eye(3)[[2, 0, 0, 0, 1, 1, 1, 2]]
    status = [STATUSES.index("ok")] * 8 + [STATUSES.index("unparseable")]
    save_file(
        {"probabilities": said, "status": np.array(status), "vocab_coverage": np.full(9, 0.5)},
        folder / "wave_00000.safetensors",
    )
    choice = {"sample": np.arange(9, 18), "judged": np.arange(18), "chance": np.full(18, 0.5)}
    save_file(choice, folder / CHOICE)
    Labelled(np.eye(3), np.arange(3), np.full(3, 0.5)).save(folder)
    metadata = {
        "kind": "endpoint",
        "name": "a second judge",
        "accuracy": 0.9,
        "n": 9,
        "answered": 8,
        "of": {"samples": "samples", "n": 200},
    }
    return FolderRef(path=folder, fingerprint="audit", metadata=metadata)


def test_an_audit_is_read_for_all_samples(audited: FolderRef) -> None:
    audit = load_audit(audited, 20, 3)
    asked = np.isnan(audit.probabilities[:, 0]).tolist()
    assert asked == [True] * 9 + [False] * 8 + [True] * 3
    assert audit.probabilities[9].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(audit.chances, [0.5] * 18 + [np.nan] * 2)
    assert audit.vocab_coverage is not None
    np.testing.assert_array_equal(audit.vocab_coverage, [np.nan] * 9 + [0.5] * 9 + [np.nan] * 2)
    assert audit.labelled.labels.tolist() == [0, 1, 2]


def test_an_audit_is_of_its_samples(audited: FolderRef) -> None:
    samples = FolderRef(path=audited.path, fingerprint="samples")
    audit = {"n": 200, "judge": {"kind": "person"}}
    check_audit(audited, samples, params(audit=audit))


def test_the_result_with_an_audit(judge: FolderRef, audited: FolderRef) -> None:
    """The first judge's mean of 10, 5 and 3 of 18, and what the second found it erred by: one of
    eight is medicine and not law. Seven of eight are alike; by chance
    4/8 3/8 + 2/8 3/8 + 2/8 2/8 would be."""
    found = result.knowledge_distribution(
        drawn(), judged(), judge, FACTS, params("none"), "tiny", {}, audited
    )
    shares = [found["domains"][name]["share"] for name in DOMAINS]
    assert shares == pytest.approx([10 / 18 - 1 / 8, 5 / 18 + 1 / 8, 3 / 18])
    assert found["domains"]["law"]["raw_share"] == pytest.approx(10 / 18)
    second, chance = found["audit"], 12 / 64 + 6 / 64 + 4 / 64
    shift = second.pop("shift")
    assert second == {
        "kind": "endpoint",
        "name": "a second judge",
        "accuracy": 0.9,
        "n": 9,
        "answered": 8,
        "alike": pytest.approx(7 / 8),
        "kappa": pytest.approx((7 / 8 - chance) / (1 - chance)),
    }
    # Eight samples that stand for as many each, and three rows with the weights of the shares.
    spread = 1 / 8 + float(np.square(shares).sum())
    assert shift["by_chance"] == pytest.approx(1.36 * np.sqrt(spread))
    assert shift["unfamiliar_share"] == 0.0
    assert list(found["doubts"])[1:] == ["few_answers", "not_judged"]


def test_samples_of_an_audit_stand_for_those_that_were_not_asked(
    judge: FolderRef, audited: FolderRef
) -> None:
    """Samples with half the chance count twice: 3 of them and 5 others."""
    chances = np.where(np.arange(18) < 12, 0.5, 1.0)
    choice = {"sample": np.arange(9, 18), "judged": np.arange(18), "chance": chances}
    save_file(choice, audited.path / CHOICE)
    found = result.knowledge_distribution(
        drawn(), judged(), judge, FACTS, params("none"), "tiny", {}, audited
    )
    shares = np.array([found["domains"][name]["share"] for name in DOMAINS])
    # 1 / chance: 2, 2, 2, 1, 1, 1, 1, 1 of 11; the sample where they differ counts once
    np.testing.assert_allclose(shares, [10 / 18 - 1 / 11, 5 / 18 + 1 / 11, 3 / 18])
    spread = (3 * 4 + 5) / 11**2 + float(np.square(shares).sum())
    assert found["audit"]["shift"]["by_chance"] == pytest.approx(1.36 * np.sqrt(spread))
    assert found["audit"]["alike"] == pytest.approx(10 / 11)


def test_answers_that_count_as_true_have_no_shift(judge: FolderRef, audited: FolderRef) -> None:
    true = audited.model_copy(update={"metadata": {**audited.metadata, "accuracy": None}})
    found = result.knowledge_distribution(
        drawn(), judged(), judge, FACTS, params("none"), "tiny", {}, true
    )
    assert found["audit"]["shift"] is None and found["audit"]["accuracy"] is None


def test_the_whole_table(audited: FolderRef) -> None:
    columns = result.table(drawn(), judged(), DOMAINS, audited)
    names = [DOMAINS[j] for j in ORDER]
    assert columns.pop("text") == [f"text {i} of a sample" for i in range(19)] + ["text 0"]
    assert columns == {
        "index": list(range(20)),
        "domain": [*names, None, None],
        "confidence": [1.0] * 18 + [None, None],
        "status": ["ok"] * 18 + ["refused", "failed"],
        "flag": [""] * 20,
        "ended": [i != 3 for i in range(20)],
        "n_tokens": [2 * i for i in range(20)],
        "second": [None] * 9 + ["other", *["law"] * 3, *["medicine"] * 3, "other"] + [None] * 3,
        "p_law": [float(j == 0) for j in ORDER] + [0.0, 0.0],
        "p_medicine": [float(j == 1) for j in ORDER] + [0.0, 0.0],
        "p_other": [float(j == 2) for j in ORDER] + [0.0, 0.0],
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  a\n\n b\tc ", "a b c"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
    ],
)
def test_a_text_is_shown_in_one_line_of_200_characters(text: str, shown: str) -> None:
    sample = Sample(index=0, text=text, n_tokens=1, ended=True)
    one = Judgement(np.array([[0.2, 0.7, 0.1]]), ["ok"], np.full(1, np.nan))
    columns = result.table([sample], one, DOMAINS)
    assert columns["text"] == [shown]
    assert columns["domain"] == ["medicine"] and columns["confidence"] == [0.7]


CALM = {"doubtful": False, "confidence_distance": 0.1}


def estimate(reach: float, sampling: float) -> Estimate:
    """Numbers that floats hold exactly: fractions of powers of two."""
    share, half, raw = np.full(2, 0.5), np.full(2, reach), np.full(2, sampling)
    return Estimate(share, share - half, share + half, share, share - raw, share + raw)


def checks(found: Estimate, audit: Any, stopped: str, missing: float = 0.0) -> dict[str, str]:
    given = params(estimate={"bootstrap": 100, "too_wide": 0.125}, rounds={"half_width": 0.0625})
    return result.checks(found, CALM, audit, stopped, given, missing, ["law", "other"])


def test_what_is_just_good_enough_is_no_doubt() -> None:
    second = {"kind": "endpoint", "answered": FEW_ANSWERS, "shift": CALM}
    assert checks(estimate(0.0625, 0.01), second, "limit", 0.05) == {}
    assert list(checks(estimate(0.125, 0.01), None, "limit")) == ["half_width"]
    assert checks(estimate(0.125, 0.01), None, "half_width") == {}


def test_what_would_narrow_an_interval() -> None:
    """Where half of it or more is of sampling, more samples; at just a half too."""
    (said,) = checks(estimate(0.09375, 0.03125), None, "limit").values()
    assert said == (
        "intervals reach up to ±0.094, wider than probe.rounds.half_width asks; more samples "
        "(probe.rounds.max_rounds) would narrow them."
    )
    (said,) = checks(estimate(0.25, 0.03), None, "limit").values()
    assert said == (
        "intervals too wide to decide on: law ±0.250, other ±0.250; more labelled rows would "
        "narrow them."
    )
    true = {"kind": "person", "answered": 300, "shift": None}
    (said,) = checks(estimate(0.25, 0.125), true, "limit").values()
    assert said.endswith("; more samples (probe.rounds.max_rounds) would narrow them.")
    (said,) = checks(estimate(0.25, 0.1), true, "limit").values()
    assert said.endswith("; a larger probe.audit.n would narrow them.")
    (said,) = checks(estimate(0.25, 0.1), {**true, "shift": CALM}, "limit").values()
    assert said.endswith(
        "; a larger probe.audit.n, a better second judge or more labelled rows for it would "
        "narrow them."
    )


def test_the_way_out_of_doubtful_shares() -> None:
    loud = {"doubtful": True, "confidence_distance": 0.456}
    second = {"kind": "endpoint", "answered": 300, "shift": loud}
    assert checks(estimate(0.01, 0.01), second, "limit") == {
        "shift": "the judge's confidence differs between samples and labelled rows (distance "
        "0.46), so these shares may be wrong: take another second judge (probe.audit.judge, now of "
        "kind endpoint), or set mixture.strategy.name: proportional.",
    }


def test_a_part_of_an_audit_keeps_its_rows() -> None:
    audit = Audit(np.eye(3), np.array([0.1, 0.2, 0.3]), rows(), np.array([0.4, 0.5, 0.6]))
    assert audit.judgement.vocab_coverage.tolist() == [0.4, 0.5, 0.6]
    assert audit.part(np.array([2])).chances.tolist() == [0.3]
