"""The references stage as its nodes run it, without a catalog; and references of a known world."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.laws import ends
from versatune.artifacts import FolderRef, write_json
from versatune.mixing.law import Law
from versatune.mixing.shares import Array
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training import reference
from versatune.training.config import TrainParams
from versatune.training.job import HISTORY
from versatune.training.mix_runs import mixes as mix_shares
from versatune.training.reference_config import ReferenceParams
from versatune.work import make_folder


def measure_references(
    store: FolderRef, base: CheckpointRef, folder: Path, params: ReferenceParams, train: TrainParams
) -> dict[str, Any]:
    """``reference_losses``, with every domain's run made below ``folder``."""
    rows = make_folder(reference.reference_rows(store, base, params), folder / "rows")
    runs = {
        name: make_folder(piece, folder / name)
        for name, piece in reference.reference_runs(store, rows, base, params, train).items()
    }
    return reference.reference_losses(store, rows, base, params, train, runs)


def references_of(law: Law, base: dict[str, float], noise: float = 0.02) -> dict[str, Any]:
    """``reference_losses`` of a world in which losses go as ``law`` says, from losses ``base``."""
    names, k, losses = list(base), len(base), np.array(list(base.values()))
    there = replace(law, base=losses, least=0.9 * losses)

    def curve(shares: Array) -> list[dict[str, Any]]:
        return [
            {
                "step": 5 * n,
                "learning": 5.0 * n,
                "losses": dict(zip(names, ends(there, shares, 5.0 * n).tolist(), strict=True)),
                "stderrs": dict.fromkeys(names, noise) if n else {},
            }
            for n in range(5)
        ]

    alone = {name: curve(np.eye(k)[j]) for j, name in enumerate(names)}
    domains = {
        name: {"nats_per_token": points[-1]["losses"][name], "step": 20, "curve": points}
        for name, points in alone.items()
    }
    mixes = [
        {"weights": dict(zip(names, shares.tolist(), strict=True)), "curve": curve(shares)}
        for shares in mix_shares(k, 4)
    ]
    return {"mode": "measure", "rows_per_domain": None, "domains": domains, "mixes": mixes}


def made_up_run(folder: Path, seconds: float) -> FolderRef:
    """A reference run: a measurement of 1 s, then two rounds of 100 tokens in ``seconds`` each,
    0.5 s of it measuring; the rows of two domains are noted for each round."""
    folder.mkdir(parents=True)
    rows = [
        {"round": r, "seconds": seconds if r else 1.0, "measurement_seconds": 0.5 if r else 1.0}
        | {"tokens_per_second": 100 / seconds if r else 0.0}
        for r in (0, 1, 2)
        for _ in range(2)
    ]
    write_json(folder / HISTORY, {"rows": rows})
    return FolderRef(path=folder, fingerprint="f", metadata={})
