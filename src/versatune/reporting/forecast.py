"""The forecast in words and tables, before training and beside the outcome."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from versatune.mixing.forecast import WORTH
from versatune.mixing.interface import ROLLED_BACK
from versatune.mixing.objective import IN_WORDS, POINTS
from versatune.reporting import formats

BEST = "best"

NAMES = {BEST: "best static mix", "detected": "detected shares"}
"""Names of the forecast's mixes for readers, where they differ."""

TIE = 0.0005
"""A gain smaller than this reads as 0.0 %."""


def lines(forecast: Mapping[str, Any]) -> list[str]:
    """The forecast in a few plain lines: what to do, what it rests on, what training takes."""
    said = [advice(forecast)]
    said += filter(None, (about_chosen(forecast), early_end(forecast), best_mix(forecast)))
    if forecast["headroom"] is not None:
        each = [
            f"{named(name)} {_objective(forecast, entry['objective'])}"
            for name, entry in forecast["strategies"].items()
            if name != BEST or names_best_mix(forecast)
        ]
        said.append(f"Forecast {IN_WORDS[forecast['objective']]}: {'; '.join(each)}.")
    return [*said, *_by_domain(forecast), takes(forecast)]


def _by_domain(forecast: Mapping[str, Any]) -> list[str]:
    """A table: each domain's loss before and after, as forecast, and the passes over its rows."""
    chosen = forecast["strategy"]
    domains = forecast["strategies"][chosen]["domains"]
    losses = dict.fromkeys(domains, "")
    if forecast["headroom"] is not None:
        losses = {
            name: f"{formats.number(forecast['base'][name])} → {formats.number(d['loss'])} "
            f"({formats.number(d['low'])} to {formats.number(d['high'])})"
            for name, d in domains.items()
        }
    head = f"held-out loss with {named(chosen)}" if any(losses.values()) else ""
    first = max(map(len, [*domains, "domain"])) + 2
    second = max(map(len, [*losses.values(), head])) + 2 if head else 0
    table = [f"{'domain':{first}}{head:{second}}passes over its rows"]
    return table + [
        f"{name:{first}}{losses[name]:{second}}{formats.number(d['passes'], 1)}"
        for name, d in domains.items()
    ]


def said(forecast: Mapping[str, Any]) -> list[str]:
    """The report's lines above the tables: the advice, the chosen strategy, its cost."""
    about = about_chosen(forecast)
    spoken = (advice(forecast), about, early_end(forecast), best_mix(forecast), takes(forecast))
    return [*filter(None, spoken), *forecast["warnings"]]


def advice(forecast: Mapping[str, Any]) -> str:
    """The sentence on the gain of a mix, or why there is no forecast and what to do."""
    if forecast["missing"] is None:
        told = str(forecast["advice"])
        if not forecast["targets"]:
            return told
        aim = formats.comma(forecast["targets"])
        return f"The aim is {aim}. If it were all domains: {told[0].lower()}{told[1:]}"
    # A file of an older version has none.
    remedy = forecast.get("remedy", "run the plan pipeline again to see what makes one")
    return (
        f"No forecast: {forecast['missing']}, so it is not known what a mix can gain. "
        f"uniform and proportional need no forecast; {remedy}."
    )


def about_chosen(forecast: Mapping[str, Any]) -> str | None:
    """The chosen strategy's forecast gain over equal shares, and the domains it leaves behind."""
    chosen = forecast["strategy"]
    entry = forecast["strategies"][chosen]
    if forecast["headroom"] is None:
        return None
    parts = [_on_target(forecast, name) for name in forecast["targets"]]
    if not parts and chosen != "uniform":
        gain = entry["gain"]
        how = "as good as" if abs(gain) < TIE else "better than" if gain > 0 else "worse than"
        by = "" if abs(gain) < TIE else f"{formats.number(100 * abs(gain), 1)} {unit(forecast)} "
        span = formats.span(entry["gain_low"], entry["gain_high"])
        parts.append(f"{named(chosen)} is forecast {by}{how} equal shares ({span})")
    over = forecast["tolerance_broken"]
    if over:
        k = len(forecast["base"])
        parts.append(
            f"{len(over)} of {k} domains {'is' if len(over) == 1 else 'are'} forecast to end above "
            f"the tolerance ({formats.comma(over)})"
        )
    return "; ".join(parts) + "." if parts else None


