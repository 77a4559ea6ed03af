"""Where Kedro looks for a project's commands."""

from versatune.project.commands import cli

__all__ = ["cli"]
