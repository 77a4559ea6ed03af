"""From the log of runs to the tables of docs/results.

Gains and changes are in per cent, losses in nats per token. Intervals are 95 % over seeds: of
differences paired by seed (t), and Fieller's for parts, which are ratios of two means.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.settings import RESULTS
from tests.benchmarks.settings.declared import Declared, Run
from tests.benchmarks.settings.runs import Row, read_rows
from tests.benchmarks.settings.runs import version as version_now
from tests.benchmarks.settings.schedule import KNOWN, OF_LAW
from versatune.intervals import mean_stderr, ratio_interval, t_interval
from versatune.mixing.config import ObjectiveParams
from versatune.mixing.forecast import INTERVAL, follow, headroom, scattered
from versatune.mixing.law import Law
from versatune.mixing.law_fit import fit
from versatune.mixing.objective import make_objective
from versatune.mixing.traces import read_traces, traces_of
from versatune.training.budget import learning_by_round

SETTINGS = (
    *("setting", "strategy", "version", "oracle_gain"),
    *("part_of_oracle", "part_of_oracle_low", "part_of_oracle_high"),
    *("gain_over_uniform", "gain_over_uniform_low", "gain_over_uniform_high"),
    *("gain_over_proportional", "gain_over_proportional_low", "gain_over_proportional_high"),
    *("n_seeds", "steps", "cost_steps"),
)
EXPANSION = (
    *("setting", "target", "strategy", "version", "tolerance"),
    *("part_of_target_gain", "part_of_target_gain_low", "part_of_target_gain_high"),
    *("least_other_change", "least_other_change_low", "least_other_change_high"),
    *("part_within_tolerance", "n_seeds"),
)
FORECAST = (
    *("setting", "strategy", "version", "seed", "domain"),
    *("predicted", "low", "high", "outcome"),
)
HEADROOM = (
    *("setting", "headroom", "headroom_low", "headroom_high"),
    *("oracle_gain", "oracle_gain_low", "oracle_gain_high", "spread_of_marginals"),
)
RUNS = (
    *("setting", "strategy", "version", "seed", "split", "steps", "cost_steps"),
    *("domain", "share", "base", "loss"),
)
"""Every run, a line a domain; ``share``: the mean over rounds."""

DRAWS = 200
"""Laws drawn for the interval of a forecast."""

Runs = dict[tuple[str, str], dict[int, Row]]
"""By strategy and version, the runs by seed."""


def write_tables(out: Path, folder: Path = RESULTS) -> None:
    """All tables from the log in ``out``; settings that it has no run of stay as they are.

    So do an expansion's rows of earlier versions of a strategy.
    """
    rows = read_rows(out / "runs.jsonl")
    reported = [row for row in rows if row["split"] == "report"]
    tables = {
        "settings": (SETTINGS, fostering(reported)),
        "expansion": (EXPANSION, expanding(reported)),
        "forecast": (FORECAST, forecasts(reported, out)),
        "headroom": (HEADROOM, headrooms(reported, out)),
        "settings_runs": (RUNS, runs(rows)),
    }
    logged = {_setting(row) for row in rows}
    versions = {(_setting(row), row["strategy"], row["version"]) for row in rows}
    expanded = {_setting(row) for row in rows if "/" in row["setting"]}

    def stays(name: str, row: Mapping[str, Any]) -> bool:
        setting = _setting(row)
        if setting not in logged:
            return True
        earlier = row.get("version") and (setting, row["strategy"], row["version"]) not in versions
        return name in ("expansion", "settings_runs") and setting in expanded and bool(earlier)

    for name, (columns, made) in tables.items():
        file = folder / f"{name}.csv"
        all_rows = [row for row in _read(file) if stays(name, row)]
        all_rows += made
        if all_rows or file.is_file():
            _write(file, columns, all_rows)


def _setting(row: Mapping[str, Any]) -> str:
    """Without the target."""
    return str(row["setting"]).partition("/")[0]


def runs(rows: list[Row]) -> Iterator[Row]:
    """What each run came to."""
    for row in rows:
        shares = np.mean(row["shares"], axis=0)
        for j, domain in enumerate(row["domains"]):
            yield {
                **{key: row[key] for key in RUNS[:7]},
                "domain": domain,
                "share": float(shares[j]),
                "base": row["base"][j],
                "loss": row["loss"][j],
            }


def by_setting(rows: list[Row]) -> dict[str, Runs]:
    """The runs in order: setting -> (strategy, version) -> seed -> row."""
    found: dict[str, Runs] = {}
    for row in rows:
        each = found.setdefault(row["setting"], {})
        each.setdefault((row["strategy"], row["version"]), {})[row["seed"]] = row
    return found


def fostering(rows: list[Row]) -> Iterator[Row]:
    """The rows of settings.csv."""
    for setting, found in by_setting(rows).items():
        if "/" in setting or ("uniform", "") not in found:
            continue
        uniform, proportional = found["uniform", ""], found.get(("proportional", ""), {})
        best = found.get(("oracle", "")) or found.get((KNOWN, ""), {})
        oracle = gains(best, uniform) if best else None
        for (strategy, version), mine in found.items():
            gain = gains(mine, uniform)
            row: Row = {
                "setting": setting,
                "strategy": strategy,
                "version": version,
                "n_seeds": gain.size,
                "steps": _one(mine, "steps"),
                "cost_steps": _one(mine, "cost_steps"),
            }
            if oracle is not None and oracle.size:
                row["oracle_gain"] = float(oracle.mean())
                if interval("", oracle).get("_low", 0.0) > 0:  # else there is nothing to part
                    row |= _part("part_of_oracle", mine, uniform, best, uniform)
            if strategy != "uniform":
                row |= interval("gain_over_uniform", gain)
            if strategy != "proportional" and proportional:
                row |= interval("gain_over_proportional", gains(mine, proportional))
            yield row


def gains(mine: Mapping[int, Row], other: Mapping[int, Row]) -> Any:
    """By seed, the mean loss below the other's, in per cent of it."""
    seeds = sorted(set(mine) & set(other))
    ours = np.array([np.mean(mine[s]["loss"]) for s in seeds])
    theirs = np.array([np.mean(other[s]["loss"]) for s in seeds])
    return 100 * (theirs - ours) / theirs


