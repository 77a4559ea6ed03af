"""Where a model's configuration says how much text it takes."""

from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoConfig,
    BartConfig,
    BloomConfig,
    Gemma3Config,
    GPT2Config,
    MptConfig,
    XLNetConfig,
)

from versatune.data.lengths import saved_token_limit, text_config, token_limit
from versatune.data.tokenize import _check_length
from versatune.errors import VersatuneError

PARTS = Gemma3Config(text_config={"vocab_size": 90, "max_position_embeddings": 48})


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (PARTS, 48),
        (GPT2Config(n_positions=77), 77),
        (MptConfig(max_seq_len=33), 33),
        (BartConfig(max_position_embeddings=21), 21),
        (BloomConfig(), None),
        (XLNetConfig(), None),
    ],
    ids=["gemma3", "gpt2", "mpt", "bart", "bloom", "xlnet"],
)
def test_the_limit_is_found_where_the_architecture_has_it(
    config: Any, limit: int | None, tmp_path: Path
) -> None:
    assert token_limit(config) == limit
    config.save_pretrained(tmp_path)
    assert token_limit(AutoConfig.from_pretrained(tmp_path)) == limit == saved_token_limit(tmp_path)


def test_the_part_for_text_is_taken() -> None:
    assert text_config(PARTS).vocab_size == 90
    assert not hasattr(PARTS, "vocab_size")


def test_rows_longer_than_a_composite_model_takes_are_refused(tmp_path: Path) -> None:
    PARTS.save_pretrained(tmp_path)
    _check_length(tmp_path, 48)
    with pytest.raises(VersatuneError, match=r"max_length is 49, but .* takes 48 tokens at most"):
        _check_length(tmp_path, 49)
    _check_length(tmp_path / "a tokenizer alone", 10**6)
