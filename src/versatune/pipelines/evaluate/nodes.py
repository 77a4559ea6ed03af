"""Nodes of the evaluate pipeline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.data.config import Domains
from versatune.data.own_rows import read_own_texts
from versatune.evaluation import drift, examples, forgetting
from versatune.evaluation.config import BASE, TUNED, EvaluateParams
from versatune.evaluation.measure import evaluate_checkpoint
from versatune.evaluation.results import COLUMNS, ITEM_COLUMNS, metric_values, table
from versatune.evaluation.tasks import domain_tasks
from versatune.modeling.checkpoints import CheckpointRef, same_vocabulary
from versatune.work import make_folder
from versatune.work.folder import SKIPPED


def evaluate_base(
    base_model: dict[str, Any],
    tokenized: FolderRef,
    domains: Domains,
    params: EvaluateParams,
    evaluations: Path,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Measure the model before training."""
    domain_tasks(domains)  # a wrong line is reported before a model is read
    return evaluate(
        CheckpointRef.from_entry(base_model), BASE, tokenized, domains, params, evaluations
    )


def evaluate_tuned(
    trained_model: FolderRef,
    tokenized: FolderRef,
    domains: Domains,
    params: EvaluateParams,
    evaluations: Path,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Measure the model after training, by the same code on the same items."""
    tuned = CheckpointRef.from_manifest(trained_model.path, TUNED)
    return evaluate(tuned, TUNED, tokenized, domains, params, evaluations)


def evaluate_others(
    base_model: dict[str, Any],
    tokenized: FolderRef,
    domains: Domains,
    params: EvaluateParams,
    evaluations: Path,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure the models named by ``evaluate.extra_models``, by the same code on the same items."""
    others = [CheckpointRef.of_folder(path, name) for name, path in params.extra_models.items()]
    advice = "Measure it as the base model of another project, and compare in bits per byte."
    for other in others:
        same_vocabulary(other, CheckpointRef.from_entry(base_model), advice)
    found = [
        evaluate(other, other.name, tokenized, domains, params, evaluations, answers=False)
        for other in others
    ]
    rows, items = ([of_model[part] for of_model in found] for part in (0, 1))
    return _joined(rows, COLUMNS), _joined(items, ITEM_COLUMNS)


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


def summarise_evaluation(*tables: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All models in one table, item by item in another, and what changed by training in a third.

    ``tables``: the rows of each model, then the items of each.
    """
    half = len(tables) // 2
    rows, items = _joined(tables[:half], COLUMNS), _joined(tables[half:], ITEM_COLUMNS)
    changes = forgetting.changes(rows, items, BASE, TUNED)
    tracking.log_metrics(metric_values(rows))
    return rows, items, changes


def collect_examples(
    evaluation_base_items: pd.DataFrame,
    evaluation_tuned_items: pd.DataFrame,
    evaluation_base_answers: pd.DataFrame,
    evaluation_tuned_answers: pd.DataFrame,
    domains: Domains,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Questions that became right or wrong, and the same prompts answered by both models."""
    items = _joined([evaluation_base_items, evaluation_tuned_items], ITEM_COLUMNS)
    return (
        examples.changed_items(items, domain_tasks(domains), BASE, TUNED),
        examples.both_answers(evaluation_base_answers, evaluation_tuned_answers),
    )


def evaluate(
    checkpoint: CheckpointRef,
    name: str,
    store: FolderRef,
    domains: Domains,
    params: EvaluateParams,
    folder: Path,
    *,
    answers: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The rows, items and answers of one model; ``chance`` is what guessing reaches on a task."""
    tasks = domain_tasks(domains)
    found = evaluate_checkpoint(
        checkpoint,
        model=name,
        store=store,
        tasks=tasks,
        params=params,
        folder=folder,
        answers=answers,
    )
    chances = {(task.domain, task.label): task.chance(params.limit) for task in tasks}
    places = zip(found.rows["domain"], found.rows["task"], strict=True)
    chance = np.array([chances.get(place) for place in places], dtype=np.float64)
    return found.rows.assign(chance=chance), found.items, found.answers


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """One below the other; an empty table would turn numbers into objects."""
    filled = [part for part in tables if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else table([], columns)
