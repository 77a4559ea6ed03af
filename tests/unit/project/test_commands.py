"""How the commands say what is wrong."""

import io
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from versatune.project import commands
from versatune.project.commands import cli


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


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], {}),
        (["--params", "a.b=1, a.c = x ,d=2e-5"], {"a": {"b": 1, "c": "x"}, "d": 2e-5}),
        (["--params", "a.b=1", "--params=a.c=2", "--params", "a.b=3"], {"a": {"b": 3, "c": 2}}),
        (["--params", "a=[0,1],b={c: 1, d: [x, y]},e=a=b"],
         {"a": [0, 1], "b": {"c": 1, "d": ["x", "y"]}, "e": "a=b"}),
    ],
)  # fmt: skip
def test_all_parameters_of_the_command_line_count(words: list[str], found: dict[str, Any]) -> None:
    run = cli.commands["run"]
    with run.make_context("run", words) as context:
        assert context.params["params"] == found


@pytest.mark.parametrize("given", ["train.rounds=3", {"train": {"rounds": 3}}])
def test_parameters_of_a_config_file_are_read_as_before(given: Any, tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text(json.dumps({"run": {"params": given}}))
    run = cli.commands["run"]
    for words, rounds in (([], 3), (["--params", "train.rounds=4"], 4)):
        with run.make_context("run", ["--config", str(file), *words]) as context:
            assert context.params["params"] == {"train": {"rounds": rounds}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train.rounds", "'train.rounds' is no KEY=VALUE"),
        ("=3", "'=3' is no KEY=VALUE"),
        ("a=1,b", "'b' is no KEY=VALUE"),
        ("a=[0,1,b=2", r"a=\[0,1,b=2: while parsing"),
    ],
)
def test_a_parameter_without_key_or_value_is_refused(text: str, words: str) -> None:
    with pytest.raises(click.UsageError, match=f"--params: {words}"):
        cli.commands["run"].make_context("run", ["--params", text])


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
    # A shell's background jobs ignore SIGINT.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    wanted = commands.Terminated if number == signal.SIGTERM else KeyboardInterrupt
    try:
        with pytest.raises(wanted):
            doomed = Doomed()
            del doomed  # Python says that it ignores the exception
            time.sleep(30)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)
