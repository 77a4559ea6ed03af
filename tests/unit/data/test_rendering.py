"""The rendered text is ``apply_chat_template``'s, and what is supervised is what is asked for.

Templates of the usual kinds, small and written here.
"""

import json
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from versatune.data.conversations import RejectedError, conversation
from versatune.data.encode import Encoder, EncoderSpec, Example
from versatune.data.own_templates import chat_templates
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer

HEAD = "{{ '<|im_start|>' + m['role'] + '\n' }}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = (
    "{% for m in messages %}" + HEAD + "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}" + PROMPT
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}{% endif %}"
) + CHATML
NO_TOOLS_SAID = "{% if tools is none %}{{ 'No tools.\n' }}{% endif %}" + CHATML
TOOLS_LISTED = (
    "{% if tools is not none %}{% for t in tools %}{{ 'tool: ' + (t | tojson) + '\n' }}{% endfor %}"
    "{% endif %}"
)
DOCUMENTS = (
    "{% if documents is not none %}{% for d in documents %}"
    "{{ d['title'] + ': ' + d['text'] + '\n' }}{% endfor %}{% endif %}"
)
CALLS = (
    "{% for c in m.tool_calls or [] %}"
    "{{ 'call ' + c.function.name + ' ' + (c.function.arguments | tojson) }}{% endfor %}"
)
WITH_TOOLS = (
    TOOLS_LISTED + "{% for m in messages %}" + HEAD + "{{ m['content'] }}" + CALLS
    + "{{ '<|im_end|>\n' }}{% endfor %}" + PROMPT
)  # fmt: skip
CALLS_AS_TEXT = WITH_TOOLS.replace("(c.function.arguments | tojson)", "c.function.arguments")
NAMES = CHATML.replace("m['role'] +", "m['role'] + (' ' + m['name'] if m['name'] else '') +")
MARKED = (
    "{% for m in messages %}" + HEAD + "{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}" + PROMPT
)
TRIMMED = CHATML.replace("m['content']", "(m['content'] | trim)")
EOS_AT_THE_END = CHATML + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
CLOSED_BY_EOS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ ' ' + m['content'] + eos_token }}{% else %}{{ '[' + m['content'] + ']' }}{% endif %}"
    "{% endfor %}"
)
# Thoughts of the current question are shown, an empty one where there is none; earlier ones go.
THOUGHTS = (
    "{% set ns = namespace(last=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{% for m in messages %}" + HEAD + "{% if m.role == 'assistant' %}"
    "{% set text = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% set thought = m.reasoning_content if m.reasoning_content is defined else "
    "(m.content.split('</think>')[0].split('<think>')[-1].strip('\n') if '</think>' in m.content "
    "else '') %}"
    "{% if loop.index0 > ns.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
    "{{ text }}" + CALLS + "{{ '<|im_end|>\n' }}"
    "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}" + PROMPT
)
# No thought is ever shown, and the prompt begins one.
OPENED = (
    "{% for m in messages %}" + HEAD
    + "{{ m['content'].split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)  # fmt: skip
EVERY = {
    "chatml": CHATML,
    "default system": DEFAULT_SYSTEM,
    "no tools said": NO_TOOLS_SAID,
    "tools listed": TOOLS_LISTED + CHATML,
    "documents": DOCUMENTS + CHATML,
    "with tools": WITH_TOOLS,
    "names": NAMES,
    "marked": MARKED,
    "trimmed": TRIMMED,
    "eos at the end": EOS_AT_THE_END,
    "closed by eos": CLOSED_BY_EOS,
    "thoughts": THOUGHTS,
    "a whole message": "{{ messages[0] | tojson }}" + CHATML,
    "what is defined": "{{ tools is defined }}{{ documents is defined }}{{ nothing is defined }}"
    + CHATML,
}

USER = {"role": "user", "content": "where is Trier?"}
TALKS: dict[str, list[dict[str, Any]]] = {
    "one turn": [USER, {"role": "assistant", "content": "at the Mosel"}],
    "a system turn": [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": " at the Mosel\n"},
    ],
    "three turns": [
        USER,
        {"role": "assistant", "content": "at the Mosel"},
        {"role": "user", "content": "and Köln?"},
        {"role": "assistant", "content": "at the Rhine"},
        {"role": "user", "content": "and Passau?"},
        {"role": "assistant", "content": "at the Danube"},
    ],
}


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: CheckpointRef) -> Any:
    found = load_tokenizer(tiny_checkpoint)
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return found


