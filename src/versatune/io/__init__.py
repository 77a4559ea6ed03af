"""Kedro datasets of our own."""

from versatune.io.folder import FolderDataset, FoldersDataset, PlaceDataset
from versatune.io.store import StoreDataset

__all__ = ["FolderDataset", "FoldersDataset", "PlaceDataset", "StoreDataset"]
