"""Kedro datasets of our own."""

from versatune.io.folder import FolderDataset, FoldersDataset, PlaceDataset
from versatune.io.store import StoreDataset
from versatune.io.trained import TrainedModelDataset

__all__ = ["FolderDataset", "FoldersDataset", "PlaceDataset", "StoreDataset", "TrainedModelDataset"]
