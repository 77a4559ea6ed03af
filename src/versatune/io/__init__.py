"""Kedro datasets of our own."""

from versatune.io.folder import FolderDataset, FoldersDataset, PlaceDataset

__all__ = ["FolderDataset", "FoldersDataset", "PlaceDataset"]
