"""What a model's configuration says of its text.

Models that read images or sounds too keep it in a part of their configuration, which transformers
finds (``get_text_config``); the name of a number depends on the architecture.
"""

from pathlib import Path
from typing import Any

from versatune.errors import VersatuneError

_LIMITS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "max_target_positions",
)


def text_config(config: Any) -> Any:
    """The part of a transformers configuration that describes the language model."""
    return config.get_text_config(decoder=True)


def token_limit(config: Any) -> int | None:
    """The most tokens the model takes at once; None when its configuration names no limit."""
    found = text_config(config)
    limits = [getattr(found, name, None) for name in _LIMITS]
    # Architectures without a limit say so by None or -1.
    named = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(named, default=None)


def saved_token_limit(folder: Path) -> int | None:
    """:func:`token_limit` of a model folder; None for a folder that holds only a tokenizer.

    Raises VersatuneError when transformers can't read its config.json.
    """
    config = _saved_config(folder)
    return None if config is None else token_limit(config)


def saved_vocabulary(folder: Path) -> int | None:
    """How many tokens the model of a folder has embeddings for; None where that is not said.

    Raises as :func:`saved_token_limit`.
    """
    config = _saved_config(folder)
    if config is None:
        return None
    found = text_config(config)
    size = getattr(found, "vocab_size", None)
    return size + getattr(found, "additional_vocab_size", 0) if isinstance(size, int) else None


def _saved_config(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        return None
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise VersatuneError(f"{folder / 'config.json'} can't be read: {reason}") from error
