"""Nodes that make what the rest starts from: the embedded sample and the base model."""

from pathlib import Path

from versatune.pipelines.ingest.base_params import BaseModelParams, SampleParams


def build_sample(params: SampleParams) -> dict:
    """Write the sample's corpus, instruction rows and multiple-choice items.

    Returns `folder`, `fingerprint`, `corpus` (path), `instructions` and `evaluation` (domain ->
    path: `<folder>/instructions/<domain>.jsonl`, `<folder>/evaluation/<domain>.jsonl`), `shares`
    (domain -> known share of the corpus documents) and `counts`.
    """
    from versatune.sample.build import build

    return build(params)


def make_base_model(params: BaseModelParams, sample: dict) -> dict:
    """Pretrain the base model on the sample, or find the one asked for: a CheckpointRef's JSON."""
    from versatune.modeling.base import make_base

    return make_base(params, Path(sample["corpus"])).model_dump(mode="json")
