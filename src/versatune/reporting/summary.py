"""The verdict in words, and the few numbers that stand for the run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from versatune.reporting import formats, tables
from versatune.reporting.page import Summary, Tile

if TYPE_CHECKING:
    from versatune.reporting.report import Artifacts


def data_shares(ingest_report: Mapping[str, Any]) -> dict[str, float]:
    """Share of each domain in the training tokens (in rows where tokens are not known)."""
    found = tables.by_domain(ingest_report)
    amounts = {d: entry.get("train_tokens") or entry["train_rows"] for d, entry in found.items()}
    total = sum(amounts.values())
    return {d: n / total for d, n in amounts.items()} if total else {}


def summarise(artifacts: "Artifacts") -> Summary:
    """The top of the page, from what there is."""
    loss, accuracy = (
        tables.only_losses(artifacts.results),
        tables.only_accuracies(artifacts.results),
    )
    headline, mood, details = verdict(loss)
    details += accuracy_sentence(accuracy)
    return Summary(
        headline=headline,
        mood=mood,
        details=details,
        run=_run(artifacts),
        tiles=[*_loss_tiles(loss), *_accuracy_tile(accuracy), *_training_tiles(artifacts)],
    )


def verdict(loss: pd.DataFrame) -> tuple[str, str, list[str]]:
    """One sentence on the held-out losses, its mood, and what to say about single domains."""
    k = len(loss)
    if not k:
        return (
            "No verdict: base and tuned model were not both evaluated.",
            "unknown",
            [],
        )
    named = {v: loss.loc[loss["verdict"] == v, "domain"].tolist() for v in set(loss["verdict"])}
    better, worse = named.get("better", []), named.get("worse", [])
    unclear = named.get("not distinguishable", [])
    if len(better) == k:
        return f"Every domain improved: held-out loss fell {_in_all(k)}.", "good", []
    details = [_sentence(loss, name) for name in worse]
    if unclear:
        subject = formats.comma(unclear)
        details.append(f"No clear change in {subject}: the 95 % interval includes zero.")
    if worse:
        verb = "got worse" if better else "got worse and none improved,"
        lead = f"{_of(len(better), k).capitalize()} improved, but " if better else ""
        text = f"{lead}{formats.comma(worse)} {verb} by more than noise."
        return text[0].upper() + text[1:], "mixed" if better else "bad", details
    if better:
        return f"{_of(len(better), k)} improved, and none got worse.", "good", details
    return "No domain changed by more than noise.", "unknown", details


def accuracy_sentence(accuracy: pd.DataFrame) -> list[str]:
    """One sentence on the tasks' accuracies, or none."""
    if accuracy.empty:
        return []
    n = {v: int((accuracy["verdict"] == v).sum()) for v in ("better", "worse")}
    rest = len(accuracy) - sum(n.values())
    if rest == len(accuracy):
        return ["On the benchmark tasks, no accuracy changed by more than noise."]
    parts = [f"rose in {n['better']}"] if n["better"] else []
    parts += [f"fell in {n['worse']}"] if n["worse"] else []
    parts += [f"did not change clearly in {rest}"] if rest else []
    tasks = "task" if len(accuracy) == 1 else "tasks"
    return [f"Accuracy {formats.comma(parts)} of {len(accuracy)} benchmark {tasks}."]


def _sentence(loss: pd.DataFrame, domain: str) -> str:
    row = loss[loss["domain"] == domain].iloc[0]
    change, low, high = (
        formats.percent(row[key] / row["base"], signed=True) for key in ("change", "low", "high")
    )
    return f"{domain}: held-out loss {change} (95 % interval {low} to {high})."


def _loss_tiles(loss: pd.DataFrame) -> list[Tile]:
    if loss.empty:
        return []
    better = int((loss["verdict"] == "better").sum())
    worse = int((loss["verdict"] == "worse").sum())
    note = f"{worse} worse" if worse else "none worse"
    mean = float(loss["relative"].mean())
    return [
        Tile("domains improved", f"{better} of {len(loss)}", note),
        Tile("held-out loss", formats.percent(mean, signed=True), "mean change"),
    ]


def _accuracy_tile(accuracy: pd.DataFrame) -> list[Tile]:
    if accuracy.empty:
        return []
    means = accuracy.groupby("domain")[["base", "tuned"]].mean().mean()
    value = f"{100 * means['base']:.0f} → {100 * means['tuned']:.0f} %"
    return [Tile("accuracy", value, "mean of domains")]


def _training_tiles(artifacts: "Artifacts") -> list[Tile]:
    tiles = []
    if artifacts.history is not None and len(artifacts.history):
        history = artifacts.history
        rounds = history["round"].max()
        tiles.append(Tile("training", f"{history['step'].max():,} steps", f"{rounds} rounds"))
        tiles += _shift_tile(history)
    seconds = [float(t["seconds"]) for t in artifacts.timings]
    if seconds:
        tiles.append(Tile("run time", formats.duration(sum(seconds)), "all steps"))
    return tiles


def _shift_tile(history: pd.DataFrame) -> list[Tile]:
    wide = (
        history[history["round"] > 0]
        .pivot_table(index="round", columns="domain", values="weight")
        .sort_index()
    )
    if len(wide) < 2:
        return []
    shifts = (wide.iloc[-1] - wide.iloc[0]).abs()
    if not shifts.max() >= 0.0005:
        return [Tile("mixture", "constant", "shares never changed")]
    shares = wide[shifts.idxmax()]
    value = f"{100 * shares.iloc[0]:.0f} → {100 * shares.iloc[-1]:.0f} %"
    return [Tile("largest shift", value, f"share of {shifts.idxmax()}")]


def _run(artifacts: "Artifacts") -> str:
    name = (artifacts.base_model or {}).get("name", "not named")
    parts = [f"Base model: {name}, fine-tuned on {len(artifacts.domains)} domains"]
    strategy = (artifacts.parameters.get("train") or {}).get("strategy") or {}
    if "name" in strategy:
        target = f" towards {strategy['target']}" if "target" in strategy else ""
        parts.append(f"strategy {strategy['name']}{target}")
    if artifacts.mixture:
        start = artifacts.mixture["strategy"]
        parts.append(f"starting shares: {_START.get(start, start)}")
    return "; ".join(parts) + "."


def _of(n: int, k: int) -> str:
    return f"{n} of {k} domains"


def _in_all(k: int) -> str:
    return "in both" if k == 2 else f"in all {k}"


_START = {
    "uniform": "all alike",
    "proportional": "those of the data",
    "inverse": "the inverse of those the probe found",
    "constant": "those the probe found",
    "custom": "set by hand",
}
"""What the strategies that give starting shares take."""
