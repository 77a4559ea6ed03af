"""Kedro datasets of our own."""

from versatune.io.folder import FolderDataset, FoldersDataset, PlaceDataset
from versatune.io.json_reference import CheckpointDataset, StoreDataset
from versatune.io.trained import TrainedModelDataset

__all__ = [
    "CheckpointDataset",
    "FolderDataset",
    "FoldersDataset",
    "PlaceDataset",
    "StoreDataset",
    "TrainedModelDataset",
]
