"""The report's tables: small pure functions from artifacts."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from versatune.data.preview import MARKS
from versatune.evaluation.results import (
    ANSWER_NATS,
    APART,
    HELD_OUT,
    LOSS,
    plain_metric,
    task_accuracies,
)
from versatune.training.diagnostics import lowest_rounds


def by_domain(artifact: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of a JSON artifact that is keyed by domain (its ``domains``, or all of it)."""
    return dict(artifact.get("domains", artifact)) if artifact else {}


def results(evaluation: pd.DataFrame, forgetting: pd.DataFrame) -> pd.DataFrame:
    """Base and tuned model side by side: held-out losses, then each task's accuracy, then files
    apart.

    The rows of ``forgetting`` (changes, their paired 95 % intervals ``low`` and ``high``, and
    verdicts) that the report shows: the loss in nats, or the task's accuracy
    (:func:`versatune.evaluation.results.task_accuracies`), all of files apart; with ``base_low,
    base_high, tuned_low, tuned_high`` added, the intervals of each measurement, from
    ``evaluation``, and ``chance``, what guessing reaches, where that is known.
    """
    losses = forgetting[forgetting["metric"] == LOSS]
    beside = forgetting[forgetting["task"].str.endswith(APART)]
    shown = pd.concat([losses, task_accuracies(forgetting), beside])
    shown["metric"] = shown["metric"].map(plain_metric)
    for model in ("base", "tuned"):
        ends = evaluation.loc[evaluation["model"] == model, [*_KEYS, "low", "high"]].copy()
        ends["metric"] = ends["metric"].map(plain_metric)
        ends = ends.drop_duplicates(list(_KEYS)).rename(
            columns={"low": f"{model}_low", "high": f"{model}_high"}
        )
        shown = shown.merge(ends, how="left", on=list(_KEYS))
    if "chance" in evaluation:
        known = evaluation.dropna(subset="chance")
        chance = known.drop_duplicates(["domain", "task"])[["domain", "task", "chance"]]
        shown = shown.merge(chance, how="left", on=["domain", "task"])
    return shown


