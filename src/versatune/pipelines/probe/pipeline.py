"""base_model, clean_data -> samples -> judge -> judgements -> audit -> knowledge_distribution;
samples, judgements -> own_texts."""

from typing import Any

from kedro.pipeline import Pipeline, node

from versatune.pipelines.probe import audit_nodes, nodes, own_nodes


def create_pipeline(**_: Any) -> Pipeline:
    """The probe pipeline."""
    return Pipeline(
        [
            node(
                nodes.train_judge,
                inputs=[
                    *("clean_data", "params:domains", "params:probe"),
                    *("judge_key", "kept_answers", "samples"),
                ],
                outputs="judge",
                name="train_judge",
            ),
            node(
                nodes.draw_samples,
                inputs=["base_model", "params:probe", "sampler_key"],
                outputs="samples",
                name="draw_samples",
            ),
            node(
                nodes.judge_samples,
                inputs=[
                    *("base_model", "samples", "judge", "params:probe"),
                    *("judge_key", "sampler_key", "kept_answers"),
                ],
                outputs="judgements",
                name="judge_samples",
            ),
            node(
                audit_nodes.train_auditor,
                inputs=[
                    *("clean_data", "params:domains", "params:probe"),
                    *("audit_key", "kept_answers", "samples"),
                ],
                outputs="auditor",
                name="train_auditor",
            ),
            node(
                audit_nodes.audit_samples,
                inputs=[
                    *("auditor", "samples", "judgements", "params:probe"),
                    *("audit_key", "kept_answers"),
                ],
                outputs="audit",
                name="audit_samples",
            ),
            node(
                own_nodes.collect_own_texts,
                inputs=[
                    *("samples", "judge", "judgements"),
                    *("params:domains", "params:ingest", "params:probe"),
                ],
                outputs="own_texts",
                name="collect_own_texts",
            ),
            node(
                own_nodes.report_own_texts,
                inputs="own_texts",
                outputs="own_texts_report",
                name="report_own_texts",
            ),
            node(
                nodes.estimate,
                inputs=[
                    "base_model",
                    "clean_data",
                    "judge",
                    "samples",
                    "judgements",
                    "audit",
                    "params:domains",
                    "params:probe",
                ],
                outputs=["knowledge_distribution", "judged_samples"],
                name="estimate_knowledge",
            ),
        ]
    )
