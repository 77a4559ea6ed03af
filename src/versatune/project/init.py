"""The command `versatune init`: creates a project for your model and data."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from versatune.data.found import FoundDomains, find_domains
from versatune.errors import VersatuneError
from versatune.project import first_project as first
from versatune.project.quiet import each_line_once
from versatune.project.starter import refuse_existing, write_project

EMBEDDED = "the embedded sample"
HINT = "`sample` takes the embedded one"
FOLDER = "my-project"

T = TypeVar("T")


class UnusableDataError(VersatuneError):
    """Rows of a domain can't be used as they are. The project is written anyway."""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--model", help=f"A model folder, or the id of a hub model; {HINT}.")
@click.option("--data", help=f"A folder with a sub-folder or file for each domain; {HINT}.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
def init(folder: Path | None, model: str | None, data: str | None, yes: bool) -> None:
    """Create a project for your model and data.

    Asks for what is not given, when it runs in a terminal.
    """
    asks = is_terminal() and not yes
    try:
        if folder is None:
            if not asks:
                raise click.UsageError("Missing argument 'FOLDER': name the project's folder.")
            folder = ask("Folder of the project", FOLDER, new_folder)
        refuse_existing(folder)
        if asks or model is not None or data is not None:
            create(folder, model, data, asks=asks)
        else:
            write_project(folder)
            click.echo(f"Next: cd {shlex.quote(str(folder))} && kedro run")
    except VersatuneError as error:
        raise click.ClickException(str(error)) from error


def is_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask(question: str, default: str, read: Callable[[str], T]) -> T:
    """The answer as ``read`` makes it; asked again, with the reason, where that refuses it."""
    shown = EMBEDDED if default == first.SAMPLE else default

    def checked(answer: str) -> T:
        try:
            return read(answer.strip().strip("'\""))
        except VersatuneError as error:
            raise click.UsageError(str(error)) from error

    return click.prompt(f"{question} [{shown}]", default, value_proc=checked, show_default=False)


def new_folder(name: str) -> Path:
    """The folder of that name, which must be new or empty."""
    refuse_existing(Path(name).expanduser())
    return Path(name).expanduser()


def domains_in(data: str) -> FoundDomains | None:
    """The domains in that folder; None for the sample's."""
    return None if data in ("", first.SAMPLE) else find_domains(Path(data))


@each_line_once()
def create(
    folder: Path, model: str | None, data: str | None, *, asks: bool, beside: tuple[str, ...] = ()
) -> None:
    """Write the project, with what was found and what it will cost on the terminal.

    ``asks``: ask for the model and the data that are None, and whether to write. ``beside``: what
    ``folder`` may hold already. Nothing is written when something is wrong before that.
    Raises VersatuneError on a model or data that can't be read, and UnusableDataError in the end.
    """
    if model is None and asks:
        named = ask("Model: a folder or a hub id", first.SAMPLE, first.model_of)
    else:
        named = first.model_of(model or first.SAMPLE)
    if data is None and asks:
        question = "Data: a folder with a sub-folder or file for each domain"
        found = ask(question, first.SAMPLE, domains_in)
    else:
        found = domains_in(data or first.SAMPLE)
    choice, rows = first.with_rows_checked(first.Choice(named, found))
    problems = []
    if found is not None:
        click.echo("Domains:")
        for line in first.domain_lines(found, rows):
            click.echo(line)
        problems = [name for name, seen in rows.items() if seen.problem is not None]
        if len(found.sources) == 1:
            click.echo("  one domain: the base model's own texts stand for everything else")
        if choice.max_reject_rate is not None:
            click.echo(
                f"  Rows of more than {choice.length} tokens are left out "
                f"(ingest.max_reject_rate: {choice.max_reject_rate:g})."
            )
    if asks:
        click.confirm(f"Write the project to {folder}?", default=True, abort=True)
    write_project(folder, beside)
    file = folder / "conf" / "local" / "parameters.yml"
    file.write_text(first.as_yaml(first.settings(choice)), encoding="utf-8")
    click.echo(f"Written: {file}")
    blocks = first.read_blocks(folder)
    for line in first.cost_lines(blocks, choice.model):
        click.echo(line)
    if problems:
        raise UnusableDataError(
            f"{', '.join(problems)}: fix the data, or set what the reason names in {file} "
            "(`sources` are explained in docs/data.md), then: kedro run --pipeline ingest"
        )
    there = f"  cd {shlex.quote(str(folder))} && kedro run"
    if first.forecasts(blocks):
        click.echo("Next, forecast what a mixture of the domains gains:")
        click.echo(f"{there} --pipelines ingest,probe,mixture,plan")
    click.echo("Then train, evaluate and report:" if first.forecasts(blocks) else "Next, train:")
    click.echo(there)
