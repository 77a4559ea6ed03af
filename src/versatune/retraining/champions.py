"""Connects the store of retrainings and the MLflow registry, which may be offline."""

import logging
from collections.abc import Mapping
from typing import Any

from versatune import tracking
from versatune.artifacts import FolderRef, to_jsonable
from versatune.modeling.checkpoints import CheckpointRef, same_vocabulary
from versatune.retraining.config import RetrainParams
from versatune.retraining.run_store import CHAMPIONS, Registration, RunStore, Serving
from versatune.tracking import registry
from versatune.tracking.registry import RegistryOfflineError

logger = logging.getLogger(__name__)

PROMOTED = "promoted"
MAX_TAG = 4000
"""Characters of a tag; MLflow takes 5,000."""


def choose(runs: RunStore, base: CheckpointRef, params: RetrainParams) -> dict[str, Any]:
    """The champion, what a challenger is measured against, and what it is trained from, as JSON.

    Raises VersatuneError when the champion's vocabulary is not the base model's, whose tokenizer
    makes the rows.
    """
    found = serving(runs, params)
    if found:
        same_vocabulary(
            found.checkpoint,
            base,
            f"Give retrain.model_name another name than {params.model_name}, under which this base "
            "model's line of champions begins, or set base_model back.",
        )
    opponent = found.checkpoint if found else base
    start = opponent if params.start_from == "champion" else base
    return {
        "champion": to_jsonable(found),
        "opponent": to_jsonable(opponent),
        "start": to_jsonable(start),
    }


def serving(runs: RunStore, params: RetrainParams) -> Serving | None:
    """The champion. While MLflow is away: the model that waits to become champion, else the last
    known."""
    try:
        version = registry.champion(params.model_name)
        found = None
        if version is not None:
            checkpoint = registry.checkpoint_of(version, runs.folder / CHAMPIONS)
            found = Serving(checkpoint=checkpoint, key=registry.fingerprint_of(version))
    except RegistryOfflineError as error:
        state = runs.state
        waiting = [w.checkpoint for w in state.waiting if w.promote]
        found = _as_champion(waiting[-1]) if waiting else state.champion
        logger.warning("%s Taken as champion: %s.", error, found.checkpoint.name if found else None)
        return found
    runs.update(champion=found)
    return found


def _as_champion(checkpoint: CheckpointRef) -> Serving:
    return Serving(checkpoint=checkpoint, key=checkpoint.fingerprint)


def hand_in(runs: RunStore, params: RetrainParams, current: str | None = None) -> bool:
    """Register waiting challengers, oldest first; False when MLflow is offline and some still wait.

    The run gets a tag with the outcome of each, except the one with the key ``current``, whose
    decision is that of the run itself.
    """
    for waiting in runs.state.waiting:
        try:
            outcome = _register(waiting, params)
        except RegistryOfflineError as error:
            logger.warning(
                "%s Retraining %d is registered by the next run of this pipeline.",
                error,
                waiting.number,
            )
            return False
        runs.keep(waiting.number, "outcome", outcome)
        if waiting.key != current:
            tell({f"handed_in.{waiting.number}": f"{outcome['decision']}, {_label(outcome)}"})
        rest = [w for w in runs.state.waiting if w.key != waiting.key]
        if outcome["decision"] == PROMOTED:
            runs.update(waiting=rest, champion=_as_champion(waiting.checkpoint))
        else:
            runs.update(waiting=rest)
    return True


def conclude(runs: RunStore, waiting: Registration, params: RetrainParams) -> str:
    """End a retraining: note what is to be registered, register it, finish, delete what is old.

    Returns the decision. After a kill anywhere in between, the same run again has the same result.
    """
    others = [w for w in runs.state.waiting if w.key != waiting.key]
    runs.update(waiting=[*others, waiting])
    decision = "promotion postponed" if waiting.promote else "not promoted; registered later"
    not_yet = _outcome(waiting, params, f"{decision}: MLflow does not answer")
    runs.keep(waiting.number, "outcome", not_yet)
    if not hand_in(runs, params, waiting.key):
        _shorten(runs, params)
    runs.finish(runs.current)
    prune(runs, params)
    outcome = runs.kept(waiting.number, "outcome")
    tell({"version": _label(outcome)})
    return str(outcome["decision"])


def registration(
    news: dict[str, Any],
    models: dict[str, Any],
    data: FolderRef,
    challenger: dict[str, Any],
    verdict: dict[str, Any],
) -> Registration:
    """The registry's record of a retraining, from its nodes' results."""
    changes = {f"change.{name}": f"{mean['value']:.6g}" for name, mean in verdict["mean"].items()}
    return Registration(
        key=f"{news['number']}:{challenger['fingerprint']}",
        number=news["number"],
        checkpoint=CheckpointRef.model_validate(challenger),
        tags={
            "retraining": str(news["number"]),
            "new": "; ".join(news["reasons"]),
            "reasons": "; ".join(verdict["reasons"]),
            "data_fingerprint": data.metadata["data_fingerprint"],
            "started_from": models["start"]["name"],
            "measured_against": models["opponent"]["name"],
            **changes,
        },
        promote=verdict["promote"],
        over=models["champion"] and models["champion"]["key"],
    )


def tell(tags: Mapping[str, str]) -> None:
    """Set ``retraining.*`` tags on the MLflow run."""
    tracking.set_tags({f"retraining.{name}": value[:MAX_TAG] for name, value in tags.items()})


def prune(runs: RunStore, params: RetrainParams) -> None:
    """Delete old challengers' files here and in MLflow; nothing while MLflow is away."""
    try:
        registry.prune(params.model_name, params.keep_last)
        runs.prune(registry.serving_paths(params.model_name), params.keep_last)
    except RegistryOfflineError as error:
        logger.warning("%s Old challengers will be deleted by a later run.", error)


def _outcome(
    of: Registration, params: RetrainParams, decision: str, version: int | None = None
) -> dict[str, Any]:
    return {
        "number": of.number,
        "name": params.model_name,
        "version": version,
        "decision": decision,
    }


def _label(outcome: dict[str, Any]) -> str:
    number = outcome["version"]
    return "not registered" if number is None else f"{outcome['name']} version {number}"


def _shorten(runs: RunStore, params: RetrainParams) -> None:
    """Limit the models that wait for MLflow to the number that the registry would keep."""
    for gone in runs.shorten(params.keep_last):
        decision = (
            "never registered: MLflow was away for too many retrainings, the model was deleted"
        )
        runs.keep(gone.number, "outcome", _outcome(gone, params, decision))
        logger.warning("Retraining %d is %s.", gone.number, decision)


def _register(waiting: Registration, params: RetrainParams) -> dict[str, Any]:
    if not (waiting.checkpoint.path / "config.json").is_file():
        return _outcome(waiting, params, f"lost: {waiting.checkpoint.path} is gone")
    tags = {name: value[:MAX_TAG] for name, value in waiting.tags.items()}
    version = registry.register(
        params.model_name, waiting.key, waiting.checkpoint, tags, params.example
    )
    decision = "not promoted"
    if waiting.promote:
        promoted = registry.promote(version, waiting.over)
        decision = PROMOTED if promoted else "not promoted: the champion changed meanwhile"
    registry.tag(version, {"decision": decision})
    return _outcome(waiting, params, decision, version.number)
