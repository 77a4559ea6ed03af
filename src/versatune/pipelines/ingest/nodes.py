"""Nodes of ingest: the embedded sample and the base model; rows cleaned and tokenised."""

from pathlib import Path
from typing import Any

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.data.ingest_report import ingest_report
from versatune.data.tokenize import tokenize
from versatune.demo.base_model import BaseModelParams, make_base
from versatune.demo.build import build, describe
from versatune.demo.config import SampleParams
from versatune.evaluation.tasks import domain_tasks, tell_doubts
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.work import ParallelParams, Piece


def build_sample(params: SampleParams) -> Piece:
    """The sample's corpus, instruction rows and multiple-choice items."""
    return build(params)


def describe_sample(sample_files: FolderRef) -> dict[str, Any]:
    """The sample's files, its known shares and its counts."""
    return describe(sample_files)


def make_base_model(params: BaseModelParams, sample: dict[str, Any]) -> Piece | CheckpointRef:
    """The base model: to be pretrained on the sample, or the one asked for."""
    return make_base(params, Path(sample["corpus"]))


def clean_domains(domains: Domains, params: CleanParams, sample: dict[str, Any]) -> Piece:
    """Check, deduplicate and split every domain's rows. ``sample`` orders it after its files."""
    del sample
    piece = clean(domains, params)
    for task in domain_tasks(domains):  # wrong questions end the run now, not after a probe
        tell_doubts(task)
    return piece


def tokenize_rows(
    clean_data: FolderRef,
    base_model: dict[str, Any],
    params: TokenizeParams,
    parallel: ParallelParams,
) -> Piece:
    """Apply the base model's chat template and tokenizer; labels only on assistant turns."""
    checkpoint = CheckpointRef.model_validate(base_model)
    return tokenize(clean_data, checkpoint.path, load_tokenizer, params, parallel)


def report_ingest(clean_data: FolderRef, tokenized: FolderRef) -> dict[str, Any]:
    """Account for every row that was read, and log the data set to MLflow."""
    report = ingest_report(clean_data, tokenized)
    tracking.set_tags({"data_fingerprint": report["data_fingerprint"]})
    units = ("read", "train_rows", "train_tokens", "steering_rows", "report_rows")
    tracking.log_metrics(
        {
            f"ingest/{unit}/{d}": entry[unit]
            for d, entry in report["domains"].items()
            for unit in units
        }
    )
    return report
