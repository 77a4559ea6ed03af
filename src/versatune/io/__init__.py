"""Kedro datasets of our own."""

from versatune.io.folder import FolderDataset

__all__ = ["FolderDataset"]
