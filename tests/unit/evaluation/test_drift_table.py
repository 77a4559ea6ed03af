"""The drift table of two tiny models, against torch's own divergence text by text."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from tests.helpers.tiny import save_tiny
from versatune.data.own_rows import OwnText
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.drift import TABLE, VERSION, drift, tokenised
from versatune.evaluation.results import library_versions
from versatune.intervals import ratio_stderr, t_interval
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.work import make_folder


def own(index: int, domain: str, text: str, split: str = "report") -> OwnText:
    return OwnText(index, domain, split, True, 0.9, text)  # type: ignore[arg-type]


TEXTS = [
    own(0, "law", "the court treats a contract"),
    own(1, "code", "a loop of a list"),
    own(2, "law", "why"),
    own(3, "law", "the judge and the heart of a river", "train"),
    own(4, "law", "what does a judge mean by a share"),
]


def test_each_domain_is_the_ratio_of_its_texts_sums(
    tmp_path: Path, tiny_checkpoint: CheckpointRef
) -> None:
    """A text to train on does not count; the stderr is the ratio estimator's."""
    tuned = save_tiny(tmp_path / "tuned", vocab_size=400, seed=1)
    params = EvaluateParams(dtype="float32", batch_tokens=64)
    piece = drift(tiny_checkpoint, tuned, TEXTS, "texts", ["code"], params)
    ref = make_folder(piece, tmp_path / "drift")
    found = pd.read_parquet(ref.path / TABLE).set_index("domain")
    assert found.index.tolist() == ["law", "code"] and ref.metadata["n"] == 4
    assert found["trained_on"].tolist() == [False, True]

    models = [load_model(ref, dtype="float32") for ref in (tiny_checkpoint, tuned)]
    kept = [text for text in TEXTS if text.split == "report"]
    sums: dict[str, list[tuple[float, int]]] = {"law": [], "code": []}
    for text, ids in zip(kept, tokenised(tiny_checkpoint, kept), strict=True):
        with torch.no_grad():
            base, other = (Categorical(logits=m(torch.tensor(ids)[None]).logits) for m in models)
        nats = kl_divergence(base, other)[0, :-1].sum().item()
        sums[text.domain].append((nats, len(ids) - 1))
    for domain, own_sums in sums.items():
        nats, tokens = np.array(own_sums).T
        row = found.loc[domain]
        assert row["drift"] == pytest.approx(nats.sum() / tokens.sum(), rel=1e-4)
        assert (row["n"], row["tokens"]) == (len(nats), tokens.sum())
    nats, tokens = np.array(sums["law"]).T
    stderr = ratio_stderr(nats, tokens)
    low, high = t_interval(nats.sum() / tokens.sum(), stderr, 3)
    rounding = 1e-4 * nats.sum() / tokens.sum()  # float32: a stderr is a difference of drifts
    assert found.loc["law", ["stderr", "low", "high"]].tolist() == pytest.approx(
        [stderr, max(low, 0.0), high], rel=1e-3, abs=rounding
    )
    assert np.isnan(found.loc["code", ["stderr", "low", "high"]].to_numpy(float)).all()


def test_a_batch_holds_no_more_tokens_than_asked(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def counted(*given: Any, **how: Any) -> Any:
        model = load_model(*given, **how)
        embeddings = model.get_input_embeddings()
        embeddings.register_forward_pre_hook(lambda _, ids: read.append(ids[0].numel()))
        return model

    monkeypatch.setattr("versatune.evaluation.drift.load_model", counted)
    params = EvaluateParams(dtype="float32", batch_tokens=20)
    piece = drift(tiny_checkpoint, tiny_checkpoint, TEXTS, "texts", [], params)
    ref = make_folder(piece, tmp_path / "drift")
    assert max(read) <= 20 and len(read) > 2, "two models, more than one batch each"
    assert pd.read_parquet(ref.path / TABLE)["drift"].tolist() == [0.0, 0.0]


def test_texts_are_read_as_documents_or_as_two_turns(tiny_checkpoint: CheckpointRef) -> None:
    from versatune.modeling.checkpoints import load_tokenizer

    tokenizer = load_tokenizer(tiny_checkpoint)
    asked = OwnText(5, "law", "report", True, 0.9, "x", question="what is a court", answer="a loan")
    document, turns = tokenised(tiny_checkpoint, [TEXTS[0], asked])
    assert document.dtype == np.int64
    assert tokenizer.decode(document, skip_special_tokens=True).strip() == TEXTS[0].text
    said = tokenizer.decode(turns)
    assert said.index("what is a court") < said.index("a loan") and "x" not in said


def test_what_a_table_hangs_on(tmp_path: Path, tiny_checkpoint: CheckpointRef) -> None:
    other = CheckpointRef(path=tmp_path, fingerprint="other", name="other")
    params = EvaluateParams(dtype="bfloat16")
    piece = drift(tiny_checkpoint, other, TEXTS, "texts", ("code",), params)
    assert piece.inputs == {
        "version": VERSION,
        "versions": library_versions(),
        "models": [tiny_checkpoint.fingerprint, "other"],
        "texts": "texts",
        "trained_on": ["code"],
        "dtype": "bfloat16",
    }
