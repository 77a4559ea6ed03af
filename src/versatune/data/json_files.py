"""JSON files that are not one object a line: lists, objects over many lines, wrapped, by column.

A file may hold any number of these, one after another:

- a list of rows, ``[{...}, {...}]``, which is not held in memory, or of conversations,
  ``[[{turn}, {turn}], ...]``;
- a row over many lines, or a conversation, ``[{turn}, {turn}]``;
- rows in a member of an object, ``{"data": [...]}``, or a list for each split,
  ``{"train": [...], "test": [...]}``, and such objects within others. Of several lists the one
  is meant whose first row fits a shape;
- rows under names of their own, ``{"id7": {...}, "id8": {...}}``, which are held in memory;
- columns, ``{"prompt": [...], "completion": [...]}``, or ``{"prompt": {"0": ...}, ...}`` as pandas
  writes it, which are held in memory.

A fault in such a file, or a row without an end within ``limit`` characters, can't be skipped, so it
ends the run.
"""

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from versatune.data.columns_of_json import by_column
from versatune.data.fields import kind_of
from versatune.data.rows import RejectedRow, Row
from versatune.data.shapes import fits
from versatune.data.turn_lists import conversation_row, is_turn
from versatune.errors import VersatuneError

SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "eval")
"""Members of an object that are splits of a data set."""

BLANKS = " \t\r\n"


class DoubleKeyError(Exception):
    """An object that holds a key twice."""


def no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``object_pairs_hook``: an object whose keys differ."""
    if len(values := dict(pairs)) < len(pairs):
        keys = [k for k, _ in pairs]
        double = next(k for k in keys if keys.count(k) > 1)
        raise DoubleKeyError(f"the key {double!r} stands twice")
    return values


def read_json(
    path: Path, handle: BinaryIO, limit: int, split: str, columns: Mapping[str, str]
) -> Iterator[Row | RejectedRow]:
    """The rows of all values in a file; ``split`` and ``columns`` are the source's.

    Raises VersatuneError with the line of what can't be read.
    """
    window = _Window(path, handle, limit)
    while first := window.next():
        if first == "[":
            yield from _rows(window, columns)
        elif first == "{":
            yield from _object(window, split, columns)
        else:
            raise VersatuneError(
                f"{window.where}: a JSON list or object must begin here, this is {first!r}."
            )


class _Window:
    """A part of a JSON text, moved along as values are taken from it."""

    def __init__(self, path: Path, handle: BinaryIO, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.line = 1
        self._reader = codecs.getreader("utf-8")(handle)
        self._decoder = json.JSONDecoder(object_pairs_hook=no_doubles)
        self._text, self._at, self._ended = "", 0, False

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def next(self, skip: str = "") -> str:
        """The next character that is no blank and not in ``skip``; nothing at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in BLANKS + skip:
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def take(self, character: str) -> None:
        """Pass the next character, which must be this one."""
        if (found := self.next()) != character:
            fault = f"{found!r} instead of {character!r}" if found else "cut off"
            raise VersatuneError(f"{self.where}: the JSON is broken: {fault}.")
        self._at += 1

    def value(self) -> Any:
        """The next value, which is passed."""
        value, end = self._decode()
        self.line += self._text.count("\n", self._at, end)
        self._at = end
        return value

    def look(self) -> Any:
        """The next value, not passed; None when its end lies beyond the limit."""
        try:
            return self._decode()[0]
        except _BeyondLimitError:
            return None

    def _decode(self) -> tuple[Any, int]:
        self.next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended:  # else a number may go on
                    return value, end
            except DoubleKeyError as error:
                raise VersatuneError(f"{self.where}: {error}.") from None
            except RecursionError:
                raise VersatuneError(f"{self.where}: JSON nested too deeply.") from None
            except ValueError as error:
                if self._ended:
                    raise VersatuneError(
                        f"{self.where}: this row of the JSON is broken or cut off ({error})."
                    ) from None
                if len(self._text) - self._at > self.limit:
                    raise _BeyondLimitError(
                        f"{self.where}: this row of the JSON is longer than ingest.max_line_bytes "
                        f"({self.limit}: raise it), or broken or cut off ({error})."
                    ) from None
            self._more()

    def _more(self) -> None:
        self._text, self._at = self._text[self._at :], 0
        try:
            more = self._reader.read(max(1 << 16, len(self._text)))
        except UnicodeDecodeError as error:
            raise VersatuneError(f"{self.where}: not UTF-8 from about here on ({error}).") from None
        self._text += more
        self._ended = not more


class _BeyondLimitError(VersatuneError):
    """A value whose end was not found within the limit."""


def _elements(window: _Window) -> Iterator[tuple[str, Any]]:
    """The elements of the list that begins here, each with its place."""
    window.take("[")
    opened = ""
    while (found := window.next(skip=opened)) != "]":
        if not found:
            raise VersatuneError(f"{window.where}: the JSON list is cut off.")
        where = window.where
        yield where, window.value()
        opened = ","
    window.take("]")


def _rows(window: _Window, columns: Mapping[str, str]) -> Iterator[Row | RejectedRow]:
    """Rows, or the one conversation whose turns they are."""
    start, empty, turns = window.where, True, list[Any]()
    for where, value in _elements(window):
        empty = False
        if turns or (is_turn(value) and not fits(value, columns)):
            turns.append(value)
        else:
            yield row_of(where, value)
    if empty:
        yield RejectedRow(start, "bad_json", "a JSON list with nothing in it")
    if turns:
        yield row_of(start, turns)


