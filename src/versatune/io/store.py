"""A tokenised store as a catalog entry: one that is to be made, or one that is there already."""

from typing import Any

from kedro.io import AbstractDataset, DatasetError

from versatune.artifacts import FolderRef, read_json, write_json
from versatune.errors import VersatuneError
from versatune.io.folder import from_here
from versatune.work import Piece, make_folder


class StoreDataset(AbstractDataset[Piece | FolderRef, FolderRef]):
    """A reference as JSON to a folder: that of another entry, or one that is made in ``path``."""

    def __init__(self, *, filepath: str, path: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath, self._folder = from_here(filepath), from_here(path)
        self.metadata = metadata

    def load(self) -> FolderRef:
        try:
            noted = read_json(self._filepath)
            found = FolderRef.load(noted["path"])
        except (VersatuneError, KeyError, TypeError) as error:
            raise DatasetError(f"{self._filepath}: {error}") from error
        if found.fingerprint != noted.get("fingerprint"):
            raise DatasetError(
                f"{found.path} was made again after {self._filepath} was written: run the mixture "
                "pipeline again."
            )
        return found

    def save(self, data: Piece | FolderRef) -> None:
        if isinstance(data, Piece):
            data = make_folder(data, self._folder)
        write_json(self._filepath, {"path": data.path, "fingerprint": data.fingerprint})

    def _exists(self) -> bool:
        try:
            self.load()
        except DatasetError:
            return False
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "folder": str(self._folder)}


# As in versatune.io.folder: saving is the work itself, its sentences stay sentences.
StoreDataset.save = StoreDataset.save.__wrapped__  # type: ignore
