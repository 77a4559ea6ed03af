"""Judges: who says which domain a text belongs to, behind one interface."""

from pathlib import Path
from typing import TYPE_CHECKING

from versatune.artifacts import FolderRef
from versatune.probing.config import JudgeParams
from versatune.work import Piece

if TYPE_CHECKING:
    from versatune.probing.judges.base import Background, Judge


def train_judge(
    clean: FolderRef,
    params: JudgeParams,
    descriptions: dict[str, str],
    seed: int,
    keep: Path,
    api_key: str = "",
    key: str = "probe.judge",
    background: "Background | None" = None,
) -> Piece:
    """The judge made ready, with its answers on labelled rows.

    ``background``: what the base model says unasked; a classifier takes it for a domain without
    rows, and others know such a domain by its description.
    ``descriptions``: domain -> what belongs to it. ``keep``: the folder of answers that cost money.
    ``key``: where ``params`` stand, for messages. Raises VersatuneError when the judge can't be
    had: no model folder, no server.
    """
    if params.kind == "classifier":
        from versatune.probing.judges import classifier

        return classifier.train(clean, params.classifier, seed, background)
    if params.kind == "likelihood":
        from versatune.probing.judges import likelihood

        return likelihood.train(clean, params.likelihood, descriptions, seed)
    if params.kind == "person":
        from versatune.probing.judges import person

        return person.train(clean, person.file_of(params.person, keep))
    from versatune.probing.judges import endpoint

    return endpoint.train(clean, params.endpoint, descriptions, seed, keep, api_key, key)


def open_judge(
    ref: FolderRef, params: JudgeParams, keep: Path, api_key: str = "", key: str = "probe.judge"
) -> "Judge":
    """The judge of a finished folder; answers that cost money are kept in the folder ``keep``."""
    kind = ref.metadata["kind"]
    if kind == "classifier":
        from versatune.probing.judges.classifier import Classifier

        return Classifier.load(ref)
    if kind == "likelihood":
        from versatune.probing.judges.likelihood import Likelihood

        return Likelihood.load(ref, params.likelihood)
    if kind == "person":
        from versatune.probing.judges.person import Person, file_of

        return Person(ref.metadata["domains"], file_of(params.person, keep))
    from versatune.probing.judges.endpoint import Endpoint

    return Endpoint.load(ref, params.endpoint, keep, api_key, key)
