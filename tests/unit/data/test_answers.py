"""An answer's tokens, content and end, under templates and tokenizers of the usual kinds."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.helpers.chats import TEMPLATES, TOKENIZERS, byte_level, sentencepiece, talk, tokenizer_of
from versatune.data.answers import Answers, stop_tokens
from versatune.data.conversations import Messages, RejectedError
from versatune.data.documents import DocumentEncoder, DocumentSpec
from versatune.data.encode import Encoder, EncoderSpec, Example

ASKED: Messages = [{"role": "user", "content": "what is the law"}]
CHOICES = ["the court", "the old court", "a loan", "River 12", "(no)"]

MARKED_OF_PROMPT = {
    "marked-with-prompt": "<|im_start|>assistant\n",
    "marked-thought-begun": "<|assistant|>",
}

every_template = pytest.mark.parametrize("template", TEMPLATES)
every_tokenizer = pytest.mark.parametrize("kind", TOKENIZERS)


def row(tokenizer: Any, messages: Messages) -> tuple[list[int], int, int]:
    """A training row's ids, and where its last answer begins and ends."""
    (example,) = Encoder(EncoderSpec.of(tokenizer), 999, "drop").encode([messages])
    assert isinstance(example, Example), example
    return example.ids.tolist(), *example.spans[-1]


@every_template
@every_tokenizer
def test_what_is_scored_is_the_training_row_with_this_answer(kind: str, template: str) -> None:
    """To the token, begin token and all; every choice after the same tokens."""
    tokenizer = tokenizer_of(kind, template)
    pairs = Answers(tokenizer).choices(ASKED, CHOICES)
    assert len({tuple(before) for before, _ in pairs}) == 1
    for choice, (before, scored) in zip(CHOICES, pairs, strict=True):
        ids, _, end = row(tokenizer, talk("what is the law", choice))
        assert before + scored == ids[: len(before) + len(scored)]
        assert tokenizer.decode(scored).strip() == choice
        assert len(before) + len(scored) <= end


@every_template
@every_tokenizer
def test_the_end_is_scored_where_a_choice_begins_another(kind: str, template: str) -> None:
    """Without the end, the shorter one could not be less likely than the longer."""
    tokenizer = tokenizer_of(kind, template)
    pairs = Answers(tokenizer).choices(ASKED, ["the old", "a bank", "the old river"])
    for choice, pair in zip(["the old", "a bank", "the old river"], pairs, strict=True):
        ids, _, end = row(tokenizer, talk("what is the law", choice))
        assert [*pair[0], *pair[1]] == ids[:end]


@every_template
@every_tokenizer
def test_a_model_is_asked_as_the_training_row_asks_it(kind: str, template: str) -> None:
    """The prompt ends where supervision begins, so the model writes what it was taught to."""
    tokenizer = tokenizer_of(kind, template)
    asked = Answers(tokenizer).prompt(ASKED)
    for answer in ("the court", "Loan", "law 12", "12 laws", "-5", "(no)"):
        ids, first, _ = row(tokenizer, talk("what is the law", answer))
        # Some words take the prompt's last blank into their first token, digits don't.
        prompt = ids[:first]
        # Templates that mark words of the prompt supervise them too.
        marked = MARKED_OF_PROMPT.get(template, "")
        prompt += tokenizer.encode(marked, add_special_tokens=False) if marked else []
        assert asked == prompt


def written(tokenizer: Any, answer: str) -> str:
    """What a model generates that knows the row: its tokens after the prompt, up to the end."""
    asked, ids = Answers(tokenizer).prompt(ASKED), row(tokenizer, talk("what is the law", answer))
    assert ids[0][: len(asked)] == asked
    tokens = ids[0][len(asked) : ids[2]]
    if tokens[-1] == Answers(tokenizer).end:
        tokens.pop()
    return str(tokenizer.decode(tokens, skip_special_tokens=False))


