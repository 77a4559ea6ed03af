"""The evaluate pipeline on tiny real models, with a hand-filled catalog."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from tests.helpers.tiny import BYTES, save_tiny
from versatune.artifacts import FolderRef
from versatune.data.config import Domains
from versatune.errors import VersatuneError
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.forgetting import CHANGE_COLUMNS
from versatune.evaluation.results import metric_values
from versatune.io import PlaceDataset
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.evaluate import create_pipeline
from versatune.pipelines.evaluate.nodes import evaluate_tuned
from versatune.work import WorkFolder

OUTPUTS = ("evaluation", "evaluation_items", "forgetting", "changed_items", "answers", "drift")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "law.jsonl"
    rows = [
        {"question": f"what is a court {i}", "choices": ["a judge", "loan", "x"], "answer": i % 3}
        for i in range(6)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def trained(tmp_path: Path, tiny_checkpoint: CheckpointRef) -> FolderRef:
    """The tiny model with one matrix changed, as training leaves it."""
    return make_trained(tmp_path / "trained", tiny_checkpoint, by=0.5)


def make_trained(folder: Path, base: CheckpointRef, by: float) -> FolderRef:
    """``base`` with one matrix changed ``by`` so much; the folder's inputs are always the same."""
    import torch

    from versatune.modeling.checkpoints import load_model, load_tokenizer

    model = load_model(base, dtype="float32")
    torch.manual_seed(1)
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight.add_(torch.randn_like(weight) * by)
    work = WorkFolder.open(folder, {"seed": 1})
    model.save_pretrained(work.path)
    load_tokenizer(base).save_pretrained(work.path)
    return work.seal()


