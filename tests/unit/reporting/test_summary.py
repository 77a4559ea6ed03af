"""The verdict says what the intervals say."""

import pandas as pd
import pytest

from tests.example_run import artifacts
from versatune.reporting import summary, tables

RUN = artifacts()


def losses(**verdicts: str) -> pd.DataFrame:
    rows = [
        {"domain": d, "base": 2.0, "change": 0.1, "low": 0.05, "high": 0.15, "relative": 0.05}
        | {"verdict": v.replace("_", " ")}
        for d, v in verdicts.items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("verdicts", "headline", "mood"),
    [
        (
            {"law": "better", "code": "better"},
            "Every domain improved: held-out loss fell in both.",
            "good",
        ),
        (
            {"law": "better", "code": "better", "other": "not_distinguishable"},
            "2 of 3 domains improved, and none got worse.",
            "good",
        ),
        (
            {"law": "worse", "code": "better", "other": "better"},
            "2 of 3 domains improved, but law got worse by more than noise.",
            "mixed",
        ),
        (
            {"law": "worse", "code": "worse"},
            "Law and code got worse and none improved, by more than noise.",
            "bad",
        ),
        (
            {"law": "not_distinguishable", "code": "not_distinguishable"},
            "No domain changed by more than noise.",
            "unknown",
        ),
    ],
)
def test_headline(verdicts: dict[str, str], headline: str, mood: str) -> None:
    said = summary.verdict(losses(**verdicts))
    assert said[:2] == (headline, mood)


def test_what_got_worse_is_told_with_its_interval() -> None:
    _, _, details = summary.verdict(losses(law="worse", code="better"))
    assert details == ["law: held-out loss +5.0 % (95 % interval +2.5 % to +7.5 %)."]


def test_without_an_evaluation_there_is_no_verdict() -> None:
    text, mood, _ = summary.verdict(pd.DataFrame(columns=["domain", "verdict"]))
    assert text.startswith("No verdict") and mood == "unknown"


def test_results_take_paired_changes_and_one_accuracy_a_task() -> None:
    table = tables.results(RUN["evaluation"], RUN["forgetting"])
    assert table["metric"].tolist() == ["nats_per_token"] * 6 + ["acc"] * 6
    source = RUN["forgetting"].set_index(["domain", "task", "metric"])
    measured = RUN["evaluation"].set_index(["model", "domain", "task", "metric"])
    for row in table.itertuples():
        key = (row.domain, row.task, row.metric)
        assert (row.low, row.high) == tuple(source.loc[key, ["low", "high"]])
        assert row.base_low == measured.loc[("base", *key), "low"]
        assert row.tuned_high == measured.loc[("tuned", *key), "high"]


def test_filters_the_harness_adds_to_a_metric_do_not_hide_it() -> None:
    forgetting = RUN["forgetting"].replace({"metric": {"acc": "exact_match (flexible-extract)"}})
    evaluation = RUN["evaluation"].replace({"metric": {"acc": "exact_match (flexible-extract)"}})
    table = tables.only_accuracies(tables.results(evaluation, forgetting))
    assert set(table["metric"]) == {"exact_match"}
    assert table["base_low"].notna().all()


def test_ingest_table_adds_up() -> None:
    table = tables.ingest_table(RUN["ingest_report"]).set_index("domain")
    report = RUN["ingest_report"]["law"]
    assert table.loc["law", "rejected"] == sum(r["count"] for r in report["rejected"].values())
    assert table.loc["law", "duplicates"] == sum(report["duplicates"].values())
    shares = summary.data_shares(RUN["ingest_report"])
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["law"] == pytest.approx(150_000 / sum(150_000 + 9_000 * j for j in range(6)))


def test_places_of_rejected_rows_are_limited_a_reason() -> None:
    places = tables.reject_examples(RUN["ingest_report"], 2)
    law = [p for p in places if p["domain"] == "law" and p["reason"] == "empty output"]
    assert [p["where"] for p in law] == ["data/law.jsonl:101", "data/law.jsonl:240"]
