"""The verdict in words, and the key figures of the run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from versatune.evaluation.config import BASE, TUNED
from versatune.evaluation.objective import DeclaredObjective
from versatune.mixing.doubt import doubt_words
from versatune.mixing.origins import follows_probe, shares_in_words, start_in_words
from versatune.reporting import formats, objective, tables
from versatune.reporting.page import Summary, Tile
from versatune.training.diagnostics import reference_warnings, training_warnings

if TYPE_CHECKING:
    from versatune.reporting.report_inputs import Artifacts


def data_shares(ingest_report: Mapping[str, Any]) -> dict[str, float]:
    """Share of each domain in the training tokens (in rows where tokens are not known)."""
    found = tables.by_domain(ingest_report)
    amounts = {d: entry.get("train_tokens") or entry["train_rows"] for d, entry in found.items()}
    total = sum(amounts.values())
    return {d: n / total for d, n in amounts.items()} if total else {}


def summarise(artifacts: "Artifacts") -> Summary:
    """The top of the page, from what there is."""
    results = artifacts.results
    loss, accuracy = tables.only_losses(results), tables.only_accuracies(results)
    declared = artifacts.declared
    told, mood, details = headline(results, declared)
    return Summary(
        headline=told,
        mood=mood,
        details=[*size_sentence(artifacts.mixture_history, loss, accuracy), *details],
        warnings=warnings(artifacts),
        run=_run(artifacts),
        tiles=[
            *_improved_tile(loss),
            *objective.target_tile(loss, declared),
            *objective.tile(objective.reached(loss, declared), declared),
            *_accuracy_tile(accuracy),
            *_training_tiles(artifacts),
        ],
    )


def headline(results: pd.DataFrame, declared: DeclaredObjective) -> tuple[str, str, list[str]]:
    """The verdict on losses, objective and accuracies, its mood, and further sentences."""
    loss, accuracy = tables.only_losses(results), tables.only_accuracies(results)
    told, mood, details = verdict(loss, declared)
    reached = objective.on_targets(loss, declared) or objective.sentence(
        objective.reached(loss, declared), declared
    )
    told = " ".join(filter(None, (reached, told)))
    return with_accuracy(told, mood, details, accuracy)


def warnings(artifacts: "Artifacts") -> list[str]:
    """Reasons to doubt the verdict: from the probe, the references and the training."""
    said = list((artifacts.knowledge_distribution or {}).get("warnings", []))
    strategy = artifacts.strategy
    if strategy is None:
        return said
    start = (artifacts.initial_mixture or {}).get("strategy")
    origin = doubt_words(artifacts.knowledge_distribution, artifacts.initial_mixture or {})
    if not follows_probe(strategy.told(), start, **origin):
        said = [f"probe (its shares were not used for training): {text}" for text in said]
    if artifacts.reference_losses:
        unused = "" if strategy.needs_reference else "references (no share follows them): "
        said += [f"{unused}{text}" for text in reference_warnings(artifacts.reference_losses)]
    if artifacts.mixture_history is not None:
        said += training_warnings(artifacts.mixture_history, artifacts.reference_losses, strategy)
    return said


def size_sentence(
    history: pd.DataFrame | None, loss: pd.DataFrame, accuracy: pd.DataFrame
) -> list[str]:
    """How much training and how many held-out rows and items the verdict stands on."""
    size = ""
    if history is not None and len(history):
        tokens = tables.trained_tokens(history)
        of = f" ({formats.thousands(tokens)} tokens)" if tokens else ""
        steps = int(history["step"].max())
        size = f"After {formats.thousands(steps)} training step{'s' if steps != 1 else ''}{of}, "
    counts = [
        f"{formats.thousands(table['n'].sum())} {what}"
        for table, what in (
            (loss, "rows held out of training and steering"),
            (accuracy, "questions"),
        )
        if len(table) and "n" in table
    ]
    if not counts:
        return []
    measured = "measured" if size else "Measured"
    return [f"{size}{measured} on {formats.comma(counts)}."]


def with_accuracy(
    headline: str, mood: str, details: list[str], accuracy: pd.DataFrame
) -> tuple[str, str, list[str]]:
    """The verdict on losses and accuracies: it is not green if an accuracy fell.

    A fall of the mean counts even if it may be noise; the sentence then says so.
    """
    details = [*details, *accuracy_sentence(accuracy)]
    if accuracy.empty:
        return headline, mood, details
    means = accuracy.groupby("domain")[["base", "tuned"]].mean().mean()
    change = float(means["tuned"] - means["base"])
    fallen = accuracy[accuracy["tuned"] < accuracy["base"]]
    worse = list(dict.fromkeys(accuracy.loc[accuracy["verdict"] == "worse", "domain"]))
    if change < 0 or worse:
        joint = "; " if ", but " in headline else ", but "
        what = (
            f"accuracy fell by {formats.number(-100 * change, 1)} points on average"
            if change < 0
            else f"accuracy got worse in {formats.comma(worse)}"
        )
        headline = f"{headline.removesuffix('.')}{joint}{what}."
        mood = "mixed" if mood == "good" else mood
    if len(fallen):
        details.append(_fallen(fallen))
    return headline, mood, details


def baseline_sentence(models: pd.DataFrame | None) -> str | None:
    """Other models to compare the result with, or a sentence that there are none.

    ``models``: of :func:`versatune.reporting.tables.mean_losses`.
    """
    if models is None:
        return None
    others = models[~models["model"].isin([BASE, TUNED])].to_dict("records")
    if others:
        each = [f"{row['model']} {formats.number(row['loss'])}" for row in others]
        return f"mean held-out loss of other models on the same rows: {formats.comma(each)}."
    return (
        "none. No other mixture was trained with the same budget, so this page does not show "
        "whether these shares beat a plain mix: kedro run --pipeline compare does."
    )


def _fallen(fallen: pd.DataFrame) -> str:
    """Which accuracies fell, from what to what, on how many questions, beyond noise or not."""
    each = [
        f"{row['domain']} ({100 * row['base']:.0f} → {100 * row['tuned']:.0f} %, "
        f"{row['n']} questions{'' if row['verdict'] == 'worse' else ', within noise'})"
        for row in fallen.to_dict("records")
    ]
    return f"Accuracy fell in {formats.comma(each)}."


def verdict(
    loss: pd.DataFrame, declared: DeclaredObjective | None = None
) -> tuple[str, str, list[str]]:
    """One sentence on the domains' held-out losses, its mood, and what to say about single ones.

    ``declared``: the objective with its tolerance; a domain that got worse within it is said, and
    takes nothing from the mood.
    """
    k = len(loss)
    if not k:
        return "No verdict: base and tuned model were not both evaluated.", "unknown", []
    named = {v: loss.loc[loss["verdict"] == v, "domain"].tolist() for v in set(loss["verdict"])}
    better, worse = named.get("better", []), named.get("worse", [])
    unclear = named.get("not distinguishable", [])
    if len(better) == k:
        where = "in both" if k == 2 else f"in all {k}"
        return f"Every domain improved: held-out loss fell {where}.", "good", []
    details = [_sentence(loss, name) for name in worse]
    if unclear:
        subject = formats.comma(unclear)
        details.append(f"No clear change in {subject}: the 95 % interval includes zero.")
    if declared is not None and declared.params.tolerance != 0:
        return *_within_tolerance(loss, declared, better, worse), details
    if worse:
        verb = "got worse" if better else "got worse and none improved,"
        lead = f"{_of(len(better), k).capitalize()} improved, but " if better else ""
        text = f"{lead}{formats.comma(worse)} {verb} by more than noise."
        return text[0].upper() + text[1:], "mixed" if better else "bad", details
    if better:
        return f"{_of(len(better), k)} improved, and none got worse.", "good", details
    return "No domain changed by more than noise.", "unknown", details


def _within_tolerance(
    loss: pd.DataFrame, declared: DeclaredObjective, better: list[str], worse: list[str]
) -> tuple[str, str]:
    """The sentence and the mood where some rise is allowed."""
    k, allowed = len(loss), f"the tolerance ({declared.allowance})"
    lead = f"{_of(len(better), k)} improved" if better else "No domain improved"
    over = objective.beyond(loss, declared)
    if over:
        joint = ", but" if better else ", and"
        text = f"{lead}{joint} {_of(len(over), k)} fell more than {allowed}: {formats.comma(over)}."
        return text, "mixed" if better else "bad"
    mood = "good" if better else "unknown"
    within = f"{formats.comma(worse)} got worse within {allowed}" if worse else "none got worse"
    return f"{lead}, and {within}.", mood


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


def _improved_tile(loss: pd.DataFrame) -> list[Tile]:
    if loss.empty:
        return []
    better, worse = (int((loss["verdict"] == v).sum()) for v in ("better", "worse"))
    note = f"{worse} worse" if worse else "none worse"
    return [Tile("domains improved", f"{better} of {len(loss)}", note)]


def _accuracy_tile(accuracy: pd.DataFrame) -> list[Tile]:
    if accuracy.empty:
        return []
    means = accuracy.groupby("domain")[["base", "tuned"]].mean().mean()
    value = f"{100 * means['base']:.0f} → {100 * means['tuned']:.0f} %"
    return [Tile("accuracy", value, "mean of domains")]


def _training_tiles(artifacts: "Artifacts") -> list[Tile]:
    tiles = []
    if artifacts.mixture_history is not None and len(artifacts.mixture_history):
        history = artifacts.mixture_history
        rounds = history["round"].max()
        tiles.append(Tile("training", f"{history['step'].max():,} steps", f"{rounds} rounds"))
        tiles += _shift_tile(history)
    spent, kept = tables.time_spent(artifacts.timings)
    if artifacts.timings:
        note = f"kept stages took {formats.duration(kept)} before" if kept else "all of it new"
        tiles.append(Tile("this run took", formats.duration(spent), note))
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
        return [Tile("mixture", "unchanged", "no share moved")]
    shares = wide[shifts.idxmax()]
    ends = (100 * shares.iloc[0], 100 * shares.iloc[-1])
    digits = 1 if round(ends[0]) == round(ends[1]) else 0
    value = " → ".join(f"{end:.{digits}f}" for end in ends) + " %"
    return [Tile("largest shift", value, f"share of {shifts.idxmax()}")]


def _run(artifacts: "Artifacts") -> str:
    name = (artifacts.base_model or {}).get("name", "not named")
    parts = [f"Base model: {name}, fine-tuned on {len(artifacts.domains)} domains"]
    start = (artifacts.initial_mixture or {}).get("strategy")
    origin = doubt_words(artifacts.knowledge_distribution, artifacts.initial_mixture or {})
    if artifacts.strategy is not None:
        parts.append(shares_in_words(artifacts.strategy.told(), start, **origin))
    elif start is not None:
        parts.append(f"starting shares: {start_in_words({}, start, **origin)}")
    return "; ".join(parts) + "."


def _of(n: int, k: int) -> str:
    return f"{n} of {k} domains"
