"""A model that knows its rows by heart is right on all of them, whatever the chat template."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.chats import (
    TEMPLATES,
    TOKENIZERS,
    framing,
    knowing,
    small_model,
    talk,
    tokenizer_of,
)
from versatune.data.documents import DocumentEncoder, DocumentSpec
from versatune.data.encode import Encoder, EncoderSpec, Example
from versatune.errors import VersatuneError
from versatune.evaluation import harness
from versatune.evaluation.config import CodeParams, EvaluateParams, HarnessParams
from versatune.evaluation.language_model import AnswerLM, ConversationLM, language_model
from versatune.evaluation.sandbox import refusal
from versatune.evaluation.tasks import read_task

ANSWERS = ["old", "old river", "loan", "court of law", "river", "bank", "the judge", "spring"]
WORDS = ["law", "the bank", "river", "judge", "loan", "a court", "number", "spring"]
ROWS = {f"{word} what": answer for word, answer in zip(WORDS, ANSWERS, strict=True)}

KINDS = [
    ("chatml", "bytes-with-bos"),  # the template writes no begin token, the tokenizer adds one
    ("thinking", "bytes"),
    ("thought-begun", "bytes"),
    ("thought-dropped", "pieces-with-bos"),
    ("llama2", "pieces-with-bos"),
    ("vicuna", "pieces"),
    ("vicuna", "bytes"),
    ("blank-prompt", "bytes"),
    ("phi3", "pieces-with-bos"),
    ("zephyr", "bytes"),
    ("marked", "bytes"),
    ("framed", "bytes"),
    ("opened-alone", "bytes"),
    ("marked-in-pieces", "pieces"),
    ("in-parts", "bytes"),
    ("thought-off", "bytes"),
    ("marked-thought-begun", "bytes"),
    ("endless", "bytes"),
    ("words", "pieces-with-bos"),
]


def params(**changes: Any) -> EvaluateParams:
    return EvaluateParams(**changes)


def measured(
    tmp_path: Path,
    items: list[dict[str, Any]],
    model: Any,
    tokenizer: Any,
    thoughts: Any = None,
    **changes: Any,
) -> dict[str, float]:
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    task = read_task("law", "items", path)
    found = harness.measure_local(task, params(**changes), model, tokenizer, thoughts=thoughts)
    return dict(zip(found.rows["metric"], found.rows["value"], strict=True))


CHOSEN = [{"question": q, "choices": ANSWERS, "answer": ANSWERS.index(a)} for q, a in ROWS.items()]
WRITTEN = [{"question": question, "answer": answer} for question, answer in ROWS.items()]


@pytest.mark.parametrize(("template", "kind"), KINDS)
def test_all_its_answers_are_right(template: str, kind: str, tmp_path: Path) -> None:
    """Choices of which one begins another too; and the answers it writes, up to their end."""
    tokenizer = tokenizer_of(kind, template)
    model = knowing(tokenizer, [talk(question, answer) for question, answer in ROWS.items()])
    chosen = measured(tmp_path, CHOSEN, model, tokenizer, "none")
    assert chosen == {"acc": 1.0, "acc_norm": 1.0}
    assert measured(tmp_path, WRITTEN, model, tokenizer, "none") == {"exact_match": 1.0}


@pytest.mark.parametrize(
    ("kind", "frame"), [("bytes", "<s> $A </s>"), ("pieces", "<|user|> <|end|> $A </s>")]
)
def test_plain_questions_begin_as_documents_do(kind: str, frame: str) -> None:
    """Without the chat format: what a tokenizer puts behind texts doesn't end a question, and what
    it puts before them is there. A choice's score by hand, of a random model."""
    tokenizer = framing(tokenizer_of(kind, "chatml"), frame)
    model = small_model(tokenizer).eval()
    lm = language_model(AnswerLM, model, tokenizer, 2, 64)
    ((asked,), (row,)) = DocumentEncoder(DocumentSpec.of(tokenizer), 64).encode(
        ["what is the law", "what is the law court"]
    )
    begin = tokenizer.convert_tokens_to_ids(frame.partition(" $A")[0].split())
    assert row.ids[: len(begin)].tolist() == begin
    assert row.spans == [(len(begin), len(row.ids))]
    assert int(row.ids[-1]) == tokenizer.eos_token_id
    question, ids = asked.ids[:-1], torch.tensor(row.ids[:-1].tolist())
    with torch.no_grad():
        logits = model(ids[None]).logits[0].log_softmax(-1)
    expected = sum(float(logits[i - 1, ids[i]]) for i in range(len(question), len(ids)))
    ((score, _),) = lm.loglikelihood([_request("what is the law", " court", 0)])
    assert score == pytest.approx(expected, abs=1e-3)
    batch, _ = lm.tok_batch_encode(["what is the law"])
    assert batch.tolist() == [question.tolist()]


