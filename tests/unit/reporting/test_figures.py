"""Figures carry exactly the numbers they were given."""

import math

import numpy as np
import pandas as pd
import pytest

from tests.helpers.example_run import SIX, artifacts, compared
from versatune.reporting import figures, tables
from versatune.reporting.style import label

MANY = tuple(f"domain_{i:02d}" for i in range(30))
RUN = artifacts()
COMPARED = compared()


def results(made: dict = RUN) -> pd.DataFrame:
    return tables.results(made["evaluation"], made["forgetting"])


@pytest.mark.parametrize("unit", ["rows", "tokens", "supervised_tokens"])
def test_shares_are_those_asked_for_and_realised(unit: str) -> None:
    history = RUN["mixture_history"]
    fig = figures.shares(history, SIX, unit)
    assert len(fig.data) == 2 * len(SIX)
    for i, domain in enumerate(SIX):
        rows = history[(history["domain"] == domain) & (history["round"] > 0)]
        asked, realised = fig.data[2 * i : 2 * i + 2]
        assert list(asked.x) == list(realised.x) == rows["round"].tolist()
        assert list(asked.y) == rows["weight"].tolist()
        assert list(realised.y) == rows[f"realised_share_{unit}"].tolist()


@pytest.mark.parametrize("domains", [SIX[:2], SIX, MANY])
def test_losses_begin_with_the_base_model_and_show_the_reference(domains: tuple[str, ...]) -> None:
    made = artifacts(domains)
    history = made["mixture_history"]
    fig = figures.held_out_losses(history, domains, made["reference_losses"])
    drawn = fig.data[: 2 * len(domains)]
    for domain, (loss, reference) in zip(
        domains, zip(drawn[::2], drawn[1::2], strict=True), strict=True
    ):
        rows = history[history["domain"] == domain]
        assert list(loss.x) == list(range(9))
        assert list(loss.y) == rows["validation_loss"].tolist()
        level = made["reference_losses"]["domains"][domain]["nats_per_token"]
        assert list(reference.y) == [level, level]
        training = next(t for t in fig.data if t.name == f"{label(domain)} training")
        assert (training.xaxis, training.line.dash) == (loss.xaxis, "dot")
        assert list(training.x) == list(range(1, 9))
        assert list(training.y) == rows["train_loss"].dropna().tolist()
        rings = [t for t in fig.data if t.name == f"{label(domain)} lowest"]
        lowest = rows.loc[rows["validation_loss"].idxmin()]
        assert len(rings) == (lowest["round"] < 8)
        for ring in rings:
            assert (ring.x[0], ring.y[0]) == (lowest["round"], lowest["validation_loss"])
            assert ring.xaxis == loss.xaxis


def test_without_references_there_is_no_line_and_no_word_of_it() -> None:
    nothing = {"domains": {d: {"nats_per_token": None} for d in SIX}}
    fig = figures.held_out_losses(RUN["mixture_history"], SIX, nothing)
    assert not [t for t in fig.data if t.line.dash == "dash"]
    assert "reference" not in fig.layout.meta["caption"]


def test_potential_and_forgetting_as_lines_or_for_many_domains_as_maps() -> None:
    history = RUN["mixture_history"]
    lines = figures.potential_and_forgetting(history, SIX)
    rows = history[(history["domain"] == "code") & (history["round"] > 0)]
    assert list(lines.data[4].y) == rows["learnable_potential"].tolist()
    assert list(lines.data[10].y) == rows["forgetting_degree"].tolist()

    made = artifacts(MANY)["mixture_history"]
    maps = figures.potential_and_forgetting(made, MANY)
    wide = made[made["round"] > 0].pivot(
        index="domain", columns="round", values="forgetting_degree"
    )
    assert [trace.type for trace in maps.data] == ["bar", "bar"]
    cells = maps.data[1]
    place = [round(base + 0.46) for base in cells.base]
    drawn = {(MANY[i], x): v for i, x, v in zip(place, cells.x, cells.marker.color, strict=True)}
    assert len(drawn) == wide.size
    assert all(drawn[key] == value for key, value in wide.stack().items())
    assert list(maps.layout.yaxis2.ticktext) == list(MANY) and cells.marker.cmin == 0
    assert maps.layout.showlegend is False
    assert maps.layout.yaxis2.range[0] > maps.layout.yaxis2.range[1], "first domain on top"


def test_hover_names_the_round() -> None:
    history = RUN["mixture_history"]
    for fig in (
        figures.shares(history, SIX),
        figures.held_out_losses(history, SIX),
        figures.potential_and_forgetting(history, SIX),
        figures.shares_by_strategy(compared()["comparison_history"], SIX),
    ):
        axes = [axis for axis in fig.select_xaxes() if axis.domain or axis.title.text]
        assert axes and all(axis.unifiedhovertitle.text == "round %{x}" for axis in axes)


