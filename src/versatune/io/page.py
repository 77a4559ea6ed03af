"""A page as a catalog entry: the old one stays until the new one is whole."""

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from versatune.artifacts import write_atomic


class PageDataset(AbstractDataset[str, str]):
    """Text in UTF-8, written in one step: a killed run or a full disk leaves the page before."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> str:
        return self._filepath.read_text(encoding="utf-8")

    def save(self, data: str) -> None:
        for left_over in self._filepath.parent.glob(f".{self._filepath.name}.*.tmp"):
            left_over.unlink()
        write_atomic(self._filepath, data)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