@every_template
@every_tokenizer
def test_a_row_that_is_written_again_has_its_content(kind: str, template: str) -> None:
    tokenizer = tokenizer_of(kind, template)
    answers = Answers(tokenizer)
    for answer in ("the court", "12 laws", "-5", "a\nbank", "[1 2]"):
        assert answers.content(written(tokenizer, answer)).strip() == answer


def test_letters_of_the_prompt_in_the_first_token_are_no_part_of_the_answer() -> None:
    """A tokenizer that does not part at blanks has tokens such as a colon and the blank after."""
    raw = sentencepiece().backend_tokenizer
    spec = json.loads(raw.to_str())
    spec["model"]["vocab"][":\u2581"] = len(spec["model"]["vocab"]) + 100
    spec["model"]["merges"].insert(0, [":", "\u2581"])
    for template in ("vicuna", "blank-prompt"):
        tokenizer = tokenizer_of("pieces", template)
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(spec))
        assert tokenizer.decode(Answers(tokenizer).prompt(ASKED)).endswith(("ASSISTANT", "A"))
        assert written(tokenizer, "12 laws") == ": 12 laws"
        assert Answers(tokenizer).content(": 12 laws") == "12 laws"


@pytest.mark.parametrize("template", ["thinking", "llama2", "framed", "marked"])
@given(st.lists(st.text("ab é\n黄<|>'s [/1", min_size=1, max_size=9), min_size=2, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_choices_are_scored_as_their_rows_hold_them(template: str, choices: list[str]) -> None:
    tokenizer = tokenizer_of("bytes-with-bos", template)
    try:
        pairs = Answers(tokenizer).choices(ASKED, choices)
    except RejectedError:
        assert not all(choice.strip() for choice in choices)
        return
    for choice, (before, scored) in zip(choices, pairs, strict=True):
        ids, _, end = row(tokenizer, talk("what is the law", choice))
        assert before + scored == ids[: len(before) + len(scored)]
        assert len(before + scored) in range(end - 12, end + 1)
        assert tokenizer.decode(scored).lstrip().startswith(choice.strip())


def test_typed_control_tokens_are_scored_as_text() -> None:
    tokenizer = tokenizer_of("bytes", "chatml")
    pairs = Answers(tokenizer).choices(ASKED, ["a<|im_end|>", "b"])
    assert [tokenizer.decode(scored) for _, scored in pairs] == ["a<|im_end|>", "b"]
    assert not {*pairs[0][1]} & {*tokenizer.all_special_ids}


def test_earlier_turns_and_the_beginning_of_the_answer_belong_to_the_question() -> None:
    tokenizer = tokenizer_of("bytes", "llama2")
    shown = [*talk("why", "the loan"), *ASKED]
    before, scored = Answers(tokenizer).choices(shown, [" court", " bank"], "Answer:")[0]
    assert before + scored == row(tokenizer, [*shown, *talk("", "Answer: court")[1:]])[0][:-2]
    assert tokenizer.decode(scored) == " court"
    asked = Answers(tokenizer).prompt(shown, "Answer:")
    assert tokenizer.decode(asked).endswith("what is the law [/INST] Answer:")


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("chatml", "<|im_end|>"),
        ("thinking", "<|im_end|>"),
        ("llama2", "</s>"),
        ("phi3", "<|end|>"),
        ("llama3", "<|im_end|>"),
        ("marked", "<|im_end|>"),
        ("framed", "<|end|>"),
        ("channels", "<|im_end|>"),
        ("opened-alone", "<|user|>"),  # the next turn's, which is not there
        ("marked-in-pieces", "</s>"),
        ("in-parts", "<|im_end|>"),
        ("endless", "</s>"),  # the tokenizer's, as behind a document
        ("words", "</s>"),
    ],
)
def test_the_end_of_an_answer_is_what_the_template_writes_there(
    template: str, end: str | None
) -> None:
    """It is the last supervised token of a row, and generation stops at it."""
    tokenizer = tokenizer_of("bytes", template)
    found = Answers(tokenizer).end
    assert found == (tokenizer.convert_tokens_to_ids(end) if end else None)
    ids, _, last = row(tokenizer, talk("why", "the court"))
    assert end is None or ids[last - 1] == found


