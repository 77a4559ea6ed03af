"""People as judges: a CSV file with the texts, in which they write each text's domain.

The file is made by the first run, which then stops and says so. Later runs add texts at its end
and keep what is there, columns of people's own among it. Columns: ``id`` (stands for the
text), ``domain`` (to be filled in: a domain's name, or ``?`` for "can't say"), ``text``.
"""

import contextlib
import csv
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from versatune.artifacts import FolderRef, write_atomic
from versatune.domains import canonical
from versatune.errors import VersatuneError
from versatune.probing.config import PersonParams
from versatune.probing.judges.base import About, Judgement, Labelled, Status
from versatune.work import Piece

LABELS = "labels.csv"
COLUMNS = ["id", "domain", "text"]
CAN_NOT_TELL = "?"
_FORMULA = re.compile(r"(^|[;\t\r\n])(\s*)([=+\-@\uff1d\uff0b\uff0d\uff20])")
"""What a spreadsheet may take for a formula, at the beginning of a text or of what it may take for
a cell; a quote is put before it."""
_LONGEST = 1 << 30
"""Characters of a field; the csv module's own limit is below what a model may write."""


class Person:
    """Judges texts by what people wrote into the file."""

    def __init__(self, domains: Sequence[str], file: Path) -> None:
        self.domains = list(domains)
        self.file = file

    def judge(self, texts: Sequence[str]) -> Judgement:
        """One domain a text, as probability 1; ``?`` has the status ``refused``.

        Raises VersatuneError when texts wait for their domain, after adding those that are new to
        the file, and when it can't be read or holds what is no domain for a text that is asked.
        """
        columns, rows, lines = self._read()
        asked = {text_id(text): text for text in texts}
        answers = self._answers(rows, lines, asked)
        there = {row["id"] for row in rows}
        new = [{"id": k, "domain": "", "text": _shown(asked[k])} for k in asked if k not in there]
        if new:
            self._write(columns, [*rows, *new])
        waiting = len(asked) - len(answers)
        if waiting:
            raise VersatuneError(
                f"{self.file}: {waiting} of {len(asked)} texts wait for a person. Fill in the "
                f"column domain ({', '.join(self.domains)}; {CAN_NOT_TELL} where you can't tell) "
                "and run again."
            )
        given = [answers[text_id(text)] for text in texts]
        known = [-1 if name == CAN_NOT_TELL else self.domains.index(name) for name in given]
        told = np.array(known, dtype=np.int64)
        probabilities = np.eye(len(self.domains))[told]
        probabilities[told < 0] = np.nan
        status: list[Status] = ["refused" if number < 0 else "ok" for number in known]
        return Judgement(probabilities, status, np.full(len(texts), np.nan))

    def _answers(
        self, rows: list[dict[str, Any]], lines: list[int], asked: dict[str, str]
    ) -> dict[str, str]:
        """Id -> domain, or ``?``, of the asked texts that have one."""
        answers: dict[str, str] = {}
        found: dict[str, int] = {}
        for row, line in zip(rows, lines, strict=True):
            key, given = row["id"], (row["domain"] or "").strip()
            if key not in asked or not given:
                continue
            name = given if given == CAN_NOT_TELL else self._domain(given, line)
            if answers.setdefault(key, name) != name:
                raise VersatuneError(
                    f"{self.file}:{line}: {key} is {name} here and {answers[key]} in line "
                    f"{found[key]}; leave one of them."
                )
            found[key] = line
        return answers

    def _domain(self, given: str, line: int) -> str:
        with contextlib.suppress(VersatuneError):
            if (name := canonical(given)) in self.domains:
                return name
        raise VersatuneError(
            f"{self.file}:{line}: {given!r} is no domain; there are "
            f"{', '.join(self.domains)}, and {CAN_NOT_TELL} where you can't tell."
        )

    def _read(self) -> tuple[list[str], list[dict[str, Any]], list[int]]:
        """The file's columns, its rows as they are, and the line each one ends in."""
        if not self.file.exists():
            return COLUMNS, [], []
        csv.field_size_limit(_LONGEST)
        try:
            text = self.file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise VersatuneError(
                f"{self.file} is not UTF-8 ({error.reason}): save it as CSV in UTF-8."
            ) from error
        except OSError as error:
            raise VersatuneError(f"{self.file} can't be read: {error.strerror}.") from error
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            read = [(row, reader.line_num) for row in reader if row]
        except csv.Error as error:
            raise VersatuneError(f"{self.file}:{reader.line_num}: {error}.") from error
        columns = [name.strip() for name in read[0][0]] if read else []
        if not set(COLUMNS) <= set(columns):
            raise VersatuneError(
                f"{self.file}:1: the columns {', '.join(COLUMNS)} are not all there; put the first "
                "line back as it was."
            )
        # Cells beyond the last column are kept under names of their own.
        width = max(len(row) for row, _ in read)
        columns += [""] * (width - len(columns))
        names = [name or f"column {i + 1}" for i, name in enumerate(columns)]
        rows = [dict(zip(names, row + [""] * (width - len(row)), strict=True)) for row, _ in read]
        return names, rows[1:], [line for _, line in read[1:]]

    def _write(self, columns: list[str], rows: list[dict[str, Any]]) -> None:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, columns, restval="", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
        # The mark at the beginning tells spreadsheets that this is UTF-8.
        try:
            write_atomic(self.file, "\ufeff" + out.getvalue())
        except OSError as error:
            raise VersatuneError(f"{self.file} can't be written: {error.strerror}.") from error


def text_id(text: str) -> str:
    """The id of a text in the file; no spreadsheet reads it as a number."""
    return "t" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown(text: str) -> str:
    return _FORMULA.sub(r"\1\2'\3", text)


def file_of(params: PersonParams, keep: Path) -> Path:
    """The file, by default in the folder ``keep``."""
    return params.file or keep / LABELS


def open_judge(ref: FolderRef, params: PersonParams, about: About) -> Person:
    """People, by the file they write in."""
    return Person(ref.metadata["domains"], file_of(params, about.keep))


def train(clean: FolderRef, params: PersonParams, about: About) -> Piece:
    """Nothing to train: people's labels count as true."""
    domains, file = tuple(clean.metadata["domains"]), file_of(params, about.keep)
    inputs = {"kind": "person", "domains": domains, "file": file}

    def make(folder: Path) -> dict[str, Any]:
        Labelled.oracle(len(domains)).save(folder)
        name = f"people, in {file.name}"
        return {"kind": "person", "name": name, "domains": domains, "accuracy": None}

    return Piece(inputs, make)
