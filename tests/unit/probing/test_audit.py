"""The audit: who is asked about what, what is kept, and what becomes of it."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.hostile_server import chat, serving
from tests.helpers.probe_rows import WORDS
from tests.helpers.probing import probe, run_audit
from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.probing import result
from versatune.probing.audit import agreement, check_audit, load_audit
from versatune.probing.config import ProbeParams
from versatune.probing.estimate import Audit, estimate_shares
from versatune.probing.judges.base import Labelled
from versatune.probing.probe import load_probe
from versatune.work import make_folder, not_needed

DESCRIPTIONS = {d: f"About {d}." for d in WORDS}


def params(n: int = 200, correction: str = "pacc", **judge) -> ProbeParams:
    return ProbeParams(
        seed=0,
        sampling={"max_new_tokens": 8, "batch_size": 64, "dtype": "float32"},
        rounds={"samples_per_round": 640, "min_rounds": 1, "max_rounds": 1},
        audit={"n": n, "judge": judge or {"kind": "person"}},
        estimate={"bootstrap": 100, "correction": correction},
    )


@pytest.fixture(scope="module")
def probed(tmp_path_factory, tiny_checkpoint: CheckpointRef, judge: FolderRef):
    """640 samples of a tiny model and the classifier's judgements on them."""
    return probe(tiny_checkpoint, judge, tmp_path_factory.mktemp("probe"), params())


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "answers/labels.csv").open(encoding="utf-8-sig", newline="") as handle:
        return list(csv.DictReader(handle))


def write(folder: Path, domain_of) -> None:
    rows = read(folder)
    with (folder / "answers/labels.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, ["id", "domain", "text"])
        writer.writeheader()
        writer.writerows(row | {"domain": domain_of(i)} for i, row in enumerate(rows))


def test_people_are_given_all_texts_at_once_and_taken_at_their_word(tmp_path, clean, judge, probed):
    wanted = params()
    with pytest.raises(VersatuneError, match="texts wait for a person"):
        run_audit(clean, *probed, tmp_path, wanted, DESCRIPTIONS)
    given = len(read(tmp_path))
    assert 160 < given < 240
    write(tmp_path, lambda i: "law" if i else "?")
    ref = run_audit(clean, *probed, tmp_path, wanted, DESCRIPTIONS)
    assert given <= ref.metadata["n"] < 240  # equal texts are read once
    assert ref.metadata["answered"] < ref.metadata["n"]
    drawn, judged = load_probe(*probed)
    found = result.knowledge_distribution(
        drawn, judged, judge, {**probed[0].metadata, **probed[1].metadata}, wanted, "tiny", {}, ref
    )
    domains = judge.metadata["domains"]
    shares = [found["domains"][d]["share"] for d in domains]
    assert shares[domains.index("law")] > 0.95
    assert found["domains"]["law"]["raw_share"] < 0.9
    assert found["audit"]["n"] == ref.metadata["n"]
    assert found["audit"]["shift"] is None
    assert any("answered about" in w for w in found["warnings"]) == (ref.metadata["answered"] < 150)
    assert 0 < found["audit"]["alike"] < 1
    columns = result.table(drawn, judged, domains, ref)
    assert columns["second"].count("law") == ref.metadata["answered"]
    assert len(columns["second"]) == 640


def test_without_an_audit_the_table_has_no_second_judge(judge, probed):
    columns = result.table(*load_probe(*probed), judge.metadata["domains"])
    assert "second" not in columns


def test_a_larger_audit_asks_about_those_of_the_smaller_one_and_more(tmp_path, clean, probed):
    with pytest.raises(VersatuneError):
        run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    write(tmp_path, lambda _: "other")
    before = len(read(tmp_path))
    with pytest.raises(VersatuneError) as told:
        run_audit(clean, *probed, tmp_path, params(n=300), DESCRIPTIONS)
    waiting, asked = map(int, re.findall(r"(\d+) of (\d+) texts wait", str(told.value))[0])
    assert asked - waiting == before
    assert [row["domain"] for row in read(tmp_path)].count("other") == before


def test_who_reads_again_may_change_their_mind(tmp_path, clean, probed):
    with pytest.raises(VersatuneError):
        run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    write(tmp_path, lambda _: "?")
    with pytest.raises(VersatuneError, match="got a usable answer from people"):
        run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    for domain in ("law", "medicine"):
        write(tmp_path, lambda _, domain=domain: domain)
        ref = run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
        said = load_audit(ref, 640, 3).judgement
        number = clean.metadata["domains"].index(domain)
        assert set(said.probabilities[said.ok].argmax(axis=1)) == {number}
    assert run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS) == ref