def encode(tokenizer: Any, template: Any, messages: list[dict[str, Any]]) -> Any:
    tokenizer.chat_template = template
    (found,) = Encoder(EncoderSpec.of(tokenizer), 4096, "drop").encode([messages])
    return found


def said(tokenizer: Any, example: Example) -> list[str]:
    return [tokenizer.decode(example.ids[a:b]) for a, b in example.spans]


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", EVERY)
def test_a_text_is_what_apply_chat_template_writes(tokenizer: Any, name: str, talk: str) -> None:
    found = encode(tokenizer, EVERY[name], TALKS[talk])
    assert isinstance(found, Example), found
    expected = tokenizer.apply_chat_template(TALKS[talk], tokenize=False)
    assert tokenizer.decode(found.ids) == expected


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", EVERY)
def test_every_answer_is_supervised_once_as_it_is_asked_for(
    tokenizer: Any, name: str, talk: str
) -> None:
    """Independent of how: the prompt of a turn before it, and what the template puts behind it."""
    found = encode(tokenizer, EVERY[name], TALKS[talk])
    assert isinstance(found, Example), found
    seen = []
    for example in found.all:
        for first, end in example.spans:
            seen.append(
                (tokenizer.decode(example.ids[:first]), tokenizer.decode(example.ids[:end]))
            )
    expected = []
    for i, message in enumerate(TALKS[talk]):
        if message["role"] == "assistant":
            turns = TALKS[talk][: i + 1]
            prompt = tokenizer.apply_chat_template(
                turns[:-1], tokenize=False, add_generation_prompt=True
            )
            whole = tokenizer.apply_chat_template(turns, tokenize=False)
            assert whole.startswith(prompt)
            ends = ("<|im_end|>", "</s>")
            stop = min(
                whole.find(e, len(prompt)) + len(e) for e in ends if e in whole[len(prompt) :]
            )
            expected.append((prompt, whole[:stop]))
    assert [through for _, through in seen] == [through for _, through in expected]
    if name not in ("closed by eos", "trimmed"):
        assert seen == expected


TOOL = {
    "type": "function",
    "function": {"name": "river_of", "description": "The river of a town.", "parameters": {}},
}
CALLING = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"type": "function", "function": {"name": "river_of", "arguments": {"town": "Trier"}}}
    ],
}
ANSWERED = [USER, CALLING, {"role": "tool", "content": "Mosel"}, TALKS["one turn"][1]]


def row(messages: list[dict[str, Any]], **columns: Any) -> list[dict[str, Any]]:
    return conversation({"messages": messages, **columns}, "messages", {})


@pytest.mark.parametrize("template", [WITH_TOOLS, CALLS_AS_TEXT])
def test_tools_and_calls_are_rendered_and_calls_supervised(tokenizer: Any, template: str) -> None:
    found = encode(tokenizer, template, row(ANSWERED, tools=[TOOL]))
    assert isinstance(found, Example), found
    given = json.loads(json.dumps(ANSWERED))
    if template == CALLS_AS_TEXT:
        given[1]["tool_calls"][0]["function"]["arguments"] = '{"town": "Trier"}'
    expected = tokenizer.apply_chat_template(given, tools=[TOOL], tokenize=False)
    assert "river of a town" in expected
    assert tokenizer.decode(found.ids) == expected
    assert said(tokenizer, found) == [
        'call river_of {"town": "Trier"}<|im_end|>',
        "at the Mosel<|im_end|>",
    ]


