"""The probe as a whole: rounds, stopping, resuming, the result's keys."""

import json

import numpy as np
import pytest

from tests.helpers.probing import probe as run
from versatune.errors import VersatuneError
from versatune.probing import result
from versatune.probing.config import ProbeParams
from versatune.probing.estimate import Estimate
from versatune.probing.judges.base import Judgement
from versatune.probing.judges.classifier import Classifier
from versatune.probing.probe import LEFT_OUT, judge_samples, load_probe
from versatune.samplers.base import Sample
from versatune.samplers.local import ModelSampler
from versatune.work import WorkFolder, make_folder, not_needed


def params(**rounds) -> ProbeParams:
    given = {"samples_per_round": 32, "min_rounds": 1, "max_rounds": 3, "half_width": 0.001}
    return ProbeParams(
        seed=0,
        sampling={"max_new_tokens": 8, "batch_size": 16, "dtype": "float32"},
        rounds={**given, **rounds},
        estimate={"bootstrap": 100},
    )


def warned(*given) -> list[str]:
    return list(result.checks(*given).values())


@pytest.fixture
def no_work(monkeypatch):
    """From now on any sampling or judging fails."""

    def forbid():
        def fail(*_, **__):
            raise AssertionError("expensive work was done again")

        monkeypatch.setattr(ModelSampler, "batch", fail)
        monkeypatch.setattr(Classifier, "judge", fail)

    return forbid


def test_it_stops_at_the_limit_and_says_so(tmp_path, tiny_checkpoint, judge):
    looks = []
    samples, judged = run(
        tiny_checkpoint, judge, tmp_path, params(), lambda n, e: looks.append((n, e.share))
    )
    assert judged.metadata["stopped"] == "limit"
    assert (judged.metadata["n"], judged.metadata["rounds"]) == (96, 3)
    assert [n for n, _ in looks] == [1, 2, 3]
    assert samples.metadata["drawn"] == 96


def test_it_stops_when_intervals_are_narrow(tmp_path, tiny_checkpoint, judge):
    _, judged = run(tiny_checkpoint, judge, tmp_path, params(half_width=0.4, min_rounds=2))
    assert judged.metadata["stopped"] == "half_width"
    assert judged.metadata["rounds"] == 2


def test_nothing_is_done_twice(tmp_path, tiny_checkpoint, judge, no_work):
    first = run(tiny_checkpoint, judge, tmp_path, params())
    no_work()
    assert run(tiny_checkpoint, judge, tmp_path, params()) == first
    # fewer rounds are a part of what is there
    _, judged = run(tiny_checkpoint, judge, tmp_path, params(max_rounds=2))
    assert judged.metadata["n"] == 64
    assert [len(x) for x in map(list, load_probe(first[0], judged)[:1])] == [64]


def test_more_rounds_go_on_from_what_is_there(tmp_path, tiny_checkpoint, judge, monkeypatch):
    run(tiny_checkpoint, judge, tmp_path / "a", params(max_rounds=1))
    batches, draw = [], ModelSampler.batch
    monkeypatch.setattr(
        ModelSampler, "batch", lambda self, i, s: (batches.append(i), draw(self, i, s))[1]
    )
    grown = load_probe(*run(tiny_checkpoint, judge, tmp_path / "a", params(max_rounds=2)))
    assert batches == [range(32, 48), range(48, 64)]
    whole = load_probe(*run(tiny_checkpoint, judge, tmp_path / "b", params(max_rounds=2)))
    assert grown[0] == whole[0]
    assert grown[1].probabilities == pytest.approx(whole[1].probabilities, nan_ok=True)


def test_a_probe_killed_while_judging_goes_on(tmp_path, tiny_checkpoint, judge, monkeypatch):
    whole = load_probe(*run(tiny_checkpoint, judge, tmp_path / "whole", params()))
    calls, judging = [], Classifier.judge

    def dies(self, texts):
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return judging(self, texts)

    monkeypatch.setattr(Classifier, "judge", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_checkpoint, judge, tmp_path / "broken", params())
    calls.clear()
    calls += [0, 0, 0]
    again = load_probe(*run(tiny_checkpoint, judge, tmp_path / "broken", params()))
    assert len(calls) - 3 == 4  # six batches, two of them judged before
    assert again[0] == whole[0]
    assert again[1].probabilities == pytest.approx(whole[1].probabilities, nan_ok=True)


