"""The node that measures drift: how far the tuned model has moved from the base."""

from pathlib import Path
from typing import Any

import pandas as pd

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.data.own_rows import read_own_texts
from versatune.evaluation import drift
from versatune.evaluation.config import TUNED, EvaluateParams
from versatune.evaluation.results import table
from versatune.modeling.checkpoints import CheckpointRef
from versatune.work import make_folder
from versatune.work.folder import SKIPPED


def measure_drift(
    base_model: dict[str, Any],
    trained_model: FolderRef,
    own_texts: FolderRef,
    params: EvaluateParams,
    evaluations: Path,
) -> pd.DataFrame:
    """How far the tuned model has moved from the base on the base's own texts, by domain."""
    texts = [] if own_texts.metadata.get(SKIPPED) else read_own_texts(own_texts)
    if not any(text.split == "report" for text in texts):
        return table([], drift.COLUMNS)
    base = CheckpointRef.from_entry(base_model)
    tuned = CheckpointRef.from_manifest(trained_model.path, TUNED)
    piece = drift.drift(
        base, tuned, texts, own_texts.fingerprint, own_texts.metadata["trained_on"], params
    )
    made = make_folder(piece, evaluations / tuned.fingerprint / "drift")
    found = pd.read_parquet(made.path / drift.TABLE)
    tracking.log_metrics(
        {f"{TUNED}/drift/{row['domain']}": row["drift"] for row in found.to_dict("records")}
    )
    return found