def own_texts(folder: Path) -> FolderRef:
    """What the base model wrote, as the probe leaves it: the report split is held out."""
    work = WorkFolder.open(folder, {"own": "texts"})
    lines = [
        {"index": i, "domain": name, "split": split, "ended": True, "confidence": 1.0, "text": text}
        for i, (name, split, text) in enumerate(
            [
                ("law", "report", "a judge of the court"),
                ("law", "report", "what is a contract"),
                ("law", "train", "the court and the judge"),
                ("code", "report", "a loop of the list"),
            ]
        )
    ]
    (work.path / "texts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return work.seal(trained_on=["law"])


def run(
    base: CheckpointRef,
    trained: FolderRef,
    store: FolderRef,
    questions: Path,
    folder: Path,
    **changes: Any,
) -> dict[str, Any]:
    domains = Domains.model_validate(
        {
            name: {
                "description": name,
                "sources": [{"path": "unused.jsonl"}],
                "evaluation": [{"path": str(questions), "task": "courts"}] if name == "law" else [],
            }
            for name in ("law", "medicine", "code")
        }
    )
    catalog = DataCatalog(
        {
            "base_model": MemoryDataset(base.model_dump(mode="json")),
            "trained_model": MemoryDataset(trained),
            "training_rows": MemoryDataset(store),
            "params:domains": MemoryDataset(domains),
            "params:evaluate": MemoryDataset(EvaluateParams(**changes)),
            "own_texts": MemoryDataset(own_texts(folder.parent / "own_texts")),
            "evaluations": PlaceDataset(filepath=str(folder)),
        }
    )
    found = SequentialRunner().run(create_pipeline(), catalog)
    return {name: found[name].load() for name in OUTPUTS}


def assert_drift_is_that_of_the_held_out_texts(
    drift: pd.DataFrame, base: CheckpointRef, trained: FolderRef
) -> None:
    """By torch's own KL over every position of each text as the base model writes it."""
    import torch
    from torch.distributions import Categorical, kl_divergence

    from versatune.modeling.checkpoints import load_model, load_tokenizer

    models = [load_model(ref, dtype="float32") for ref in (base, trained.path)]
    tokenizer = load_tokenizer(base)
    nats, tokens = [], []
    for text in ("a judge of the court", "what is a contract", "a loop of the list"):
        ids = torch.tensor([tokenizer(f"<s>{text}</s>", add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            p, q = (Categorical(logits=m(ids).logits[0, :-1]) for m in models)
        nats.append(kl_divergence(p, q).sum().item())
        tokens.append(ids.shape[1] - 1)
    found = drift.set_index("domain")
    assert list(found.index) == ["law", "code"]
    law = (nats[0] + nats[1]) / (tokens[0] + tokens[1])
    assert found.loc["law", "drift"] == pytest.approx(law, rel=1e-4)
    assert found.loc["code", "drift"] == pytest.approx(nats[2] / tokens[2], rel=1e-4)
    assert found["n"].tolist() == [2, 1] and found["tokens"].tolist() == [
        sum(tokens[:2]),
        tokens[2],
    ]
    assert found["trained_on"].tolist() == [True, False]
    # Two texts: 2 / 1 * sum of (nats - drift * tokens)^2, over the tokens.
    spread = sum((n - law * t) ** 2 for n, t in zip(nats[:2], tokens[:2], strict=True))
    stderr = (2 * spread) ** 0.5 / sum(tokens[:2])
    assert found.loc["law", "stderr"] == pytest.approx(stderr, rel=1e-3)
    assert found.loc["code", ["stderr", "low", "high"]].isna().all()


def test_both_models_are_measured_alike_and_once(
    tiny_checkpoint: CheckpointRef,
    trained: FolderRef,
    tiny_store: FolderRef,
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = (tiny_checkpoint, trained, tiny_store, questions, tmp_path / "evaluations")
    found = run(*arguments)
    rows = found["evaluation"]
    assert set(rows["model"]) == {"base", "tuned"}
    assert set(rows.loc[rows["task"] == "held_out", "domain"]) == {"law", "medicine", "code"}
    for model in ("base", "tuned"):
        mine = rows[rows["model"] == model].set_index(["domain", "task", "metric"])
        assert mine.loc[("law", "courts", "acc"), "n"] == 6
        loss = mine.loc[("code", "held_out", "nats_per_token")]
        assert loss["low"] < loss["value"] < loss["high"] and loss["n"] == 12
    losses = rows[rows["metric"] == "nats_per_token"].set_index(["model", "domain"])["value"]
    change = found["forgetting"].set_index(["domain", "metric"]).loc[("law", "nats_per_token")]
    assert change["change"] == pytest.approx(losses["tuned", "law"] - losses["base", "law"])
    assert change["verdict"] == "worse"
    right = rows[rows["metric"].isin(["acc", "acc_norm"])]
    assert right["chance"].tolist() == pytest.approx([1 / 3] * 4)
    assert rows.loc[rows["task"] == "held_out", "chance"].isna().all()
    assert_changed_items_are_those_of_the_scores(found, questions)
    assert_both_models_answered_the_same_prompts(found["answers"], tiny_checkpoint, tiny_store)
    assert_drift_is_that_of_the_held_out_texts(found["drift"], tiny_checkpoint, trained)
    kept = metric_values(rows)
    assert kept["tuned/nats_per_token/law"] == losses["tuned", "law"]
    assert 0 <= kept["tuned/acc/law-courts"] <= 1

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded again")

    monkeypatch.setattr("versatune.evaluation.measure.load_model", refuse)
    again = run(*arguments)
    for name in OUTPUTS:
        assert again[name].equals(found[name])


def assert_changed_items_are_those_of_the_scores(found: dict[str, Any], questions: Path) -> None:
    items = found["evaluation_items"].query("metric == 'acc'")
    scores = items.pivot(index="item", columns="model", values="score")
    answers = items.pivot(index="item", columns="model", values="answer")
    asked = [json.loads(line) for line in questions.read_text().splitlines()]
    for (item, said), score in zip(answers.iterrows(), scores.itertuples(), strict=True):
        row = asked[int(str(item).rpartition(":")[2]) - 1]
        for model in ("base", "tuned"):
            assert said[model] in row["choices"]
            assert (said[model] == row["choices"][row["answer"]]) == getattr(score, model)
    changed = found["changed_items"]
    moved = scores[scores["base"] != scores["tuned"]]
    assert set(changed["item"]) == set(moved.index)
    for row in changed.to_dict("records"):
        assert (row["base"], row["tuned"]) == tuple(answers.loc[row["item"], ["base", "tuned"]])
        right, wrong = row["tuned"] == row["truth"], row["base"] == row["truth"]
        assert row["change"] == ("became right" if right else "became wrong") and right != wrong
        assert row["question"].startswith("what is a court")


def assert_both_models_answered_the_same_prompts(
    answers: pd.DataFrame, base: CheckpointRef, store: FolderRef
) -> None:
    from versatune.data.store import TokenizedSplit
    from versatune.modeling.checkpoints import load_tokenizer

    assert answers["domain"].tolist() == ["law"] * 2 + ["medicine"] * 2 + ["code"] * 2
    tokenizer, split = load_tokenizer(base), TokenizedSplit.load(store, "report")
    for row in answers.to_dict("records"):
        of_row = split.dataset[int(row["item"].removeprefix("report:"))]
        supervised = of_row["labels"] != -100
        for name, part in (("prompt", ~supervised), ("truth", supervised)):
            text = tokenizer.decode(of_row["input_ids"][part], skip_special_tokens=True)
            assert row[name] == text.strip()
        assert isinstance(row["base"], str) and isinstance(row["tuned"], str)
    assert (answers["base"] != answers["tuned"]).any()


def test_other_weights_made_from_the_same_inputs_are_measured_anew(
    trained: FolderRef, tiny_checkpoint: CheckpointRef, tiny_store: FolderRef, tmp_path: Path
) -> None:
    params = EvaluateParams(rows_per_domain=2)
    one = {"description": "none", "sources": [{"path": "unused.jsonl"}]}
    domains = Domains.model_validate({"law": one, "medicine": one})

    def rows(model: FolderRef) -> pd.DataFrame:
        return evaluate_tuned(model, tiny_store, domains, params, tmp_path / "evaluations")[0]

    first = rows(trained)
    shutil.rmtree(trained.path)
    again = make_trained(trained.path, tiny_checkpoint, by=0.9)
    assert again == trained, "the same place and inputs"
    second = rows(again)
    assert (first["value"] != second["value"]).all()
    assert (first["checkpoint"] != second["checkpoint"]).all()


def test_a_wrong_file_is_refused_before_a_model_is_loaded(
    tiny_store: FolderRef, questions: Path, tmp_path: Path
) -> None:
    with questions.open("a", encoding="utf-8") as handle:
        handle.write('\n{"question": "q", "choices": ["a", "b"], "answer": 2}')
    (tmp_path / "0").mkdir()  # nothing that could be loaded
    nothing = CheckpointRef(name="none", path=tmp_path / "0", fingerprint="0")
    folder = FolderRef(path=tmp_path / "0", fingerprint="0")
    with pytest.raises(VersatuneError, match=r"law\.jsonl:7: 'answer' is 2, but the choices are"):
        run(nothing, folder, tiny_store, questions, tmp_path / "evaluations")


def test_any_other_model_is_measured_beside_the_two(
    tiny_checkpoint: CheckpointRef,
    trained: FolderRef,
    tiny_store: FolderRef,
    questions: Path,
    tmp_path: Path,
) -> None:
    models = {"copy": tiny_checkpoint.path, "again": trained.path}
    found = run(
        tiny_checkpoint,
        trained,
        tiny_store,
        questions,
        tmp_path / "evaluations",
        extra_models=models,
    )
    rows, items = found["evaluation"], found["evaluation_items"]
    assert list(rows["model"].unique()) == ["base", "tuned", "copy", "again"]
    numbers = ["domain", "task", "metric", "value", "stderr", "low", "high", "n"]
    for other, ours in (("copy", "base"), ("again", "tuned")):
        one, two = (rows.loc[rows["model"] == m, numbers] for m in (other, ours))
        pd.testing.assert_frame_equal(one.reset_index(drop=True), two.reset_index(drop=True))
    assert items["model"].value_counts().nunique() == 1
    assert set(found["forgetting"].columns) == set(CHANGE_COLUMNS), "others change nothing there"
    assert "copy/nats_per_token/law" in metric_values(rows)


def test_a_model_with_another_vocabulary_is_refused(
    tiny_checkpoint: CheckpointRef,
    trained: FolderRef,
    tiny_store: FolderRef,
    questions: Path,
    tmp_path: Path,
) -> None:
    other = save_tiny(tmp_path / "other", vocab_size=BYTES)
    with pytest.raises(VersatuneError, match=r"last \(.*other\) has another vocabulary than tiny"):
        run(
            tiny_checkpoint,
            trained,
            tiny_store,
            questions,
            tmp_path / "evaluations",
            extra_models={"last": other.path},
        )
