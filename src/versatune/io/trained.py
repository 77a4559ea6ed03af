"""The trained model as a catalog entry. Its kedro-viz preview says what it was made from."""

import json
from typing import Any

from kedro_datasets._typing import JSONPreview

from versatune.artifacts import INPUTS, FolderRef, read_json, read_manifest
from versatune.errors import VersatuneError
from versatune.io.folder import FolderDataset, from_here

TRAINED_BY = ("strategy", "objective", "unit", "seed")
"""Parameters of training that the preview names."""


class TrainedModelDataset(FolderDataset):
    """A :class:`~versatune.io.folder.FolderDataset` of a training."""

    def preview(self, base_model: str = "", rows: str = "") -> JSONPreview:
        """Data, shares and losses, a line a domain, from the model's own folder.

        ``base_model``, ``rows``: files of those entries. They tell names and counts as long as
        they are what the model was trained with; after a change the fingerprint is left.
        """
        from versatune.training.job import HISTORY  # which brings transformers

        manifest = read_manifest(self.filepath)
        facts = manifest["facts"]
        inputs = read_json(self.filepath / INPUTS)
        about = {
            "base model": _name(base_model, inputs["base"]),
            "domains": _domains(
                _counts(rows, inputs["store"]),
                read_json(self.filepath / HISTORY)["rows"],
                facts.get("validation_loss") or {},
                inputs.get("reference_losses") or {},
            ),
            "training": {
                "rounds": facts["rounds"],
                "steps": facts["steps"],
                **{key: inputs["train"][key] for key in TRAINED_BY if key in inputs["train"]},
                "device": facts.get("device"),
            },
            "tokenised rows": inputs["store"],
            "fingerprint": manifest["fingerprint"],
        }
        return JSONPreview(json.dumps(about, ensure_ascii=False))


def _name(file: str, fingerprint: str) -> str:
    found = _read(file)
    is_it = found.get("fingerprint") == fingerprint
    return f"{found['name']} ({fingerprint})" if is_it else fingerprint


def _counts(file: str, fingerprint: str) -> dict[str, Any]:
    """Rows and tokens to train on by domain, where ``file`` points to the same tokenised rows."""
    found = _read(file)
    if found.get("fingerprint") != fingerprint:
        return {}
    try:
        return dict(FolderRef.load(found["path"], verify=False).metadata.get("train", {}))
    except VersatuneError:
        return {}


def _read(file: str) -> dict[str, Any]:
    path = from_here(file)
    try:
        return dict(read_json(path)) if file and path.is_file() else {}
    except VersatuneError:
        return {}


def _domains(
    counts: dict[str, Any],
    history: list[dict[str, Any]],
    reached: dict[str, float],
    references: dict[str, float],
) -> dict[str, dict[str, str]]:
    """By domain: rows, share of the first and the last round, held-out loss before and after.

    ``reached``: of the saved model, which need not be that of the last round.
    """
    found = {}
    for domain in dict.fromkeys(row["domain"] for row in history):
        rows = [row for row in history if row["domain"] == domain]
        trained = [row for row in rows if row["round"] > 0]
        after = reached.get(domain, rows[-1]["validation_loss"])
        loss = f"{rows[0]['validation_loss']:.3f} -> {after:.3f}"
        if references.get(domain) is not None:
            loss += f" (reference {references[domain]:.3f})"
        lines = {"held-out loss": loss}
        if trained:
            ends = (100 * trained[0]["weight"], 100 * trained[-1]["weight"])
            lines["share"] = f"{ends[0]:.1f} % -> {ends[1]:.1f} %"
        if domain in counts:
            rows_of = counts[domain]
            lines["data"] = f"{rows_of['rows']:,} rows, {rows_of['tokens']:,} tokens"
        found[domain] = lines
    return found
