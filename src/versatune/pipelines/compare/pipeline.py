"""The compare pipeline: one train-and-evaluate template, an instance a kind of strategy."""

from typing import Any

from kedro.pipeline import Node, Pipeline, node

from versatune.pipelines.compare import nodes, page_nodes

_TABLES = ["comparison", "comparison_history", "comparison_summary"]

PARAMETERS = ["params:domains", "params:evaluate", "params:compare", "params:parallel"]


def template() -> Pipeline:
    """Train with every planned run of a kind of strategy, and evaluate."""
    return Pipeline(
        [
            node(
                nodes.train_and_evaluate,
                ["plan", "training_rows", "base_model", *PARAMETERS, "evaluations"],
                "trained",
                name="train_and_evaluate",
                tags=["compare"],
            ),
            node(
                nodes.collect_runs,
                ["plan", "trained"],
                ["runs", "history", "items"],
                name="collect_runs",
                tags=["compare"],
            ),
        ]
    )


def instance(kind: str) -> Pipeline:
    """The template for one kind of strategy."""
    return Pipeline(
        template(),
        inputs={
            "plan": f"runs_planned_{kind}",
            "training_rows": "training_rows",
            "base_model": "base_model",
            "evaluations": "evaluations",
        },
        outputs={
            "trained": f"comparison_runs_{kind}",
            "runs": f"runs_{kind}",
            "history": f"runs_history_{kind}",
            "items": f"runs_items_{kind}",
        },
        parameters=set(PARAMETERS),
        namespace=kind,
    )


def create_pipeline(**_: Any) -> Pipeline:
    """Plan -> an instance a kind of strategy -> ``comparison``, ``comparison_summary``, the page.

    Which strategies run is data (``compare.strategies``); which kinds there are is fixed, so the
    pipeline is static, and an instance nothing was planned for costs nothing.
    """
    plan = node(
        nodes.plan_runs,
        [
            *("training_rows", "initial_mixture", "reference_losses", "knowledge_distribution"),
            *("params:compare", "params:train"),
        ],
        [f"runs_planned_{kind}" for kind in nodes.KINDS],
        name="plan_runs",
        tags=["compare"],
    )
    together = node(
        nodes.compare,
        [
            *("params:compare", "params:train", "reference_losses"),
            *(f"runs_{kind}" for kind in nodes.KINDS),
            *(f"runs_history_{kind}" for kind in nodes.KINDS),
            *(f"runs_items_{kind}" for kind in nodes.KINDS),
        ],
        _TABLES,
        name="compare",
        tags=["compare"],
    )
    return sum((instance(kind) for kind in nodes.KINDS), Pipeline([plan, together, *_shown()]))


def _shown() -> list[Node]:
    """The figures and the page."""
    figures = [f"figure_comparison_{name}" for name in ("loss", "accuracy", "shares")]
    draw = node(
        page_nodes.draw_comparison,
        [*_TABLES, "params:domains", "params:compare"],
        figures,
        name="draw_comparison",
        tags=["compare"],
    )
    write = node(
        page_nodes.write_comparison,
        {
            **{name: name for name in ("comparison_summary", "base_model", "parameters", *figures)},
            "domains": "params:domains",
            "params": "params:compare",
            "train": "params:train",
        },
        "comparison_report",
        name="write_comparison",
        tags=["compare"],
    )
    return [draw, write]
