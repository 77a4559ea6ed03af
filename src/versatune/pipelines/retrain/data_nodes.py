"""Nodes that make the night's data, when something is new."""

from functools import partial
from pathlib import Path
from typing import Any

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.pipelines.retrain.params import CleanParams, Domains, TokenizeParams
from versatune.retraining.nights import Diary
from versatune.work import Piece, not_needed


def clean_domains(retrain_news: dict[str, Any], domains: Domains, clean: CleanParams) -> Piece:
    """Clean what the domains hold now, when something is new."""
    from versatune.data.clean import clean as cleaned

    return cleaned(domains, clean) if retrain_news["new"] else not_needed("leave")


def tokenize_rows(
    retrain_news: dict[str, Any],
    retrain_clean: FolderRef,
    base_model: dict[str, Any],
    tokenize: TokenizeParams,
) -> Piece:
    """Tokenise the cleaned rows, when something is new."""
    from versatune.data.tokenize import tokenize as tokenized

    if not retrain_news["new"]:
        return not_needed("leave")
    base = CheckpointRef.model_validate(base_model)
    return tokenized(retrain_clean, base.path, load_tokenizer, tokenize)


def note_data(
    retrain_news: dict[str, Any], retrain_tokenized: FolderRef, retrain_runs: Path
) -> dict[str, Any]:
    """The night's data: what was tokenised, or, with nothing new, the last night's."""
    data: dict[str, Any] = Diary(retrain_runs).result(
        retrain_news["night"], "data", partial(retrain_tokenized.model_dump, mode="json")
    )
    tracking.set_tags({"data_fingerprint": data["facts"]["data_fingerprint"]})
    return data
