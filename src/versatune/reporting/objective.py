"""The declared objective before and after training, in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from versatune.errors import VersatuneError
from versatune.evaluation.comparison import ACCURACY, OBJECTIVE
from versatune.evaluation.objective import DeclaredObjective, change_stderrs
from versatune.evaluation.results import LOSS
from versatune.intervals import Z95
from versatune.reporting import formats
from versatune.reporting.page import Tile


@dataclass(frozen=True)
class Reached:
    """The objective before and after training, on the rows results are of."""

    before: float
    after: float
    stderr: float
    """Of their difference, of the same rows; NaN where that is not known."""
    leader: str | None = None
    """The domain with the largest gap, for ``worst``."""

    @property
    def change(self) -> float:
        """The relative change."""
        return self.after / self.before - 1

    @property
    def clear(self) -> bool:
        """Whether noise does not explain the change; taken for clear where that is not known."""
        return not abs(self.after - self.before) <= Z95 * self.stderr


def reached(loss: pd.DataFrame, declared: DeclaredObjective) -> Reached | None:
    """From a table of losses (:func:`versatune.reporting.tables.only_losses`); None where the
    objective has no value on it."""
    if loss.empty or "tuned" not in loss:
        return None
    rows = loss.set_index("domain")
    base, tuned = _levels(rows["base"]), _levels(rows["tuned"])
    if not all(map(math.isfinite, (*base.values(), *tuned.values()))):
        return None
    try:
        objective = declared.of(base)
    except VersatuneError:
        return None  # worst without references, or weights of other domains
    before, after = objective.value(list(base.values())), objective.value(list(tuned.values()))
    if declared.params.kind == "worst":
        assert objective.reference is not None
        gaps = 1 - objective.reference / rows["tuned"].to_numpy()
        return Reached(before, after, math.nan, str(rows.index[int(gaps.argmax())]))
    _, slopes = objective.surrogate(list(tuned.values()))
    errors = (rows["high"] - rows["low"]).to_numpy() / (2 * Z95)
    return Reached(before, after, float(((slopes * errors) ** 2).sum() ** 0.5))


def sentence(found: Reached | None, declared: DeclaredObjective) -> str | None:
    """How the objective changed, without the domains."""
    if found is None:
        return None
    name = declared.words[0].upper() + declared.words[1:]
    if found.leader is not None:
        before, after = formats.percent(found.before), formats.percent(found.after)
        return f"{name} went from {before} to {after} ({found.leader})."
    return f"{name} {_changed(found.change, found.clear)}."


def on_targets(loss: pd.DataFrame, declared: DeclaredObjective) -> str | None:
    """How the domains changed that were to be raised; None where these are all, or not measured."""
    each = [
        f"{name} {_changed(float(row['relative']), row['verdict'] != 'not distinguishable')}"
        for name, row in _rows_of(loss, declared.targets)
    ]
    if not each:
        return None
    return f"Held-out loss of the target{'s' if len(each) > 1 else ''}: {formats.comma(each)}."


def _changed(change: float, clear: bool) -> str:
    if not clear:
        return f"did not change clearly ({formats.percent(change, signed=True)})"
    return f"{'fell' if change < 0 else 'rose'} by {formats.percent(abs(change))}"


def _rows_of(loss: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, dict[Any, Any]]]:
    rows = {row["domain"]: row for row in loss.to_dict("records")}
    return [(name, rows[name]) for name in names if name in rows]


def target_tile(loss: pd.DataFrame, declared: DeclaredObjective) -> list[Tile]:
    """The change of the targets among the key figures."""
    found = _rows_of(loss, declared.targets)
    if not found:
        return []
    changes = " / ".join(formats.percent(float(r["relative"]), signed=True) for _, r in found)
    names = formats.comma([name for name, _ in found])
    return [Tile("target" if len(found) == 1 else "targets", changes, f"held-out loss of {names}")]


def tile(found: Reached | None, declared: DeclaredObjective) -> list[Tile]:
    """The objective among the key figures."""
    if found is None:
        return []
    if found.leader is not None:
        ends = f"{100 * found.before:.1f} → {100 * found.after:.1f} %"
        return [Tile("largest gap", ends, "to the references")]
    notes = {"mean": "mean", "relative": "mean of relative losses", "weighted": "weighted mean"}
    change = formats.percent(found.change, signed=True)
    return [Tile("held-out loss", change, f"{notes[declared.params.kind]}, change")]


def beyond(loss: pd.DataFrame, declared: DeclaredObjective) -> list[str]:
    """Domains that rose above the base model's loss by more than their tolerance and noise."""
    rows = loss.set_index("domain")
    tuned = rows["tuned"] if "tuned" in rows else rows["base"] + rows["change"]
    return declared.beyond(_levels(tuned), _levels(rows["base"]), _levels(change_stderrs(rows)))


def lead(declared: DeclaredObjective) -> str:
    """How a verdict of a comparison begins."""
    return "By held-out loss" if declared.params.kind == "mean" else f"By the {declared.words}"


def column(declared: DeclaredObjective, metric: str, name: str) -> tuple[str, str, str]:
    """What a comparison's column of levels shows: its measure, title, and whose format it has.

    ``name``: the title of the mean, which it is but for other objectives than that.
    """
    if metric != LOSS or declared.params.kind == "mean":
        return "value", name, metric
    in_nats = declared.params.kind == "weighted"
    return OBJECTIVE, declared.words, LOSS if in_nats else ACCURACY


def counts(
    over: Mapping[str, float], declared: DeclaredObjective, n_domains: int, n_seeds: int
) -> list[str]:
    """How many domains strategies leave above their tolerance; nothing where none does.

    ``over``: by strategy, the mean over seeds.
    """
    each = [
        f"{strategy} {formats.number(n, 0 if n == int(n) else 1)}"
        for strategy, n in over.items()
        if n
    ]
    if not each:
        return []
    mean = ", mean over seeds" if n_seeds > 1 else ""
    rest = "; none elsewhere" if len(each) < len(over) else ""
    return [
        f"Domains of {n_domains} that fell more than the tolerance ({declared.allowance}){mean}: "
        f"{formats.comma(each)}{rest}."
    ]


def _levels(column: pd.Series) -> dict[str, float]:
    return {str(domain): float(value) for domain, value in column.items()}
