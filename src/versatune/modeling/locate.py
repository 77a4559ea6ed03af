"""Finds a model: a folder on this disk, or a model on the hub."""

import re
from pathlib import Path
from typing import Any

from tqdm.asyncio import tqdm

from versatune.artifacts import read_json
from versatune.data.hub import refusal
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
_UNWANTED = ["*/*", "consolidated*"]
"""Files of a hub model that are not downloaded: those in folders (other formats), and duplicates.
"""


def find_checkpoint(name_or_path: str, revision: str | None = None) -> CheckpointRef:
    """The checkpoint in a local folder, or on the hub (downloaded into its cache).

    A folder's fingerprint stands for its files, a hub model's is its commit. Raises
    VersatuneError when there is no such model, when it brings no safetensors weights, when it
    would have to run its own code, or when it is no causal language model.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        if revision:
            raise VersatuneError(
                f"base_model.revision {revision!r} is for hub models, and {folder} is a folder: "
                "set it to null."
            )
        check_loadable(folder, name_or_path)
        return CheckpointRef.of_folder(folder)
    _check_hub_id(name_or_path)
    snapshot = _download(name_or_path, revision)
    check_loadable(snapshot, name_or_path)
    return CheckpointRef(name=name_or_path, path=snapshot, fingerprint=snapshot.name)


def find_here(name_or_path: str) -> Path | None:
    """The folder of a model that is on this disk already, without asking the hub.

    None for a hub model that is not in the cache. Raises VersatuneError on a folder that
    :func:`find_checkpoint` refuses, and on a name that is neither a folder nor a hub id.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        check_loadable(folder, name_or_path)
        return folder
    _check_hub_id(name_or_path)
    import huggingface_hub

    config = huggingface_hub.try_to_load_from_cache(name_or_path, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def _check_hub_id(name: str) -> None:
    if not _HUB_ID.fullmatch(name) or ".." in name or name[0] in ".-":
        raise VersatuneError(
            f"base_model.name_or_path: there is no folder {name!r}, and it can't be the "
            "id of a hub model (owner/name)."
        )


def check_loadable(folder: Path, name: str) -> None:
    """Refuse, before anything is loaded, a model folder that can't or must not be loaded."""
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        raise VersatuneError(
            f"{name} is an adapter, not a model: merge it into its base model first."
            if adapter
            else f"{name} is not a model folder: it has no config.json."
        )
    if not any(folder.glob("*.safetensors")):
        raise VersatuneError(
            f"{name} has no *.safetensors weights; other formats are pickles, which can run code "
            "when loaded. Convert it with save_pretrained() where you trust it."
        )
    for index in folder.glob("*.safetensors.index.json"):
        for shard in sorted(set(map(str, _mapping(index).get("weight_map", {}).values()))):
            if Path(shard).name != shard:
                raise VersatuneError(
                    f"{name} can't be trusted: {index} names {shard!r}, outside its folder."
                )
            if not (folder / shard).is_file():
                raise VersatuneError(f"{name} is incomplete: {folder / shard} is missing.")
    config = _mapping(folder / "config.json")
    if config.get("is_encoder_decoder"):
        raise VersatuneError(
            f"{name} is an encoder-decoder model; fine-tuning here needs a causal language model."
        )
    if "auto_map" in config and not _built_in(config.get("model_type")):
        raise VersatuneError(
            f"{name} needs its own code (auto_map in its config.json), which is never run "
            f"here: take a model whose model_type transformers knows, not "
            f"{config.get('model_type')!r}."
        )


def _download(name: str, revision: str | None) -> Path:
    """The folder of a hub model's snapshot, named after its commit."""
    import huggingface_hub
    from huggingface_hub import errors

    at = f" at revision {revision!r}" if revision else ""
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
                tqdm_class=tqdm,  # shown also where the hub's own bars are switched off
            )
        )
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError) as error:
        reason = refusal(error, "model") or (
            "the hub can't be reached and there is no copy in the cache; go online, or give the "
            "path of a model folder"
        )
    raise VersatuneError(
        f"base_model.name_or_path: {name}{at} can't be loaded from the hub: {reason}."
    )


def _built_in(model_type: Any) -> bool:
    from transformers.models.auto import configuration_auto as known

    return model_type in vars(known)["CONFIG_MAPPING_NAMES"]


def _mapping(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise VersatuneError(f"{path} is damaged: it is not a JSON object.")
    return content
