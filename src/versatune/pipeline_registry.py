"""Which pipelines there are."""

from kedro.framework.project import find_pipelines
from kedro.pipeline import Pipeline

from versatune.pipelines import ingest, train
from versatune.pipelines.stages import BOXES, STAGES


def register_pipelines() -> dict[str, Pipeline]:
    """Every pipeline by name; ``__default__`` joins the stages from ingest to report, and trains
    when the forecast has been made.

    A stage's nodes carry its name as namespace, by which kedro-viz folds them into one box.
    """
    pipelines = find_pipelines(raise_errors=True)
    for stage in (*STAGES, "retrain"):
        if stage in pipelines:
            pipelines[stage] = boxed(pipelines[stage], stage)
    joined = {stage: pipelines[stage] for stage in STAGES if stage in pipelines}
    if {"plan", "train"} <= set(joined):
        joined["train"] = folded(train.create_pipeline(after_forecast=True), "train")
    pipelines["__default__"] = sum(joined.values(), Pipeline([]))
    if "retrain" in pipelines:
        # Kedro may have looked only for the asked pipeline: ingest is made here.
        pipelines["retrain"] += folded(ingest.create_pipeline(), "ingest").to_outputs("base_model")
    return pipelines


def boxed(pipeline: Pipeline, stage: str) -> Pipeline:
    """The stage in its box; the report in two, the page's beside that of all it shows."""
    boxes = [box for box, of in BOXES.items() if of == stage]
    if not boxes:
        return folded(pipeline, stage)
    page = pipeline.only_nodes_with_outputs(stage)
    drawn, written = boxes
    return folded(pipeline - page, drawn) + folded(page, written)


def folded(pipeline: Pipeline, stage: str) -> Pipeline:
    """The pipeline with its nodes named ``stage.node``, its datasets as they were."""
    return Pipeline(pipeline, namespace=stage, prefix_datasets_with_namespace=False)