def test_texts_without_an_answer_are_asked_about_again_by_the_next_run(
    tmp_path, tiny_checkpoint, judge, monkeypatch
):
    whole = load_probe(*run(tiny_checkpoint, judge, tmp_path / "whole", params()))[1]
    calls, judging = [], Classifier.judge

    def fails_once(self, texts):
        calls.append(len(texts))
        made = judging(self, texts)
        if len(calls) > 1:
            return made
        made.probabilities[0] = np.nan
        return Judgement(made.probabilities, ["failed", *made.status[1:]], made.vocab_coverage)

    monkeypatch.setattr(Classifier, "judge", fails_once)
    found = load_probe(*run(tiny_checkpoint, judge, tmp_path / "broken", params()))[1]
    assert found.status.count("failed") == 1
    assert len(calls) == 6, "once a run, however many rounds look at it"
    found = load_probe(*run(tiny_checkpoint, judge, tmp_path / "broken", params()))[1]
    assert len(calls) == 7 and found.status == whole.status
    assert found.probabilities == pytest.approx(whole.probabilities, nan_ok=True)
    run(tiny_checkpoint, judge, tmp_path / "broken", params())
    assert len(calls) == 7


def test_a_model_that_says_nothing_is_one_sentence(tmp_path, tiny_checkpoint, judge, monkeypatch):
    def silent(_, indices, seed):  # noqa: ARG001
        return (Sample(index=i, text="", n_tokens=0, ended=True) for i in indices)

    monkeypatch.setattr(ModelSampler, "batch", silent)
    with pytest.raises(VersatuneError, match=r"none of 32 samples .*32 empty.*sampling\.start"):
        run(tiny_checkpoint, judge, tmp_path, params())


def test_empty_samples_are_not_judged(judge):
    samples = [
        Sample(index=i, text=t, n_tokens=1, ended=True)
        for i, t in enumerate(["court judge", " ", "nurse fever"])
    ]
    found = judge_samples(Classifier.load(judge), samples)
    assert found.status == ["ok", "empty", "ok"]
    assert np.isnan(found.probabilities[1]).all()
    assert found.probabilities[[0, 2]].argmax(axis=1).tolist() == [0, 1]


def made_up(n: int) -> tuple[list[Sample], Judgement]:
    samples = [Sample(index=i, text="court " * 80, n_tokens=9, ended=i > 3) for i in range(n)]
    rng = np.random.default_rng(0)
    p = np.eye(3)[rng.choice(3, n, p=[0.5, 0.3, 0.2])]
    p[-2:] = np.nan
    status = ["ok"] * (n - 2) + ["refused", "unparseable"]
    return samples, Judgement(p, status, np.full(n, np.nan))


def test_the_result_says_all_it_knows(judge):
    samples, judgement = made_up(20)
    facts = {"rounds": 2, "stopped": "limit", "begins": "<s>"}
    found = result.knowledge_distribution(
        samples, judgement, judge, facts, params(), "tiny", {"law": 0.2}
    )
    json.dumps(found)
    assert list(found["domains"]) == ["law", "medicine", "other"]
    law = found["domains"]["law"]
    assert law["low"] <= law["share"] <= law["high"]
    assert law["worst_low"] == pytest.approx(0.9 * law["low"])
    assert law["worst_high"] == pytest.approx(0.9 * law["high"] + 0.1)
    assert law["data_share"] == 0.2
    assert sum(d["share"] for d in found["domains"].values()) == pytest.approx(1)
    assert found["n_samples"] == 20
    assert found["n_rejected"] == 2
    assert found["rejected"] == {"refused": 1, "unparseable": 1}
    assert found["samples"]["loop"] == 20
    assert found["samples"]["repeated"] == 19
    assert found["samples"]["cut_at_limit"] == 4
    assert len(found["round_shares"]) == 2
    said = " ".join(found["warnings"])
    assert "too wide" in said
    assert "more samples (probe.rounds.max_rounds) would narrow" in said
    assert "10.0% of the samples have no judgement" in said


def estimated(reach: float, sampling: float) -> Estimate:
    share, ones = np.array([0.5, 0.5]), np.ones(2)
    half, raw = reach * ones, sampling * ones
    return Estimate(share, share - half, share + half, share, share - raw, share + raw)


