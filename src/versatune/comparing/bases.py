"""Comparisons of the same strategies from other base models, read beside the project's own."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from versatune.errors import VersatuneError

COMPARISON = "08_reporting/comparison.parquet"
ITEMS = "07_model_output/compare/items.parquet"
"""Where the catalog keeps both tables, below a project's data folder."""

OWN = ""
"""What the tables call the project's own base model."""


def with_other_bases(
    comparison: pd.DataFrame, items: pd.DataFrame, bases: Mapping[str, Path]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``comparison`` and ``comparison_items`` of all base models, with a column ``base_model``.

    ``bases``: by name the data folder of a project that compared the same strategies from another
    base model, with shares and references measured on that one. Without any, the tables as they
    are. Raises VersatuneError when a folder has no comparison, or one of other strategies or
    domains.
    """
    if not bases:
        return comparison, items
    tables = {OWN: (comparison, items)}
    for name, folder in bases.items():
        tables[name] = read_comparison(folder, f"compare.bases.{name}")
        _check_alike(comparison, tables[name][0], folder, f"compare.bases.{name}")
    runs, scores = (
        pd.concat([t[i].assign(base_model=n) for n, t in tables.items()], ignore_index=True)
        for i in (0, 1)
    )
    return runs, scores


def read_comparison(folder: Path, key: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables of the comparison in a data folder. ``key``: the parameter that names it."""
    for file in (COMPARISON, ITEMS):
        if not (folder / file).is_file():
            raise VersatuneError(
                f"{key}: there is no {folder / file}: name the data folder of a project whose "
                "compare pipeline has run to its end."
            )
    return pd.read_parquet(folder / COMPARISON), pd.read_parquet(folder / ITEMS)


def _check_alike(own: pd.DataFrame, other: pd.DataFrame, folder: Path, key: str) -> None:
    kinds, others = (
        table.drop_duplicates("strategy").set_index("strategy")["kind"].to_dict()
        for table in (own, other)
    )
    for label, kind in kinds.items():
        if others.get(label) != kind:
            what = f"is of kind {others[label]}" if label in others else "was not run"
            raise VersatuneError(
                f"{key}: the strategy {label} of this comparison ({kind}) {what} in {folder}: run "
                "the compare pipeline there with the same compare.strategies."
            )
    mine, theirs = (set(table["domain"]) for table in (own, other))
    if mine != theirs:
        raise VersatuneError(
            f"{key}: {folder} compares the domains {', '.join(sorted(theirs))}, and this project "
            f"has {', '.join(sorted(mine))}."
        )