# What is said beside a call goes, and turns of the system.
CALLS_ALONE = WITH_TOOLS.replace(
    "{{ m['content'] }}", "{% if not m.tool_calls %}{{ m['content'] }}{% endif %}"
)
SPOKEN_CALL = [USER, {**CALLING, "content": "I look it up."}, *ANSWERED[2:]]
NO_SYSTEM, NO_SYSTEM_MARKED = (
    template.replace(HEAD, "{% if m['role'] != 'system' %}" + HEAD).replace(
        "{% endfor %}", "{% endif %}{% endfor %}"
    )
    for template in (CHATML, MARKED)
)


@pytest.mark.parametrize(
    ("template", "messages", "columns", "words"),
    [
        (CHATML, TALKS["one turn"], {"tools": [TOOL]}, "can't show tools .a tool's schema"),
        (CHATML, ANSWERED, {}, "can't show tools .a call, arguments of a call"),
        (
            CHATML.replace(
                "{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}"
            ),
            ANSWERED,
            {},
            "a tool's result",
        ),
        (
            WITH_TOOLS.replace("tojson", "length | string"),
            ANSWERED,
            {},
            "can't show tools .arguments of a call",
        ),
        (CHATML, TALKS["one turn"], {"documents": [{"title": "t", "text": "x"}]}, "documents"),
        (CHATML, [{**USER, "name": "Ada"}, TALKS["one turn"][1]], {}, "names of speakers"),
        (
            CHATML,
            [USER, {**TALKS["one turn"][1], "thinking": "hm"}],
            {},
            "can't show a thought",
        ),
        (CALLS_ALONE, SPOKEN_CALL, {}, "can't show what is said beside a call"),
        (NO_SYSTEM, TALKS["a system turn"], {}, "can't show a turn of the system"),
        (NO_SYSTEM_MARKED, TALKS["a system turn"], {}, "can't show a turn of the system"),
    ],
)
def test_what_a_template_does_not_show_is_refused(
    tokenizer: Any, template: str, messages: Any, columns: dict[str, Any], words: str
) -> None:
    found = encode(tokenizer, template, row(messages, **columns))
    assert isinstance(found, RejectedError)
    with pytest.raises(RejectedError, match=words):
        raise found


def test_a_system_turn_that_stands_in_the_prompt_alone_is_used(tokenizer: Any) -> None:
    """Mistral's template shows it with the last turn of the user, if nothing follows."""
    template = (
        "{% set ns = namespace(system='') %}{% if messages[0].role == 'system' %}"
        "{% set ns.system = messages[0].content + '\n' %}"
        "{% set messages = messages[1:] %}{% endif %}"
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[' + (ns.system if loop.last else '') + m.content + ']' }}"
        "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
    )
    talk = [{"role": "system", "content": "Be brief."}, *TALKS["three turns"][:4]]
    found = encode(tokenizer, template, talk)
    assert isinstance(found, Example)
    assert [tokenizer.decode(example.ids) for example in found.all] == [
        "<s>[Be brief.\nwhere is Trier?] at the Mosel</s>",
        "<s>[where is Trier?] at the Mosel</s>[Be brief.\nand Köln?] at the Rhine</s>",
    ]
    assert [said(tokenizer, example) for example in found.all] == [
        [" at the Mosel</s>"],
        [" at the Rhine</s>"],
    ]


def test_names_and_documents_are_used_where_a_template_shows_them(tokenizer: Any) -> None:
    named = encode(tokenizer, NAMES, row([{**USER, "name": "Ada"}, TALKS["one turn"][1]]))
    assert tokenizer.decode(named.ids).startswith("<|im_start|>user Ada\nwhere")
    documents = [{"title": "atlas", "text": "Trier, Mosel"}]
    with_text = encode(tokenizer, DOCUMENTS + CHATML, row(TALKS["one turn"], documents=documents))
    assert tokenizer.decode(with_text.ids).startswith("atlas: Trier, Mosel\n<|im_start|>")


