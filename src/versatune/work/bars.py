"""One progress bar at a time, only on a terminal, that leaves no line behind; log lines above it.

Without a terminal nothing is drawn: there the log says how far long work is.
"""

import contextlib
import logging
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

INDENT = " " * 10
"""Below the message, beside the time."""

DELAY = 2.0
"""Seconds that work takes before it gets a bar."""

BAR_WIDTH = 16
"""Columns of the bar itself."""

BETWEEN = " · "

_open: list[Any] = []
"""The bar that is shown. Those within it are not."""


class Bar(tqdm):  # type: ignore[type-arg]
    """``{done}`` of the total, and ``{left}``: the time left, once something is known of it."""

    @property
    def format_dict(self) -> dict[str, Any]:
        found = dict(super().format_dict)
        n, total, elapsed = found["n"], found["total"], found["elapsed"]
        new = n - found["initial"]
        known = total is not None and new > 0
        left = time_left(elapsed / new * (total - n)) if known else ""
        found["done"] = f"{n:,}/{total:,}" if total is not None else f"{n:,}"
        found["left"] = f" · {left}" if left else ""
        return found


def options(title: str, unit: str, *, hidden: bool = False) -> dict[str, Any]:
    """The arguments of a :class:`Bar`; hidden within another one and without a terminal."""
    return {
        "desc": title,
        "file": sys.stderr,
        "leave": False,
        "delay": DELAY,
        "dynamic_ncols": True,
        "bar_format": "{bar:16} {desc} · {done} " + unit + "{left}",
        # None: hidden unless there is a terminal. Workers of several know it from the environment.
        "disable": True if hidden or _open or os.environ.get("TQDM_DISABLE") else None,
    }


def time_left(seconds: float) -> str:
    """``4 min left``; nothing when it is over in a second."""
    if seconds < 1:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s left"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min left"
    return f"{minutes // 60} h {minutes % 60} min left"


def close_all() -> None:
    """Take the bar off the screen, before a last word about work that was stopped."""
    for shown in [*_open]:
        shown.close()


@contextlib.contextmanager
def bar(
    total: int | None, title: str, unit: str, *, done: int = 0, hidden: bool = False
) -> Iterator[Any]:
    """A bar for the block."""
    shown = Bar(total=total, initial=done, **options(title, unit, hidden=hidden))
    if shown.disable:
        yield shown
        return
    _open.append(shown)
    try:
        yield shown
    finally:
        _open.remove(shown)
        shown.close()


def each(
    items: Iterable[T], total: int | None, title: str, unit: str, *, hidden: bool = False
) -> Iterator[T]:
    """``items`` one by one, with a :func:`bar`."""
    with bar(total, title, unit, hidden=hidden) as shown:
        for item in items:
            yield item
            shown.update()


class Line:
    """A bar of our own wording, for work that has more to say than how much is done."""

    def __init__(self, total: int, done: int) -> None:
        given = {**options("", ""), "bar_format": "{bar:16} {desc}", "delay": 0}
        self._bar: Any = Bar(total=total, initial=done, **given)
        if not self._bar.disable:
            _open.append(self._bar)

    def show(self, done: int, text: str) -> None:
        """``done`` of the total, and what stands beside it, as far as the terminal holds it."""
        room = shutil.get_terminal_size().columns - BAR_WIDTH - 2
        self._bar.set_description_str(fitted(text, room), refresh=False)
        self._bar.n = done
        self._bar.refresh()

    def close(self) -> None:
        """Take it off the screen."""
        if self._bar in _open:
            _open.remove(self._bar)
        self._bar.close()


def fitted(text: str, width: int) -> str:
    """``text`` in ``width`` columns: of its parts the second, third, ... go, and the last stays."""
    parts = text.split(BETWEEN)
    while len(parts) > 2 and len(BETWEEN.join(parts)) > width:
        del parts[1]
    return BETWEEN.join(parts)


class Paced:
    """True at most once in that many seconds, and not before the first of them have passed."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def due(self) -> bool:
        """Whether it is time for the next line."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


KEPT = "── unchanged, kept: %s"
"""The message of a stage that had nothing to do; its one argument is ``pipeline.node``."""


class ConsoleHandler(logging.StreamHandler[Any]):
    """Writes log lines above the bar; on a terminal, long ones are folded at its width.

    Stages that were kept one after the other share a line: it is written with the next other line,
    or by :meth:`show_kept`.
    """

    def __init__(self, stream: Any = None) -> None:
        super().__init__(stream)
        self._kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == KEPT and isinstance(record.args, tuple):
            self._kept += map(str, record.args)
            return
        self.show_kept()
        self._write(record)

    def show_kept(self) -> None:
        """Write the line of the kept stages that have none yet."""
        if self._kept:
            said = KEPT % _by_pipeline(self._kept)
            self._kept = []
            self._write(logging.makeLogRecord({"msg": said, "levelno": logging.INFO}))

    def close(self) -> None:
        """Nothing stays unsaid."""
        self.show_kept()
        super().close()

    def _write(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if record.exc_info or not self.stream.isatty():
            return line
        return folded(line, shutil.get_terminal_size().columns)


def _by_pipeline(names: list[str]) -> str:
    """``ingest (clean_domains, tokenize_rows), train (train_model)``; nodes without one first."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        pipeline, _, node = name.rpartition(".")
        grouped.setdefault(pipeline, []).append(node)
    alone = grouped.pop("", [])
    each = [f"{pipeline} ({', '.join(nodes)})" for pipeline, nodes in grouped.items()]
    return ", ".join([*alone, *each])


class ConsoleFormatter(logging.Formatter):
    """Warnings and errors are labelled."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        if record.levelno >= logging.WARNING:
            said = f"{record.levelname.lower()}: {record.message}"
            record = logging.makeLogRecord({**record.__dict__, "message": said})
        return super().formatMessage(record)


def put_log_above_bars(log: logging.Logger) -> None:
    """Let the log's plain handlers write as :class:`ConsoleHandler` does, in the same format.

    Kedro's configuration of logging takes no classes but its own and the standard library's.
    """
    for at, plain in enumerate(log.handlers):
        if type(plain) is logging.StreamHandler:
            mine, form = ConsoleHandler(plain.stream), plain.formatter
            mine.setLevel(plain.level)
            mine.setFormatter(
                ConsoleFormatter(form._fmt, form.datefmt) if form else ConsoleFormatter()
            )
            log.handlers[at] = mine


def show_kept() -> None:
    """Write what the handlers of the root logger hold back, before a run ends with an error."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, ConsoleHandler):
            handler.show_kept()


def folded(line: str, columns: int, indent: str = INDENT) -> str:
    """``line`` in lines of at most ``columns``, the later ones indented; words stay whole."""
    return "\n".join(
        part
        for one in line.split("\n")
        for part in textwrap.wrap(
            one,
            max(columns, 40),
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
            drop_whitespace=True,
        )
        or [""]
    )
