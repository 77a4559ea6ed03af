"""Has new data arrived? Only by size and time of change: cheap enough to ask every minute.

The pipeline itself then looks at the content, and ends in seconds when it is the same.
"""

import glob
import hashlib
from collections.abc import Iterable
from pathlib import Path


def state(project: Path, patterns: Iterable[str]) -> tuple[str, float]:
    """What stands for the files that match, and when the newest of them changed (0: none).

    ``patterns``: globs relative to ``project``; a folder counts with all that lies below it.
    """
    digest, newest = hashlib.sha256(), 0.0
    for file in sorted(set(_files(project, patterns))):
        try:
            stat = file.stat()
        except FileNotFoundError:
            continue  # gone since it was listed
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "replace"))
        newest = max(newest, stat.st_mtime)
    return digest.hexdigest()[:32], newest


def _files(project: Path, patterns: Iterable[str]) -> Iterable[Path]:
    for pattern in patterns:
        # Path.glob takes no absolute patterns.
        for name in glob.glob(pattern, root_dir=project, recursive=True):  # noqa: PTH207
            found = project / name
            if found.is_dir():
                yield from (file for file in found.rglob("*") if file.is_file())
            else:
                yield found
