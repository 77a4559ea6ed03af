"""Reference losses r_j: the held-out loss of a model trained on only one domain, stopped early.

The paper's public code took training losses after memorising, which are near 0 and make every
learnable potential about 1. Here each domain has its own run with a held-out measurement every few
steps; the reference is what it reached (:func:`versatune.mixing.curves.reached`). The curve is
kept. Where there are no runs on mixes, the other domains are measured several times on the way too
(forward passes only), which shows what a share of one domain does to the others.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from versatune.artifacts import FolderRef, read_json
from versatune.data.store import TokenizedSplit
from versatune.mixing.curves import Point, measured_at, reached, still_falling
from versatune.mixing.shares import Array
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.modeling.heldout import chosen_rows
from versatune.training.api import history, piece_of
from versatune.training.budget import so_far
from versatune.training.config import TrainParams
from versatune.training.costs import FORWARD, rows_per_step
from versatune.training.job import HISTORY, Training
from versatune.training.mix_budget import mix_budget
from versatune.training.mix_runs import mix_entries, mix_runs
from versatune.training.reference_config import ReferenceParams
from versatune.training.retokenize import retokenize
from versatune.work import Piece, not_needed
from versatune.work.folder import SKIPPED

logger = logging.getLogger(__name__)


def reference_rows(store: FolderRef, base: CheckpointRef, params: ReferenceParams) -> Piece:
    """``store`` in tokens of the proxy; not needed when both tokenizers share a vocabulary."""
    if params.mode == "none" or params.proxy is None:
        return not_needed()
    proxy = _model(base, params)
    own, other = load_tokenizer(base), load_tokenizer(proxy)
    if own.get_vocab() == other.get_vocab():
        return not_needed()
    logger.info("%s has another tokenizer: losses are compared in bits per byte.", proxy.name)
    return retokenize(store, base, proxy)


def reference_runs(
    store: FolderRef,
    rows: FolderRef,
    base: CheckpointRef,
    params: ReferenceParams,
    train: TrainParams,
) -> dict[str, Piece]:
    """A training on only one domain for each domain, and short ones on mixes.

    None with ``mode: none``. ``rows``: what :func:`reference_rows` made. Each is kept by the
    fingerprint of what made it, so a killed run loses one of them at most.
    """
    if params.mode == "none":
        return {}
    data, model = _rows(store, rows), _model(base, params)
    budget = mix_budget(data, params, train)
    for note in budget.notes():
        logger.info("%s", note)
    for warning in budget.warnings():
        logger.warning("%s", warning)
    on_mixes = mix_runs(data, model, params, train)
    if params.mode == "mixes":
        return on_mixes
    runs = params.of_run(train, data.metadata["max_length"])
    transfer = 0.0 if on_mixes else params.transfer  # runs on mixes say it better
    alone = {
        name: piece_of(
            Training(
                store=data,
                base=model,
                params=runs,
                key="references.train",
                domain=name,
                all_at=measured_at(runs.rounds, _affordable(data, name, transfer, runs)),
                patience=params.patience,
                save_model=False,
            )
        )
        for name in data.metadata["domains"]
    }
    return alone | on_mixes


def reference_losses(
    store: FolderRef,
    rows: FolderRef,
    base: CheckpointRef,
    params: ReferenceParams,
    train: TrainParams,
    runs: Mapping[str, FolderRef],
) -> dict[str, Any]:
    """The ``reference_losses`` of the contract: ``domains``, each with what its run reached.

    ``rows_per_domain`` says how many rows they are of (None: all), ``tokens_per_domain`` how many
    supervised tokens these have at least.
    ``at_limit``: the run ended at ``max_steps`` and not after ``patience`` measurements without a
    new minimum; ``still_falling``: it did, and more steps would have given a lower loss.
    ``curve``: its :class:`~versatune.mixing.curves.Point` s, the other domains' losses now and then
    among them. ``mixes``: the ``weights`` and the ``curve`` of each run on a mix; ``mix_cost``:
    their part of the training, and that of measuring it (``control``).
    ``nats_per_token`` is in tokens of ``base``'s tokenizer; when a proxy has another one, its
    bits per byte are turned into them by the bytes and tokens of the rows measured.
    With ``mode`` ``none`` or ``mixes`` all values of the domains are None.
    """
    names = store.metadata["domains"]
    nothing = {"nats_per_token": None, "bits_per_byte": None, "step": None}
    domains: dict[str, Any] = dict.fromkeys(names, nothing)
    made: dict[str, Any] = {"mode": params.mode, "split": "steering", "domains": domains}
    if params.mode == "none":
        return made
    data, model = _rows(store, rows), _model(base, params)
    each = params.of_run(train, data.metadata["max_length"])
    n_rows, n_tokens = each.heldout_rows_per_domain, each.heldout_tokens_per_domain
    scale: dict[str, float] = {}
    budget = mix_budget(data, params, train)
    if params.mode == "measure":
        made["model"] = model.name
    elif data is not store:
        # The proxy's tokens of the same rows over those of the base model.
        rows_of = budget.runs.rows, budget.runs.tokens
        sizes = {n: [_sizes(s, n, rows_of)[1] for s in (data, store)] for n in names}
        scale = {name: theirs / own for name, (theirs, own) in sizes.items()}
    for name in names if params.mode == "measure" else ():
        found = _reached(runs[name], name, each)
        if data is not store:
            own = found["nats_per_token"]
            n_bytes, tokens = _sizes(store, name, (n_rows, n_tokens))
            found["nats_per_token"] = found["bits_per_byte"] * math.log(2) * n_bytes / tokens
            found["proxy_bits_per_byte"] = found["bits_per_byte"]
            scale[name] = found["nats_per_token"] / own
        domains[name] = {**found, "model": model.name, "split": "steering"}
    for point in (p for entry in domains.values() for p in entry.get("curve", ()) if scale):
        point["losses"] = {n: loss * scale[n] for n, loss in point["losses"].items()}
    return {
        **made,
        "rows_per_domain": n_rows,
        "tokens_per_domain": n_tokens,
        "mixes": mix_entries(data, params, train, dict(runs), scale),
        "mix_cost": {"mixes": budget.part, "control": budget.control, "budget": budget.budget},
    }


def _model(base: CheckpointRef, params: ReferenceParams) -> CheckpointRef:
    return base if params.proxy is None else CheckpointRef.of_folder(params.proxy)


def _rows(store: FolderRef, rows: FolderRef) -> FolderRef:
    return store if rows.metadata.get(SKIPPED) else rows


def _reached(run: FolderRef, name: str, params: TrainParams) -> dict[str, Any]:
    """The lowest loss of one domain's run, and its curve; ``params``: how it was trained."""
    rows = history(run.path).sort_values("round").to_dict("records")
    learning, rate = so_far(params)
    others = {o["round"]: o for o in read_json(run.path / HISTORY)["others"]}
    curve = [_point(row, learning, rate, others.get(row["round"]), name) for row in rows]
    losses = np.array([row["validation_loss"] for row in rows])
    value, at = reached(losses)
    at_limit = run.metadata["ended"] is None
    bits = float(rows[at]["validation_bits_per_byte"])
    return {
        "nats_per_token": value,
        "bits_per_byte": bits * value / float(losses[at]),
        "stderr": float(rows[at]["validation_stderr"]),
        "step": int(rows[at]["step"]),
        "steps_run": int(rows[-1]["step"]),
        "at_limit": at_limit,
        "still_falling": at_limit and still_falling(losses, learning[: losses.size]),
        "curve": [point.model_dump() for point in curve],
    }


