"""Small and read-only file systems, where this machine lets us mount them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def _mounted(*arguments: str) -> bool:
    try:
        return (
            subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode == 0
        )
    except OSError:
        return False


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """A file system of its own at ``folder``; False where mounting is not allowed."""
    folder.mkdir(parents=True)
    mounted = _mounted("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing below ``folder`` can be written: by a mount, else by its permissions."""
    bound = _mounted("--bind", str(folder), str(folder))
    if bound:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    else:
        subprocess.run(["chmod", "-R", "a-w", str(folder)], check=True)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("nothing can be made read-only here: root, without the right to mount")
        yield
    finally:
        if bound:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        else:
            subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
