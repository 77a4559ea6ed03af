"""The command `versatune init`: creates a project for your model and data."""

import shlex
import sys
from pathlib import Path

import click

from versatune.data.found import find_domains
from versatune.errors import VersatuneError
from versatune.project import first_project as first
from versatune.project.starter import refuse_existing, write_project

HINT = "sample: the embedded one"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", help=f"A model folder, or the id of a hub model ({HINT}).")
@click.option("--data", help=f"A folder with a sub-folder or file for each domain ({HINT}).")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
def init(folder: Path, model: str | None, data: str | None, yes: bool) -> None:
    """Create a project in FOLDER, with a model and data of your own or the embedded sample.

    Asks for what no option gives, when it runs in a terminal.
    """
    asks = is_terminal() and not yes
    try:
        refuse_existing(folder)
        if asks or model is not None or data is not None:
            create(folder, model, data, asks=asks)
        else:
            write_project(folder)
    except VersatuneError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Now: cd {shlex.quote(str(folder))} && kedro run")


def is_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def create(
    folder: Path, model: str | None, data: str | None, *, asks: bool, beside: tuple[str, ...] = ()
) -> None:
    """Write the project, with what was found and what it will cost on the terminal.

    ``asks``: ask for the model and the data that are None, and whether to write. ``beside``: what
    ``folder`` may hold already. Nothing is written when something is wrong before that.
    Raises VersatuneError on a model or data that can't be used.
    """
    if model is None:
        model = click.prompt(f"Model: a folder or a hub id ({HINT})", first.SAMPLE) if asks else ""
    if data is None:
        question = f"Data: a folder with a sub-folder or file for each domain ({HINT})"
        data = click.prompt(question, first.SAMPLE) if asks else ""
    found = find_domains(Path(data)) if data not in ("", first.SAMPLE) else None
    choice = first.Choice.of(model or first.SAMPLE, found)
    problems = []
    if found is not None:
        rows = first.checked_rows(found)
        click.echo(f"Domains in {data}:")
        for line in first.domain_lines(found, rows):
            click.echo(line)
        problems = [name for name, seen in rows.items() if seen.problem is not None]
        if len(found.sources) == 1:
            click.echo("  one domain: the base model's own texts stand for everything else")
    if asks:
        click.confirm(f"Write the project to {folder}?", default=True, abort=True)
    write_project(folder, beside)
    file = folder / "conf" / "local" / "parameters.yml"
    file.write_text(first.as_yaml(first.settings(choice)), encoding="utf-8")
    click.echo(f"Written: {file}")
    for line in first.cost_lines(first.read_blocks(folder), choice.model):
        click.echo(line)
    if problems:
        raise VersatuneError(
            f"{', '.join(problems)}: fix the data, or its `sources` in {file} (`columns`, `shape` "
            "and `format` are explained in docs/data.md), then: kedro run --pipeline ingest"
        )
    if found is not None:
        go = f"cd {shlex.quote(str(folder))} && kedro run"
        click.echo(f"To check every row: {go} --pipeline ingest")
        click.echo(f"To forecast what a mixture gains: {go} --pipelines ingest,probe,mixture,plan")
