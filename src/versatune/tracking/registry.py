"""The MLflow Model Registry: versions of a model, and which of them is deployed.

Aliases: ``champion`` serves, ``previous_champion`` is what :func:`rollback` goes back to,
``challenger`` is the newest version that was not promoted. A version carries the reasons as
tags; the tags this module reads itself begin with ``versatune.``. Moving ``champion`` is a
single call, so an interruption leaves either the old champion or the new one.

Every function raises RegistryOfflineError while MLflow does not answer.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from versatune import tracking
from versatune.artifacts import now
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.tracking.spool import first_line, means_offline
from versatune.work import Piece, make_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous_champion", "challenger"

KEY = "versatune.key"
PATH = "versatune.checkpoint.path"
FINGERPRINT = "versatune.checkpoint.fingerprint"
REPLACED = "versatune.replaced"
PRUNED = "versatune.files_deleted"


class RegistryOfflineError(VersatuneError):
    """MLflow does not answer, but may another time; nothing was changed.

    What MLflow refuses (permissions, a full disk, files that are gone) is a plain VersatuneError.
    """


class Version(BaseModel, frozen=True):
    """A registered version."""

    name: str
    number: int
    source: str
    """MLflow's URI of the model's files."""
    tags: dict[str, str]

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.name} version {self.number}"

    @property
    def fingerprint(self) -> str | None:
        """Stands for the checkpoint it was made from; None for one registered by hand."""
        return self.tags.get(FINGERPRINT)


def champion(name: str) -> Version | None:
    """The version that serves, if there is one."""
    return _by_alias(name, CHAMPION)


def register(
    name: str, key: str, checkpoint: CheckpointRef, tags: Mapping[str, str], example: str
) -> Version:
    """Store a checkpoint in MLflow and make a version of it, aliased ``challenger``.

    ``key`` stands for the one time it is registered: the same key again finds that version.
    """
    with _client() as client:
        found = [v for v in _versions(name) if v.tags.get(KEY) == key]
        if found:
            version = found[0]
        else:
            import mlflow

            uri = tracking.store_model(checkpoint.path, checkpoint.fingerprint, example, name)
            own = {KEY: key, PATH: str(checkpoint.path), FINGERPRINT: checkpoint.fingerprint}
            with contextlib.redirect_stderr(io.StringIO()):  # MLflow prints what the log says
                made = mlflow.register_model(uri, name, tags={**tags, **own})
            version = _version(made)
            logger.info("Registered %s.", version.label)
        client.set_registered_model_alias(name, CHALLENGER, str(version.number))
        return version


def tag(version: Version, tags: Mapping[str, str]) -> None:
    """Set tags on a version."""
    with _client() as client:
        for name, value in tags.items():
            client.set_model_version_tag(version.name, str(version.number), name, value)


def promote(version: Version, over: str | None) -> bool:
    """Make ``version`` the champion, if the champion still is the one it was measured against.

    ``over``: that one's checkpoint fingerprint, None when there was no champion. False, and
    nothing moved, when another serves by now. Doing it again does nothing. MLflow can't compare and
    move in one step: the lock of the data folder keeps runs and rollbacks of a project apart.
    """
    with _client() as client:
        serving = _by_alias(version.name, CHAMPION)
        if serving is not None and serving.number == version.number:
            _drop_alias(client, version.name, CHALLENGER, version.number)
            return True
        if (serving and fingerprint_of(serving)) != over:
            return False
        if serving is not None:
            client.set_model_version_tag(
                version.name, str(version.number), REPLACED, str(serving.number)
            )
            client.set_registered_model_alias(version.name, PREVIOUS, str(serving.number))
        client.set_registered_model_alias(version.name, CHAMPION, str(version.number))
        _drop_alias(client, version.name, CHALLENGER, version.number)
        return True


def rollback(name: str) -> tuple[Version, Version]:
    """Restore the previous champion; returns (the old version, the new one).

    Raises VersatuneError when there is none, or its files were deleted.
    """
    with _client() as client:
        serving, previous = _by_alias(name, CHAMPION), _by_alias(name, PREVIOUS)
        if serving is None:
            raise VersatuneError(f"{name} has no champion in the registry: nothing to roll back.")
        if previous is None or previous.number == serving.number:
            raise VersatuneError(f"{serving.label} has no previous champion to go back to.")
        if PRUNED in previous.tags:
            raise VersatuneError(f"the files of {previous.label} were deleted; it can't serve.")
        client.set_model_version_tag(name, str(serving.number), "versatune.rolled_back", now())
        client.set_registered_model_alias(name, CHAMPION, str(previous.number))
        before = {v.number: v for v in _versions(name)}.get(int(previous.tags.get(REPLACED, 0)))
        if before is not None and PRUNED not in before.tags:
            client.set_registered_model_alias(name, PREVIOUS, str(before.number))
        else:
            client.delete_registered_model_alias(name, PREVIOUS)
        return serving, previous


def checkpoint_of(version: Version, folder: Path) -> CheckpointRef:
    """The checkpoint of a version: where it was made if it is still there, else from MLflow.

    In that case it is written to ``folder``; one written there before is compared with its
    checksums, and fetched again when it is damaged.
    """
    path = Path(version.tags.get(PATH, ""))
    if version.fingerprint is not None and (path / "config.json").is_file():
        found = CheckpointRef.of_folder(path, name=version.label)
        if found.fingerprint == version.fingerprint:
            return found
        logger.warning("%s was changed since it was registered; taken from MLflow.", path)
    inputs = {"name": version.name, "source": version.source}
    copy = make_folder(
        Piece(inputs, partial(_download, version)), folder / f"version-{version.number}"
    )
    return CheckpointRef.of_folder(copy.path, name=version.label)


def fingerprint_of(version: Version) -> str:
    """What identifies a version: its checkpoint's fingerprint, or its MLflow URI."""
    return version.fingerprint or version.source


