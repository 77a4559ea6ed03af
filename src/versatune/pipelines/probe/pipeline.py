"""base_model, clean_data -> samples -> judge -> judgements -> audit -> knowledge_distribution;
samples, judgements -> own_texts."""

from typing import Any

from kedro.pipeline import Pipeline

from versatune.pipelines.node_of import node_of
from versatune.pipelines.probe import nodes, own_nodes


def create_pipeline(**_: Any) -> Pipeline:
    """The probe pipeline."""
    return Pipeline(
        [
            node_of(
                nodes.train_judge,
                [
                    *("clean_data", "params:domains", "params:probe"),
                    *("judge_key", "kept_answers", "samples"),
                ],
                "judge",
            ),
            node_of(nodes.draw_samples, ["base_model", "params:probe", "sampler_key"], "samples"),
            node_of(
                nodes.judge_samples,
                [
                    *("base_model", "samples", "judge", "params:probe"),
                    *("judge_key", "sampler_key", "kept_answers"),
                ],
                "judgements",
            ),
            node_of(
                nodes.train_auditor,
                [
                    *("clean_data", "params:domains", "params:probe"),
                    *("audit_key", "kept_answers", "samples"),
                ],
                "auditor",
            ),
            node_of(
                nodes.audit_samples,
                [
                    *("auditor", "samples", "judgements", "params:probe"),
                    *("audit_key", "kept_answers"),
                ],
                "audit",
            ),
            node_of(
                own_nodes.collect_own_texts,
                [
                    *("samples", "judge", "judgements"),
                    *("params:domains", "params:ingest", "params:probe"),
                ],
                "own_texts",
            ),
            node_of(own_nodes.report_own_texts, "own_texts", "own_texts_report"),
            node_of(
                nodes.estimate_knowledge,
                [
                    "base_model",
                    "clean_data",
                    "judge",
                    "samples",
                    "judgements",
                    "audit",
                    "params:domains",
                    "params:probe",
                ],
                ["knowledge_distribution", "judged_samples"],
            ),
        ]
    )
