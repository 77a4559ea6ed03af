"""The base model as a catalog entry: what is to be pretrained goes in, a checkpoint comes out."""

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from versatune.artifacts import read_json, write_json
from versatune.demo.base_model import pretrained_here
from versatune.errors import VersatuneError
from versatune.io.folder import from_here
from versatune.modeling.checkpoints import CheckpointRef
from versatune.work import Piece, make_folder


class CheckpointDataset(AbstractDataset[Piece | CheckpointRef, dict[str, Any]]):
    """A checkpoint's reference as JSON; one that is still to be made is made in ``path``."""

    def __init__(self, *, filepath: str, path: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath, self._folder = Path(filepath), from_here(path)
        self.metadata = metadata

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

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "folder": str(self._folder)}


# As in versatune.io.folder: saving is the work itself, its sentences stay sentences.
CheckpointDataset.save = CheckpointDataset.save.__wrapped__  # type: ignore