def serving_paths(name: str) -> list[Path]:
    """Where champion and previous champion were made."""
    found = [_by_alias(name, alias) for alias in (CHAMPION, PREVIOUS)]
    return [Path(v.tags[PATH]) for v in found if v is not None and PATH in v.tags]


def prune(name: str, keep_last: int) -> list[Version]:
    """Delete the files of all versions except champion, previous champion and the newest few.

    Versions, tags and reasons stay. ``keep_last`` counts versions that are not aliased champion
    or previous champion. Returns all versions whose files are deleted by now.
    """
    with _client() as client:
        aliases = _aliases(client, name)
        safe = {aliases[a] for a in (CHAMPION, PREVIOUS) if a in aliases}
        versions = sorted(_versions(name), key=lambda v: -v.number)
        others = [v for v in versions if v.number not in safe and KEY in v.tags]
        kept = {v.source for v in versions if v.number in safe} | {
            v.source for v in [v for v in others if PRUNED not in v.tags][:keep_last]
        }
        for version in others:
            if PRUNED not in version.tags and version.source not in kept:
                _delete_files(client, version)
        return [v for v in _versions(name) if PRUNED in v.tags]


def _delete_files(client: "MlflowClient", version: Version) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    # First the mark, then the files: a version without the mark is whole.
    client.set_model_version_tag(version.name, str(version.number), PRUNED, now())
    model_id = version.source.removeprefix("models:/")
    try:
        model = client.get_logged_model(model_id)
        get_artifact_repository(str(model.artifact_location)).delete_artifacts()
        client.delete_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    logger.info("Deleted the files of %s.", version.label)


def _download(version: Version, target: Path) -> dict[str, Any]:
    import mlflow

    with _client():
        parts = mlflow.transformers.load_model(
            f"models:/{version.name}/{version.number}", return_type="components"
        )
    parts["model"].save_pretrained(target)
    parts["tokenizer"].save_pretrained(target)
    return {}


@contextlib.contextmanager
def _client() -> "Iterator[MlflowClient]":
    """A client for the block.

    Raises RegistryOfflineError when the store does not answer, now or when the run began, and
    another VersatuneError when it refuses.
    """
    from mlflow import MlflowClient, MlflowException

    if (reason := tracking.why_offline()) is not None:
        raise _told(reason, "MLflow did not answer when this run began")
    try:
        yield MlflowClient()
    except (MlflowException, OSError) as error:
        raise _told(error, "the MLflow registry does not answer") from error


def _told(error: Exception, when: str) -> VersatuneError:
    reason = first_line(error)
    if means_offline(error):
        return RegistryOfflineError(f"{when}: {reason}")
    return VersatuneError(
        f"MLflow's registry refuses: {reason}. Waiting does not help: check its permissions, "
        "its free disk space and its files, then run again; finished work is kept."
    )


def _by_alias(name: str, alias: str) -> Version | None:
    with _client() as client:
        number = _aliases(client, name).get(alias)
        return None if number is None else _version(client.get_model_version(name, str(number)))


def _aliases(client: "MlflowClient", name: str) -> dict[str, int]:
    from mlflow import MlflowException

    try:
        return {a: int(v) for a, v in client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _versions(name: str) -> list[Version]:
    import mlflow

    return [_version(v) for v in mlflow.search_model_versions(filter_string=f"name = '{name}'")]


def _drop_alias(client: "MlflowClient", name: str, alias: str, number: int) -> None:
    if _aliases(client, name).get(alias) == number:
        client.delete_registered_model_alias(name, alias)


def _version(found: "ModelVersion") -> Version:
    return Version(
        name=found.name, number=int(found.version), source=found.source, tags=dict(found.tags)
    )