def test_words_that_end_an_answer_are_supervised_and_followed_by_an_end() -> None:
    """As a base was not extended by ChatML's tokens; before a turn's token, that ends it (GLM)."""
    talks = [*talk("why", "court"), *talk("what", "loan")]
    words = TEMPLATES["words"]
    for template, ends in (
        (words, ("\n[over]", "\n[over]\n</s>")),
        (words.replace("'[' + m.role + ']", "'<|' + m.role + '|>"), ("\n[over]\n<|user|>",) * 2),
    ):
        tokenizer = byte_level()
        tokenizer.chat_template = template
        (example,) = Encoder(EncoderSpec.of(tokenizer), 99, "drop").encode([talks])
        assert isinstance(example, Example)
        said = [tokenizer.decode(example.ids[first:end]) for first, end in example.spans]
        assert said == [f"court{ends[0]}", f"loan{ends[1]}"]
        shown = tokenizer.apply_chat_template(talks, tokenize=False)
        assert tokenizer.decode(example.ids) == shown + ends[1].rpartition("\n")[2]
        assert Answers(tokenizer).content("the court\n[over]\n") == "the court"


@pytest.mark.parametrize(
    ("template", "with_thought", "without"),
    [
        (
            "thought-closed",
            "<|user|>why<|assistant|>{<think>\na judge\n</think>\n\ncourt</s>}",
            "<|user|>what<|assistant|></think>{loan</s>}",
        ),
        (
            "thought-optional",
            "<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n<think>\n"
            "{a judge\n</think>\n\ncourt<|im_end|>}",
            "\n<|im_start|>user\nwhat<|im_end|>\n<|im_start|>assistant\n{loan<|im_end|>}",
        ),
        (
            "thought-tagged",
            "<|user|>why<|assistant|>{<think>\na judge\n</think>\n<answer>\ncourt\n</answer></s>}",
            "<|user|>what<|assistant|>{<think>\n\n</think>\n<answer>\nloan\n</answer></s>}",
        ),
    ],
)
def test_a_row_may_have_a_thought_in_one_turn_and_none_in_the_next(
    template: str, with_thought: str, without: str
) -> None:
    """What is supervised stands in braces; a thought that the template drops has its own place."""
    tokenizer = byte_level()
    tokenizer.chat_template = TEMPLATES[template]
    talks = [*talk("why", "court"), *talk("what", "loan")]
    talks[1]["reasoning_content"] = "a judge"
    (found,) = Encoder(EncoderSpec.of(tokenizer), 99, "drop").encode([talks])
    assert isinstance(found, Example), found
    shown = ""
    for example in found.all:
        at = 0
        for first, end in example.spans:
            before, said = (
                tokenizer.decode(example.ids[a:b]) for a, b in ((at, first), (first, end))
            )
            shown, at = f"{shown}{before}{{{said}}}", end
    assert with_thought in shown and without in shown


def test_marks_of_turns_that_were_only_added_are_control_tokens() -> None:
    """With ``add_tokens``, as people extend a base: the end is supervised and stops, typed marks
    stay text, in documents too. A word that was added stays a word, a tag of thoughts a tag."""
    tokenizer = byte_level(special=False)
    tokenizer.add_tokens(["<think>", "</think>", "user", "tribunal", "<tool_call>", "  "])
    tokenizer.chat_template = TEMPLATES["thinking"]
    assert EncoderSpec.of(tokenizer).control == ("</s>", "<s>", "<|im_end|>", "<|im_start|>")
    end, start = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"])
    assert Answers(tokenizer).end == end
    assert stop_tokens(tokenizer, tokenizer.eos_token_id) == [end, tokenizer.eos_token_id]
    said = "the tribunal<|im_end|><|im_start|><tool_call>"
    ids, first, last = row(tokenizer, talk("why", said))
    assert ids[last - 1] == end
    assert ids[first:last].count(end) == 1 and start not in ids[first:last]
    kept = tokenizer.convert_tokens_to_ids(["<think>", "</think>", "tribunal", "<tool_call>"])
    assert set(kept) <= set(ids[first:last])
    assert Answers(tokenizer).content(tokenizer.decode(ids[first : last - 1])) == (
        "the tribunal<tool_call>"
    )
    (document,) = DocumentEncoder(DocumentSpec.of(tokenizer), 99).encode([said])
    assert isinstance(document, list)
    assert {end, start}.isdisjoint(document[0].ids.tolist())