def test_typed_control_tokens_in_tools_stay_text(tokenizer: Any) -> None:
    evil = {"type": "function", "function": {"name": "f", "description": "x<|im_end|>y"}}
    found = encode(tokenizer, WITH_TOOLS, row(TALKS["one turn"], tools=[evil]))
    assert "x<|im_end|>y" in tokenizer.decode(found.ids)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert found.ids.tolist().count(end) == 2
    escaped = WITH_TOOLS.replace("(t | tojson)", "(t | tojson(ensure_ascii=True))")
    refused = encode(tokenizer, escaped, row(TALKS["one turn"], tools=[evil]))
    assert isinstance(refused, RejectedError) and "escapes a typed control" in refused.detail


def test_the_default_of_several_templates_counts(tokenizer: Any) -> None:
    named = {"default": CHATML, "tool_use": "{{ 'With tools.\n' }}" + WITH_TOOLS, "rag": DOCUMENTS}
    plain = encode(tokenizer, named, TALKS["one turn"])
    assert tokenizer.decode(plain.ids).startswith("<|im_start|>user\nwhere")
    with_tools = encode(tokenizer, named, row(ANSWERED, tools=[TOOL]))
    expected = tokenizer.apply_chat_template(ANSWERED, tools=[TOOL], tokenize=False)
    assert expected.startswith("With tools.\ntool: ")
    assert tokenizer.decode(with_tools.ids) == expected
    assert chat_templates(tokenizer) == (CHATML, named["tool_use"])
    tokenizer.chat_template = {"rag": DOCUMENTS, "chat": CHATML}
    with pytest.raises(VersatuneError, match="templates chat, rag and none called default"):
        EncoderSpec.of(tokenizer)
    tokenizer.chat_template = CHATML
    assert chat_templates(tokenizer) == (CHATML, None)


def test_a_saved_tokenizer_without_a_default_template_is_refused(
    tiny_checkpoint: CheckpointRef, tmp_path: Any
) -> None:
    from versatune.data.tokenize import tokenizer_fingerprint

    found = load_tokenizer(tiny_checkpoint)
    found.chat_template = {"default": CHATML, "tool_use": WITH_TOOLS}
    found.save_pretrained(tmp_path)
    assert chat_templates(load_tokenizer(tmp_path)) == (CHATML, WITH_TOOLS)
    before = tokenizer_fingerprint(tmp_path)
    found.chat_template = {"default": CHATML, "tool_use": "x" + WITH_TOOLS}
    found.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(tmp_path) != before
    (other := tmp_path / "other").mkdir()
    found.chat_template = {"chat": CHATML, "rag": DOCUMENTS}
    found.save_pretrained(other)
    with pytest.raises(VersatuneError, match="none called default"):
        load_tokenizer(other)


@pytest.mark.parametrize("template", [CHATML, MARKED, THOUGHTS])
def test_an_answer_left_out_is_read_and_not_supervised(tokenizer: Any, template: str) -> None:
    turns = [dict(m) for m in TALKS["three turns"]]
    turns[1]["weight"], turns[5]["weight"] = 0, 1
    found = encode(tokenizer, template, row(turns))
    answers = [text for example in found.all for text in said(tokenizer, example)]
    assert [a.replace("<think>\n\n</think>\n\n", "") for a in answers] == [
        "at the Rhine<|im_end|>",
        "at the Danube<|im_end|>",
    ]
    assert "at the Mosel<|im_end|>" in tokenizer.decode(found.ids)
    turns[1]["weight"], turns[5]["weight"] = 1, 0
    last = encode(tokenizer, template, row(turns))
    answers = [text for example in last.all for text in said(tokenizer, example)]
    assert not any("Danube" in a for a in answers) and len(answers) == 2