def only_losses(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table of :func:`results` the held-out losses."""
    return table[table["metric"] == LOSS]


def only_accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table of :func:`results` the accuracies."""
    if table.empty:
        return table
    return table[(table["metric"] != LOSS) & ~table["task"].str.endswith(APART)]


def apart(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Of a table of :func:`results` the files that are not counted, a row each: ``domain``,
    ``task``, ``n``, and the rows of ``accuracy`` and of ``nats`` of the right answers or None.
    """
    if results.empty:
        return []
    found = results[results["task"].str.endswith(APART)]
    rows = []
    for (domain, task), part in found.groupby(["domain", "task"], sort=False):
        counted = task_accuracies(part.assign(task=str(task).removesuffix(APART)))
        nats = part[part["metric"] == ANSWER_NATS]
        rows.append(
            {
                "domain": domain,
                "task": str(task).removesuffix(APART),
                "n": int(part["n"].max()),
                "accuracy": counted.iloc[0].to_dict() if len(counted) else None,
                "nats": nats.iloc[0].to_dict() if len(nats) else None,
            }
        )
    return rows


def drift(found: pd.DataFrame | None, results: pd.DataFrame) -> pd.DataFrame:
    """The ``drift`` table with ``relative``: each domain's held-out change, where it has one."""
    if found is None or found.empty:
        return pd.DataFrame()
    losses = only_losses(results)
    if losses.empty:
        return found.assign(relative=None)
    return found.merge(losses[["domain", "relative"]], how="left", on="domain")


def own_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a domain of the ``own_texts_report`` that trains on such texts: counts and reasons."""
    return [
        {"domain": name, **entry["own"], "rejected": entry["rejected"]}
        for name, entry in report.get("domains", {}).items()
        if entry["trained_on"]
    ]


def interpolation(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """``part``, ``why``, ``domains``, and ``rows``: a part of the way and its loss by domain."""
    if not found:
        return None
    parts: dict[float, dict[str, float]] = {}
    for row in found["table"]:
        parts.setdefault(row["part"], {})[row["domain"]] = row["validation_loss"]
    return {
        "part": found["part"],
        "why": found["why"],
        "domains": list(parts[found["part"]]),
        "rows": [{"part": part, "losses": losses} for part, losses in parts.items()],
    }


_KEYS = ("domain", "task", "metric")


def round_log(history: pd.DataFrame | None) -> pd.DataFrame:
    """A row a round: step, mean held-out loss over the domains, speed, why the shares moved."""
    if history is None:
        return pd.DataFrame()
    return history.groupby("round", as_index=False).agg(
        step=("step", "first"),
        validation_loss=("validation_loss", "mean"),
        tokens_per_second=("tokens_per_second", "first"),
        reason=("reason", "first"),
    )


def by_stage(timings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """``name``, ``seconds``, ``kept`` of each stage, from those of its steps (``stage.step``)."""
    stages: dict[str, list[float]] = {}
    for step in timings:
        stage = stages.setdefault(str(step["name"]).partition(".")[0], [0.0, 0.0])
        stage[0] += float(step["seconds"])
        stage[1] += float(step.get("kept", 0.0))
    return [{"name": name, "seconds": s, "kept": kept} for name, (s, kept) in stages.items()]


def time_spent(timings: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Seconds of this run, and seconds that the work it kept had taken in earlier runs."""
    return (
        sum(float(step["seconds"]) for step in timings),
        sum(float(step.get("kept", 0.0)) for step in timings),
    )


def trained_tokens(history: pd.DataFrame | None) -> int | None:
    """Tokens of all rounds; None if the history does not contain them."""
    if history is None or not {"tokens_per_second", "seconds"} <= set(history):
        return None
    rounds = history[history["round"] > 0].drop_duplicates("round")
    return round(float((rounds["tokens_per_second"] * rounds["seconds"]).sum()))


def stopped_improving(history: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Domains whose held-out loss was lowest before the last round: ``domain``, ``round`` of the
    lowest, the ``lowest`` and the ``last`` loss."""
    if history is None or history.empty:
        return []
    last = int(history["round"].max())
    losses = history.set_index(["domain", "round"])["validation_loss"]
    return [
        {"domain": d, "round": r, "lowest": losses[d, r], "last": losses[d, last]}
        for d, r in lowest_rounds(history).items()
        if r < last
    ]


def some_changes(changed: pd.DataFrame | None, each: int) -> pd.DataFrame:
    """The first ``each`` questions of every domain and change (became right, became wrong)."""
    if changed is None or changed.empty:
        return pd.DataFrame()
    return changed.groupby(["domain", "change"], sort=False).head(each)


def mean_losses(evaluation: pd.DataFrame) -> pd.DataFrame:
    """``model`` and the mean over domains of its held-out ``loss``, in the order measured."""
    found = evaluation[(evaluation["metric"] == LOSS) & (evaluation["task"] == HELD_OUT)]
    means = found.groupby("model", sort=False)["value"].mean()
    return means.rename("loss").reset_index()


def ingest_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """Rows at ingest, a row a domain: read, rejected, duplicates, leaked, left out, used."""
    rows = [
        {
            "domain": domain,
            "read": found["read"],
            "rejected": sum(r["count"] for r in found["rejected"].values()),
            "duplicates": sum(found["duplicates"].values()),
            "leaked": found["leaked"],
            "left_out": found["left_out_by_weight"] + found["left_out_by_limit"],
            "train_rows": found["train_rows"],
            "train_tokens": found.get("train_tokens"),
            "steering_rows": found.get("steering_rows"),
            "report_rows": found.get("report_rows"),
        }
        for domain, found in by_domain(report).items()
    ]
    return pd.DataFrame(rows)


def reject_counts(report: Mapping[str, Any]) -> pd.DataFrame:
    """Every row that was read and is not used: ``domain, reason, rows``, a row a reason."""
    rows = []
    for domain, found in by_domain(report).items():
        reasons = {
            **{reason: entry["count"] for reason, entry in found["rejected"].items()},
            "exact duplicate": found["duplicates"]["exact"],
            "near duplicate": found["duplicates"]["near"],
            "leaks an evaluation item": found["leaked"],
            "beyond its source's weight": found["left_out_by_weight"],
            "beyond the row limit": found["left_out_by_limit"],
        }
        rows += [
            {"domain": domain, "reason": reason.replace("_", " "), "rows": n}
            for reason, n in reasons.items()
        ]
    return pd.DataFrame(rows, columns=["domain", "reason", "rows"])


def reject_examples(report: Mapping[str, Any], limit: int) -> list[dict[str, str]]:
    """Where rejected rows stand: up to ``limit`` a domain and reason, with file:line and detail."""
    return [
        {"domain": domain, "reason": reason.replace("_", " "), **example}
        for domain, found in by_domain(report).items()
        for reason, entry in found["rejected"].items()
        for example in entry["examples"][:limit]
    ]


def trained_examples(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows as they are trained on: ``domain, row, tokens, supervised_tokens, parts``.

    ``parts``: pieces of the rendered text in order, each with whether it is supervised.
    """
    return [
        {"domain": domain, **entry, "parts": _parts(entry["text"])}
        for domain, found in by_domain(report).items()
        for entry in found.get("examples", ())
    ]


def _parts(text: str) -> list[tuple[str, bool]]:
    pieces = re.split("[" + "".join(MARKS) + "]", text)
    return [(piece, bool(number % 2)) for number, piece in enumerate(pieces) if piece]