def test_another_readers_file_is_another_audit(tmp_path, clean, probed):
    with pytest.raises(VersatuneError):
        run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    write(tmp_path, lambda _: "law")
    run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    other = params(kind="person", person={"file": tmp_path / "other.csv"})
    with pytest.raises(VersatuneError, match=r"other\.csv: .* texts wait"):
        run_audit(clean, *probed, tmp_path, other, DESCRIPTIONS)


def test_rows_answered_later_count_in_a_finished_audit(tmp_path, clean, probed):
    """The second judge's errors are measured on all rows it has judged by now."""

    def said(number: int):
        answer = chat('{"law": 0.2, "medicine": 0.2, "other": 0.6}')
        return answer if number != 5 else (lambda h, _: h.send(500, b"{}"))

    with serving(said) as server:
        endpoint = {
            "labelled_per_domain": 10,
            "server": {"url": server.url, "model": "m", "max_retries": 0},
        }
        wanted = params(kind="endpoint", endpoint=endpoint)
        first = run_audit(clean, *probed, tmp_path, wanted, DESCRIPTIONS)
        assert len(load_audit(first, 640, 3).labelled.labels) == 29
        second = run_audit(clean, *probed, tmp_path, wanted, DESCRIPTIONS)
        assert len(load_audit(second, 640, 3).labelled.labels) == 30
        asked = len(server.requests)
        assert run_audit(clean, *probed, tmp_path, wanted, DESCRIPTIONS) == second
        assert len(server.requests) == asked


def test_an_audit_of_other_samples_or_another_size_is_not_used(tmp_path, clean, probed):
    with pytest.raises(VersatuneError):
        run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    write(tmp_path, lambda _: "law")
    ref = run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    check_audit(ref, probed[0], params())
    for wrong in (params(n=300), params(n=200)):
        of = probed[0] if wrong.audit.n == 300 else probed[1]
        with pytest.raises(VersatuneError, match="run the node audit_samples"):
            check_audit(ref, of, wrong)
    with pytest.raises(VersatuneError, match="run the node audit_samples"):
        check_audit(make_folder(not_needed("leave"), tmp_path / "none"), probed[0], params())


def test_a_server_that_died_is_asked_for_the_rest_alone(tmp_path, clean, probed):
    def said(number: int):
        answer = chat('{"law": 0.2, "medicine": 0.2, "other": 0.6}')
        return answer if number < 130 else (lambda h, _: h.send(500, b"{}"))

    with serving(said) as server:
        endpoint = {
            "labelled_per_domain": 10,
            "max_failed": 0.0,
            "server": {"url": server.url, "model": "m", "max_retries": 0},
        }
        wanted = params(kind="endpoint", endpoint=endpoint)
        with pytest.raises(
            VersatuneError, match=r"probe\.audit\.judge\.endpoint: .* gave no answer"
        ):
            run_audit(clean, *probed, tmp_path, wanted, DESCRIPTIONS)
        before = len(server.requests)
        server.reply = lambda _: chat('{"law": 0.2, "medicine": 0.2, "other": 0.6}')
        ref = run_audit(clean, *probed, tmp_path, wanted, DESCRIPTIONS)
        texts = [r["body"]["messages"][1]["content"] for r in server.requests]
    assert ref.metadata["answered"] == ref.metadata["n"]
    # what was answered before the fault was not asked again
    assert not set(texts[:130]) & set(texts[before:])
    kept = (tmp_path / "answers/answers.jsonl").read_text().splitlines()
    assert len(kept) == len({json.loads(line)["key"] for line in kept})


