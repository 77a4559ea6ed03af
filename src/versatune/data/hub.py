"""Data sets on the Hugging Face hub: whether they are there, and their rows."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from versatune.data.config import Source
from versatune.data.readers import read_dataset
from versatune.data.rows import RejectedRow, Row
from versatune.errors import VersatuneError

PATIENCE = 10.0
"""Seconds the hub may take to answer whether it has a data set."""


def refusal(error: Exception, what: str) -> str | None:
    """Why the hub refuses a ``what`` (model, data set); None where it was not reached."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return "its owner grants access on request: ask for it on its page, then log in"
        case errors.RevisionNotFoundError():
            return "there is no such revision"
        case errors.RepositoryNotFoundError():
            return f"there is no such {what}, or it is private and you are not logged in"
        case errors.HFValidationError():
            return str(error).split("\n")[0].rstrip(".")
    return None


def check_hub(source: Source) -> bool:
    """Ask once, without the retries of a download, whether a hub source can be loaded.

    Returns whether the hub answered; when it did not, there is a copy in the cache. Raises
    VersatuneError when there is neither.
    """
    from huggingface_hub import HfApi

    assert source.hub is not None
    if Path(source.hub).is_dir():
        return True
    at = f" at revision {source.revision!r}" if source.revision else ""
    try:
        HfApi().dataset_info(source.hub, revision=source.revision, timeout=PATIENCE)
        return True
    except Exception as error:  # each version of the client has other connection errors
        reason = refusal(error, "data set")
        if reason is None and _is_cached(source):
            return False
        reason = reason or (
            f"the hub can't be reached ({type(error).__name__}) and there is no copy in the cache; "
            "go online, or download it elsewhere and give its folder as `path`"
        )
    raise VersatuneError(f"the hub data set {source.hub!r}{at} can't be loaded: {reason}.")


def read_hub(source: Source) -> Iterator[Row | RejectedRow]:
    """The rows of a data set on the hub. Only data files are read: no code of it is run.

    As a stream nothing is written to the disk; without the hub a copy in the cache is read instead.
    """
    import datasets

    answered = check_hub(source)
    try:
        with contextlib.nullcontext() if answered else offline():
            found = datasets.load_dataset(
                source.hub,
                source.name,
                split=source.split,
                revision=source.revision,
                streaming=source.streaming and answered,
            )
    except Exception as error:
        raise VersatuneError(
            f"the hub data set {source.hub!r} (split {source.split!r}) can't be read: "
            f"{type(error).__name__}: {error}"
        ) from error
    yield from read_dataset(found, source.label)


def _is_cached(source: Source) -> bool:
    import datasets

    try:
        with offline():
            datasets.load_dataset_builder(source.hub, source.name, revision=source.revision)
    except Exception:
        return False
    return True


@contextlib.contextmanager
def offline(wanted: bool = True) -> Iterator[None]:
    """With ``wanted`` the hub is not contacted, as with HF_HUB_OFFLINE=1, which is read only at
    import."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = wanted
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