def _point(
    row: Mapping[Any, Any], learning: Array, rate: Array, others: dict[str, Any] | None, name: str
) -> Point:
    """One round of a reference run; ``others``: what was measured of the other domains."""
    stderr = row["since_base_stderr"]
    known = stderr is not None and not math.isnan(stderr)
    also: dict[str, dict[str, float]] = others or {"losses": {}, "stderrs": {}}
    return Point(
        step=int(row["step"]),
        learning=float(learning[int(row["round"])]),
        rate=float(rate[int(row["round"])]),
        losses={name: float(row["validation_loss"]), **also["losses"]},
        stderrs={**({name: float(stderr)} if known else {}), **also["stderrs"]},
        passes=float(row["epochs_seen"]),
    )


def _affordable(store: FolderRef, name: str, transfer: float, train: TrainParams) -> int:
    """How often all other domains can be measured within ``transfer`` of the run's cost."""
    if transfer == 0:
        return 0
    split = TokenizedSplit.load(store, "steering")
    rows = chosen_rows(split, train.heldout_rows_per_domain, train.heldout_tokens_per_domain)
    others = [r for other, r in zip(split.domains, rows, strict=True) if other != name]
    if not others:
        return 0
    tokens = int(split.lengths[np.concatenate(others)].sum())
    trained = train.steps.total * rows_per_step(train) * train.max_length
    return max(1, int(transfer * trained / (tokens / FORWARD)))


def _sizes(
    store: FolderRef, name: str, per_domain: tuple[int | None, int | None]
) -> tuple[float, float]:
    """UTF-8 bytes and supervised tokens of a domain's held-out rows that are measured.

    ``per_domain``: rows and supervised tokens, at most and at least.
    """
    split = TokenizedSplit.load(store, "steering")
    rows = chosen_rows(split, *per_domain)[split.domains.index(name)]
    return float(split.n_bytes[rows].sum()), float(split.supervised[rows].sum())
