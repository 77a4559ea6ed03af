"""The forecast in words, and against what came."""

import json
from typing import Any

import pandas as pd
import pytest

from tests.helpers.example_run import SIX, artifacts
from versatune.mixing.interface import ROLLED_BACK
from versatune.reporting import figures, forecast, tables

RUN = artifacts()
MADE: dict[str, Any] = RUN["forecast"]
LOSSES = tables.only_losses(tables.results(RUN["evaluation"], RUN["forgetting"]))


def with_chosen(**changes: Any) -> dict[str, Any]:
    made = json.loads(json.dumps(MADE))
    made["strategies"]["foster"] |= changes
    return made


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"gain": 0.013}, "foster is forecast 1.3 % better than equal shares"),
        ({"gain": -0.02}, "foster is forecast 2.0 % worse than equal shares"),
        ({"gain": 0.0001}, "foster is forecast as good as equal shares"),
    ],
)
def test_the_chosen_strategy_is_set_against_equal_shares(
    entry: dict[str, float], sentence: str
) -> None:
    said = forecast.about_chosen(with_chosen(**entry))
    assert said is not None and said.startswith(sentence)
    assert said.endswith("1 of 6 domains is forecast to end above the tolerance (law).")


def test_where_one_domain_is_the_aim_it_is_told_what_that_one_gains() -> None:
    made = with_chosen(gain=-0.2) | {"targets": ["code"], "base": {**MADE["base"], "code": 2.0}}
    made["strategies"]["foster"]["domains"]["code"] |= {"loss": 1.5, "low": 1.4, "high": 1.7}
    said = forecast.about_chosen(made)
    assert said is not None and said.startswith(
        "foster is forecast to change the held-out loss of code by −25.0 % (−30.0 % to −15.0 %); "
    )
    assert forecast.advice(made).startswith("The aim is code. If it were all domains: a mix can")


def test_the_log_says_what_to_do_what_comes_and_what_it_takes() -> None:
    said = forecast.lines(MADE)
    assert said[0] == MADE["advice"]
    assert said[-1] == (
        "Training takes 200 steps, 80,000 tokens, about 40 s at the speed of the reference "
        "runs; 1.00 GiB of each device's 16.00 GiB, 3.00 GiB of disk. The "
        "references took 4.0 s, 10 % of that."
    )
    longer = forecast.lines(MADE | {"references_seconds": 80.0})
    assert longer[-1].endswith("The references took 1 min 20 s.")
    table = said[-len(SIX) - 2 : -1]
    assert table[0].split() == [
        "domain",
        "held-out",
        "loss",
        "with",
        "foster",
        "passes",
        "over",
        "its",
        "rows",
    ]
    ends = MADE["strategies"]["foster"]["domains"]
    for domain, line in zip(SIX, table[1:], strict=True):
        name, base, _, loss, low, _, high, passes = line.split()
        assert [name, base, loss, passes] == [
            domain,
            f"{MADE['base'][domain]:.3f}",
            f"{ends[domain]['loss']:.3f}",
            f"{ends[domain]['passes']:.1f}",
        ]
        assert (low, high) == (f"({ends[domain]['low']:.3f}", f"{ends[domain]['high']:.3f})")
    assert len({len(line) for line in table[1:]}) == 1
    assert all(len(line) <= 70 for line in table), "fits a terminal of 80 columns"


@pytest.mark.parametrize(
    ("low", "high", "named"),
    [(0.001, 0.02, True), (-0.001, 0.02, False), (0.0, 0.05, False), (0.001, 0.009, False)],
)
def test_the_best_static_mix_is_named_where_it_is_told_from_equal_shares(
    low: float, high: float, named: bool
) -> None:
    made = MADE | {"headroom": {"gain": 0.005, "low": low, "high": high}}
    said = forecast.lines(made)
    shares = [line for line in said if line.startswith("The best static mix: law 0.167, medicine")]
    assert len(shares) == named
    # Its shares are noise otherwise, so no line speaks of it.
    assert any("best static mix" in line for line in said) == named
    assert any("distinguishes no mix from equal shares" in line for line in said) == (
        not named and high >= 0.01
    )
    assert any("best static mix" in line for line in forecast.said(made)) == named