def expanding(rows: list[Row]) -> Iterator[Row]:
    """The rows of expansion.csv."""
    found = by_setting(rows)
    for name, mine in found.items():
        if "/" not in name:
            continue
        setting, target = name.split("/")
        declared = Declared(setting).setting
        each = dict(mine)
        if declared.world is not None:  # one world: what no tolerance changes is run once
            shared = found.get(f"{declared.world}/{target}", {})
            each = {key: v for key, v in shared.items() if key[0] not in OF_LAW} | each
        if ("target_only", "") not in each:
            continue
        alone = each["target_only", ""]
        for (strategy, version), these in each.items():
            yield {
                "setting": setting,
                "target": target,
                "strategy": strategy,
                "version": version,
                "tolerance": 100 * declared.tolerance,
                **_expanded(these, alone, target, declared.tolerance),
            }


def _expanded(
    mine: Mapping[int, Row], alone: Mapping[int, Row], target: str, tolerance: float
) -> Row:
    seeds = sorted(set(mine) & set(alone))
    domains = next(iter(mine.values()))["domains"]
    at = [domains.index(name) for name in target.split("+")]

    def change(row: Row) -> Any:
        base, loss = np.array(row["base"]), np.array(row["loss"])
        return (base - loss) / base

    changes = np.array([change(mine[s]) for s in seeds])
    gained = changes[:, at].mean(axis=1)
    full = np.array([change(alone[s])[at].mean() for s in seeds])
    least = np.delete(changes, at, axis=1).min(axis=1)
    low, high = ratio_interval(gained, full)
    return {
        "part_of_target_gain": float(gained.mean() / full.mean()),
        "part_of_target_gain_low": low,
        "part_of_target_gain_high": high,
        **interval("least_other_change", 100 * least),
        "part_within_tolerance": float((least >= -tolerance).mean()),
        "n_seeds": len(seeds),
    }


def forecasts(rows: list[Row], out: Path) -> Iterator[Row]:
    """The rows of forecast.csv: each domain of each static run and each of mixing_law.

    By the code that is here now.

    On the steering rows that training measures, since the forecast is of these.
    """
    laws: dict[str, Known | None] = {}
    told: dict[str, Any] = {}
    at = version_now()
    for row in rows:
        name = row["setting"]
        if name not in laws:
            laws[name] = Known.of(name, out)
        known = laws[name]
        still = all(shares == row["shares"][0] for shares in row["shares"])
        if known is None or not (still or row["strategy"] == "mixing_law"):
            continue
        if len(row["shares"]) != known.learning.size:  # ended before its last round
            continue
        key = json.dumps([name, row["shares"]])
        if key not in told:
            shares = zip(row["shares"], known.learning, strict=True)
            path = [(np.array(x), float(e)) for x, e in shares]
            told[key] = scattered(follow(known.law, path, known.passes), known.law.base)
        ends = told[key]
        low, high = np.quantile(ends, INTERVAL, axis=0)
        middle = np.median(ends, axis=0)
        for j, domain in enumerate(row["domains"]):
            yield {
                **{key: row[key] for key in ("setting", "strategy", "seed")},
                "version": at,
                "domain": domain,
                "predicted": float(middle[j]),
                "low": float(low[j]),
                "high": float(high[j]),
                "outcome": row["measured"][j],
            }


