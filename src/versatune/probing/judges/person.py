"""People as judges: a CSV file with the texts, in which they write each text's domain.

The file is made by the first run, which then stops and says so; it is only ever added to.
Columns: ``id`` (stands for the text), ``domain`` (to be filled in: a domain's name, or ``?`` where
none can be told), ``text``.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from versatune.artifacts import FolderRef, WorkFolder, write_atomic
from versatune.domains import canonical
from versatune.errors import VersatuneError
from versatune.probing.config import PersonParams
from versatune.probing.judges.base import Judgement, Labelled, Status

LABELS = "labels.csv"
COLUMNS = ["id", "domain", "text"]
CAN_NOT_TELL = "?"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings that a spreadsheet would run as a formula; a quote is put before them."""


class Person:
    """Judges texts by what people wrote into the file."""

    def __init__(self, domains: Sequence[str], file: Path) -> None:
        self.domains = list(domains)
        self.file = file

    def judge(self, texts: Sequence[str]) -> Judgement:
        """One domain a text, as probability 1; ``?`` has the status ``refused``.

        Raises VersatuneError when texts wait for their domain, after adding those that are new to
        the file, or when the file holds what is no domain.
        """
        rows = self._read()
        named = {row["id"]: row["domain"] for row in rows}
        asked = {text_id(text): text for text in texts}
        new = [key for key in asked if key not in named]
        if new:
            rows += [{"id": key, "domain": "", "text": _shown(asked[key])} for key in new]
            self._write(rows)
        waiting = sum(not named.get(key) for key in asked)
        if waiting:
            raise VersatuneError(
                f"{self.file}: {waiting} of {len(asked)} texts wait for somebody to read them. "
                f"Write a domain into each one's column domain ({', '.join(self.domains)}; "
                f"{CAN_NOT_TELL} where none can be told) and run again: it goes on from here."
            )
        answers = [named[text_id(text)] for text in texts]
        known = [self.domains.index(a) if a != CAN_NOT_TELL else -1 for a in answers]
        told = np.array(known, dtype=np.int64)
        probabilities = np.eye(len(self.domains))[told]
        probabilities[told < 0] = np.nan
        status: list[Status] = ["ok" if number >= 0 else "refused" for number in known]
        return Judgement(probabilities, status, np.full(len(texts), np.nan))

    def _read(self) -> list[dict[str, str]]:
        """The file's rows, with domains by their own names."""
        if not self.file.is_file():
            return []
        try:
            text = self.file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise VersatuneError(
                f"{self.file} is not UTF-8 ({error.reason}): save it as CSV in UTF-8."
            ) from error
        head = text.partition("\n")[0]
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True
        )
        if not {"id", "domain"} <= set(reader.fieldnames or ()):
            raise VersatuneError(
                f"{self.file}:1: the columns {', '.join(COLUMNS)} are not all there; put the first "
                "line back as it was."
            )
        try:
            return [self._row(row, reader.reader.line_num) for row in reader]
        except csv.Error as error:
            raise VersatuneError(f"{self.file}:{reader.reader.line_num}: {error}.") from error

    def _row(self, row: dict[str, str | None], line: int) -> dict[str, str]:
        given = (row["domain"] or "").strip()
        if given and given != CAN_NOT_TELL:
            try:
                given = {d: d for d in self.domains}[canonical(given)]
            except (VersatuneError, KeyError):
                raise VersatuneError(
                    f"{self.file}:{line}: {given!r} is no domain; there are "
                    f"{', '.join(self.domains)}, and {CAN_NOT_TELL} where none can be told."
                ) from None
        return {"id": (row["id"] or "").strip(), "domain": given, "text": row.get("text") or ""}

    def _write(self, rows: list[dict[str, str]]) -> None:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        # The mark at the beginning tells spreadsheets that this is UTF-8.
        write_atomic(self.file, "\ufeff" + out.getvalue())


def text_id(text: str) -> str:
    """What stands for a text in the file."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def file_of(params: PersonParams, keep: Path) -> Path:
    """The file, by default in the folder ``keep``."""
    return params.file or keep / LABELS


def train(folder: Path, clean: FolderRef, file: Path) -> FolderRef:
    """Nothing to train: people are taken at their word."""
    domains = tuple(clean.facts["domains"])
    work = WorkFolder.open(folder, {"kind": "person", "domains": domains})
    if work.complete:
        return work.ref
    Labelled.trusted(len(domains)).save(work.path)
    return work.seal(kind="person", name=f"people, in {file.name}", domains=domains, accuracy=None)
