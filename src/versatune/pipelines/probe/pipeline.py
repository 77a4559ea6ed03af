"""base_model, clean_data -> judge -> samples, judgements -> audit -> knowledge_distribution."""

from typing import Any

from kedro.pipeline import Pipeline, node

from versatune.pipelines.probe import nodes


def create_pipeline(**_: Any) -> Pipeline:
    """The probe pipeline."""
    return Pipeline(
        [
            node(
                nodes.train_judge,
                inputs=["clean_data", "params:domains", "params:probe", "judge_key"],
                outputs="judge",
                name="train_judge",
            ),
            node(
                nodes.sample_and_judge,
                inputs=["base_model", "judge", "params:probe", "judge_key", "sampler_key"],
                outputs=["samples", "judgements"],
                name="sample_and_judge",
            ),
            node(
                nodes.audit_samples,
                inputs=[
                    "clean_data",
                    "samples",
                    "judgements",
                    "params:domains",
                    "params:probe",
                    "audit_key",
                ],
                outputs="audit",
                name="audit_samples",
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
