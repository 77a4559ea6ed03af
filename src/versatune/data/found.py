"""The domains that a folder of data holds: each sub-folder or file is one.

Files whose names say the same domain (``law.jsonl`` and ``legal.csv``, the shards of a data set)
are sources of it together. Files in a sub-folder ``eval`` or ``evaluation`` hold the questions of
the domain that they are named after, or of the domain in whose folder they lie.
"""

import json
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from versatune.data.config import Source
from versatune.data.files import SPLITS, files_of, is_about, is_saved
from versatune.domains import canonical
from versatune.errors import VersatuneError

QUESTIONS = ("eval", "evaluation")
"""Sub-folders whose files are questions and no rows to train on."""


@dataclass
class FoundDomains:
    """What a data folder contains."""

    sources: dict[str, list[Path]] = field(default_factory=dict)
    """Domain -> files and folders with its rows, in name order."""
    evaluation: dict[str, list[Path]] = field(default_factory=dict)
    """Domain -> its files with questions."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Entry that is no domain -> why."""

    def blocks(self) -> dict[str, dict[str, Any]]:
        """The domains as the parameter block ``domains`` has them, without descriptions."""
        return {
            name: {
                "sources": [{"path": str(path)} for path in paths],
                "evaluation": [{"path": str(path)} for path in self.evaluation.get(name, [])],
            }
            for name, paths in self.sources.items()
        }


def find_domains(folder: Path) -> FoundDomains:
    """The domains in ``folder``, whose paths in the result are absolute.

    Raises VersatuneError when there is no such folder, when it holds no data, or when it is one
    data set (saved, or divided in splits) and not several domains.
    """
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise VersatuneError(f"{folder}: there is no such folder.")
    entries = [e for e in sorted(folder.iterdir()) if not e.name.startswith(".")]
    # One whose every entry with rows is named after a split is divided in these.
    names = [_stem(e).lower() for e in entries if not is_about(e)]
    if is_saved(folder) or (names and all(name in SPLITS for name in names)):
        raise VersatuneError(
            f"{folder} is one data set with its splits. Give the folder above it, in which each "
            "domain is a sub-folder or a file."
        )
    found = FoundDomains()
    questions = [e for e in entries if e.is_dir() and e.name.lower() in QUESTIONS]
    for entry in entries:
        if entry in questions or is_about(entry):
            continue
        try:
            files_of(Source(path=str(entry)))
            name = _domain(entry)
        except VersatuneError as error:
            found.left_out[entry.name] = str(error)
            continue
        found.sources.setdefault(name, []).append(entry)
        if own := _questions_within(entry):
            found.evaluation.setdefault(name, []).extend(own)
    for entry in questions:
        _add_questions(found, entry)
    if not found.sources:
        reasons = "".join(f"\n  {why}" for why in found.left_out.values())
        raise VersatuneError(f"{folder} holds no data that can be read.{reasons}")
    return found


def _add_questions(found: FoundDomains, folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or is_about(file):
            continue
        shown = f"{folder.name}/{file.name}"
        try:
            if file.suffix != ".jsonl":
                raise VersatuneError(f"{shown}: questions are read from JSON lines (.jsonl) only")
            name = _domain(file, asks=True)
            if name not in found.sources:
                raise VersatuneError(f"{shown}: no domain is called {name}")
            found.evaluation.setdefault(name, []).append(file)
        except VersatuneError as error:
            found.left_out[shown] = str(error)


def _questions_within(folder: Path) -> list[Path]:
    """Files of questions below a domain's folder. Rows of a split called ``eval`` are none."""
    within = [folder / name for name in QUESTIONS]
    files = [file for place in within for file in sorted(place.glob("*.jsonl"))]
    return [file for file in files if _asks(file)]


def _asks(file: Path) -> bool:
    """Whether the first line has what rows to train on do not have: choices, or tests."""
    with file.open(encoding="utf-8-sig", errors="replace") as handle:
        first = next((line for line in handle if line.strip()), "")
    try:
        item = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(item, dict) and not {"choices", "test", "test_list"}.isdisjoint(item)


def _stem(entry: Path) -> str:
    """A file's name without its suffixes and without the number of a shard."""
    name = entry.name if entry.is_dir() else entry.name.partition(".")[0]
    return re.sub(r"-\d{5}-of-\d{5}$", "", name)


def _without_accents(name: str) -> str:
    """``name`` with a letter for each that has an accent: a domain's name is ASCII."""
    return "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))


def _domain(entry: Path, *, asks: bool = False) -> str:
    """The name of the domain that a file or folder is called after; ``asks``: it has questions.

    Raises VersatuneError when nothing of the name can be one, and on a file that is named after
    another split than that for training.
    """
    stem = _without_accents(_stem(entry))
    name, _, split = re.sub(r"\W+", "_", stem, flags=re.ASCII).rpartition("_")
    if entry.is_dir() or not name or split.lower() not in SPLITS:
        name = stem
    elif not asks and SPLITS[split.lower()] != "train":
        raise VersatuneError(
            f"{entry.name}: its name says the split {split!r}, which is not trained on. Questions "
            f"go into a sub-folder {QUESTIONS[1]}."
        )
    name = re.sub(r"\W+", "_", name, flags=re.ASCII)
    try:
        return canonical(re.sub(r"^[\d_]+|_+$", "", name))
    except VersatuneError as error:
        raise VersatuneError(f"{entry.name}: {error}") from error
