"""A finished folder (checkpoint, tokenised sets, judge) as a catalog entry."""

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from versatune.artifacts import MANIFEST, FolderRef
from versatune.errors import VersatuneError


class FolderDataset(AbstractDataset[FolderRef, FolderRef]):
    """Loads and saves a :class:`~versatune.artifacts.FolderRef`, never the content itself.

    The stage that makes the folder writes into it directly, so that it can go on after an
    interruption; saving checks that the stage wrote where the catalog says, loading verifies
    every file against the manifest's checksums.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> FolderRef:
        try:
            return FolderRef.load(self._filepath)
        except VersatuneError as error:
            raise DatasetError(str(error)) from error

    def save(self, data: FolderRef) -> None:
        wanted = self._filepath
        if Path(data.path).resolve() != wanted.resolve():
            raise DatasetError(f"the stage wrote to {data.path}, but the catalog says {wanted}.")
        if not (wanted / MANIFEST).is_file():
            raise DatasetError(f"{wanted} is not finished: it has no {MANIFEST}.")

    def _exists(self) -> bool:
        try:
            FolderRef.load(self._filepath)
        except VersatuneError:
            return False
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
