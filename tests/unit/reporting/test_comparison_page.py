"""The page of a comparison: its verdict in words, and the numbers of the summary."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers.example_run import SIX, compared
from versatune.evaluation.comparison import summarise
from versatune.evaluation.objective import DeclaredObjective
from versatune.intervals import ratio_interval
from versatune.mixing.config import ObjectiveParams
from versatune.reporting import comparison_page as comparison
from versatune.reporting import figures
from versatune.reporting.page import Setup

TABLE = compared()["comparison"]
LOSS = "nats_per_token"


def made(table: pd.DataFrame = TABLE, **changes: Any) -> comparison.Compared:
    values: dict[str, Any] = {
        "domains": SIX,
        "baseline": "uniform",
        "target": None,
        "n_seeds": table["seed"].nunique(),
        "budget": "2 rounds of 2 steps each",
        "setup": Setup(base_model={"name": "tiny"}, command="kedro run --pipeline compare"),
    } | changes
    summary = summarise(table, values["baseline"], values["target"], values.get("declared"))
    return comparison.Compared(summary=summary, **values)


def test_who_is_better_stands_first() -> None:
    said = comparison.said(made())
    # expand: -0.5 on one domain, +0.1 on five: the mean is the baseline's
    assert said.headline == "By held-out loss no strategy can be distinguished from uniform."
    clear = TABLE.copy()
    clear.loc[(clear["strategy"] == "foster") & (clear["metric"] == LOSS), "value"] -= 0.5
    assert (
        comparison.said(made(clear)).headline == "By held-out loss foster is better than uniform."
    )
    worse = clear.assign(value=clear["value"].where(clear["strategy"] != "expand", 3.0))
    said = comparison.said(made(worse))
    assert said.headline == "By held-out loss foster is better and expand is worse than uniform."
    assert said.mood == "mixed"
    # 0.6, 0.7 and 0.8 below 2.0, 2.2 and 2.4
    assert said.details[0].startswith("foster: mean held-out loss −31.72 % against uniform (95 %")


def test_expansion_is_told_by_target_and_others() -> None:
    # three equal differences tell nothing for sure; these differ by a little
    moved = TABLE.copy()
    mine = (moved["strategy"] == "expand") & (moved["metric"] == LOSS)
    moved.loc[mine, "value"] += moved["seed"].map({0: 1e-4, 1: 0.0, 2: -1e-4})
    said = comparison.said(made(moved, target="medicine"))
    assert said.headline == (
        "expand gains more on medicine and keeps the others worse than uniform."
    )
    assert len(said.details) == 2 and said.details[0].startswith("foster ")
    # From 2.2: uniform ends at 2.4 with one seed, expand above on five domains with two.
    assert said.details[1] == (
        "Domains of 6 that fell more than the tolerance (0 %), mean over seeds: uniform 2 and "
        "expand 3.3; none elsewhere."
    )
    table = comparison.expansion(made(moved, target="medicine"), LOSS)
    gain, versus, others, others_versus, _ = table.rows["expand"]
    # from 2.2 to 1.5, 1.7, 1.9; the five others to 2.1, 2.3, 2.5
    assert gain.text == "+0.500" and versus.text == "+0.500" and versus.verdict == "better"
    assert others.value == pytest.approx(-5 * 0.1) and others_versus.verdict == "worse"
    plain = comparison.expansion(made(target="medicine"), LOSS).rows["expand"]
    assert plain[2].interval == "−2.984 to +1.984"
    assert (plain[1].interval, plain[1].verdict) == ("", "not distinguishable")


def test_degradation_avoided_has_an_interval_where_the_baselines_own_is_certain() -> None:
    # expand changes the others by +0.5, -0.5, -1.5 in the three seeds: that may be nothing
    table = comparison.expansion(made(baseline="expand", target="medicine"), LOSS)
    spared = table.rows["foster"][-1]
    assert spared.text == "300 %" and spared.interval == ""
    worse = TABLE.copy()
    worse.loc[(worse["strategy"] == "expand") & (worse["domain"] != "medicine"), "value"] += 1
    table = comparison.expansion(made(worse, baseline="expand", target="medicine"), LOSS)
    # now -4.5, -5.5, -6.5, and foster +1.5, +1.0, +0.5
    cell = table.rows["foster"][-1]
    assert cell.value == pytest.approx(1 + 1.0 / 5.5)
    low, high = ratio_interval(np.array([1.5, 1.0, 0.5]), np.array([-4.5, -5.5, -6.5]))
    assert cell.interval == f"+{100 * (1 - high):.0f} to +{100 * (1 - low):.0f}"


def test_few_seeds_give_differences_without_verdicts() -> None:
    few = made(TABLE.query("seed < 2"), target="medicine")
    assert comparison.said(few).headline.startswith("No verdict: it takes 3 seeds")
    cells = [c for row in comparison.by_domain(few, LOSS).rows.values() for c in row]
    assert all(c.interval == c.verdict == "" for c in cells)


def test_domains_show_the_paired_differences_of_the_summary() -> None:
    table = comparison.by_domain(made(), LOSS)
    assert table.columns == ("domain", "uniform", "foster", "expand")
    assert list(table.rows) == ["all", *SIX]
    own, foster, expand = table.rows["medicine"]
    assert (own.text, foster.text, expand.text) == ("2.200", "−0.200", "−0.500")
    # differences -0.1, -0.2, -0.3: t(2) = 4.3027
    assert foster.interval == "−0.448 to +0.048" and foster.verdict == expand.verdict
    assert expand.verdict == "not distinguishable"  # -0.5 three times: who knows of a fourth
    accuracy = comparison.by_domain(made(), "accuracy").rows["medicine"]
    assert accuracy[0].text == "50.0 %" and accuracy[2].text == "+12.5"


def test_the_page_holds_its_command_tables_and_figures() -> None:
    drawn = {"comparison_loss": figures.differences(TABLE, SIX, "uniform")}
    page = comparison.render(made(target="medicine", figures=drawn))
    assert page.count('class="plot"') == 1
    assert "<code>kedro run --pipeline compare</code>" in page
    assert "Expanding medicine" in page and "−0.448 to +0.048" in page
    assert "Expanding" not in comparison.render(made())


def test_each_strategy_stands_against_each() -> None:
    clear = TABLE.copy()
    clear.loc[(clear["strategy"] == "foster") & (clear["metric"] == LOSS), "value"] -= 0.5
    table = comparison.each(made(clear), LOSS)
    names = ["uniform", "foster", "expand"]
    assert list(table.columns) == ["strategy", *names] and list(table.rows) == names
    for i, name in enumerate(names):
        assert table.rows[name][i] == comparison.NOTHING
    assert table.rows["foster"][0].text == "+31.7"
    over, under = table.rows["foster"][2], table.rows["expand"][1]
    # 1.4, 1.5, 1.6 against 2.0, 2.2, 2.4, and back
    assert over.value == pytest.approx((0.6 / 2.0 + 0.7 / 2.2 + 0.8 / 2.4) / 3)
    assert under.value == pytest.approx(-(0.6 / 1.4 + 0.7 / 1.5 + 0.8 / 1.6) / 3)
    assert (over.verdict, under.verdict) == ("better", "worse")
    page = comparison.render(made(clear))
    assert '<span class="chip better">+31.7</span>' in page
    assert "gain of the row" not in comparison.render(made(clear, target="medicine"))


def test_the_top_says_who_differs_and_names_the_rest() -> None:
    worse = TABLE.copy()
    worse.loc[(worse["strategy"] == "foster") & (worse["metric"] == LOSS), "value"] += 1
    said = comparison.said(made(worse))
    assert said.headline == "By held-out loss foster is worse than uniform."
    assert [line.partition(":")[0] for line in said.details] == [
        "foster",
        "Not distinguishable from uniform",
        "By accuracy no strategy can be distinguished from uniform.",
        "Domains of 6 that fell more than the tolerance (0 %), mean over seeds",
    ]
    assert said.details[1].endswith(": expand (not worse by more than 0.00 %).")
    assert said.mood == "bad"


def test_the_verdict_and_the_ranking_are_on_the_declared_objective() -> None:
    """Only medicine counts, of which expand takes off 0.5 with every seed."""
    weights = {domain: float(domain == "medicine") for domain in SIX}
    params = ObjectiveParams(kind="weighted", weights=weights, tolerance=0.1)
    compared = made(declared=DeclaredObjective(params))
    said = comparison.said(compared)
    assert said.headline == "By the weighted mean held-out loss expand is better than uniform."
    # 0.5 of 2.0, 2.2 and 2.4
    assert said.details[0].startswith("expand: weighted mean held-out loss −22.85 % against unif")
    # Above 2.2 by more than a tenth: expand's five domains with the last seed alone.
    assert said.details[-1] == (
        "Domains of 6 that fell more than the tolerance (10 %), mean over seeds: expand 1.7; none "
        "elsewhere."
    )
    table = comparison.overall(compared, [LOSS])
    assert "weighted mean held-out loss" in table.columns
    assert [row[0].value for row in table.rows.values()] == pytest.approx([2.2, 2.0, 1.7])


def test_many_strategies_say_their_verdicts_by_colour() -> None:
    few = comparison.render(made())
    assert "not distinguishable</span></td>" in few and 'class="sortable compact"' not in few
    more = [TABLE]
    for number in range(4):
        one = TABLE[TABLE["strategy"] == "foster"]
        more.append(one.assign(strategy=f"foster_{number}"))
    many = comparison.render(made(pd.concat(more, ignore_index=True)))
    domains = many.partition('<section id="domains">')[2]
    assert 'class="sortable compact"' in domains
    assert 'title="not distinguishable, −0.448 to +0.048"' in domains
