"""Folders (checkpoint, tokenised sets, judge) as catalog entries: what is to be made goes in, a
reference to what was made comes out. Only the catalog says where."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from versatune.artifacts import (
    INPUTS,
    MANIFEST,
    FolderRef,
    is_intact,
    read_json,
    read_manifest,
    with_checksum,
    write_json,
)
from versatune.errors import VersatuneError
from versatune.work import (
    UNCHANGED,
    ParallelParams,
    Piece,
    Pieces,
    Unchanged,
    make_folder,
    make_pieces,
    not_needed,
)

INDEX = "pieces.json"


def from_here(path: str) -> Path:
    """``path`` from the working folder if it lies below it, for Kedro makes it absolute: what
    references and records hold then stays right when a project is moved."""
    found, here = Path(path), Path.cwd()
    return found.relative_to(here) if found.is_relative_to(here) else found


def is_whole(folder: Path) -> bool:
    """Whether a folder was finished, and every file is as it was then."""
    try:
        FolderRef.load(folder)
    except VersatuneError:
        return False
    return True


class WorkDataset(AbstractDataset[Any, Any]):
    """A dataset whose saving is the work itself.

    Kedro wraps what saving raises in a DatasetError. Here sentences stay sentences, and a fault
    keeps its traceback.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.save = getattr(cls.save, "__wrapped__", cls.save)  # type: ignore[method-assign]

    def _exists(self) -> bool:
        """What can be loaded is there."""
        try:
            self.load()
        except DatasetError:
            return False
        return True


class _Place(WorkDataset):
    """A folder of the catalog."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.filepath = from_here(filepath)
        self.metadata = metadata

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self.filepath)}


class FolderDataset(_Place):
    """One folder: saving a :class:`~versatune.work.Piece` makes it, or finds it whole; loading
    gives a :class:`~versatune.artifacts.FolderRef`, after every file was compared with its
    checksum."""

    def load(self) -> FolderRef:
        try:
            return FolderRef.load(self.filepath)
        except VersatuneError as error:
            raise DatasetError(str(error)) from error

    def preview(self) -> JSONPreview:
        """For kedro-viz: what was noted when the folder was made, and what it was made from."""
        manifest, inputs = read_manifest(self.filepath), self.filepath / INPUTS
        made_from = {"made from": read_json(inputs)} if inputs.is_file() else {}
        about = {**manifest["facts"], **made_from, "fingerprint": manifest["fingerprint"]}
        return JSONPreview(json.dumps(about, ensure_ascii=False))

    def save(self, data: Piece | Unchanged) -> None:
        make_folder(not_needed("leave") if data is UNCHANGED else data, self.filepath)

    def _exists(self) -> bool:
        return is_whole(self.filepath)


class FoldersDataset(_Place):
    """Independent pieces by name, each in a folder below this one. Saving makes a mapping's one by
    one, as Kedro's PartitionedDataset does, and :class:`~versatune.work.Pieces` side by side.
    Loading gives their references, in their order; with ``deletable`` without those that are
    gone or damaged since."""

    def __init__(
        self, *, filepath: str, deletable: bool = False, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._deletable = deletable

    def load(self) -> dict[str, FolderRef]:
        try:
            index = read_json(self.filepath / INDEX)
            if not (isinstance(index, dict) and is_intact(index, "pieces")):
                raise VersatuneError(f"{self.filepath / INDEX} is damaged; run its stage again.")
            folders = {name: self.filepath / name for name in index["pieces"]}
            return {
                name: FolderRef.load(folder)
                for name, folder in folders.items()
                if not self._deletable or is_whole(folder)
            }
        except VersatuneError as error:
            raise DatasetError(str(error)) from error

    def preview(self) -> JSONPreview:
        """For kedro-viz: what was noted when each piece was made."""
        pieces = read_json(self.filepath / INDEX)["pieces"]
        folders = [self.filepath / name for name in pieces]
        about = {f.name: read_manifest(f)["facts"] for f in folders if (f / MANIFEST).is_file()}
        return JSONPreview(json.dumps(about, ensure_ascii=False))

    def save(self, data: Mapping[str, Piece] | Pieces | Unchanged) -> None:
        if data is UNCHANGED:
            return
        if not isinstance(data, Pieces):
            data = Pieces(data, ParallelParams(workers=1))
        made = make_pieces(data, self.filepath)
        write_json(self.filepath / INDEX, with_checksum({"pieces": list(made)}))


class PlaceDataset(_Place):
    """Where nodes keep what they ask for by content (measurements, answers): its path."""

    def load(self) -> Path:
        return self.filepath

    def save(self, data: Any) -> NoReturn:  # noqa: ARG002
        raise DatasetError(f"{self.filepath} is written by the nodes that read it")

    def _exists(self) -> bool:
        return True
