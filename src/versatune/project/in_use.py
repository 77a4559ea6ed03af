"""Which parameters a run uses: without the blocks of options that were not chosen."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from versatune.probing.config import JudgeParams

JUDGES = [name for name in JudgeParams.model_fields if name != "kind"]
CHOICES: tuple[tuple[str, str, Any], ...] = (
    ("base_model.pretrain", "base_model.kind", "pretrain"),
    ("probe.sampling.server", "probe.sampling.source", "server"),
    ("probe.sampling.vllm", "probe.sampling.engine", "vllm"),
    *((f"probe.judge.{kind}", "probe.judge.kind", kind) for kind in JUDGES),
    *((f"probe.audit.judge.{kind}", "probe.audit.judge.kind", kind) for kind in JUDGES),
    ("evaluate.vllm", "evaluate.engine", "vllm"),
    ("evaluate.code.sandbox", "evaluate.code.run", True),
)
"""A block, the key that selects it, and the value that does."""
SAMPLE = "02_intermediate/sample/"
"""In the paths of the sample's files."""


def in_use(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON, without the blocks of options that were not chosen."""
    found: dict[str, Any] = copy.deepcopy(dict(parameters))
    for block, choice, value in CHOICES:
        *above, name = choice.split(".")
        if _block(found, above).get(name, value) != value:
            _take_out(found, block)
    if not _block(found, ["probe", "audit"]).get("n", 1):
        _take_out(found, "probe.audit.judge")
    if _block(found, ["probe"]).get("known_distribution") is not None:
        found["probe"] = {"known_distribution": found["probe"]["known_distribution"]}
    if _block(found, ["references"]).get("mode") == "none":
        found["references"] = {"mode": "none"}
    if "domains" in found:
        found["domains"] = {n: domain for n, domain in found["domains"].items() if domain}
        own = _block(found, ["base_model"]).get("kind") == "pretrained"
        if own and SAMPLE not in json.dumps(found["domains"]):
            found.pop("sample", None)
    return found


def _block(parameters: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """A nested block by its keys; empty if it does not exist."""
    block: Any = parameters
    for key in path:
        block = block.get(key) if isinstance(block, Mapping) else None
    return block if isinstance(block, dict) else {}


def _take_out(parameters: Mapping[str, Any], block: str) -> None:
    *above, name = block.split(".")
    _block(parameters, above).pop(name, None)
