"""Checks that the results of earlier stages exist and were made for the current domains.

Checked before any node runs, so that running a part of a pipeline (``--pipeline report``,
``--nodes``, ``--from-nodes``, ``--tags``) says which stage has to run first.
"""

import importlib
import json
import pkgutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from versatune import pipelines
from versatune.artifacts import MANIFEST
from versatune.errors import VersatuneError
from versatune.io import FolderDataset, PlaceDataset
from versatune.pipelines.stages import STAGES


def check_made_before(
    pipeline: Pipeline,
    catalog: DataCatalog,
    domains: Collection[str] | None,
    *,
    only_missing_outputs: bool = False,
) -> None:
    """Raise VersatuneError when what ``pipeline`` reads and does not make itself is missing, or was
    made for other domains than ``domains`` (None: not known)."""
    if only_missing_outputs:
        pipeline = _left(pipeline, catalog)
    needed = sorted(name for name in pipeline.inputs() if not name.startswith("params:"))
    missing = [name for name in needed if name != "parameters" and not _exists(name, catalog)]
    if missing:
        raise VersatuneError(_first(missing, catalog))
    asks = "params:domains" in pipeline.inputs()
    for name in needed:
        made_for = _domains_of(name, catalog)
        if asks and domains is not None and made_for and set(made_for) != set(domains):
            raise VersatuneError(
                f"{name} was made for the domains {', '.join(made_for)}; now they are "
                f"{', '.join(domains)}. Run it for these first: {_command(_maker(name))}."
            )


def _left(pipeline: Pipeline, catalog: DataCatalog) -> Pipeline:
    """The nodes that ``--only-missing-outputs`` leaves, as Kedro finds them."""
    missing = [n for n in pipeline.outputs() if n in catalog and not catalog.exists(n)]
    return pipeline.to_outputs(*missing) if missing else Pipeline([])


def _exists(name: str, catalog: DataCatalog) -> bool:
    """Whether something is there; what is there and damaged says so itself when it is read."""
    place = _place(name, catalog)
    if place is None:
        place = getattr(catalog.get(name), "_filepath", None)
    return (place is not None and Path(place).exists()) or catalog.exists(name)


def _place(name: str, catalog: DataCatalog) -> Path | None:
    """The file that is there when a folder of ours is whole, without reading all of it."""
    dataset: Any = catalog.get(name)
    if isinstance(dataset, FolderDataset) and not isinstance(dataset, PlaceDataset):
        return Path(dataset.filepath) / MANIFEST
    return None


def _domains_of(name: str, catalog: DataCatalog) -> list[str]:
    """The domains of a folder that ingest or the probe made."""
    place = _place(name, catalog)
    if place is None or _maker(name) not in ("ingest", "probe"):
        return []
    try:
        found = json.loads(place.read_text(encoding="utf-8"))["facts"].get("domains", [])
    except (OSError, ValueError, KeyError, AttributeError):
        return []  # a damaged folder says so itself
    return found if isinstance(found, list) else []


def _first(missing: list[str], catalog: DataCatalog) -> str:
    """What to run for the inputs that are missing: the first stage that makes one of them."""
    makers = {name: _maker(name) for name in missing}
    order = [*STAGES, *sorted({m for m in makers.values() if m} - set(STAGES))]
    known = [name for name in missing if makers[name]]
    if not known:
        return f"{', '.join(missing)}: not there, and no stage makes it."
    name = min(known, key=lambda n: order.index(makers[n] or ""))
    where = getattr(catalog.get(name), "_filepath", None) or _place(name, catalog)
    stages = list(dict.fromkeys(s for s in order if s in makers.values()))
    others = f", then those of {', '.join(stages[1:])}" if len(stages) > 1 else ""
    return (
        f"{name} ({where}) is not there yet: the stage {makers[name]} makes it. Run "
        f"{_command(makers[name])} first{others}, or `kedro run` for all stages."
    )


def _command(stage: str | None) -> str:
    return f"`kedro run --pipeline {stage}`" if stage else "`kedro run`"


def _maker(name: str) -> str | None:
    """The stage that makes a dataset."""
    others = [m.name for m in pkgutil.iter_modules(pipelines.__path__) if m.ispkg]
    for stage in dict.fromkeys([*STAGES, *others]):
        module = importlib.import_module(f"versatune.pipelines.{stage}")
        if name in module.create_pipeline().all_outputs():
            return stage
    return None
