"""Fixtures that more than one room needs: a tiny real model and a tiny real tokenised store."""

import os
from pathlib import Path

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest

from versatune.artifacts import FolderRef, WorkFolder
from versatune.modeling.checkpoints import PLAIN_CHAT_TEMPLATE, CheckpointRef

WORDS = (  # noqa: SIM905
    "the a court contract judge drug dose heart loan bank share atom cell light loop list "
    "string map river poem what is why how does mean treat return of in to and not for"
).split()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointRef:
    """A random Llama (2 layers, hidden size 32) with a byte-level BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    path = tmp_path_factory.mktemp("tiny") / "checkpoint"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return CheckpointRef.of_folder(path, name="tiny")


@pytest.fixture(scope="session")
def tiny_store(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: CheckpointRef
) -> FolderRef:
    """A tokenised store: 40 / 25 / 60 training rows and 12 validation rows a domain."""
    import datasets

    rng = np.random.default_rng(0)
    domains = ["law", "medicine", "code"]
    counts = {"train": [40, 25, 60], "validation": [12, 12, 12]}
    work = WorkFolder.open(
        tmp_path_factory.mktemp("store") / "tokenized", {"for": tiny_checkpoint.fingerprint}
    )
    facts: dict = {"domains": domains, "max_length": 64}
    for split, numbers in counts.items():
        rows = [_row(rng, domain, i) for domain, n in enumerate(numbers) for i in range(n)]
        features = datasets.Features(
            input_ids=datasets.List(datasets.Value("int32")),
            labels=datasets.List(datasets.Value("int32")),
            domain=datasets.Value("int32"),
            length=datasets.Value("int32"),
            n_supervised=datasets.Value("int32"),
            n_bytes=datasets.Value("int32"),
            row=datasets.Value("string"),
        )
        datasets.Dataset.from_list(rows, features=features).save_to_disk(str(work.path / split))
        facts[split] = {
            name: {
                "rows": n,
                "tokens": sum(r["length"] for r in rows if r["domain"] == j),
                "supervised_tokens": sum(r["n_supervised"] for r in rows if r["domain"] == j),
            }
            for j, (name, n) in enumerate(zip(domains, numbers, strict=True))
        }
    return work.seal(**facts)


def _row(rng: np.random.Generator, domain: int, number: int) -> dict:
    """A row whose tokens lie mostly in a band of the vocabulary that is the domain's own."""
    length = int(rng.integers(5, 60))
    ids = rng.integers(3 + 100 * domain, 3 + 100 * (domain + 1), size=length).tolist()
    ids[0], ids[-1] = 0, 1
    prompt = max(1, int(length * rng.uniform(0.2, 0.6)))
    return {
        "input_ids": ids,
        "labels": [-100] * prompt + ids[prompt:],
        "domain": domain,
        "length": length,
        "n_supervised": length - prompt,
        "n_bytes": 3 * (length - prompt),
        "row": f"{domain}.jsonl:{number + 1}",
    }


@pytest.fixture(scope="session")
def project_root() -> Path:
    return Path(__file__).parents[1]
