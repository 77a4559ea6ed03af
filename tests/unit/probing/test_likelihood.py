"""The likelihood judge on a tiny random model: scores, batching, calibration, refusals."""

import numpy as np
import pytest
import torch

from tests.helpers.chats import saved, small_model, talk, tokenizer_of
from tests.helpers.probe_rows import cleaned
from versatune.data.encode import Encoder, EncoderSpec
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.probing.config import JudgeParams, LikelihoodParams
from versatune.probing.judges import train_judge
from versatune.probing.judges.base import About, Labelled
from versatune.probing.judges.likelihood import Likelihood, Scorer, label_tokens, train
from versatune.work import make_folder

DESCRIPTIONS = {"law": "Courts.", "medicine": "Health.", "other": "All else."}


def params(checkpoint: CheckpointRef, **changed) -> LikelihoodParams:
    given = {"dtype": "float32", "max_text_tokens": 16, "batch_size": 5, **changed}
    return LikelihoodParams(name_or_path=str(checkpoint.path), **given)


@pytest.fixture(scope="module")
def roomy(tmp_path_factory, tiny_checkpoint: CheckpointRef) -> CheckpointRef:
    """The tiny model with room for the question."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("roomy") / "checkpoint"
    model = load_model(tiny_checkpoint, dtype="float32")
    model.config.max_position_embeddings = 1024
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_checkpoint.path).save_pretrained(folder)
    return CheckpointRef.of_folder(folder)


def test_scores_are_the_models_own_whatever_the_batch(roomy, texts):
    scorer = Scorer(roomy, DESCRIPTIONS, params(roomy))
    scores = scorer.scores(texts)
    model = load_model(roomy, dtype="float32")
    for text, row in zip(texts, scores, strict=True):
        ids = scorer.tokens(text)
        asked = [{"role": "user", "content": scorer.question(text)}]
        rendered = scorer.tokenizer.apply_chat_template(asked, tokenize=False)
        assert ids == scorer.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        assert row == pytest.approx(logits.log_softmax(-1)[scorer.ids].numpy(), abs=1e-4)


def test_it_scores_on_a_gpu_where_there_is_one(roomy, monkeypatch):
    moved = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("versatune.modeling.room.device_bytes", lambda: 10**10)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: (moved.append(device), self)[1])
    assert Scorer(roomy, DESCRIPTIONS, params(roomy)).model is not None
    assert moved == ["cuda"]


def test_the_question_holds_text_and_domains(roomy):
    scorer = Scorer(roomy, DESCRIPTIONS, params(roomy))
    prompt = scorer.tokenizer.decode(scorer.tokens("the court rules"))
    assert "the court rules" in prompt
    assert "other: All else." in prompt


def test_long_texts_are_cut(roomy):
    scorer = Scorer(roomy, DESCRIPTIONS, params(roomy))
    assert scorer.tokens("court " * 500) == scorer.tokens("court " * 900)


def test_labels_are_names_unless_they_begin_alike(roomy):
    answers = Scorer(roomy, DESCRIPTIONS, params(roomy)).answers
    labels, ids = label_tokens(answers, ["law", "medicine"])
    assert labels == ["law", "medicine"]
    assert len(set(ids)) == 2
    assert label_tokens(answers, ["court", "court_of_law"])[0] == ["A", "B"]


@pytest.mark.parametrize("template", ["thinking", "llama2", "vicuna"])
def test_labels_are_scored_where_the_template_has_an_answers_content(tmp_path, template):
    """Behind an empty thought or a blank, as the conversation with the label as answer has it."""
    tokenizer = tokenizer_of("bytes", template)
    model = saved(tmp_path / "judge", tokenizer, small_model(tokenizer))
    scorer = Scorer(model, DESCRIPTIONS, params(model))
    rows = Encoder(EncoderSpec.of(tokenizer), 999, "drop").encode(
        [talk(scorer.question("the court rules"), label) for label in DESCRIPTIONS]
    )
    read = scorer.tokens("the court rules")
    for row, label in zip(rows, scorer.ids, strict=True):
        assert row.ids.tolist()[: len(read) + 1] == [*read, label]
    before = {"thinking": "</think>\n\n", "llama2": "[/INST] ", "vicuna": "ASSISTANT: "}
    assert tokenizer.decode(read).endswith(before[template])


def test_the_question_is_a_users_where_a_template_insists(tmp_path):
    tokenizer = tokenizer_of("bytes", "llama2")
    insists = "{% if messages[0].role != 'user' %}{{ raise_exception('a user begins') }}{% endif %}"
    tokenizer.chat_template = insists + tokenizer.chat_template
    model = saved(tmp_path / "judge", tokenizer, small_model(tokenizer))
    assert Scorer(model, DESCRIPTIONS, params(model)).label == "law"


def test_training_calibrates_and_measures_on_other_rows(tmp_path, roomy, clean, texts):
    settings = params(roomy, labelled_per_domain=20)
    ref = make_folder(train(clean, settings, About(DESCRIPTIONS)), tmp_path / "j")
    labelled = Labelled.load(ref)
    assert np.bincount(labelled.labels).tolist() == [10, 10, 10]
    right = labelled.probabilities.argmax(axis=1) == labelled.labels
    assert dict(ref.metadata) == {
        "kind": "likelihood",
        "name": f"likelihood of labels under {roomy.name}",
        "domains": list(DESCRIPTIONS),
        "descriptions": DESCRIPTIONS,
        "labelled_rows": 30,
        "accuracy": pytest.approx(right.mean()),
    }
    assert labelled.probabilities.mean(axis=0) == pytest.approx(np.full(3, 1 / 3), abs=0.1)
    found = Likelihood.load(ref, settings).judge(texts)
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(12))
    assert found.ok.all()
    assert make_folder(train(clean, settings, About(DESCRIPTIONS)), tmp_path / "j") == ref


def test_a_domain_without_rows_is_trusted_and_gets_no_offset(tmp_path, roomy):
    pairs = {name: [("the court", "rules")] * 8 for name in ("law", "medicine")}
    rows = cleaned(tmp_path / "rows", {**pairs, "other": []})
    ref = make_folder(train(rows, params(roomy), About(DESCRIPTIONS)), tmp_path / "j")
    assert Likelihood.load(ref, params(roomy)).offsets.tolist() == [0, 0, 0]
    labelled = Labelled.load(ref)
    assert np.bincount(labelled.labels).tolist() == [4, 4, 1]
    assert labelled.probabilities[-1].tolist() == [0, 0, 1]


def test_a_model_must_be_named(clean):
    with pytest.raises(VersatuneError, match=r"likelihood.name_or_path is empty"):
        train_judge(clean, JudgeParams(kind="likelihood"), About(DESCRIPTIONS))
