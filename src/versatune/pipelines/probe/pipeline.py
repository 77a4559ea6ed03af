"""base_model, clean_data -> samples -> judge -> judgements -> audit -> knowledge_distribution;
samples, judgements -> own_texts."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from versatune.pipelines.probe import audit_nodes, nodes, own_nodes


def create_pipeline(**_: Any) -> Pipeline:
    """The probe pipeline."""
    return Pipeline(
        [
            Node(
                nodes.train_judge,
                [
                    *("clean_data", "params:domains", "params:probe"),
                    *("judge_key", "kept_answers", "samples"),
                ],
                "judge",
                name="train_judge",
            ),
            Node(
                nodes.draw_samples,
                ["base_model", "params:probe", "sampler_key"],
                "samples",
                name="draw_samples",
            ),
            Node(
                nodes.judge_samples,
                [
                    *("base_model", "samples", "judge", "params:probe"),
                    *("judge_key", "sampler_key", "kept_answers"),
                ],
                "judgements",
                name="judge_samples",
            ),
            Node(
                audit_nodes.train_auditor,
                [
                    *("clean_data", "params:domains", "params:probe"),
                    *("audit_key", "kept_answers", "samples"),
                ],
                "auditor",
                name="train_auditor",
            ),
            Node(
                audit_nodes.audit_samples,
                [
                    *("auditor", "samples", "judgements", "params:probe"),
                    *("audit_key", "kept_answers"),
                ],
                "audit",
                name="audit_samples",
            ),
            Node(
                own_nodes.collect_own_texts,
                [
                    *("samples", "judge", "judgements"),
                    *("params:domains", "params:ingest", "params:probe"),
                ],
                "own_texts",
                name="collect_own_texts",
            ),
            Node(
                own_nodes.report_own_texts, "own_texts", "own_texts_report", name="report_own_texts"
            ),
            Node(
                nodes.estimate,
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
                name="estimate_knowledge",
            ),
        ]
    )