@pytest.mark.parametrize("chat", [True, False])
def test_choices_that_the_model_reads_as_one_are_refused(chat: bool, tmp_path: Path) -> None:
    """Other texts, the same tokens: of a tokenizer without case, of a template that trims dots."""
    from tokenizers import normalizers

    folding, trimming = tokenizer_of("bytes", "chatml"), tokenizer_of("bytes", "chatml")
    folding.backend_tokenizer.normalizer = normalizers.Lowercase()
    insists = "{% if messages[0].role != 'user' %}{{ raise_exception('a user begins') }}{% endif %}"
    trims = trimming.chat_template.replace("m.content", "m.content.rstrip('.')")
    trimming.chat_template = insists + trims
    for tokenizer, other in ((folding, "Old"), (trimming, "old.")):
        items = [CHOSEN[0], {**CHOSEN[1], "choices": ["old", "river", other], "answer": 1}]
        model = small_model(tokenizer)
        if chat or tokenizer is folding:
            with pytest.raises(VersatuneError, match=rf"items.jsonl:2: .*'old' and '{other}'"):
                measured(tmp_path, items, model, tokenizer, apply_chat_template=chat)
        else:
            measured(tmp_path, items, model, tokenizer, apply_chat_template=chat)


@pytest.mark.parametrize("items", [CHOSEN, WRITTEN])
def test_a_question_of_tokens_that_the_model_lacks_is_refused(
    items: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Added to the tokenizer alone; the harness's own tasks have no line to name."""
    tokenizer = tokenizer_of("bytes", "chatml")
    model = small_model(tokenizer)
    tokenizer.add_tokens(["spring what"])
    added = tokenizer.convert_tokens_to_ids("spring what")
    with pytest.raises(VersatuneError, match=rf"items.jsonl:8: .* {added} \('spring what'\)"):
        measured(tmp_path, items, model, tokenizer)
    lm = language_model(ConversationLM, model, tokenizer, 2, 64)
    with pytest.raises(VersatuneError, match=rf"holds the token {added} .*resize_token"):
        lm.loglikelihood([_request("the spring what", " court", 0)])


def test_a_real_thought_is_no_part_of_the_answer(tmp_path: Path) -> None:
    """Also where the template leaves it to the content, and where the text has no end token."""
    for template in ("thinking", "chatml"):
        tokenizer = tokenizer_of("bytes", template)
        thought = "<think>\nit is number\n</think>\n\n"
        talks = [talk(question, f"{thought}{answer}") for question, answer in ROWS.items()]
        model = knowing(tokenizer, talks)
        assert measured(tmp_path, WRITTEN, model, tokenizer) == {"exact_match": 1.0}


THOUGHTS = ["it is old", "a river", "number", "what is", "spring", "user", "old judge", "loan"]


def thinking_rows(rows: str, form: str) -> list[list[dict[str, str]]]:
    """The rows with a thought ``beside`` or ``within`` the content; every second if ``some``."""
    talks = []
    for number, ((question, answer), thought) in enumerate(
        zip(ROWS.items(), THOUGHTS, strict=True)
    ):
        asked, said = talk(question, answer)
        if (rows == "all" or number % 2) and form == "beside":
            said["reasoning_content"] = thought
        elif rows == "all" or number % 2:
            said["content"] = f"<think>\n{thought}\n</think>\n\n{answer}"
        talks.append([asked, said])
    return talks


@pytest.mark.parametrize(
    ("template", "kind", "rows", "form"),
    [
        ("thinking", "bytes", "some", "beside"),
        ("thought-dropped", "pieces-with-bos", "all", "within"),
        ("thought-dropped", "bytes", "some", "beside"),
        ("thought-off", "bytes", "all", "beside"),
        ("thought-off", "pieces", "some", "beside"),  # a text by itself has a blank before it
        ("marked-thought-begun", "bytes", "some", "beside"),
        ("thought-begun", "pieces", "all", "beside"),
        ("thought-closed", "bytes", "some", "beside"),
        ("channels", "pieces", "some", "beside"),
        ("framed", "bytes", "some", "within"),
        ("vicuna", "pieces", "all", "within"),
    ],
)
def test_all_its_answers_are_right_that_it_thinks_about(
    template: str, kind: str, rows: str, form: str, tmp_path: Path
) -> None:
    """Choices too, which are scored behind the thought that it writes itself."""
    tokenizer = tokenizer_of(kind, template)
    model = knowing(tokenizer, thinking_rows(rows, form), loss_below=0.004)
    assert measured(tmp_path, CHOSEN, model, tokenizer) == {"acc": 1.0, "acc_norm": 1.0}
    found = measured(tmp_path, WRITTEN, model, tokenizer, max_new_tokens=8)
    assert found == {"exact_match": 1.0}


def test_a_thought_that_does_not_end_is_no_answer_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its budget is beside the answer's; without one there is no room for a long thought."""
    tokenizer = tokenizer_of("bytes", "thinking")
    talks = thinking_rows("all", "beside")
    for _, said in talks:
        said["reasoning_content"] = "the old river judge " * 3
    model = knowing(tokenizer, talks)
    asked = {"max_new_tokens": 6}
    assert measured(tmp_path, WRITTEN, model, tokenizer, **asked) == {"exact_match": 1.0}
    assert not caplog.records
    found = measured(tmp_path, WRITTEN, model, tokenizer, **asked, max_thought_tokens=2)
    assert found == {"exact_match": 0.0}
    assert (
        "items: 8 of 8 thoughts did not end within evaluate.max_thought_tokens (2)" in caplog.text
    )


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", [name for name in TEMPLATES if "thought" not in name])
def test_a_choice_has_the_loss_of_its_training_row(kind: str, template: str) -> None:
    """Of a random model, by hand: the supervised tokens of the row, the end token included.

    The end is scored since one choice begins the other. What the template writes before a content
    is the same for both, and not scored.
    """
    tokenizer = tokenizer_of(kind, template)
    model = small_model(tokenizer).eval()
    lm = language_model(ConversationLM, model, tokenizer, 2, 64)
    question = lm.apply_chat_template([{"role": "user", "content": "what is the law"}])
    requests = [_request(question, choice, i) for i, choice in enumerate(["the", "the court"])]
    for request, (score, _) in zip(requests, lm.loglikelihood(requests), strict=True):
        messages = talk("what is the law", request.args[1])
        (row,) = Encoder(EncoderSpec.of(tokenizer), 256, "drop").encode([messages])
        assert isinstance(row, Example)
        first, end = row.spans[0]
        while request.args[1] in tokenizer.decode(row.ids[first + 1 : end]):
            first += 1
        ids = torch.tensor(row.ids.tolist())
        with torch.no_grad():
            logits = model(ids[None]).logits[0].log_softmax(-1)
        expected = sum(float(logits[i - 1, ids[i]]) for i in range(first, end))
        assert score == pytest.approx(expected, abs=1e-3)


def _request(question: str, choice: str, number: int) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, (question, choice), number, ("task", 0, 1))