def test_without_a_forecast_it_says_why_and_what_would_give_one() -> None:
    nothing = {name: {"domains": s["domains"]} for name, s in MADE["strategies"].items()}
    made = MADE | {"headroom": None, "strategies": nothing}
    made |= {"missing": "references.mode is none", "remedy": "references.mode: mixes makes one"}
    said = forecast.lines(made)
    assert said[0].startswith("No forecast: references.mode is none, so it is not known")
    assert said[0].endswith("need no forecast; references.mode: mixes makes one.")
    assert "uniform and proportional" in said[0] and len(said) == 3 + len(SIX)
    assert (
        said[1].split() == ["domain", "passes", "over", "its", "rows"]
        and said[2] == "law       1.5"
    )
    assert figures.forecast(made, SIX).layout.meta["empty"]
    assert forecast.outcome(made, RUN["mixture_history"], LOSSES).empty


def test_a_forecast_of_an_older_version_says_to_run_the_plan_again() -> None:
    old = MADE | {"missing": "references.mode is none"}
    del old["remedy"]
    assert (
        "need no forecast; run the plan pipeline again to see what makes one."
        in forecast.advice(old)
    )


def test_the_outcome_is_that_of_the_model_on_the_rows_of_the_forecast() -> None:
    table = forecast.outcome(MADE, RUN["mixture_history"], LOSSES).set_index("domain")
    last = RUN["mixture_history"].query("round == 8").set_index("domain")["validation_loss"]
    assert table["came"].to_dict() == last.to_dict()
    assert table["inside"].to_dict() == {d: d != "medicine" for d in SIX}
    relative = LOSSES.set_index("domain")["relative"]
    assert table["report_change"].to_dict() == pytest.approx(relative.to_dict())


def test_a_model_that_training_went_back_to_is_what_came() -> None:
    history = RUN["mixture_history"].copy()
    history.loc[history["round"] == 8, "reason"] = f"guard: x; {ROLLED_BACK} 3, the best within it"
    assert forecast.model_round(history) == 3
    table = forecast.outcome(MADE, history, LOSSES).set_index("domain")
    third = history.query("round == 3").set_index("domain")["validation_loss"]
    assert table["came"].to_dict() == third.to_dict()


def test_how_many_outcomes_lie_within() -> None:
    table = pd.DataFrame(
        {
            "domain": ["a", "b", "c", "d"],
            "low": 1.0,
            "high": 2.0,
            "came": [1.5, 2.5, 2.6, 0.5],
            "inside": [True, False, False, False],
        }
    )
    assert forecast.outcome_sentence(table) == (
        "1 of 4 outcomes lies within the forecast's 90 % interval: b and c ended higher; d ended "
        "lower."
    )
    assert str(forecast.outcome_sentence(table, interpolated=True)).endswith(
        "before it went part of the way back to the base; the last column is of the saved one."
    )
    assert forecast.outcome_sentence(pd.DataFrame()) is None


def test_a_forecast_of_other_parameters_is_told() -> None:
    assert forecast.stale(MADE, {"rounds": 8, "seed": 0}) is None
    changed = forecast.stale(MADE, {"rounds": 4, "seed": 0, "optim": "adafactor"})
    assert changed == (
        "The forecast was made with other values of train.optim and train.rounds: run the plan "
        "pipeline again."
    )


def test_the_figure_has_the_numbers_of_the_forecast() -> None:
    fig = figures.forecast(MADE, SIX)
    dots = [t for t in fig.data if t.name == "foster"]
    assert [t.x[0] for t in dots] == pytest.approx(
        [0.0, *(MADE["strategies"]["foster"]["domains"][d]["loss"] for d in SIX)]
    )
    assert dots[1].error_x.array[0] == pytest.approx(0.04)
    assert {t.marker.symbol for t in dots} == {"circle"}
    assert {t.marker.symbol for t in fig.data if t.name != "foster"} == {"circle-open"}
    came = figures.forecast_and_outcome(forecast.outcome(MADE, RUN["mixture_history"], LOSSES), SIX)
    assert len(came.data) == 2 * len(SIX)
