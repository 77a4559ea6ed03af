"""Own texts among the rows of a store: where they stand, what is counted, what ends them."""

import json
from pathlib import Path

import numpy as np
import pytest

from versatune.artifacts import FolderRef
from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains, Source, TokenizeParams
from versatune.data.conversations import RejectedError
from versatune.data.ingest_report import ingest_report
from versatune.data.own_rows import TEXTS, OwnText, examples, with_own_rows
from versatune.data.store import TokenizedSplit
from versatune.data.tokenize import tokenize
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.work import WorkFolder, make_folder

SPLITS = ("train", "steering", "report")


def made(folder: Path, base: CheckpointRef, sources: dict[str, list]) -> tuple[FolderRef, ...]:
    rows = [{"instruction": f"what is map {i}", "output": f"a list {i}"} for i in range(40)]
    (folder / "law.jsonl").write_text("\n".join(map(json.dumps, rows)))
    domains = Domains.model_validate(
        {name: {"description": name, "sources": given} for name, given in sources.items()}
    )
    cleaned = make_folder(clean(domains, CleanParams(seed=0)), folder / "clean")
    piece = tokenize(cleaned, base.path, load_tokenizer, TokenizeParams(max_length=64))
    return cleaned, make_folder(piece, folder / "tokenized")


def texts(*domains: str) -> list[OwnText]:
    return [
        OwnText(i, name, split, ended, 0.9, f"river poem {name} {split} {i}")
        for name in domains
        for split in SPLITS
        for i, ended in enumerate((True, False, True))
    ]


def folder_of(path: Path, given: list[OwnText]) -> FolderRef:
    """A folder of own texts, as the probe leaves it."""
    folder = WorkFolder.open(path, {"own": 1})
    (path / TEXTS).write_text("".join(json.dumps(vars(text)) + "\n" for text in given))
    return folder.seal()


def test_a_domain_without_rows_gets_its_own_texts(
    tmp_path: Path, tiny_checkpoint: CheckpointRef
) -> None:
    sources = {"other": [{"self": True}], "law": [{"path": str(tmp_path / "law.jsonl")}]}
    cleaned, store = made(tmp_path, tiny_checkpoint, sources)
    assert cleaned.metadata["only_own"] == ["other"]
    assert ingest_report(cleaned, store)["domains"]["other"]["train_rows"] == 0
    given = texts("other", "law")
    own = folder_of(tmp_path / "own", given)
    piece = with_own_rows(store, own, tiny_checkpoint.path, load_tokenizer, ["other"])
    joined = make_folder(piece, tmp_path / "joined")
    tokenizer = load_tokenizer(tiny_checkpoint)
    for split in SPLITS:
        before, after = (TokenizedSplit.load(ref, split) for ref in (store, joined))
        assert after.domains == ("other", "law") and np.diff(before.starts).tolist()[0] == 0
        assert np.diff(after.starts).tolist() == [3, before.starts[-1]]
        for i, text in enumerate(t for t in given if (t.domain, t.split) == ("other", split)):
            ids = after.dataset[i]["input_ids"].tolist()
            ends = tokenizer.eos_token if text.ended else ""
            assert tokenizer.decode(ids) == f"<s>{text.text}{ends}"
            assert after.dataset[i]["labels"].tolist() == [-100, *ids[1:]]
        for i in range(int(before.starts[-1])):  # the user's rows are as they were
            assert (
                after.dataset[3 + i]["input_ids"].tolist()
                == before.dataset[i]["input_ids"].tolist()
            )
        assert joined.metadata["own"] == {
            "other": dict.fromkeys(SPLITS, 3),
            "law": dict.fromkeys(SPLITS, 0),
        }
        counts = joined.metadata[split]["other"]
        assert counts["rows"] == 3
        assert counts["tokens"] == after.lengths[:3].sum() == counts["supervised_tokens"] + 3
        assert joined.metadata[split]["law"] == store.metadata[split]["law"]
    assert joined.metadata["data_fingerprint"] != store.metadata["data_fingerprint"]


def test_where_a_domain_has_rows_its_held_out_ones_stay_the_measure(
    tmp_path: Path, tiny_checkpoint: CheckpointRef
) -> None:
    path = {"path": str(tmp_path / "law.jsonl")}
    _, store = made(
        tmp_path, tiny_checkpoint, {"law": [path, {"self": True}], "other": [{"self": True}]}
    )
    own = folder_of(tmp_path / "own", texts("law", "other"))
    piece = with_own_rows(store, own, tiny_checkpoint.path, load_tokenizer, ["law", "other"])
    joined = make_folder(piece, tmp_path / "joined")
    assert joined.metadata["own"]["law"] == {"train": 3, "steering": 0, "report": 0}
    assert joined.metadata["own"]["other"] == dict.fromkeys(SPLITS, 3)


def test_what_a_source_of_own_texts_may_hold() -> None:
    def domains(*sources: dict, other: dict | None = None) -> None:
        Domains.model_validate(
            {
                "law": {"description": "", "sources": list(sources)},
                "other": {"description": "", "sources": [other or {"path": "x.jsonl"}]},
            }
        )

    domains({"self": True})
    domains({"self": True}, {"path": "y.jsonl"})
    for wrong, told in (
        ([{"self": True, "path": "y.jsonl"}], "takes no other key, not 'path'"),
        ([{"self": True}, {"self": True}], "once"),
        ([{"self": False}], "either `path` or `hub`"),
        ([{"self": True, "weight": 1.0}], "takes no other key, not 'weight'"),
    ):
        with pytest.raises(ValueError, match=told):
            domains(*wrong)
    given = Source.model_validate({"self": True})
    assert given == Source.model_validate(given.model_dump()) and given.label == "self"
    with pytest.raises(ValueError, match="one must have rows"):
        domains({"self": True}, other={"self": True})


def test_a_domain_with_rows_of_its_own_still_needs_enough(tmp_path: Path) -> None:
    (tmp_path / "law.jsonl").write_text('{"instruction": "a", "output": "b"}')
    domains = Domains.model_validate(
        {
            "law": {
                "description": "",
                "sources": [{"path": str(tmp_path / "law.jsonl")}, {"self": True}],
            },
            "other": {"description": "", "sources": [{"self": True}]},
        }
    )
    with pytest.raises(VersatuneError, match=r"domains.law: 1 rows .* can't be divided"):
        make_folder(clean(domains, CleanParams(seed=0)), tmp_path / "clean")


def test_a_question_of_the_models_own_is_an_instruction_with_its_answer(
    tiny_checkpoint: CheckpointRef,
) -> None:
    tokenizer = load_tokenizer(tiny_checkpoint)
    given = [
        OwnText(0, "other", "train", False, 0.9, "what is a map"),
        OwnText(1, "other", "train", True, 0.9, "what is a map\na list", "what is a map", "a list"),
        OwnText(2, "other", "train", True, 0.9, "of " * 90, "of " * 80, "a list"),
    ]
    document, talk, long = examples(tokenizer, given, 64)
    assert isinstance(document, list) and isinstance(talk, list)
    assert tokenizer.decode(document[0].ids) == "<s>what is a map"
    (made,) = talk
    assert tokenizer.decode(made.ids) == "<s>what is a map\na list</s>"
    ((first, end),) = made.spans
    assert tokenizer.decode(made.ids[first:end]) == "a list</s>"
    assert isinstance(long, RejectedError) and "too_long" in long.reason
