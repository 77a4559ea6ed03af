"""What a reader looks at: changed questions with both answers, prompts answered by both models."""

import json
from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch

from tests.helpers.chats import knowing, small_model, talk, tokenizer_of
from versatune.artifacts import FolderRef
from versatune.data.encode import Encoder, EncoderSpec, Example, to_arrow
from versatune.data.store import TokenizedSplit
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.examples import (
    answer_of,
    answer_prompts,
    both_answers,
    changed_items,
    scored_items,
)
from versatune.evaluation.tasks import LocalTask, read_task
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.modeling.heldout import chosen_rows


@pytest.fixture
def courts(tmp_path: Path) -> LocalTask:
    path = tmp_path / "courts.jsonl"
    rows = [
        {"question": f"q{i}", "choices": ["yes", "no", "it depends", "x"][: 2 + 2 * (i % 2)]}
        | {"answer": i % 2}
        for i in range(4)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return read_task("law", "courts", path)


def items(model: str, answers: list[str]) -> pd.DataFrame:
    right = ["yes", "no", "yes", "no"]
    return pd.DataFrame(
        [
            {
                "model": model,
                "domain": "law",
                "task": "courts",
                "metric": metric,
                "item": f"courts:{i + 1}",
                "score": float(answer == right[i]),
                "weight": 1.0,
                "answer": answer,
            }
            for metric in ("acc", "acc_norm")
            for i, answer in enumerate(answers)
        ]
    )


def test_questions_that_one_model_alone_got_right(courts: LocalTask) -> None:
    both = pd.concat(
        [
            items("base", ["yes", "yes", "yes", "x"]),
            items("tuned", ["yes", "no", "no", "it depends"]),
        ]
    )
    found = changed_items(both, [courts], "base", "tuned").to_dict("records")
    about = {"domain": "law", "task": "courts"}
    assert found == [
        about
        | {"item": "courts:2", "change": "became right", "question": "q1", "truth": "no"}
        | {"base": "yes", "tuned": "no"},
        about
        | {"item": "courts:3", "change": "became wrong", "question": "q2", "truth": "yes"}
        | {"base": "yes", "tuned": "no"},
    ], "a question that both got wrong, each otherwise, did not change"


def test_guessing_is_right_as_often_as_there_are_choices(courts: LocalTask) -> None:
    assert courts.chance() == pytest.approx((1 / 2 + 1 / 4 + 1 / 2 + 1 / 4) / 4)
    assert courts.chance(limit=1) == 1 / 2


def test_the_choice_that_a_metric_takes(courts: LocalTask) -> None:
    """-3 for "no" is more than -4 for "it depends", but by letters -1.5 is less than -0.4."""
    sample = {
        "doc": {"choices": ["yes", "no", "it depends"]},
        "filtered_resps": [(-9.0, False), (-3.0, False), (-4.0, False)],
    }
    assert answer_of(courts, "acc", sample) == "no"
    assert answer_of(courts, "acc_norm", sample) == "it depends"


def test_answers_are_the_greedy_ones_and_end_where_answers_end(
    tiny_checkpoint: CheckpointRef, tiny_store: FolderRef
) -> None:
    model, tokenizer = load_model(tiny_checkpoint, dtype="float32"), load_tokenizer(tiny_checkpoint)
    params = EvaluateParams(examples=1, max_new_tokens=5)
    found = answer_prompts(tiny_store, params, model, tokenizer).answers
    assert found["domain"].tolist() == ["law", "medicine", "code"]
    split = TokenizedSplit.load(tiny_store, "report")
    for row, (number,) in zip(found.to_dict("records"), chosen_rows(split, 1), strict=True):
        assert row["item"] == f"report:{number}"
        of_row = split.dataset[int(number)]
        ids = of_row["input_ids"][of_row["labels"] == -100].tolist()
        made: list[int] = []
        while len(made) < 5 and made[-1:] != [tokenizer.eos_token_id]:
            with torch.no_grad():
                logits = model(torch.tensor([ids + made])).logits
            made.append(int(logits[0, -1].argmax()))
        assert row["answer"] == tokenizer.decode(made, skip_special_tokens=True).strip()


@pytest.mark.parametrize("whose", ["model", "tokenizer"])
def test_an_answer_ends_where_the_model_or_its_tokenizer_ends_one(
    tiny_checkpoint: CheckpointRef, tiny_store: FolderRef, whose: str
) -> None:
    model, tokenizer = load_model(tiny_checkpoint, dtype="float32"), load_tokenizer(tiny_checkpoint)
    split = TokenizedSplit.load(tiny_store, "report")
    of_row = split.dataset[int(chosen_rows(split, 1)[0][0])]
    made = of_row["input_ids"][of_row["labels"] == -100].tolist()
    for _ in range(6):
        with torch.no_grad():
            made.append(int(model(torch.tensor([made])).logits[0, -1].argmax()))
    made = made[-6:]
    model.generation_config.eos_token_id = made[2] if whose == "model" else None
    if whose == "tokenizer":
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(made[2])
    params = EvaluateParams(examples=1, max_new_tokens=6)
    found = answer_prompts(tiny_store, params, model, tokenizer).answers
    ended = made[: made.index(made[2]) + 1]
    said, whole = (tokenizer.decode(m, skip_special_tokens=True).strip() for m in (ended, made))
    assert found["answer"][0] == said != whole


def test_the_truth_is_the_first_answer_of_a_conversation(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("bytes", "chatml")
    talks = [*talk("what is the law", "old river"), *talk("where is it", "here")]
    (row,) = Encoder(EncoderSpec.of(tokenizer), 999, "drop").encode([talks])
    assert isinstance(row, Example)
    store = one_row_a_domain(tmp_path / "store", row)
    params = EvaluateParams(examples=1, max_new_tokens=2)
    found = answer_prompts(store, params, small_model(tokenizer), tokenizer).answers
    assert found["truth"].tolist() == ["old river"]
    assert found["prompt"].str.contains("what is the law").all()
    assert not found["prompt"].str.contains("river").any()


def test_a_row_of_items_by_hand(courts: LocalTask) -> None:
    about = {"domain": "law", "task": "courts", "metric": "acc_norm"}
    sample = {
        "doc": courts.items[1],
        "filtered_resps": [(-9.0, False), (-3.0, False), (-4.0, False), (-7.0, False)],
        "acc": 1.0,
        "acc_norm": 0.0,
    }
    assert scored_items(courts, about, [sample]) == [
        {**about, "item": "courts:2", "score": 0.0, "weight": 1.0, "answer": "it depends"}
    ]


def test_both_models_must_have_been_asked_the_same() -> None:
    one = {"domain": ["law"], "item": ["report:1"], "prompt": ["p"], "truth": ["t"]}
    base, tuned = (pd.DataFrame({**one, "answer": [a]}) for a in ("a", "b"))
    assert both_answers(base, tuned).to_dict("records") == [
        {
            "domain": "law",
            "item": "report:1",
            "prompt": "p",
            "truth": "t",
            "base": "a",
            "tuned": "b",
        }
    ]


def test_an_answer_that_no_token_ends_may_hold_its_last_word_twice(tmp_path: Path) -> None:
    """Under a template without an end token the truth's last token is a word of the answer."""
    tokenizer = tokenizer_of("bytes", "endless")
    model = knowing(tokenizer, [talk("what is the law", "river, old river")], loss_below=0.05)
    (row,) = Encoder(EncoderSpec.of(tokenizer), 64, "drop").encode(
        [talk("what is the law", "river, old river")]
    )
    assert isinstance(row, Example)
    store = one_row_a_domain(tmp_path / "store", row)
    params = EvaluateParams(examples=1, max_new_tokens=row.n_supervised)
    found = answer_prompts(store, params, model, tokenizer).answers
    assert found["answer"].tolist() == found["truth"].tolist() == ["river, old river"]


def one_row_a_domain(folder: Path, row: Example) -> FolderRef:
    """A store whose report rows are ``row`` alone."""
    made = datasets.Dataset(to_arrow([row], [0], ["a:1"]))
    made.save_to_disk(str(folder / "report"))
    return FolderRef(path=folder, fingerprint="f", metadata={"domains": ["law"]})
