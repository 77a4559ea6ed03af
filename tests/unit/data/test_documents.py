"""Documents: every token trained on once, in pieces that lose nothing."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from versatune.artifacts import FolderRef, read_json
from versatune.data.clean import SPLITS, clean
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.data.documents import DocumentEncoder, DocumentSpec, piece_borders
from versatune.data.encode import EncoderSpec, Example
from versatune.data.ingest_report import ingest_report
from versatune.data.preview import preview
from versatune.data.shards import Encoders
from versatune.data.store import TokenizedSplit
from versatune.data.tokenize import tokenize
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.work import make_folder

WORDS = [
    "the",
    "court",
    "heard",
    "of",
    "contract",
    "river",
    "loan",
    "map",
    "heart",
    "and",
    "atom",
    "not",
    "judge",
]


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: CheckpointRef) -> Any:
    return load_tokenizer(tiny_checkpoint)


def pieces(tokenizer: Any, text: str, max_length: int) -> list[Example]:
    (found,) = DocumentEncoder(DocumentSpec.of(tokenizer), max_length).encode([text])
    assert isinstance(found, list), found
    return found


@given(
    st.text(st.sampled_from("ab é\n黄💡\u2028\x85\x0c<|>_'s </s>"), min_size=1, max_size=200),
    st.integers(8, 60),
)
@settings(max_examples=150, deadline=None)
def test_pieces_hold_every_token_once_and_all_but_their_first_are_supervised(
    tokenizer: Any, text: str, max_length: int
) -> None:
    found = pieces(tokenizer, text, max_length)
    ids = np.concatenate([p.ids for p in found]).tolist()
    typed = [i for i in ids[1:-1] if i in tokenizer.all_special_ids]
    assert (ids[0], ids[-1], typed) == (tokenizer.bos_token_id, tokenizer.eos_token_id, [])
    assert tokenizer.decode(ids[1:-1]) == text
    assert [len(p.ids) for p in found[:-2]] == [max_length] * len(found[:-2])
    assert all(2 <= len(p.ids) <= max_length for p in found)
    assert all(p.spans == [(1, len(p.ids))] for p in found)
    # bytes: of all tokens but those that no token of their row precedes
    if text.isascii():
        firsts = sum(len(tokenizer.decode([p.ids[0]])) for p in found[1:])
        assert sum(p.n_bytes for p in found) == len(text) - firsts
    if len(found) == 1:
        assert found[0].n_bytes == len(text.encode())


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (7, [0, 7]),
        (8, [0, 8]),
        (9, [0, 7, 9]),  # not 8 and 1: a piece of one token trains nothing
        (10, [0, 8, 10]),
        (17, [0, 8, 15, 17]),
        (24, [0, 8, 16, 24]),
    ],
)
def test_pieces_by_hand(tokens: int, expected: list[int]) -> None:
    assert piece_borders(tokens, 8) == expected


def test_a_document_begins_as_the_models_texts_do(tiny_checkpoint: CheckpointRef) -> None:
    from tokenizers.processors import TemplateProcessing

    def first(**changed: Any) -> str:
        tokenizer = load_tokenizer(tiny_checkpoint)
        for name, value in changed.items():
            if name == "post":
                tokenizer.backend_tokenizer.post_processor = value
            else:
                setattr(tokenizer, name, value)
        return str(tokenizer.convert_ids_to_tokens(int(pieces(tokenizer, "a", 64)[0].ids[0])))

    adds = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    once = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    each = "{% for m in messages %}{{ bos_token + m['role'] + m['content'] }}{% endfor %}"
    none = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert first(chat_template=once) == "<s>"
    assert first(chat_template=each) == "a"  # there it is a turn's mark, as in SmolLM2
    assert first(chat_template=none) == "a"
    assert first(chat_template=each, post=adds) == "<s>"
    for hostile in ("{{ raise_exception('no') }}", "{{ 1 // 0 }}", "{{ 1 + messages }}"):
        assert first(chat_template=hostile) == "a"
    assert first(chat_template="{% for i in range(10 ** 12) %}x{% endfor %}") == "a"
    assert first(bos_token=None) == "a"


def long(n: int, words: int = 90) -> str:
    rng = np.random.default_rng(n)
    return " ".join(rng.choice(WORDS, words)) + f" {n} \u2028 § {n}."


def made(folder: Path, checkpoint: CheckpointRef, **params: Any) -> tuple[FolderRef, FolderRef]:
    """A domain of documents and conversations in weighted sources, and one of files."""
    texts = folder / "papers"
    texts.mkdir()
    for n in range(24):
        (texts / f"{n:02d}.txt").write_bytes(long(n).encode().replace(b"2\x20", b"2\r\n"))
    (texts / "README.md").write_text("about the papers")
    (folder / "law.jsonl").write_text(
        "".join(json.dumps({"text": long(100 + n), "url": "u"}) + "\n" for n in range(30))
    )
    (folder / "law_talk.jsonl").write_text(
        "".join(json.dumps({"prompt": f"q {n}?", "completion": f"a {n}"}) + "\n" for n in range(40))
    )
    (folder / "asked.jsonl").write_text(
        json.dumps(
            {"question": " ".join(long(103).split()[5:25]), "choices": ["a", "b"], "answer": 0}
        )
    )
    domains = Domains.model_validate(
        {
            "law": {
                "description": "l",
                "sources": [
                    {"path": str(folder / "law.jsonl"), "weight": 0.5},
                    {"path": str(folder / "law_talk.jsonl"), "weight": 0.5},
                ],
                "evaluation": [{"path": str(folder / "asked.jsonl")}],
            },
            "science": {"description": "s", "sources": [{"path": str(texts)}]},
        }
    )
    piece = clean(domains, CleanParams(seed=0, min_validation_rows=4, **params))
    cleaned = make_folder(piece, folder / "clean")
    settings = TokenizeParams(max_length=64)
    store = make_folder(
        tokenize(cleaned, checkpoint.path, load_tokenizer, settings), folder / "store"
    )
    return cleaned, store


def test_documents_and_conversations_of_one_domain_become_one_store(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, tokenizer: Any
) -> None:
    cleaned, store = made(tmp_path, tiny_checkpoint)
    report = ingest_report(cleaned, store)["domains"]
    law = report["law"]
    # document 103 holds twenty words of a question; 29 documents are left, and as many talks
    assert (law["read"], law["leaked"], law["left_out_by_weight"]) == (70, 1, 11)
    assert (law["documents"], law["train_rows"] + law["validation_rows"]) == (29, 58)
    assert law["train_examples"] + law["validation_examples"] > 58 + 29
    assert report["science"]["documents"] == report["science"]["read"] == 24
    assert (law["ignored_columns"], report["science"]["ignored_columns"]) == ({"url": 30}, {})
    texts: dict[str, str] = {}
    sides: dict[str, set[str]] = {}
    for split in SPLITS:
        rows = datasets.load_from_disk(str(store.path / split))
        pieces = [report[d][f"{split}_examples"] for d in ("law", "science")]
        assert [store.metadata[split][d]["rows"] for d in ("law", "science")] == pieces
        assert len(rows) == sum(pieces)
        for row in rows:
            texts[row["row"]] = texts.get(row["row"], "") + tokenizer.decode(row["input_ids"])
            sides.setdefault(row["row"], set()).add(split)
            assert row["length"] == len(row["input_ids"]) <= 64
            if "talk" not in row["row"]:
                assert row["labels"] == [-100, *row["input_ids"][1:]]
                assert row["n_supervised"] == row["length"] - 1
    assert all(len(found) == 1 for found in sides.values())
    documents = {t for place, t in texts.items() if "talk" not in place}
    # a character whose bytes are cut apart can't be decoded in pieces
    wanted = {f"<s>{long(100 + n)}</s>" for n in range(30) if n != 3}
    wanted |= {f"<s>{long(n).replace('2 ', chr(50) + chr(10))}</s>" for n in range(24)}
    assert {_ascii(t) for t in documents} == {_ascii(t) for t in wanted}


def test_the_report_shows_documents_with_all_their_tokens_marked(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, tokenizer: Any
) -> None:
    cleaned, store = made(tmp_path, tiny_checkpoint)
    shown = ingest_report(cleaned, store)["domains"]["science"]["examples"]
    rows = list(dict.fromkeys(entry["row"] for entry in shown))
    assert len(rows) == 3 < len(shown)
    for place in rows:
        pieces = [entry for entry in shown if entry["row"] == place]
        text = Path(place.rsplit(":", 1)[0]).read_bytes().decode().replace("\r\n", "\n")
        assert pieces[0]["text"].startswith("<s>⟦" + text[:20])
        assert all(entry["tokens"] == entry["supervised_tokens"] + 1 for entry in pieces)
        assert pieces[-1]["text"].endswith("</s>⟧")
    params = TokenizeParams(max_length=8)
    encoders = Encoders.of(EncoderSpec.of(tokenizer), DocumentSpec.of(tokenizer), params)
    short = preview(cleaned, tokenizer, encoders, 1)["science"]
    assert [entry["tokens"] for entry in short] == [8, 8, 8]  # a document may have hundreds


def _ascii(text: str) -> str:
    return "".join(c for c in text if c.isascii())


def test_a_store_with_documents_trains_and_is_measured(
    tmp_path: Path, tiny_checkpoint: CheckpointRef
) -> None:
    import torch

    from versatune.modeling.checkpoints import load_model
    from versatune.modeling.heldout import chosen_rows, row_losses
    from versatune.training.api import train
    from versatune.training.config import TrainParams

    _, store = made(tmp_path, tiny_checkpoint)
    params = TrainParams.model_validate(
        {
            "rounds": 2,
            "steps_per_round": 3,
            "max_length": 64,
            "per_device_train_batch_size": 2,
            "heldout_rows_per_domain": 4,
            "logging_steps": 1,
            "strategy": {"name": "uniform"},
            "learning_rate": 5e-3,
            "loss_guard": None,
        }
    )
    train(store, tiny_checkpoint, params, folder=tmp_path / "trained")
    split = TokenizedSplit.load(store, "report")
    rows = np.concatenate(chosen_rows(split, None))
    for model in (load_model(tiny_checkpoint), load_model(tmp_path / "trained")):
        sums = row_losses(model, split, rows, 256)
        assert sums[:, 1].astype(int).tolist() == split.supervised[rows].tolist()
        row = split.dataset[int(rows[-1])]  # a piece of a document, by transformers' own loss
        ids = torch.tensor(np.array([row["input_ids"]])).long()
        with torch.no_grad():
            own = model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        assert sums[-1, 0] == pytest.approx(own, rel=1e-4)


def test_documents_need_no_chat_template(tmp_path: Path, tiny_checkpoint: CheckpointRef) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny_checkpoint.path, bare)
    (bare / "chat_template.jinja").unlink()
    _, store = made(tmp_path, CheckpointRef.of_folder(bare))
    assert store.metadata["train"]["science"]["rows"] > 20


def test_a_text_file_too_long_for_a_row_says_what_to_do(tmp_path: Path) -> None:
    from versatune.data.file_formats import Asked
    from versatune.data.readers import read

    (tmp_path / "a.txt").write_text("word " * 1000)
    (bad,) = read(tmp_path / "a.txt", "text", Asked("train", 2048))
    assert "raise ingest.max_line_bytes, or set the source's `format` to lines" in bad.detail  # type: ignore[union-attr]


def test_a_corpus_of_lines_ends_its_documents_at_line_feeds_alone(tmp_path: Path) -> None:
    from versatune.data.file_formats import Asked
    from versatune.data.readers import read

    texts = [f"one {n}\u2028two\x85three\x0cfour\x0b\x1c\x1d\x1e\u2029five" for n in range(3)]
    (tmp_path / "a.txt").write_bytes("\r\n\n".join(texts).encode())
    found = list(read(tmp_path / "a.txt", "lines", Asked("train", 2048)))
    assert [row.values["text"] for row in found] == texts  # type: ignore[union-attr]


def test_one_document_cannot_be_divided(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(long(1))
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"text": long(n)}) + "\n" for n in range(9))
    )
    domains = {
        n: {"description": n, "sources": [{"path": str(tmp_path / p)}]}
        for n, p in (("law", "a.txt"), ("code", "b.jsonl"))
    }
    with pytest.raises(VersatuneError, match=r"domains\.law: 1 rows .*A document stays whole"):
        make_folder(clean(Domains.model_validate(domains), CleanParams(seed=0)), tmp_path / "clean")


def test_the_stores_report_counts_documents(tmp_path: Path, tiny_checkpoint: CheckpointRef) -> None:
    _, store = made(tmp_path, tiny_checkpoint)
    found = read_json(store.path / "report.json")["science"]
    assert found["rows"] == found["documents"] == 24 < found["examples"]