@dataclass(frozen=True)
class Known:
    """What runs before a setting's training say."""

    domains: tuple[str, ...]
    law: Law
    learning: Any
    """Of each round of a run, shape (rounds,)."""
    passes: Any
    """How often a run would pass over each domain's rows at a share of 1, shape (k,)."""

    @classmethod
    def of(cls, setting: str, out: Path) -> "Known | None":
        """From what a campaign noted of the setting's world; None where nothing is noted."""
        file = out / "worlds" / f"{setting.replace('/', '_')}.json"
        if not file.is_file():
            return None
        noted = json.loads(file.read_text(encoding="utf-8"))
        references, rows = noted["references"], noted["rows"]["train"]
        facts = traces_of(references)
        if facts is None:
            return None
        traces = read_traces(facts)
        train = Run.of(Declared(setting.split("/", maxsplit=1)[0])).train
        learning = learning_by_round(train)
        base = np.nanmax([trace.losses[0] for trace in traces], axis=0)
        law = fit(traces, base, learning=float(learning.sum()))
        step = train.per_device_train_batch_size * train.max_length
        tokens = train.rounds * train.steps_per_round * step
        passes = np.array([tokens / rows[name]["tokens"] for name in facts["domains"]])
        return cls(tuple(facts["domains"]), law, learning, passes)


def headrooms(rows: list[Row], out: Path) -> Iterator[Row]:
    """The forecast headroom over uniform beside the oracle's gain."""
    for setting, found in by_setting(rows).items():
        known = None if "/" in setting else Known.of(setting, out)
        if known is None:
            continue
        learning = float(known.learning.sum())
        objective = make_objective(ObjectiveParams(), known.domains, known.law.base)
        room = headroom(known.law, learning, objective, known.passes)
        row: Row = {
            "setting": setting,
            "headroom": 100 * room.gain,
            "headroom_low": 100 * room.low,
            "headroom_high": 100 * room.high,
            "spread_of_marginals": spread(known),
        }
        if ("oracle", "") in found and ("uniform", "") in found:
            row |= interval("oracle_gain", gains(found["oracle", ""], found["uniform", ""]))
        yield row


def spread(known: Known) -> float:
    """Standard deviation of ln(-d mean loss / d share) over domains, at equal shares, by the law.

    Domains whose share raises the mean loss have no logarithm and are left out.
    """
    k, learning = known.law.base.size, float(known.learning.sum())
    equal = np.full(k, 1 / k)

    def end(shares: Any) -> float:
        return float(follow(known.law.likeliest(), [(shares, learning)], known.passes).mean())

    moved = equal + 0.02 * np.eye(k)
    marginals = (end(equal) - np.array([end(shares) for shares in moved])) / 0.02
    positive = marginals[marginals > 0]
    return float(np.log(positive).std(ddof=1)) if positive.size > 1 else float("nan")


def interval(name: str, values: Any) -> dict[str, float]:
    """Mean over seeds with its 95 % interval; no interval below three seeds."""
    if not len(values):
        return {}
    mean, error = mean_stderr(np.asarray(values))
    if len(values) < 3:
        return {name: mean}
    low, high = t_interval(mean, error, len(values))
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _part(
    name: str,
    mine: Mapping[int, Row],
    uniform: Mapping[int, Row],
    best: Mapping[int, Row],
    under: Mapping[int, Row],
) -> dict[str, float]:
    """The part of the oracle's gain, over the seeds that all have."""
    seeds = set(mine) & set(uniform) & set(best)
    if not seeds:
        return {}
    ours = gains({s: mine[s] for s in seeds}, uniform)
    theirs = gains({s: best[s] for s in seeds}, under)
    low, high = ratio_interval(ours, theirs) if len(seeds) > 2 else (np.nan, np.nan)
    part = float(ours.mean() / theirs.mean())
    return {name: part, f"{name}_low": low, f"{name}_high": high}


def _one(mine: Mapping[int, Row], key: str) -> Any:
    return next(iter(mine.values()))[key]


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({key: _short(row.get(key)) for key in columns})


def _short(value: Any) -> Any:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.4f}" if isinstance(value, float) else value
