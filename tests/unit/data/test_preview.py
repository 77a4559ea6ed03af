"""Rows as they are trained on, for a person; and the account of conversations that are split."""

import json
import shutil
from pathlib import Path

import pytest

from versatune.artifacts import FolderRef
from versatune.data.clean import SPLITS, clean
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.data.documents import DocumentSpec
from versatune.data.encode import EncoderSpec
from versatune.data.ingest_report import ingest_report
from versatune.data.preview import PART, marked, preview
from versatune.data.shards import Encoders
from versatune.data.store import TokenizedSplit
from versatune.data.tokenize import tokenize
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.reporting.tables import trained_examples
from versatune.work import make_folder

# An answer gets an empty thought before it while it is the last one.
TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m['role'] + ': ' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}"
    "{{ m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant: ' }}{% endif %}"
)


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_checkpoint: CheckpointRef) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint.path, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def cleaned(tmp_path: Path) -> FolderRef:
    """Conversations of two answers in law, of one in code."""
    config = {}
    for name in ("law", "code"):
        rows = [
            [
                {"role": "user", "content": f"{name} {n}"},
                {"role": "assistant", "content": f"yes {n}"},
                *([{"role": "user", "content": "why?"}] if name == "law" else []),
                *([{"role": "assistant", "content": f"so ⟦{n}⟧"}] if name == "law" else []),
            ]
            for n in range(20)
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"messages": r, "id": 1}) + "\n" for r in rows))
        config[name] = {"description": name, "sources": [{"path": str(path)}]}
    params = CleanParams(seed=0, near_duplicate_threshold=None)
    return make_folder(clean(Domains.model_validate(config), params), tmp_path / "clean")


def test_the_report_shows_rows_and_counts_what_was_split(
    cleaned: FolderRef, checkpoint: Path, tmp_path: Path
) -> None:
    params = TokenizeParams(max_length=128, num_workers=1)
    store = make_folder(tokenize(cleaned, checkpoint, load_tokenizer, params), tmp_path / "store")
    report = ingest_report(cleaned, store)
    law, code = report["domains"]["law"], report["domains"]["code"]
    assert law["train_rows"] + law["validation_rows"] == law["read"] == 20
    assert (law["train_examples"], law["validation_examples"]) == (
        2 * law["train_rows"],
        2 * law["validation_rows"],
    )
    assert code["train_examples"] == code["train_rows"]
    assert law["ignored_columns"] == {"id": 20}
    split = TokenizedSplit.load(store, "train")
    assert len(split.rows(0)) == store.metadata["train"]["law"]["rows"] == law["train_examples"]
    first, second, *_ = law["examples"]
    number = first["text"].partition("law ")[2].partition("<")[0]
    assert first["row"] == second["row"] == f"{tmp_path}/law.jsonl:{int(number) + 1}"
    assert first["text"] == (
        f"<s>user: law {number}</s><s>assistant:⟦ <think></think>yes {number}</s>⟧"
    )
    assert second["text"] == (
        f"<s>user: law {number}</s><s>assistant: yes {number}</s><s>user: why?</s><s>assistant:"
        f"⟦ <think></think>so [{number}]</s>⟧"
    )
    assert [len(d["examples"]) for d in (law, code)] == [6, 3]
    assert len({e["row"] for e in law["examples"]}) == 3
    entry = trained_examples(report)[0]
    assert entry["domain"] == "law" and entry["tokens"] > entry["supervised_tokens"] > 0
    assert entry["parts"] == [
        (f"<s>user: law {number}</s><s>assistant:", False),
        (f" <think></think>yes {number}</s>", True),
    ]


def test_pieces_of_a_conversation_are_in_one_split(
    cleaned: FolderRef, checkpoint: Path, tmp_path: Path
) -> None:
    import datasets

    params = TokenizeParams(max_length=128, num_workers=1)
    store = make_folder(tokenize(cleaned, checkpoint, load_tokenizer, params), tmp_path / "store")
    rows = [set(datasets.load_from_disk(str(store.path / split))["row"]) for split in SPLITS]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 40


def test_long_texts_are_shortened_and_control_tokens_seen(
    cleaned: FolderRef, checkpoint: Path
) -> None:
    tokenizer = load_tokenizer(checkpoint)
    params = TokenizeParams(max_length=4096)
    encoder = Encoders.of(EncoderSpec.of(tokenizer), DocumentSpec.of(tokenizer), params)
    turns = [{"role": "user", "content": "a" * 1000}, {"role": "assistant", "content": "b"}]
    ((example,),) = encoder.encode([turns])  # type: ignore[misc]
    text = marked(tokenizer, example)
    assert text.startswith("<s>user: aaa") and text.endswith(
        "aa</s><s>assistant:⟦ <think></think>b</s>⟧"
    )
    assert " ... " in text and len(text) < PART + 50
    assert [len(rows) for rows in preview(cleaned, tokenizer, encoder, 1).values()] == [2, 1]
