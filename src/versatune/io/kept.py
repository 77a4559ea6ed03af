"""Files that stay as they are when their stage has nothing to do."""

from collections.abc import Callable
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets.json import JSONDataset
from kedro_datasets.pandas import ParquetDataset

from versatune.work import UNCHANGED


class KeptJSONDataset(JSONDataset):
    """Kedro's JSONDataset; saving ``UNCHANGED`` leaves the file."""

    def save(self, data: Any) -> None:
        _save(self, super().save, data)


class KeptParquetDataset(ParquetDataset):
    """Kedro's ParquetDataset; saving ``UNCHANGED`` leaves the file."""

    def save(self, data: Any) -> None:
        _save(self, super().save, data)


def _save(dataset: AbstractDataset[Any, Any], save: Callable[[Any], None], data: Any) -> None:
    if data is not UNCHANGED:
        save(data)
    elif not dataset.exists():
        raise DatasetError(
            f"{dataset} is gone, and nothing new makes it again. To retrain nevertheless, delete "
            "state.json of the retrain_runs."
        )
