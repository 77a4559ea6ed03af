"""References to folders as catalog entries, to what is there already or what is to be made."""

import json
from typing import Any

from kedro.io import DatasetError
from kedro_datasets._typing import JSONPreview

from versatune.artifacts import FolderRef, read_json, write_json
from versatune.demo.base_model import pretrained_here
from versatune.errors import VersatuneError
from versatune.io.folder import WorkDataset, from_here
from versatune.modeling.checkpoints import CheckpointRef
from versatune.work import Piece, make_folder


class _Reference(WorkDataset):
    """A reference as JSON in ``filepath``; a piece of work is made in ``path``."""

    def __init__(self, *, filepath: str, path: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath, self._folder = from_here(filepath), from_here(path)
        self.metadata = metadata

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "folder": str(self._folder)}


class CheckpointDataset(_Reference):
    """The base model: a checkpoint's reference."""

    def load(self) -> dict[str, Any]:
        try:
            return CheckpointRef.model_validate(read_json(self._filepath)).model_dump(mode="json")
        except (VersatuneError, ValueError) as error:
            raise DatasetError(f"{self._filepath} is damaged; run `ingest` again.") from error

    def preview(self) -> JSONPreview:
        """For kedro-viz: the reference."""
        return JSONPreview(json.dumps(read_json(self._filepath)))

    def save(self, data: Piece | CheckpointRef) -> None:
        if isinstance(data, Piece):
            data = pretrained_here(make_folder(data, self._folder).path)
        write_json(self._filepath, data)

    def _exists(self) -> bool:
        return self._filepath.is_file()


class StoreDataset(_Reference):
    """A tokenised store: the reference of another entry's folder, or of one that is made."""

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