@pytest.mark.parametrize(
    ("reach", "sampling", "stopped", "audit", "said"),
    [
        (0.03, 0.02, "limit", None, "more samples (probe.rounds.max_rounds) would narrow"),
        (0.03, 0.005, "limit", None, "more labelled rows would narrow"),
        (0.03, 0.02, "half_width", None, None),  # by Anscombe's term it may be a little above
        (0.03, 0.005, "half_width", "person", "a larger probe.audit.n would narrow"),
        (0.03, 0.005, "limit", "endpoint", "or more labelled rows for it would narrow"),
        (0.03, 0.02, "limit", "person", "more samples (probe.rounds.max_rounds) would narrow"),
        (0.01, 0.005, "limit", "person", None),
        (
            0.06,
            0.05,
            "limit",
            None,
            "law ±0.060, other ±0.060; more samples (probe.rounds.max_rounds)",
        ),
    ],
)
def test_intervals_that_are_too_wide_are_told_with_what_would_help(
    reach, sampling, stopped, audit, said
):
    calm = {"doubtful": False, "confidence_distance": 0.1}
    own = None if audit == "person" else calm
    second = {"kind": audit, "answered": 300, "shift": own} if audit else None
    wanted = params(half_width=0.02)
    found = warned(estimated(reach, sampling), calm, second, stopped, wanted, 0.0, ["law", "other"])
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_with_an_audit_its_own_shift_and_its_own_number_are_warned_about():
    calm = {"doubtful": False, "confidence_distance": 0.1}
    loud = {"doubtful": True, "confidence_distance": 0.7}

    def said(shift, audited_shift, answered):
        second = {"kind": "endpoint", "answered": answered, "shift": audited_shift}
        return warned(
            estimated(0.01, 0.005),
            shift,
            second,
            "limit",
            params(half_width=0.02),
            0.0,
            ["law", "other"],
        )

    assert said(loud, calm, 300) == []
    assert "distance 0.70" in said(calm, loud, 300)[0]
    assert "probe.audit.judge, now of kind endpoint" in said(calm, loud, 300)[0]
    assert "answered about only 149 samples" in said(calm, calm, 149)[0]
    assert said(calm, calm, 170) == []  # 200 asked for, on average


def test_doubtful_shares_are_warned_about_with_what_to_set():
    loud = {"doubtful": True, "confidence_distance": 0.7}
    wanted = params(half_width=0.02)
    wanted = wanted.model_copy(update={"audit": wanted.audit.model_copy(update={"n": 0})})
    (said,) = warned(estimated(0.01, 0.005), loud, None, "limit", wanted, 0.0, ["law", "other"])
    assert "300 samples (probe.audit.n, now 0, and probe.audit.judge.kind)" in said
    assert said.endswith("or set mixture.strategy.name: proportional.")


@pytest.mark.parametrize(
    ("reach", "doubtful", "missing", "names"),
    [
        (0.03, False, 0.0, ["half_width"]),
        (0.06, False, 0.0, ["too_wide"]),
        (0.01, True, 0.0, ["shift"]),
        (0.01, False, 0.3, ["not_judged"]),
        (0.01, False, 0.01, []),
    ],
)
def test_checks_have_names_by_which_they_count_as_doubt(reach, doubtful, missing, names):
    shift = {"doubtful": doubtful, "confidence_distance": 0.4}
    found = result.checks(
        estimated(reach, 0.005),
        shift,
        None,
        "limit",
        params(half_width=0.02),
        missing,
        ["law", "other"],
    )
    assert list(found) == names
    assert "half_width" not in result.DECISIVE and {*names} - {"half_width"} <= {*result.DECISIVE}


def test_the_table_shows_first_lines_and_judgements(judge):
    samples, judgement = made_up(20)
    table = result.table(samples, judgement, judge.metadata["domains"])
    assert {len(column) for column in table.values()} == {20}
    assert len(table["text"][0]) == result.FIRST_LINE
    assert table["domain"][-1] is None
    assert table["confidence"][-1] is None
    assert table["flag"][0] == "loop"
    assert table["p_law"][-1] == 0


def test_a_skipped_stage_leaves_what_is_there(tmp_path, judge):
    left_out = not_needed("leave", LEFT_OUT)
    assert make_folder(left_out, judge.path) == judge
    fresh = make_folder(left_out, tmp_path / "new")
    assert fresh.metadata == {"skipped": True}
    assert make_folder(left_out, tmp_path / "new") == fresh
    (fresh.path / "manifest.json").unlink()  # as if killed before the end
    assert make_folder(left_out, tmp_path / "new") == fresh


def test_a_skipped_stage_deletes_no_unfinished_work(tmp_path):
    begun = WorkFolder.open(tmp_path / "samples", {"seed": 0})
    (begun.path / "wave_00000.jsonl").write_text("paid for")
    with pytest.raises(
        VersatuneError, match=r"samples .*is not finished.*leaves out the probe: move"
    ):
        make_folder(not_needed("leave", LEFT_OUT), begun.path)
    assert (begun.path / "wave_00000.jsonl").read_text() == "paid for"
