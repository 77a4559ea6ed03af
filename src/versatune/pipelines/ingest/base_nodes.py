"""Nodes that make the embedded sample and the base model."""

from pathlib import Path
from typing import Any

from versatune.artifacts import FolderRef
from versatune.demo.base_model import BaseModelParams, make_base
from versatune.demo.build import build, describe
from versatune.demo.config import SampleParams
from versatune.modeling.checkpoints import CheckpointRef
from versatune.work import Piece


def build_sample(params: SampleParams) -> Piece:
    """The sample's corpus, instruction rows and multiple-choice items."""
    return build(params)


def describe_sample(sample_files: FolderRef) -> dict[str, Any]:
    """The sample's files, its known shares and its counts."""
    return describe(sample_files)


def make_base_model(params: BaseModelParams, sample: dict[str, Any]) -> Piece | CheckpointRef:
    """The base model: to be pretrained on the sample, or the one asked for."""
    return make_base(params, Path(sample["corpus"]))
