"""What the report says in numbers: small pure functions from artifacts to tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

LOSS = "nats_per_token"
ACCURACIES = ("acc", "exact_match", "pass@1", "acc_norm")
"""Metrics where more is better, the first one present counts as a task's accuracy."""

Z95 = 1.959963984540054
"""Half-width of a 95 % normal interval in standard errors."""

Verdict = Literal["better", "worse", "not distinguishable", "unknown"]


def domain_order(*sources: Any) -> list[str]:
    """Domain names in the order of the first source, then what only later ones know.

    A source is a mapping by domain, a list of names, a table with a ``domain`` column, or None.
    """
    names: dict[str, None] = {}
    for source in sources:
        if source is None:
            continue
        found = source["domain"] if isinstance(source, pd.DataFrame) else source
        names.update(dict.fromkeys(str(name) for name in found))
    return list(names)


def by_domain(artifact: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of a JSON artifact that is keyed by domain (its ``domains``, or all of it)."""
    if not artifact:
        return {}
    return dict(artifact.get("domains", artifact))


def before_after(evaluation: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Base and tuned model side by side, a row a domain and task, with the change between them.

    Of ``metrics`` the first that a task has is used. Columns: domain, task, metric, base,
    base_low, base_high, tuned, tuned_low, tuned_high, n, change, change_low, change_high,
    relative, verdict. The interval of the change is change ± 1.96 sqrt(se_base² + se_tuned²):
    as if the models had answered different items. They answer the same ones, so it is rather
    too wide than too narrow.
    """
    found = evaluation[evaluation["metric"].isin(list(metrics))]
    rows = []
    for (domain, task), group in found.groupby(["domain", "task"], sort=False, dropna=False):
        metric = next(m for m in metrics if (group["metric"] == m).any())
        group = group[group["metric"] == metric]
        models = {model: part.iloc[-1] for model, part in group.groupby("model")}
        if "base" not in models or "tuned" not in models:
            continue
        rows.append(
            {
                "domain": str(domain),
                "task": str(task),
                "metric": metric,
                **_change(models["base"], models["tuned"], lower_is_better=metric == LOSS),
            }
        )
    columns = ["domain", "task", "metric", *_CHANGE_COLUMNS]
    return pd.DataFrame(rows, columns=columns)


_CHANGE_COLUMNS = (
    *("base", "base_low", "base_high", "tuned", "tuned_low", "tuned_high", "n"),
    *("change", "change_low", "change_high", "relative", "verdict"),
)


def _change(base: pd.Series, tuned: pd.Series, lower_is_better: bool) -> dict[str, Any]:
    before, after = float(base["value"]), float(tuned["value"])
    change = after - before
    half = Z95 * math.hypot(_error(base), _error(tuned))
    return {
        "base": before,
        "base_low": base["low"],
        "base_high": base["high"],
        "tuned": after,
        "tuned_low": tuned["low"],
        "tuned_high": tuned["high"],
        "n": tuned["n"],
        "change": change,
        "change_low": change - half,
        "change_high": change + half,
        "relative": change / before if before else float("nan"),
        "verdict": judge_change(change, half, lower_is_better),
    }


def _error(row: pd.Series) -> float:
    value = row["stderr"]
    return float("nan") if value is None else float(value)


def judge_change(change: float, half: float, lower_is_better: bool) -> Verdict:
    """Better or worse only when the interval ``change`` ± ``half`` leaves out zero."""
    if not math.isfinite(change) or not math.isfinite(half):
        return "unknown"
    if abs(change) <= half:
        return "not distinguishable"
    return "better" if (change < 0) == lower_is_better else "worse"


def ingest_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """Rows at ingest, a row a domain: read, rejected, duplicates, leaked, left out, used."""
    rows = []
    for domain, found in by_domain(report).items():
        rows.append(
            {
                "domain": domain,
                "read": found["read"],
                "rejected": sum(r["count"] for r in found["rejected"].values()),
                "duplicates": sum(found["duplicates"].values()),
                "leaked": found["leaked"],
                "left_out": found["left_out_by_weight"] + found["left_out_by_limit"],
                "train_rows": found["train_rows"],
                "train_tokens": found.get("train_tokens"),
                "validation_rows": found["validation_rows"],
            }
        )
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