def early_end(forecast: Mapping[str, Any]) -> str | None:
    """That the strategy is forecast to end the training, and with which model."""
    ended = forecast.get("ends_early")
    if not ended:
        return None
    back = f", with the model of round {ended['kept']}" if ended["kept"] < ended["after"] else ""
    return (
        f"The guard is forecast to end the training after round {ended['after']} of "
        f"{ended['of']}{back}."
    )


def unit(forecast: Mapping[str, Any]) -> str:
    """Of gains over equal shares."""
    return POINTS.get(forecast.get("objective", "mean"), "%")


def _on_target(forecast: Mapping[str, Any], name: str) -> str:
    first = forecast["base"][name]
    entry = forecast["strategies"][forecast["strategy"]]["domains"][name]
    change, low, high = (
        formats.percent(entry[key] / first - 1, signed=True) for key in ("loss", "low", "high")
    )
    return (
        f"{named(forecast['strategy'])} is forecast to change the held-out loss of {name} by "
        f"{change} ({low} to {high})"
    )


def best_mix(forecast: Mapping[str, Any]) -> str | None:
    """The shares of the best static mix, to be written down as those of strategy ``custom``.

    Where it can't be distinguished from equal shares its numbers are noise: a sentence says that
    in their place. None without a forecast, and where the advice says that nothing can be gained.
    """
    if forecast["headroom"] is None or forecast["headroom"]["high"] < WORTH:
        return None
    if not names_best_mix(forecast):
        return "The forecast distinguishes no mix from equal shares, so it names none."
    domains = forecast["strategies"][BEST]["domains"]
    each = ", ".join(f"{name} {formats.number(d['weight'])}" for name, d in domains.items())
    return f"The best static mix: {each}."


def names_best_mix(forecast: Mapping[str, Any]) -> bool:
    """Whether the best static mix is forecast better than equal shares, its whole interval."""
    room = forecast["headroom"]
    return room is not None and room["low"] > 0 and room["high"] >= WORTH


def takes(forecast: Mapping[str, Any]) -> str:
    """Steps, tokens, time, memory and disk of the training."""
    training = forecast["training"]
    parts = [f"{formats.thousands(training['steps'])} steps"]
    parts.append(f"{formats.thousands(training['tokens'])} tokens")
    if training["seconds"] is not None:
        parts.append(
            f"about {formats.duration(training['seconds'])} at the speed of "
            f"{training['measured_on']}"
        )
    said = f"Training takes {', '.join(parts)}"
    if training["memory"] is not None:
        said += (
            f"; {formats.memory(sum(training['memory'].values()))} of each device's "
            f"{formats.memory(training['device_bytes'])}, {formats.memory(training['disk'])} of "
            "disk"
        )
    spent = forecast["references_seconds"]
    return f"{said}." if spent is None else f"{said}. The references took {_took(spent, training)}."


def _took(spent: float, training: Mapping[str, Any]) -> str:
    if not training["seconds"] or spent > training["seconds"]:
        return formats.duration(spent)
    return f"{formats.duration(spent)}, {formats.percent(spent / training['seconds'], 0)} of that"


def named(strategy: str) -> str:
    """The name of a strategy of the forecast for readers."""
    return NAMES.get(strategy, strategy)


def _objective(forecast: Mapping[str, Any], value: float) -> str:
    kind = forecast["objective"]
    return formats.number(value) if kind in ("mean", "weighted") else formats.percent(value)


