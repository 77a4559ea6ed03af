"""Requirements of a result, and which are not met."""

from collections.abc import Iterator, Mapping
from typing import Annotated

import pandas as pd
from pydantic import Field, NonNegativeFloat

from versatune.domains import canonical
from versatune.errors import VersatuneError
from versatune.params import Params
from versatune.reporting import formats, tables


class RequirementNotMetError(VersatuneError):
    """The run is done, but its result does not meet `report.require`."""


class RequireParams(Params):
    """What the trained model must reach. If it does not, `kedro run` ends with exit code 2."""

    no_domain_worse: bool = False
    """No held-out loss and no accuracy of a domain may be worse than the base model's by more than
    noise."""
    max_loss: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """The largest held-out loss of a domain, in nats per token."""
    min_accuracy: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """The least accuracy of a domain, between 0 and 1; the mean of its tasks."""


def unmet(results: pd.DataFrame, require: RequireParams) -> list[str]:
    """What is not met, a phrase each; ``results`` of :func:`versatune.reporting.tables.results`.

    A bound on what was not measured is not met. ``no_domain_worse`` is not met when no domain was
    measured.
    """
    losses, accuracies = tables.only_losses(results), tables.only_accuracies(results)
    return [
        *(_worse(losses, accuracies) if require.no_domain_worse else ()),
        *_beyond(_means(losses), require.max_loss, "held-out loss", "max_loss"),
        *_beyond(_means(accuracies), require.min_accuracy, "accuracy", "min_accuracy"),
    ]


def refusal(missed: list[str]) -> str:
    """The sentence for a person."""
    return f"the result does not meet report.require: {'; '.join(missed)}."


def _worse(losses: pd.DataFrame, accuracies: pd.DataFrame) -> Iterator[str]:
    if losses.empty:
        yield "no held-out loss was measured (no_domain_worse)"
    for table, what in ((losses, "loss"), (accuracies, "accuracy")):
        worse = list(dict.fromkeys(table.loc[table["verdict"] == "worse", "domain"]))
        if worse:
            yield f"{what} got worse in {formats.comma(worse)} (no_domain_worse)"


def _beyond(
    found: Mapping[str, float], bounds: Mapping[str, float], what: str, key: str
) -> Iterator[str]:
    for domain, bound in bounds.items():
        value = found.get(canonical(domain))
        if value is None:
            yield f"{domain} has no {what} ({key}: {bound:g})"
        elif not (value <= bound if key == "max_loss" else value >= bound):
            side = "above" if key == "max_loss" else "below"
            yield f"{what} of {domain} is {value:.4g}, {side} {bound:g} ({key})"


def _means(table: pd.DataFrame) -> dict[str, float]:
    """The tuned model's value of each domain, the mean of its tasks; NaN meets no bound."""
    return {
        str(domain): float(part["tuned"].mean(skipna=False))
        for domain, part in table.groupby("domain", sort=False)
    }