def test_every_trace_is_of_a_kind_that_the_build_of_the_page_draws() -> None:
    made = artifacts(MANY)
    found = tables.results(made["evaluation"], made["forgetting"])
    for fig in (
        figures.before_after(tables.only_losses(found), MANY),
        figures.shares(made["mixture_history"], MANY),
        figures.held_out_losses(made["mixture_history"], MANY, made["reference_losses"]),
        figures.potential_and_forgetting(made["mixture_history"], MANY),
        figures.knowledge(made["knowledge_distribution"], MANY),
        figures.rejects(made["ingest_report"], MANY),
        figures.forecast(made["forecast"], MANY),
        figures.differences(compared(MANY)["comparison"], MANY, "uniform"),
    ):
        assert {trace.type for trace in fig.data} <= {"scatter", "bar"}


@pytest.mark.parametrize("kind", ["loss", "accuracy"])
def test_before_and_after_with_the_ends_of_the_intervals(kind: str) -> None:
    pick = tables.only_losses if kind == "loss" else tables.only_accuracies
    table = pick(results())
    fig = figures.before_after(table, SIX, kind)
    for i, row in enumerate(table.itertuples()):
        line, base, tuned = fig.data[3 * i : 3 * i + 3]
        assert list(line.x) == [row.base, row.tuned]
        assert list(base.x) == [row.base] and list(tuned.x) == [row.tuned]
        assert tuned.x[0] + tuned.error_x.array[0] == pytest.approx(row.tuned_high)
        assert tuned.x[0] - tuned.error_x.arrayminus[0] == pytest.approx(row.tuned_low)


def test_guessing_is_drawn_beside_the_accuracies() -> None:
    table = tables.only_accuracies(results()).assign(chance=[0.25, 0.25, 0.5, 0.25, math.nan, 0.2])
    ticks = figures.before_after(table, SIX, "accuracy").data[-1]
    assert ticks.name == "chance" and list(ticks.x) == [0.25, 0.25, 0.5, 0.25, None, 0.2]
    assert "chance" not in [
        t.name for t in figures.before_after(table.assign(chance=math.nan), SIX, "accuracy").data
    ]


def test_knowledge_raw_corrected_and_beside_what_it_is_compared_with() -> None:
    found = RUN["knowledge_distribution"]["domains"]
    data = dict.fromkeys(SIX, 1 / 6)
    shares = RUN["sample_summary"]["shares"]
    fig = figures.knowledge(RUN["knowledge_distribution"], SIX, data, shares)
    given, known, raw, *corrected = fig.data
    assert list(given.x) == list(data.values())
    assert list(known.x) == list(RUN["sample_summary"]["shares"].values())
    assert list(raw.x) == [found[d]["raw_share"] for d in SIX]
    for domain, point in zip(SIX, corrected, strict=True):
        assert point.x[0] == found[domain]["share"]
        assert point.x[0] + point.error_x.array[0] == pytest.approx(found[domain]["high"])


def test_rejects_are_counted_by_reason_and_domain() -> None:
    report = RUN["ingest_report"]
    fig = figures.rejects(report, SIX)
    for domain, bars in zip(SIX, fig.data, strict=True):
        drawn = dict(zip(bars.y, bars.x, strict=True))
        assert drawn["bad json"] == report[domain]["rejected"]["bad_json"]["count"]
        assert drawn["near duplicate"] == report[domain]["duplicates"]["near"]
        assert drawn["leaks an evaluation item"] == report[domain]["leaked"]
        assert "beyond its source's weight".replace("'", "&#x27;") not in drawn


def test_differences_are_paired_by_seed_and_have_their_t_interval() -> None:
    fig = figures.differences(COMPARED["comparison"], SIX, "uniform")
    mean_of_domains = [t for t in fig.data if t.xaxis == "x"]
    law = [t for t in fig.data if t.xaxis == f"x{2 + SIX.index('law')}"]
    assert [t.name for t in law] == ["foster seeds", "foster", "expand seeds", "expand"]
    seeds, mean = law[:2]
    # 2.0, 2.2, 2.4 of uniform become 1.9, 2.0, 2.1
    assert list(seeds.x) == pytest.approx([-0.1, -0.2, -0.3])
    assert list(seeds.customdata) == [0, 1, 2]
    assert mean.x[0] == pytest.approx(-0.2)
    # t(2) = 4.3027, standard error 0.1 / sqrt(3)
    assert mean.error_x.array[0] == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    others = [t for t in fig.data if t.xaxis != "x" and t.name == "foster"]
    each = np.mean([t.x[0] for t in others])
    assert mean_of_domains[1].x[0] == pytest.approx(each)