def strategy_rows(forecast: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A row a strategy: ``name``, ``chosen``, the forecast objective and its gain, the most passes.

    Empty where there is no forecast.
    """
    if not forecast:
        return []
    rows = []
    for name, entry in forecast["strategies"].items():
        seen = {d: e["passes"] for d, e in entry["domains"].items() if e["passes"] is not None}
        most = max(seen, key=seen.__getitem__, default=None)
        rows.append(
            {
                "name": named(name),
                "chosen": name == forecast["strategy"],
                "value": entry.get("objective"),
                "text": _objective(forecast, entry["objective"]) if "objective" in entry else "–",
                **{key: entry.get(key) for key in ("gain", "gain_low", "gain_high")},
                "most": most,
                "passes": None if most is None else seen[most],
            }
        )
    return rows


def outcome(
    forecast: Mapping[str, Any] | None, history: pd.DataFrame | None, losses: pd.DataFrame
) -> pd.DataFrame:
    """The chosen strategy's forecast beside the outcome, a row a domain.

    ``base``, ``loss``, ``low``, ``high``: the steering rows before training, and as forecast after
    it; ``came``: the trained model's loss there; ``inside``: whether the interval holds it;
    ``forecast_change``, ``report_change``: the relative change as forecast, and as measured on the
    report rows (``losses`` of :func:`versatune.reporting.tables.only_losses`), which nothing was
    forecast for. Empty where nothing was forecast or trained.
    """
    if not forecast or forecast["headroom"] is None or history is None or history.empty:
        return pd.DataFrame()
    end = history[history["round"] == model_round(history)].set_index("domain")["validation_loss"]
    report = losses.set_index("domain")["relative"].to_dict() if len(losses) else {}
    entries = forecast["strategies"][forecast["strategy"]]["domains"]
    rows = [
        {
            "domain": name,
            "base": forecast["base"][name],
            "loss": entry["loss"],
            "low": entry["low"],
            "high": entry["high"],
            "came": float(end[name]),
            "inside": bool(entry["low"] <= end[name] <= entry["high"]),
            "forecast_change": entry["loss"] / forecast["base"][name] - 1,
            "report_change": report.get(name),
        }
        for name, entry in entries.items()
        if name in end.index
    ]
    return pd.DataFrame(rows)


def model_round(history: pd.DataFrame) -> int:
    """The round whose model was kept: the last, or the one that training went back to."""
    last = int(history["round"].max())
    reason = str(history.loc[history["round"] == last, "reason"].iloc[0])
    _, found, rest = reason.partition(f"{ROLLED_BACK} ")
    return int(rest.partition(",")[0]) if found else last


def outcome_sentence(table: pd.DataFrame, interpolated: bool = False) -> str | None:
    """How many outcomes lie within their interval, and where the others are.

    ``interpolated``: the model that was saved lies between the base and the trained one.
    """
    if table.empty:
        return None
    n, k = int(table["inside"].sum()), len(table)
    above = table.loc[table["came"] > table["high"], "domain"].tolist()
    below = table.loc[table["came"] < table["low"], "domain"].tolist()
    off = [
        f"{formats.comma(names)} ended {where}"
        for names, where in ((above, "higher"), (below, "lower"))
        if names
    ]
    end = f": {'; '.join(off)}" if off else ""
    lie = "lies" if n == 1 else "lie"
    told = f"{n} of {k} outcomes {lie} within the forecast's 90 % interval{end}."
    if interpolated:
        told += (
            " Forecast and outcome are of the trained model, before it went part of the way back "
            "to the base; the last column is of the saved one."
        )
    return told


def stale(forecast: Mapping[str, Any] | None, made_for: Mapping[str, Any]) -> str | None:
    """That the forecast is of other parameters of training than ``made_for``."""
    if not (forecast and made_for):
        return None
    then = forecast["made_for"]
    every = sorted(then.keys() | made_for.keys())
    changed = [f"train.{key}" for key in every if then.get(key) != made_for.get(key)]
    if not changed:
        return None
    names = formats.comma(changed)
    return f"The forecast was made with other values of {names}: run the plan pipeline again."
