"""Bars on a terminal and without one, and the log beside them."""

import io
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from versatune.work import bars


class Terminal(io.StringIO):
    """Takes what is drawn and remembers it."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What stands on the screen, as carriage returns and line feeds leave it."""
        screen = []
        for line in self.getvalue().split("\n"):
            shown: list[str] = []
            for part in line.split("\r"):
                shown[: len(part)] = part
            screen.append("".join(shown).rstrip())
        return screen


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    monkeypatch.setattr(bars, "sys", SimpleNamespace(stderr=made))
    monkeypatch.setattr(bars, "DELAY", 0)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    return made


def test_a_bar_is_drawn_and_leaves_nothing(terminal: Terminal) -> None:
    with bars.bar(4, "sampling", "texts") as bar:
        bar.update(2)
        bar.refresh()
        assert "sampling · 2/4 texts" in terminal.lines()[0]
    assert terminal.lines() == [""]


def test_a_stopped_run_has_its_last_word_on_an_empty_line(terminal: Terminal) -> None:
    line = bars.Line(8, 0)
    line.show(2, "round 1/2 · step 2/4")
    bars.close_all()
    assert terminal.lines() == [""]
    line.close()
    assert terminal.lines() == [""]


def test_without_a_terminal_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(bars, "sys", SimpleNamespace(stderr=file))
    monkeypatch.setattr(bars, "DELAY", 0)
    assert list(bars.each(range(3), 3, "sampling", "texts")) == [0, 1, 2]
    assert file.getvalue() == ""


def test_within_a_bar_there_is_no_other(terminal: Terminal) -> None:
    line = bars.Line(8, 0)
    line.show(2, "round 1/2 · step 2/4")
    for _ in bars.each(range(3), 3, "held-out loss", "batches"):
        pass
    line.show(8, "round 2/2 · step 4/4")
    line.close()
    assert "round 2/2 · step 4/4" in terminal.getvalue()
    assert "held-out loss" not in terminal.getvalue() and "\n" not in terminal.getvalue()
    assert terminal.lines() == [""]
    with bars.bar(1, "after it", "texts") as bar:
        bar.refresh()
    assert "after it" in terminal.getvalue()


def test_a_worker_of_several_draws_none(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert list(bars.each(range(3), 3, "sampling", "texts")) == [0, 1, 2]
    assert terminal.getvalue() == ""


@pytest.fixture
def log(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    monkeypatch.setenv("COLUMNS", "40")
    handler = bars.ConsoleHandler(terminal)
    handler.setFormatter(bars.ConsoleFormatter("12:00:00  %(message)s"))
    made = logging.Logger("shown")
    made.addHandler(handler)
    return made


def test_log_lines_stand_above_the_bar_and_are_folded(
    terminal: Terminal, log: logging.Logger
) -> None:
    line = bars.Line(8, 0)
    line.show(2, "round 1/2")
    log.info("Sample written: 200 documents, 1175 rows, 1175 items.")
    log.warning("no disk")
    assert "round 1/2" in terminal.lines()[-1]
    line.close()
    assert terminal.lines() == [
        "12:00:00  Sample written: 200 documents,",
        "          1175 rows, 1175 items.",
        "12:00:00  warning: no disk",
        "",
    ]


def test_stages_that_were_kept_one_after_the_other_share_a_line(
    terminal: Terminal, log: logging.Logger
) -> None:
    for name in ("ingest.a", "ingest.b", "probe.c"):
        log.info(bars.KEPT, name)
    assert terminal.lines() == [""]
    log.info("A line")
    log.info(bars.KEPT, "train.d")
    log.info(bars.KEPT, "alone")
    (handler,) = log.handlers
    handler.close()
    assert terminal.lines() == [
        "12:00:00  ── unchanged, kept: ingest (a,",
        "          b), probe (c)",
        "12:00:00  A line",
        "12:00:00  ── unchanged, kept: alone,",
        "          train (d)",
        "",
    ]


def test_in_a_file_lines_stay_whole() -> None:
    file = io.StringIO()
    handler = bars.ConsoleHandler(file)
    handler.setFormatter(bars.ConsoleFormatter("%(message)s"))
    handler.handle(logging.makeLogRecord({"msg": "long " * 50, "levelno": logging.INFO}))
    assert file.getvalue() == "long " * 50 + "\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, ""), (1, "1 s left"), (89, "89 s left"), (240, "4 min left"), (7260, "2 h 1 min left")],
)
def test_the_time_left_in_words(seconds: float, said: str) -> None:
    assert bars.time_left(seconds) == said


def test_a_line_too_long_for_the_terminal_loses_parts_and_not_letters() -> None:
    line = "medicine: round 1/2 · step 1/2 · loss 5.45 · 420 tok/s · 4 s left"
    assert bars.fitted(line, 65) == line
    assert bars.fitted(line, 64) == "medicine: round 1/2 · loss 5.45 · 420 tok/s · 4 s left"
    assert bars.fitted(line, 10) == "medicine: round 1/2 · 4 s left"
    assert bars.fitted("one piece of text", 4) == "one piece of text"


def test_lines_at_sensible_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now: list[float] = [100.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(bars, "time", Clock)
    paced, due = bars.Paced(30), list[Any]()
    for at in (101, 129, 130, 131, 161):
        now[0] = at
        due.append(paced.due())
    assert due == [False, False, True, False, True]
