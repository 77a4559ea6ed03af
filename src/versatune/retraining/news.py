"""What is new since the last retraining: files by content, parameters by value."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from versatune.artifacts import differences, file_digest, read_json, write_json
from versatune.data.config import Domains
from versatune.data.sources import locate

SETTLED_SECONDS = 2.0
"""Seconds. A file that changed this shortly before it was read is read again the next time: its
time may be too coarse to show a second change."""


class Digests:
    """Digests of files, kept by size and time of change so that unchanged files are not read
    again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, list[Any]] = read_json(path) if path.is_file() else {}
        self._seen: dict[str, list[Any]] = {}

    def of(self, file: Path) -> str:
        """SHA-256 of the file's content."""
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = self._known.get(str(file))
        digest = str(known[3]) if known is not None and known[:3] == stamp else file_digest(file)
        if time.time() - stat.st_mtime > SETTLED_SECONDS:
            self._seen[str(file)] = [*stamp, digest]
        return digest

    def save(self) -> None:
        """Keep the digests of the files asked for since the start, and no others."""
        if self._seen != self._known:
            write_json(self.path, self._seen)


def data_state(domains: Domains, known_digests: Path) -> dict[str, Any]:
    """The domains' data as JSON: each domain's settings, and every file's digest.

    ``known_digests``: the file that keeps them.
    A folder written by ``save_to_disk`` counts by its files. Sources on the hub count by their
    settings only. Raises one VersatuneError naming all files that are missing.
    """
    state: dict[str, Any] = {}
    digests = Digests(known_digests)
    for name, found in locate(domains.active).items():
        paths = [path for origin in found.origins for path, _ in origin.files] + found.evaluation
        files = [f for path in paths for f in _files(path)]
        state[name] = {
            "settings": found.config.model_dump(mode="json", exclude={"description"}),
            "files": {str(file): digests.of(file) for file in files},
        }
    digests.save()
    return state


def what_is_new(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """One sentence a difference between two states ``{"data": ..., "parameters": ...}``.

    Empty when nothing is new. A first retraining counts as new.
    """
    if before is None:
        return ["the first retraining"]
    old, new = before["data"], now["data"]
    found = [f"domain {name} is gone" for name in old if name not in new]
    for name, entry in new.items():
        if name not in old:
            found.append(f"domain {name} is new, with {_count(len(entry['files']))}")
            continue
        if changes := _file_changes(old[name]["files"], entry["files"]):
            found.append(f"{name}: {changes}")
        if entry["settings"] != old[name]["settings"]:
            changed = differences(old[name]["settings"], entry["settings"])
            found.append(f"{name}: {', '.join(changed)}")
    if list(old) != list(new) and not found:
        found.append("the order of the domains changed")
    if before["parameters"] != now["parameters"]:
        changed = differences(before["parameters"], now["parameters"])
        found.append(f"parameters: {', '.join(changed)}")
    return found


def _file_changes(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    added = [f for f in new if f not in old]
    gone = [f for f in old if f not in new]
    changed = [f for f in new if f in old and new[f] != old[f]]
    parts = [
        f"{_count(len(files))} {what} ({', '.join(Path(f).name for f in files[:3])}"
        f"{', ...' if len(files) > 3 else ''})"
        for files, what in ((added, "new"), (changed, "changed"), (gone, "gone"))
        if files
    ]
    return ", ".join(parts)


def _count(number: int) -> str:
    return f"{number} file" if number == 1 else f"{number} files"


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
