"""The verdict says what the intervals say."""

import pandas as pd
import pytest

from tests.helpers.example_run import artifacts
from versatune.mixing.origins import follows_probe, shares_in_words
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


def accuracies(**pairs: tuple[float, float, str]) -> pd.DataFrame:
    """By domain: before, after, verdict; 6 questions each."""
    return pd.DataFrame(
        [
            {"domain": d, "base": base, "tuned": tuned, "verdict": verdict, "n": 6}
            for d, (base, tuned, verdict) in pairs.items()
        ]
    )


UNCLEAR = "not distinguishable"


def test_a_verdict_is_not_green_while_accuracy_falls() -> None:
    green = ("Every domain improved: held-out loss fell in both.", "good", [])
    fell = accuracies(law=(0.5, 1 / 3, UNCLEAR), code=(0.5, 0.5, UNCLEAR))
    headline, mood, details = summary.with_accuracy(*green, fell)
    assert mood == "mixed"
    assert headline == (
        "Every domain improved: held-out loss fell in both, "
        "but accuracy fell by 8.3 points on average."
    )
    assert details[-1] == "Accuracy fell in law (50 → 33 %, 6 questions, within noise)."


def test_a_sure_fall_of_one_accuracy_counts_though_the_mean_rose() -> None:
    green = ("Every domain improved: held-out loss fell in both.", "good", [])
    fell = accuracies(law=(0.9, 0.2, "worse"), code=(0.1, 0.9, "better"))
    headline, mood, details = summary.with_accuracy(*green, fell)
    assert (mood, headline.endswith("fell in both, but accuracy got worse in law.")) == (
        "mixed",
        True,
    )
    assert details[-1] == "Accuracy fell in law (90 → 20 %, 6 questions)."


def test_rising_accuracies_leave_the_verdict_as_it_is() -> None:
    given = ("2 of 3 domains improved, and none got worse.", "good", ["a detail"])
    headline, mood, details = summary.with_accuracy(*given, accuracies(law=(0.2, 0.4, UNCLEAR)))
    assert (headline, mood) == given[:2]
    assert details == [
        "a detail",
        "On the benchmark tasks, no accuracy changed by more than noise.",
    ]


def test_the_size_behind_the_verdict_is_said() -> None:
    history = pd.DataFrame(
        {
            "round": [0, 0, 1, 1, 2, 2],
            "step": [0, 0, 3, 3, 6, 6],
            "seconds": [9.0, 9.0, 2.0, 2.0, 3.0, 3.0],
            "tokens_per_second": [0.0, 0.0, 500.0, 500.0, 400.0, 400.0],
        }
    )
    loss = losses(law="better", code="better").assign(n=8)
    said = summary.size_sentence(history, loss, accuracies(law=(0.1, 0.2, UNCLEAR)))
    assert said == [
        "After 6 training steps (2,200 tokens), measured on 16 rows held out of training "
        "and steering and 6 questions."
    ]


@pytest.mark.parametrize(
    ("strategy", "initial", "probed", "words"),
    [
        ({"name": "uniform"}, "constant", True, "shares: the same for every domain, fixed"),
        ({"name": "proportional"}, "constant", True, "shares: those of the data, fixed"),
        ({"name": "custom"}, "constant", True, "shares: set by hand, fixed"),
        ({"name": "constant"}, "constant", True, "shares: those the probe found, fixed"),
        ({"name": "constant"}, "uniform", True, "shares: the same for every domain, fixed"),
        ({"name": "inverse"}, "uniform", True, "shares: the inverse of those the probe found, fix"),
        ({"name": "foster"}, "constant", True, "starting shares: those the probe found"),
        ({"name": "foster"}, "proportional", True, "starting shares: those of the data"),
        ({"name": "foster", "start": "uniform"}, "constant", True, "the same for every domain"),
        (
            {"name": "expand", "rule": "paper", "target": "law", "start": "proportional"},
            "constant",
            True,
            "the data",
        ),
        (
            {
                "name": "expand",
                "rule": "constrained",
                "target": ["law", "code"],
                "target_share": {"start": 0.7},
            },
            "constant",
            True,
            "towards law, code; starting shares: those of the data, but for the targets' 0.7, "
            "unless others are forecast to end better",
        ),
        (
            {"name": "mixing_law", "stay": "proportional"},
            "constant",
            True,
            "those of the data, unless others are forecast to end better",
        ),
        ({"name": "doremi"}, "constant", True, "starting shares: the same for every domain"),
        ({"name": "odm"}, "constant", True, "starting shares: the same for every domain"),
        ({"name": "foster"}, "constant", False, "starting shares: those of a published"),
    ],
)
def test_where_shares_came_from(strategy: dict, initial: str, probed: bool, words: str) -> None:
    said = shares_in_words(strategy, initial, probed=probed)
    assert words in said
    from_probe = strategy["name"] in ("constant", "inverse", "foster") and probed
    start = strategy.get("start", initial)
    assert ("probe" in said) == (from_probe and (start == "constant" or "inverse" in said))


IN_PLACE = "since the probe failed its own checks"


@pytest.mark.parametrize(
    ("strategy", "origin", "words", "follows"),
    [
        ({"name": "foster"}, ("proportional", "proportional", "constant"), IN_PLACE, False),
        ({"name": "constant"}, ("uniform", "uniform", "inverse"), IN_PLACE, False),
        ({"name": "inverse"}, ("uniform", "proportional", None), IN_PLACE, False),
        ({"name": "foster"}, ("constant", "keep", None), "although it failed its own checks", True),
        ({"name": "inverse"}, ("constant", "keep", None), "although it failed", True),
        ({"name": "uniform"}, ("proportional", "proportional", "constant"), "", False),
        ({"name": "foster"}, ("proportional", "stop", None), "those of the data", False),
    ],
)
def test_shares_that_stand_in_for_doubtful_ones_are_called_so(
    strategy: dict, origin: tuple, words: str, follows: bool
) -> None:
    initial, doubt, asked = origin
    said = shares_in_words(strategy, initial, doubt=doubt, asked=asked)
    assert words in said
    assert (IN_PLACE in said) == (words == IN_PLACE)
    assert follows_probe(strategy, initial, doubt=doubt, asked=asked) == follows


def test_what_stopped_improving_is_told_with_its_round() -> None:
    history = pd.DataFrame(
        {
            "domain": ["law"] * 3 + ["code"] * 3,
            "round": [0, 1, 2] * 2,
            "validation_loss": [3.0, 2.0, 2.5, 2.0, 1.5, 1.2],
        }
    )
    assert tables.stopped_improving(history) == [
        {"domain": "law", "round": 1, "lowest": 2.0, "last": 2.5}
    ]


def test_other_models_are_a_baseline_and_without_one_that_is_said() -> None:
    models = tables.mean_losses(RUN["evaluation"])
    assert models["model"].tolist() == ["base", "tuned"]
    said = summary.baseline_sentence(models)
    assert said is not None and said.startswith("none.") and "--pipeline compare" in said
    other = pd.DataFrame({"model": ["last_week"], "loss": [2.5]})
    said = summary.baseline_sentence(pd.concat([models, other]))
    assert said == "mean held-out loss of other models on the same rows: last_week 2.500."


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
