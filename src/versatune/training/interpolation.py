"""After training: which part of the way from the base model to the trained one is saved.

The models between the two are measured on the steering rows that the history was measured on, and
the best one by the objective and its tolerances replaces the trained model in the job's folder. One
model is in memory at a time.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from versatune.artifacts import read_json, write_json
from versatune.errors import VersatuneError
from versatune.mixing.config import ExpandParams
from versatune.mixing.interpolation import choose_part
from versatune.mixing.objective import Objective, make_objective
from versatune.modeling.heldout import HeldOut
from versatune.modeling.interpolate import scale_adapter, write_between
from versatune.training.config import InterpolateParams
from versatune.training.job import HISTORY, Job, losses_of
from versatune.training.paired import paired_stderr
from versatune.training.saved import allowed_difference, measure_saved

logger = logging.getLogger(__name__)

BETWEEN = "between"
"""The folder, within the job's, of the model that is being measured."""

WHERE_BROKEN = InterpolateParams(parts=[n / 10 for n in range(1, 11)], margin=1.5)
"""What ``auto`` uses if a tolerance was broken; the margin was chosen in four simulated settings
that no table uses."""


def interpolate(job: Job) -> None:
    """Put the best model between base and trained into the job's folder, and record it in the
    history.

    ``history.json`` gets ``interpolation``: ``part`` (the one taken), ``why``, and ``table``, a row
    a part and domain with ``validation_loss`` and ``since_base_stderr``; parts 0 (the base model)
    and 1 are always in it. When what is written for part 0 does not have the base model's loss, the
    trained model stays, with a warning.
    """
    asked, record = job.params.interpolate, read_json(job.folder / HISTORY)
    if isinstance(asked, InterpolateParams):
        _between(job, record, asked)
    elif names := _beyond(job, record):
        logger.warning(
            "Training ended with %s beyond tolerance: taking part of the way back to the base "
            "model (train.interpolate).",
            ", ".join(names),
        )
        try:
            _between(job, record, WHERE_BROKEN)
        except VersatuneError as error:  # of this architecture; the trained model is kept
            logger.warning("No model between base and trained one can be made: %s", error)


def _beyond(job: Job, record: dict[str, Any]) -> list[str]:
    """The domains, but targets, whose loss in the model's round is above its limit."""
    rows = [row for row in record["rows"] if row["round"] == record["model_round"]]
    first, names = losses_of(record["rows"], 0), tuple(row["domain"] for row in rows)
    errors = [row["since_base_stderr"] or 0.0 for row in rows]
    excess = _objective(job, names, [first[name] for name in names]).excess(
        [row["validation_loss"] for row in rows], errors
    )
    beyond = (excess > 0) & ~_targets(job, names)
    return [name for name, is_beyond in zip(names, beyond, strict=True) if is_beyond]


def _between(job: Job, record: dict[str, Any], asked: InterpolateParams) -> None:
    parts = sorted({0.0, 1.0, *asked.parts})
    measured = {part: _measure(job, part) for part in parts}
    first = losses_of(record["rows"], 0)
    record["interpolation"] = found = _chosen(job, measured, asked, first)
    if found["part"] != 1.0:
        _take(job, found["part"])
    write_json(job.folder / HISTORY, record)
    logger.info(
        "The saved model is %g of the way to the trained one: %s.", found["part"], found["why"]
    )


def _measure(job: Job, part: float) -> dict[str, HeldOut]:
    if part == 1.0:
        return measure_saved(job, job.folder)[0]
    folder = job.folder / BETWEEN
    try:
        write_between(job.base, job.folder, part, folder)
        return measure_saved(job, folder)[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _chosen(
    job: Job,
    measured: dict[float, dict[str, HeldOut]],
    asked: InterpolateParams,
    first: dict[str, float],
) -> dict[str, Any]:
    """``first``: the base model's losses as training measured them."""
    domains, base = tuple(first), measured[0.0]
    rows = {part: [list(of[name].row_nats) for name in domains] for part, of in measured.items()}
    # Without row losses no standard error is known; 0 makes a tolerance in these allow nothing.
    errors = {part: paired_stderr(rows[0.0], of) for part, of in rows.items()}
    known = {p: np.zeros(len(domains)) if e is None else e for p, e in errors.items()}
    table = [
        {
            "part": part,
            "domain": name,
            "validation_loss": of[name].nats_per_token,
            "since_base_stderr": float(known[part][j]),
        }
        for part, of in measured.items()
        for j, name in enumerate(domains)
    ]
    allowed = allowed_difference(job)
    if any(
        not abs(base[n].nats_per_token - loss) <= allowed * (1 + loss) for n, loss in first.items()
    ):
        logger.warning(
            "%s: the base model has other losses once it is saved, so no model between it and the "
            "trained one is taken: please report this with the model's config.json.",
            job.folder,
        )
        return {"part": 1.0, "why": "the weights between could not be made", "table": table}
    number, why = choose_part(
        np.array([[measured[p][name].nats_per_token for name in domains] for p in asked.parts]),
        np.array([known[p] for p in asked.parts]),
        _objective(job, domains, [base[name].nats_per_token for name in domains]),
        _targets(job, domains),
        asked.margin,
    )
    return {"part": asked.parts[number], "why": why, "table": table}


def _objective(job: Job, domains: tuple[str, ...], first: list[float]) -> Objective:
    references = job.reference_losses
    known = [references[name] for name in domains] if references else None
    return make_objective(job.params.objective, domains, first, known)


def _targets(job: Job, domains: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    strategy = job.params.strategy
    names = strategy.targets if isinstance(strategy, ExpandParams) else ()
    return np.isin(domains, names)


def _take(job: Job, part: float) -> None:
    """Replace the trained weights in the job's folder."""
    folder = job.folder / BETWEEN
    write_between(job.base, job.folder, part, folder)
    for file in folder.glob("*.safetensors"):
        file.replace(job.folder / file.name)
    shutil.rmtree(folder)
    beside: Path = job.folder / "adapter"
    if beside.is_dir():
        scale_adapter(beside, part, beside)