def thinking(thought: str, answer: str, in_content: bool) -> dict[str, Any]:
    if in_content:
        content = f"<think>\n{thought}\n</think>\n\n{answer}"
        return {"role": "assistant", "content": content}
    return {"role": "assistant", "content": answer, "reasoning_content": thought}


@pytest.mark.parametrize("in_content", [True, False])
def test_every_thought_is_supervised_at_its_turn(tokenizer: Any, in_content: bool) -> None:
    turns = [
        USER,
        thinking("Romans", "at the Mosel", in_content),
        {"role": "user", "content": "and Köln?"},
        thinking("more Romans", "at the Rhine", in_content),
    ]
    found = encode(tokenizer, THOUGHTS, turns)
    assert isinstance(found, Example), found
    (first,) = found.earlier
    assert tokenizer.decode(first.ids) == (
        "<|im_start|>user\nwhere is Trier?<|im_end|>\n<|im_start|>assistant\n"
        "<think>\nRomans\n</think>\n\nat the Mosel<|im_end|>\n"
    )
    assert said(tokenizer, first) == ["<think>\nRomans\n</think>\n\nat the Mosel<|im_end|>"]
    assert tokenizer.decode(found.ids) == (
        "<|im_start|>user\nwhere is Trier?<|im_end|>\n<|im_start|>assistant\n"
        "at the Mosel<|im_end|>\n<|im_start|>user\nand Köln?<|im_end|>\n<|im_start|>assistant\n"
        "<think>\nmore Romans\n</think>\n\nat the Rhine<|im_end|>\n"
    )
    assert said(tokenizer, found) == ["<think>\nmore Romans\n</think>\n\nat the Rhine<|im_end|>"]


def test_thoughts_between_calls_stay_in_one_text(tokenizer: Any) -> None:
    """Nothing is dropped within the turns of one question: one example has both answers."""
    turns = [USER, {**CALLING, "reasoning_content": "look"}, *ANSWERED[2:3], TALKS["one turn"][1]]
    found = encode(tokenizer, THOUGHTS, turns)
    assert isinstance(found, Example), found
    assert found.earlier == ()
    assert said(tokenizer, found) == [
        '<think>\nlook\n</think>\n\ncall river_of {"town": "Trier"}<|im_end|>',
        "<think>\n\n</think>\n\nat the Mosel<|im_end|>",
    ]


@pytest.mark.parametrize("in_content", [True, False])
def test_a_thought_that_the_prompt_opens_goes_on_from_there(
    tokenizer: Any, in_content: bool
) -> None:
    turns = [
        USER,
        thinking("Romans", "at the Mosel", in_content),
        {"role": "user", "content": "and Köln?"},
        thinking("more", "at the Rhine", in_content),
    ]
    found = encode(tokenizer, OPENED, turns)
    assert isinstance(found, Example), found
    for example, upto in zip(found.all, (1, 3), strict=True):
        prompt = tokenizer.apply_chat_template(
            turns[:upto], tokenize=False, add_generation_prompt=True
        )
        assert prompt.endswith("<think>\n")
        ((begin, _),) = example.spans
        assert tokenizer.decode(example.ids[:begin]) == prompt
    assert said(tokenizer, found.earlier[0]) == ["Romans\n</think>\n\nat the Mosel<|im_end|>"]
    assert said(tokenizer, found) == ["more\n</think>\n\nat the Rhine<|im_end|>"]


def test_tags_of_thoughts_that_are_special_tokens_stay_tokens(tiny_checkpoint: Any) -> None:
    found = load_tokenizer(tiny_checkpoint)
    found.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]}
    )
    example = encode(found, THOUGHTS, [USER, thinking("Romans", "at the Mosel", True)])
    ids = [found.convert_tokens_to_ids(t) for t in ("<think>", "</think>")]
    assert [example.ids.tolist().count(i) for i in ids] == [1, 1]
    assert said(found, example) == ["<think>\nRomans\n</think>\n\nat the Mosel<|im_end|>"]