def test_the_ends_of_the_base_model_stay() -> None:
    tokenizer = tokenizer_of("bytes", "chatml")
    end, own = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert stop_tokens(tokenizer, own) == [end, own]
    assert stop_tokens(tokenizer, [own, end]) == [own, end]
    assert stop_tokens(tokenizer, None) == [end]
    tokenizer.chat_template = TEMPLATES["endless"]
    assert stop_tokens(tokenizer, own) == [tokenizer.eos_token_id, own]
    tokenizer.eos_token = None
    assert stop_tokens(tokenizer, own) == [own]
    assert stop_tokens(tokenizer, None) == []
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert stop_tokens(tokenizer, [own]) == [own]


@pytest.mark.parametrize(
    ("template", "written", "content"),
    [
        ("chatml", "the court", "the court"),
        ("chatml", "<think>\nwhy\n</think>\n\nthe court", "the court"),
        ("chatml", "text.split('</think>')", "text.split('</think>')"),
        ("thinking", "<think>\n\n</think>\n\nthe court", "the court"),
        ("thinking", "<think>\nit may be\n</think>\n\nthe court", "the court"),
        ("thinking", "the court", "the court"),
        ("thinking", "<think>\nit may be the court", ""),
        ("thought-begun", "\n</think>\n\nthe court", "the court"),
        ("thought-begun", "it may be\n</think>\n\nthe court", "the court"),
        ("thought-begun", "it may be the court", ""),
        ("thought-dropped", "it may be</think>the court", "the court"),
        ("llama2", " the court ", "the court"),
        ("framed", " [the court] over", "the court"),
        ("framed", "the court", "the court"),
    ],
)
def test_the_content_of_a_written_answer_is_what_the_template_calls_so(
    template: str, written: str, content: str
) -> None:
    assert Answers(tokenizer_of("bytes", template)).content(written) == content


def test_a_thought_has_the_marks_that_the_template_gives_it() -> None:
    """As in templates with channels: a thought ends where the turn's next part begins."""
    tokenizer = byte_level()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content + '<|end|>' }}"
        "{% else %}{{ '<|assistant|>' }}{% if m.thinking %}"
        "{{ '[plan]' + m.thinking + '<|end|><|assistant|>' }}{% endif %}"
        "{{ '[final]' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    answers = Answers(tokenizer)
    assert answers.content("[plan]why<|end|><|assistant|>[final]the court") == "the court"
    assert answers.content("[final]the court") == "the court"
    assert tokenizer.convert_ids_to_tokens(answers.end) == "<|im_end|>"
    assert answers.thinks


@pytest.mark.parametrize(
    ("template", "prompt"),
    [("chatml", None), ("thinking", None), ("channels", None), ("thought-begun", None),
     ("marked-thought-begun", None), ("thought-dropped", "<|assistant|><think>\n"),
     ("thought-off", "<|im_start|>assistant\n")],
)  # fmt: skip
def test_rows_with_a_thought_may_have_a_prompt_of_their_own(
    template: str, prompt: str | None
) -> None:
    """Where the prompt itself decides on it, in training and so in evaluation."""
    tokenizer = tokenizer_of("bytes", template)
    found = Answers(tokenizer).thinking_prompt(ASKED)
    if prompt is None:
        assert found is None
        return
    assert found is not None
    answer = {"role": "assistant", "content": "b", "reasoning_content": "why"}
    ids, first, _ = row(tokenizer, [*ASKED, answer])
    assert found[1] == ids[:first]
    assert found[0].endswith(prompt) and tokenizer.decode(found[1]) == found[0]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", ["thinking", "channels", "thought-dropped", "vicuna"])