def test_an_audit_that_gets_no_usable_answer_says_so(tmp_path, clean, probed):
    with pytest.raises(VersatuneError):
        run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    write(tmp_path, lambda _: "?")
    with pytest.raises(VersatuneError, match=r"none of \d+ samples got a usable answer"):
        run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)


def test_no_audit_leaves_a_finished_one_where_it_is(tmp_path, clean, probed):
    with pytest.raises(VersatuneError):
        run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    write(tmp_path, lambda _: "law")
    ref = run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    assert make_folder(not_needed("leave"), ref.path).fingerprint == ref.fingerprint
    assert make_folder(not_needed("leave"), tmp_path / "other").metadata == {"skipped": True}


def test_an_audit_of_all_samples_by_hard_labels_counts_them(probed, judge):
    _, judged = load_probe(*probed)
    p, rows = judged.probabilities[judged.ok], Labelled.load(judge)
    truth = np.arange(len(p)) % 3
    audit = Audit(np.eye(3)[truth], np.ones(len(p)), Labelled.oracle(3))
    counted = np.bincount(truth, minlength=3) / len(p)
    for how in ("pacc", "acc", "none"):
        found = estimate_shares(p, rows, how, 100, 0, audit=audit)
        assert found.share == pytest.approx(counted)
    with pytest.raises(ValueError, match="em needs"):
        estimate_shares(p, rows, "em", 100, 0, audit=audit)


def test_agreement_by_hand():
    # Weights 1, 1, 2, 4: alike in the first and last, 5 of 8. The first names domain 0 with 4 of
    # 8, the second with 1 of 8: alike by chance in 4/8 * 1/8 + 4/8 * 7/8 = 1/2.
    first = np.eye(2)[[0, 0, 0, 1, 1]]
    second = np.eye(2)[[0, 1, 1, 1, 0]]
    second[4] = np.nan
    chances = np.array([1, 1, 0.5, 0.25, 0.25])
    found = agreement(first, Audit(second, chances, Labelled.oracle(2)))
    assert found["alike"] == pytest.approx(5 / 8)
    assert found["kappa"] == pytest.approx((5 / 8 - 1 / 2) / (1 - 1 / 2))


def test_one_domain_alone_has_no_kappa():
    first = np.eye(2)[[0, 0]]
    found = agreement(first, Audit(np.eye(2)[[0, 0]], np.ones(2), Labelled.oracle(2)))
    assert found == {"alike": 1.0, "kappa": None}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"judge": {"kind": "person"}}, "judge.kind person is for probe.audit.judge"),
        ({"audit": {"n": 20, "judge": {"kind": "person"}}}, "below 200"),
        (
            {
                "audit": {"n": 200, "judge": {"kind": "person"}},
                "estimate": {"correction": "em"},
            },
            "use pacc, acc or none",
        ),
        ({"audit": {"n": 200, "judge": {"kind": "classifier"}}}, "the same as judge"),
        ({"audit": {"n": 200}}, "audit.judge.endpoint.server.model is empty"),
        ({"audit": {"n": 200, "judge": {"kind": "likelihood"}}}, "name_or_path is empty"),
    ],
)
def test_what_can_not_work_is_refused_before_any_work(changed, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        ProbeParams.model_validate({"seed": 0, **changed})


def test_the_audited_samples_are_those_the_judge_is_unsure_of(tmp_path, clean, probed):
    with pytest.raises(VersatuneError):
        run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    write(tmp_path, lambda _: "law")
    ref = run_audit(clean, *probed, tmp_path, params(), DESCRIPTIONS)
    _, judged = load_probe(*probed)
    audit = load_audit(ref, 640, 3)
    sure, chances = judged.probabilities[judged.ok].max(axis=1), audit.chances[judged.ok]
    assert (np.diff(chances[np.argsort(sure)]) <= 1e-9).all()
    assert chances.sum() == pytest.approx(200)
    assert np.isnan(audit.chances[~judged.ok]).all()