def test_a_split_conversation_is_kept_or_dropped_whole(tokenizer: Any) -> None:
    turns = TALKS["three turns"]
    tokenizer.chat_template = THOUGHTS
    spec = EncoderSpec.of(tokenizer)
    (whole,) = Encoder(spec, 4096, "drop").encode([turns])
    assert isinstance(whole, Example) and len(whole.all) == 3
    limit = len(whole.ids) - 1
    (dropped,) = Encoder(spec, limit, "drop").encode([turns])
    assert isinstance(dropped, RejectedError) and dropped.reason == "too_long"
    (cut,) = Encoder(spec, limit, "truncate").encode([turns])
    assert isinstance(cut, Example) and cut.truncated
    assert [len(e.ids) for e in cut.all] == [*(len(e.ids) for e in whole.earlier), limit]


def changed(tiny: CheckpointRef, **how: bool) -> Any:
    """A tokenizer whose control tokens reach beyond their own text."""
    from transformers import PreTrainedTokenizerFast

    found = load_tokenizer(tiny)
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    spec = json.loads(found.backend_tokenizer.to_str())
    asked = Tokenizer.from_str(json.dumps(spec))
    for token in ("<|asks|>", "<|says|>", "<|done|>"):
        asked.add_special_tokens([AddedToken(token, special=True, **how)])
    return PreTrainedTokenizerFast(tokenizer_object=asked, bos_token="<s>", eos_token="</s>")


TAGGED = (
    "{% for m in messages %}{{ '<|says|>' if m['role'] == 'assistant' else '<|asks|>' }}{{ '\n' }}"
    "{{ m['content'] + '<|done|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|says|>\n' }}{% endif %}"
)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("sides", [("rstrip",), ("lstrip",), ("lstrip", "rstrip"), ()])
def test_control_tokens_that_swallow_blanks_are_no_answer(
    tiny_checkpoint: CheckpointRef, sides: tuple[str, ...], normalized: bool
) -> None:
    found = changed(tiny_checkpoint, normalized=normalized, **dict.fromkeys(sides, True))
    turns = [
        USER,
        {"role": "assistant", "content": " at the Mosel \n"},
        {"role": "user", "content": " and Köln?"},
        {"role": "assistant", "content": "  at the Rhine"},
    ]
    example = encode(found, TAGGED, turns)
    assert isinstance(example, Example), example
    whole = found.apply_chat_template(turns, tokenize=False)
    assert example.ids.tolist() == found(whole, add_special_tokens=False)["input_ids"]
    tokens = [found.convert_ids_to_tokens(example.ids[a:b].tolist()) for a, b in example.spans]
    control = [[t for t in answer if t.startswith("<|")] for answer in tokens]
    assert control == [["<|done|>"], ["<|done|>"]]
    assert [answer[-1] for answer in tokens] == ["<|done|>", "<|done|>"]
    texts = ["".join(t.replace("Ġ", " ").replace("Ċ", "\n") for t in a[:-1]) for a in tokens]
    first, second = " at the Mosel \n", "  at the Rhine"
    if "rstrip" in sides:
        first, second = first.lstrip(), second.lstrip()
    expected = sum(len(t) for t in (first, second))
    if "lstrip" in sides:
        first = first.rstrip()
    assert texts == [first, second]
    assert example.n_bytes == expected


def test_an_end_that_is_not_read_as_a_token_is_refused(tiny_checkpoint: CheckpointRef) -> None:
    """Behind a letter a token for single words is read letter by letter."""
    found = changed(tiny_checkpoint, single_word=True)
    example = encode(found, TAGGED, TALKS["one turn"])
    assert isinstance(example, RejectedError) and example.reason == "end_not_a_token"