def row_of(where: str, value: Any) -> Row | RejectedRow:
    """The row that a JSON value is: an object, or a conversation's turns."""
    row = conversation_row(value) if isinstance(value, list) else value
    if isinstance(row, dict):
        return Row(where, row)
    kind = "null" if value is None else kind_of(value)
    return RejectedRow(where, "bad_json", f"{kind}, not an object")


def _object(window: _Window, split: str, columns: Mapping[str, str]) -> Iterator[Row | RejectedRow]:
    where, whole = window.where, window.look()
    if whole is not None and not is_wrapper(whole, columns):
        window.value()
        yield from by_column(window.path, whole, columns) or [Row(where, whole)]
        return
    members = _Members(window, split, columns)
    yield from members.rows()
    if members.read:
        return
    unfit = [member for member, rows in members.unfit.items() if rows]
    if len(unfit) > 1:
        raise VersatuneError(
            f"{where}: two lists of rows, {unfit[0]!r} and {unfit[1]!r}; make a file of each, or "
            "name them as splits (train, validation, test)."
        )
    if unfit:  # rows that fit no shape: where shapes are detected, the reason is reported
        yield from members.unfit[unfit[0]]
        return
    if members.left:
        raise VersatuneError(
            f"{where}: there is no split {split!r}; there are {', '.join(members.left)}. Set the "
            "source's `split`."
        )
    rows = by_column(window.path, members.held, columns)
    if not rows:
        raise VersatuneError(
            f"{where}: this JSON object is longer than ingest.max_line_bytes ({window.limit}) and "
            "holds no list of rows and no columns of one length."
        )
    yield from rows


class _Members:
    """The members of one object that holds rows, taken one by one."""

    def __init__(self, window: _Window, split: str, columns: Mapping[str, str]) -> None:
        self.window, self.split, self.columns = window, split, columns
        self.read: list[str] = []
        """Members whose rows were given."""
        self.left: list[str] = []
        """Other splits."""
        self.unfit: dict[str, list[Row]] = {}
        """Rows of lists whose first row fits no shape."""
        self.held: dict[str, Any] = {}
        """All else."""

    def rows(self) -> Iterator[Row | RejectedRow]:
        """The rows of lists that fit, and of objects within this one."""
        window = self.window
        start = window.where
        window.take("{")
        while window.next(skip=",") not in ("}", ""):
            member = window.value()
            window.take(":")
            known = {*self.held, *self.read, *self.left, *self.unfit}
            if not isinstance(member, str) or member in known:
                raise VersatuneError(f"{window.where}: the key {member!r} appears twice.")
            if (first := window.next()) == "[":
                yield from self._list(member)
            elif first == "{" and self._is_inner(window.look()):
                inner = _object(window, self.split, self.columns)
                yield from self._inner(member, inner)
            else:
                self.held[member] = window.value()
            if len(self.read) > 1:
                raise VersatuneError(
                    f"{start}: two lists of rows, {self.read[0]!r} and {self.read[1]!r}; make a "
                    "file of each, or name them as splits (train, validation, test)."
                )
        window.take("}")

    def _inner(self, member: str, rows: Iterator[Row | RejectedRow]) -> Iterator[Row | RejectedRow]:
        """The rows of an object within this one, if its first fits: a schema holds lists, too."""
        first = next(rows, None)
        if self._is_other_split(member):
            self.left.append(member)
            for _ in rows:
                pass
        elif isinstance(first, Row) and not fits(first.values, self.columns):
            self.unfit[member] = [row for row in (first, *rows) if isinstance(row, Row)]
        elif first is not None:
            self.read.append(member)
            yield first
            yield from rows

    def _list(self, member: str) -> Iterator[Row | RejectedRow]:
        for place, value in _elements(self.window):
            row = row_of(place, value)
            # A list of lists of turns may be the column of that name.
            column = isinstance(value, list) and fits({member: value}, self.columns)
            if member in self.held or not isinstance(row, Row) or is_turn(value) or column:
                if member in self.read:
                    yield row_of(place, value)
                else:
                    self.held.setdefault(member, []).append(value)
            elif self._is_other_split(member):
                self.left += [] if member in self.left else [member]
            elif member in self.read or (
                member not in self.unfit and fits(row.values, self.columns)
            ):
                self.read += [] if member in self.read else [member]
                yield row
            else:
                self.unfit.setdefault(member, []).append(row)

    def _is_other_split(self, member: str) -> bool:
        return member in SPLITS and member != self.split

    def _is_inner(self, value: Any) -> bool:
        """Whether an object within this one holds rows too; one beyond the limit may."""
        return value is None or is_wrapper(value, self.columns)


def is_wrapper(value: Any, columns: Mapping[str, str]) -> bool:
    """Whether a value is an object that is no row, but holds a list of rows, however deep."""
    if not isinstance(value, dict) or fits(value, columns):
        return False
    return any(
        (
            isinstance(member, list)
            and member
            and all((isinstance(v, dict) and not is_turn(v)) or conversation_row(v) for v in member)
        )
        or is_wrapper(member, columns)
        for member in value.values()
    )
