"""How the commands say what is wrong."""

import io

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
