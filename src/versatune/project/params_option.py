"""`--params` of `kedro run`, which may be given several times and may hold lists and blocks.

Kedro silently takes only the last one, and splits a value at every comma.
"""

from typing import Any

import click
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError


class ParamsOption(click.Option):
    """Every ``--params`` of the command line counts; of one key the last."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:  # noqa: ARG002
        """Append what is given, though a run's ``--config`` file has one text or block."""
        parser.add_option(obj=self, opts=self.opts, dest=self.name, action="append", nargs=1)


def instead_of(params: list[click.Parameter]) -> list[click.Parameter]:
    """A command's options with this one in place of its ``--params``."""
    return [
        ParamsOption(["--params"], type=click.UNPROCESSED, default="", help=p.help, callback=parsed)
        if isinstance(p, click.Option) and p.name == "params"
        else p
        for p in params
    ]


def parsed(ctx: click.Context, _: click.Parameter, value: Any) -> Any:
    """Nested parameters from ``a.b=1,c=[2,3]``, or from several such texts."""
    if isinstance(value, dict):
        return value
    texts = [value] if isinstance(value, str) else value
    items = [item.strip() for text in texts for item in divided(text) if item.strip()]
    for item in items:
        key, equals, _value = item.partition("=")
        if not (equals and key.strip()):
            ctx.fail(f"--params: {item!r} is no KEY=VALUE.")
    pairs = (item.partition("=") for item in items)
    try:
        found = OmegaConf.from_dotlist([f"{key.strip()}={text}" for key, _equals, text in pairs])
    except (YAMLError, OmegaConfBaseException) as error:
        ctx.fail(f"--params: {', '.join(items)}: {str(error).splitlines()[0]}.")
    return OmegaConf.to_container(found)


def divided(text: str) -> list[str]:
    """The parts between commas, but for those within brackets and braces."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
