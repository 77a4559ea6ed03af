"""How the commands say what is wrong."""

import io
import signal
import sys
import time
from collections.abc import Callable

import click
import pytest

from versatune.project import commands


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_error_is_folded_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    mistake = commands.Mistake("there is no pipeline 'trian'; the pipelines are ingest and train.")
    terminal, file = Terminal(), io.StringIO()
    mistake.show(terminal)
    mistake.show(file)
    assert terminal.getvalue().splitlines() == [
        "Error: there is no pipeline 'trian'; the",
        "  pipelines are ingest and train.",
    ]
    assert file.getvalue() == f"Error: {mistake.message}\n"


def test_a_mistyped_pipeline_is_named_beside_those_that_exist() -> None:
    with pytest.raises(click.ClickException) as refused:
        commands._check_pipelines(["ingest", "trian"])
    said, _, hint = refused.value.message.rpartition(". ")
    assert hint == "Did you mean 'train'?"
    assert said == (
        "there is no pipeline 'trian'; the pipelines are __default__, compare, evaluate, ingest, "
        "mixture, plan, probe, report, retrain, train"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_falls_into_a_destructor_stops_the_run(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doomed:
        def __del__(self, stop: Callable[[int], None] = signal.raise_signal) -> None:
            stop(number)

    monkeypatch.setattr(sys, "unraisablehook", commands._heed)
    before = signal.signal(signal.SIGTERM, commands._terminate)
    wanted = commands.Terminated if number == signal.SIGTERM else KeyboardInterrupt
    try:
        with pytest.raises(wanted):
            doomed = Doomed()
            del doomed  # Python says that it ignores the exception
            time.sleep(30)
    finally:
        signal.signal(signal.SIGTERM, before)
