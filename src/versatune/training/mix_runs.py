"""Short runs on fixed mixes of all domains: what a share does, measured before a training.

A run on only one domain forgets the others more than any mix does, so the effect of shares is
measured on mixes. Each run gives half of the domains four times the share of the others; over all
runs each domain is up as often as down. They anneal to 0, since losses at a high learning rate are
above those that a training ends with.
"""

from typing import Any

import numpy as np

from versatune.artifacts import FolderRef
from versatune.mixing.config import CustomParams
from versatune.mixing.curves import Point
from versatune.mixing.shares import Array, normalised
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.api import history, piece_of
from versatune.training.budget import so_far
from versatune.training.config import TrainParams
from versatune.training.job import Training
from versatune.training.mix_budget import mix_budget
from versatune.training.reference_config import ReferenceParams
from versatune.work import Piece

APART = np.log(2.0)
"""Of the logarithm of a share from its mean, up or down."""


def mix_name(number: int) -> str:
    """What a run is called; no domain can be called so."""
    return f"mix-{number}"


def mixes(k: int, n: int) -> list[Array]:
    """Shares (k,) of ``n`` runs, in pairs: the second raises the domains that the first lowers."""
    rng = np.random.default_rng(0)
    found: list[Array] = []
    for _ in range((n + 1) // 2):
        sign = np.where(np.arange(k) % 2 == 0, 1.0, -1.0)[rng.permutation(k)]
        found += [normalised(np.exp(APART * sign)), normalised(np.exp(-APART * sign))]
    return found[:n]


def mix_runs(
    data: FolderRef, model: CheckpointRef, params: ReferenceParams, train: TrainParams
) -> dict[str, Piece]:
    """The runs by name; none with ``references.mixes: 0``, or where the budget has no room."""
    domains = data.metadata["domains"]
    shape = mix_budget(data, params, train).runs
    like = params.of_mix(train, data.metadata["max_length"], shape)
    runs = {}
    for number, shares in enumerate(mixes(len(domains), shape.number)):
        weights = dict(zip(domains, shares.tolist(), strict=True))
        given = like.model_copy(update={"strategy": CustomParams(weights=weights)})
        key = "references.train"
        training = Training(store=data, base=model, params=given, key=key, save_model=False)
        runs[mix_name(number)] = piece_of(training)
    return runs


def mix_entries(
    data: FolderRef,
    params: ReferenceParams,
    train: TrainParams,
    runs: dict[str, FolderRef],
    scale: dict[str, float],
) -> list[dict[str, Any]]:
    """The result of each run: ``weights`` by domain and the ``curve``.

    ``scale``: what a domain's losses are multiplied with where the proxy has other tokens.
    """
    domains = data.metadata["domains"]
    shape = mix_budget(data, params, train).runs
    if not shape.number:
        return []
    like = params.of_mix(train, data.metadata["max_length"], shape)
    learning, rate = so_far(like)
    entries = []
    for number, shares in enumerate(mixes(len(domains), shape.number)):
        rows = history(runs[mix_name(number)].path)
        curve = []
        for at in range(learning.size):
            each = rows[rows["round"] == at].set_index("domain")
            curve.append(
                Point(
                    step=int(each["step"].iloc[0]),
                    learning=float(learning[at]),
                    rate=float(rate[at]),
                    losses={
                        n: float(each["validation_loss"][n]) * scale.get(n, 1.0) for n in domains
                    },
                    stderrs=each["since_base_stderr"].astype(float).fillna(0.0).to_dict(),
                    passes_by_domain=each["epochs_seen"].to_dict(),
                ).model_dump()
            )
        weights = dict(zip(domains, shares.tolist(), strict=True))
        entries.append({"weights": weights, "curve": curve})
    return entries