def test_a_choice_behind_a_thought_is_the_row_with_both(kind: str, template: str) -> None:
    """To the token, where the thought is what a model writes that knows the row."""
    tokenizer = tokenizer_of(kind, template)
    answers = Answers(tokenizer)
    answer = {"role": "assistant", "content": "the court", "reasoning_content": "a judge"}
    if template == "vicuna":
        answer = {"role": "assistant", "content": "<think>\na judge\n</think>\n\nthe court"}
    ids, _, end = row(tokenizer, [*ASKED, answer])
    asked = answers.thinking_prompt(ASKED)
    before = asked[1] if asked else answers.prompt(ASKED)
    text = tokenizer.decode(ids[len(before) : end - 1], skip_special_tokens=False)
    written = answers.read(text, thinking=asked is not None)
    assert (written.content.strip(), written.thought) == ("the court", "a judge")
    choices = ["the court", "the court of law"]
    (first, scored), _ = answers.choices(ASKED, choices, lead=written.lead)
    assert first + scored == ids[:end]
    assert tokenizer.decode(scored).strip().startswith("the court")
    cut = answers.read(text.partition("judge")[0], thinking=asked is not None)
    assert (cut.content, cut.ended) == ("", False)


@pytest.mark.parametrize(
    ("template", "alone"),
    [("chatml", ""), ("thought-begun", ""), ("thought-off", ""), ("vicuna", ""),
     ("thought-dropped", "<think>\n"), ("marked-thought-begun", "<think>\n")],
)  # fmt: skip
def test_what_only_the_prompt_has_is_known(template: str, alone: str) -> None:
    """The trained model, asked by its template, would go on where no row does."""
    assert Answers(tokenizer_of("bytes", template)).prompt_alone == alone


def test_answers_in_the_midst_end_with_the_token_of_the_next_turn() -> None:
    """And the last one too, which the template leaves open."""
    tokenizer = tokenizer_of("bytes", "opened-alone")
    messages = [*talk("why", "the loan"), *talk("what is the law", "the court")]
    (example,) = Encoder(EncoderSpec.of(tokenizer), 999, "drop").encode([messages])
    assert isinstance(example, Example)
    said = [tokenizer.decode(example.ids[first:end]) for first, end in example.spans]
    assert said == ["\nthe loan<|user|>", "\nthe court<|user|>"]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(example.ids) == text + "<|user|>"


@pytest.mark.parametrize("template", ["thought-off", "marked-thought-begun"])
def test_a_thought_takes_the_place_of_the_empty_one(template: str) -> None:
    tokenizer = tokenizer_of("bytes", template)
    answer = {"role": "assistant", "content": "the court", "reasoning_content": "a judge"}
    (example,) = Encoder(EncoderSpec.of(tokenizer), 999, "drop").encode([[*ASKED, answer]])
    assert isinstance(example, Example)
    text = tokenizer.apply_chat_template([*ASKED, answer], tokenize=False)
    assert tokenizer.decode(example.ids) == text
    ((first, end),) = example.spans
    thought = "<think>\na judge\n</think>\n\nthe court"
    written = tokenizer.decode(example.ids[first : end - 1]).removeprefix("<|assistant|>")
    assert written == thought
    assert Answers(tokenizer).content(tokenizer.decode(example.ids[first : end - 1])) == "the court"


def test_contents_are_given_in_parts_where_the_template_takes_no_texts() -> None:
    tokenizer = tokenizer_of("bytes", "in-parts")
    messages = talk("what is the law", "the court")
    in_parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    ids, first, end = row(tokenizer, messages)
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(in_parts, tokenize=False)
    assert tokenizer.decode(ids[first:end]) == " the court<|im_end|>"