def test_strategies_whose_long_names_begin_alike_have_a_line_each() -> None:
    long = "expand_medicine_with_a_guard"
    names = {"foster": f"{long}_closed", "expand": f"{long}_open"}
    table = COMPARED["comparison"].replace({"strategy": names})
    fig = figures.differences(table, SIX, "uniform")
    assert {y for t in fig.data for y in t.y} == set(names.values())
    axis = fig.layout.yaxis
    assert list(axis.tickvals) == list(names.values())
    assert list(axis.ticktext) == ["expand_medicine_with_a_…"] * 2
    assert "expand_medicine_with_a_guard_open, mean of 3" in fig.data[3].hovertemplate


def test_fewer_than_three_seeds_have_no_interval() -> None:
    two = COMPARED["comparison"].query("seed < 2")
    fig = figures.differences(two, SIX, "uniform")
    assert len(fig.data[0].x) == 2 and fig.data[1].error_x.array is None


def test_shares_of_each_strategy_are_means_over_its_seeds() -> None:
    history = COMPARED["comparison_history"]
    fig = figures.shares_by_strategy(history, SIX)
    assert len(fig.data) == len(SIX) * history["strategy"].nunique()
    rows = history.query("strategy == 'foster' and domain == 'law' and round > 0")
    wanted = rows.groupby("round")["weight"].mean()
    drawn = fig.data[len(SIX) + SIX.index("law")]
    assert list(drawn.x) == wanted.index.tolist()
    assert list(drawn.y) == pytest.approx(wanted.tolist())


def test_a_domain_has_one_colour_in_every_figure() -> None:
    table = tables.only_losses(results())
    colour = figures.shares(RUN["mixture_history"], SIX).data[8].line.color
    assert figures.before_after(table, SIX).data[13].marker.color == colour
    assert figures.rejects(RUN["ingest_report"], SIX).data[4].marker.color == colour
    assert figures.knowledge(RUN["knowledge_distribution"], SIX).data[5].marker.color == colour


def test_numbers_that_are_missing_or_not_finite_are_gaps() -> None:
    history = RUN["mixture_history"].copy()
    history.loc[history["round"] == 3, "validation_loss"] = math.inf
    history.loc[history["round"] == 4, ["validation_loss", "weight"]] = math.nan
    fig = figures.held_out_losses(history, SIX, None)
    assert fig.data[0].y[3] is None and fig.data[0].y[4] is None
    assert figures.shares(history, SIX).data[0].y[3] is None


def test_ticks_are_whole_rounds_and_few() -> None:
    assert figures.held_out_losses(RUN["mixture_history"], SIX, None).layout.xaxis.dtick == 2
    short = RUN["mixture_history"].query("round <= 2")
    assert figures.held_out_losses(short, SIX, None).layout.xaxis.dtick == 1


def test_forgetting_of_nothing_is_a_flat_line_on_a_small_scale() -> None:
    history = RUN["mixture_history"].assign(forgetting_degree=0.0)
    fig = figures.potential_and_forgetting(history, SIX)
    assert list(fig.layout.yaxis2.range) == [0, 0.05]


@pytest.mark.parametrize("domains", [SIX, MANY])
def test_without_references_only_forgetting_is_drawn(domains: tuple[str, ...]) -> None:
    history = artifacts(domains)["mixture_history"].assign(learnable_potential=None)
    fig = figures.potential_and_forgetting(history, domains)
    assert fig.layout.title.text == "What is being forgotten"
    assert "potential" not in fig.layout.meta["caption"]
    assert fig.layout.meta["grid"]["panels"] == 1 and "yaxis2" not in fig.layout
    flat = figures.potential_and_forgetting(history.assign(forgetting_degree=0.0), SIX)
    assert list(flat.layout.yaxis.range) == [0, 0.05]


def test_nothing_to_draw_is_said() -> None:
    nothing = pd.DataFrame(columns=["domain", "metric"])
    for fig in (
        figures.before_after(nothing, SIX, "accuracy"),
        figures.knowledge({"domains": {}}, SIX),
        figures.rejects({}, SIX),
        figures.differences(COMPARED["comparison"].head(0), SIX, "uniform"),
    ):
        assert fig.layout.meta["empty"] and fig.layout.meta["caption"].endswith(".")


def test_html_in_names_is_text_in_figures() -> None:
    name = '<a href="https://example.org">law</a>'
    made = artifacts((name, "code"))
    fig = figures.held_out_losses(made["mixture_history"], (name, "code"), None)
    assert "<a" not in fig.to_json() and "&lt;a" in fig.data[0].name