@pytest.mark.skipif(refusal() is not None, reason=f"no isolation here: {refusal()}")
@pytest.mark.parametrize("thought", ["", "it is\n\nnumber"])
def test_a_program_after_a_thought_passes(thought: str, tmp_path: Path) -> None:
    """Empty or not; its length is beside that of the program."""
    from versatune.evaluation import programs

    items = [{"text": f"Write f{i}.", "test_list": [f"assert f{i}() == {i}"]} for i in range(2)]
    tokenizer = tokenizer_of("bytes", "thinking")
    talks = [
        talk(
            programs.question("mbpp", item, chat=True),
            f"```python\ndef f{i}():\n    return {i}\n```",
        )
        for i, item in enumerate(items)
    ]
    for _, said in talks if thought else []:
        said["reasoning_content"] = thought
    model = knowing(tokenizer, talks)
    code = CodeParams(run=True, apply_chat_template=True, max_new_tokens=40)
    assert measured(tmp_path, items, model, tokenizer, code=code) == {"pass@1": 1.0}


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> HarnessParams:
    """The rows as tasks in the harness's own format; a blank line ends the written answers."""
    folder = tmp_path_factory.mktemp("named")
    data = folder / "items.jsonl"
    data.write_text("\n".join(map(json.dumps, CHOSEN)), encoding="utf-8")
    tasks = folder / "tasks"
    tasks.mkdir()
    about = f"""
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}, cache_dir: "{folder / "cache"}"}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
    (tasks / "choices.yaml").write_text(
        f"""task: versatune_known_choices
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: answer
{about}""",
        encoding="utf-8",
    )
    (tasks / "texts.yaml").write_text(
        f"""task: versatune_known_texts
output_type: generate_until
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 16}}
doc_to_target: "{{{{choices[answer]}}}}"
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
{about}""",
        encoding="utf-8",
    )
    return HarnessParams(include_path=tasks)


@pytest.mark.parametrize("template", ["thinking", "llama2"])
def test_tasks_of_the_harness_are_asked_the_same_way(template: str, named: HarnessParams) -> None:
    tokenizer = tokenizer_of("bytes-with-bos", template)
    model = knowing(tokenizer, [talk(question, answer) for question, answer in ROWS.items()])
    for task, metric in (("choices", "acc"), ("texts", "exact_match")):
        found = harness.measure_named(
            "law", f"versatune_known_{task}", params(harness=named), model, tokenizer
        )
        assert found.rows.set_index("metric").loc[metric, "value"] == 1.0


@pytest.mark.parametrize("template", ["thinking", "thought-off"])
def test_tasks_of_the_harness_are_thought_about(template: str, named: HarnessParams) -> None:
    """A blank line, at which the task ends an answer, does not end a thought."""
    tokenizer = tokenizer_of("bytes", template)
    talks = thinking_rows("all", "beside")
    for _, said in talks:
        said["reasoning_content"] += "\n\nnumber"
    model = knowing(tokenizer, talks, loss_below=0.004)
    for task, metric in (("choices", "acc"), ("texts", "exact_match")):
        found = harness.measure_named(
            "law", f"versatune_known_{task}", params(harness=named), model, tokenizer
        )
        assert found.rows.set_index("metric").loc[metric, "value"] == 1.0


def test_a_system_turn_that_the_template_refuses_is_left_out() -> None:
    tokenizer = tokenizer_of("bytes", "chatml")
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + TEMPLATES["chatml"]
    )
    lm = language_model(ConversationLM, small_model(tokenizer), tokenizer, 1, 64)
    asked = [{"role": "system", "content": "b"}, {"role": "user", "content": "a"}]
    assert lm.apply_chat_template(asked) == lm.apply_chat_template(asked[1:])
    tokenizer.chat_template = "{{ raise_exception('not today') }}"
    lm = language_model(ConversationLM, small_model(tokenizer), tokenizer, 1, 64)
    with pytest.raises(VersatuneError, match=r"question 'a' can't be asked .*not today"):
        lm.apply_chat_template(asked)


def test_the_model_of_another_end_token_stops_at_the_templates(tmp_path: Path) -> None:
    """A base that goes on with the next turn, and whose own end token is another."""
    tokenizer = tokenizer_of("bytes", "chatml")
    model = knowing(tokenizer, [talk(*row) for row in ROWS.items()])
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.eos_token != "<|im_end|>"
    assert measured(tmp_path, WRITTEN, model, tokenizer, max_new_tokens=40) == {"exact_match": 1.0}
