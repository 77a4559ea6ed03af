"""What a row holds beside its texts: used, or refused with a reason, or named as ignored."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from versatune.data.clean import SPLITS, clean
from versatune.data.config import CleanParams, Domains
from versatune.data.conversations import (
    RejectedError,
    conversation,
    loaded,
    stored,
)
from versatune.data.shapes import detect_shape, ignored_columns, ignored_keys, settle
from versatune.work import make_folder

ASKED = {"role": "user", "content": "how warm is it in Trier?"}
ANSWER = {"role": "assistant", "content": "12 degrees"}
TOOL = {
    "type": "function",
    "function": {
        "name": "warmth",
        "description": "The temperature of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "warmth", "arguments": {"town": "Trier"}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "12"}


def talk(*turns: dict[str, Any], **columns: Any) -> list[dict[str, Any]]:
    return conversation({"messages": list(turns), **columns}, "messages", {})


def reason(*turns: dict[str, Any], **columns: Any) -> str:
    with pytest.raises(RejectedError) as caught:
        talk(*turns, **columns)
    return caught.value.reason


def test_a_system_column_beside_messages_is_the_system_turn() -> None:
    assert talk(ASKED, ANSWER, system="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        ASKED,
        ANSWER,
    ]
    own = {"role": "system", "content": "Be long."}
    assert reason(own, ASKED, ANSWER, system="Be brief.") == "two_system_turns"
    assert talk({"role": "system", "content": " "}, ASKED, ANSWER, system="Be brief.")[0] == {
        "role": "system",
        "content": "Be brief.",
    }


@pytest.mark.parametrize("nothing", ["", " \n", None])
def test_a_system_turn_without_a_text_is_as_none(nothing: str | None) -> None:
    assert talk({"role": "system", "content": nothing}, ASKED, ANSWER) == [ASKED, ANSWER]


@pytest.mark.parametrize("shape", ["alpaca", "prompt_completion"])
@pytest.mark.parametrize("as_text", [False, True])
def test_history_stands_before_the_instruction(shape: Any, as_text: bool) -> None:
    names = {"alpaca": ("instruction", "output"), "prompt_completion": ("prompt", "completion")}
    history = [["name a river", "Mosel"], ["another", "Saar"]]
    row = dict(zip(names[shape], ("and a third", "Ruwer"), strict=True))
    row |= {"history": json.dumps(history) if as_text else history, "system": "Be brief."}
    assert detect_shape(row, {}, "f:1") == shape
    texts = [m["content"] for m in conversation(row, shape, {})]
    expected = ["Be brief.", "name a river", "Mosel", "another", "Saar", "and a third", "Ruwer"]
    assert texts == expected
    for empty in (None, [], "", float("nan")):
        assert len(conversation({**row, "history": empty}, shape, {})) == 3
    for wrong in ([["alone"]], "no JSON", [["a", 3]], 7):
        with pytest.raises(RejectedError):
            conversation({**row, "history": wrong}, shape, {})


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [TOOL["function"]]])
def test_tools_of_a_row_stand_on_its_first_turn(tools: Any) -> None:
    found = talk(ASKED, CALLING, RESULT, ANSWER, tools=tools)
    assert found == [{**ASKED, "tools": [TOOL]}, CALLING, RESULT, ANSWER]


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        {**CALL, "function": {"name": "warmth", "arguments": '{"town": "Trier"}'}},
        {"name": "warmth", "arguments": {"town": "Trier", "country": None}},  # as Arrow fills it
    ],
)
def test_calls_have_one_form(call: dict[str, Any]) -> None:
    given = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert talk(ASKED, given, RESULT, ANSWER) == [ASKED, CALLING, RESULT, ANSWER]
    old = {"role": "assistant", "content": None, "function_call": call.get("function", call)}
    assert talk(ASKED, old, {**RESULT, "role": "function"}, ANSWER)[1] == CALLING


def test_calls_of_sharegpt_files() -> None:
    turns = [
        {"from": "human", "value": ASKED["content"]},
        {"from": "function_call", "value": json.dumps(CALL["function"])},
        {"from": "observation", "value": "12"},
        {"from": "gpt", "value": ANSWER["content"]},
    ]
    row = {"conversations": turns, "tools": json.dumps([TOOL])}
    assert conversation(row, "sharegpt", {}) == [
        {**ASKED, "tools": [TOOL]},
        CALLING,
        RESULT,
        ANSWER,
    ]


@pytest.mark.parametrize(
    ("turns", "columns", "expected"),
    [
        ([ASKED, CALLING, ASKED, ANSWER], {}, "roles_do_not_alternate"),
        ([ASKED, ANSWER, RESULT, ANSWER], {}, "roles_do_not_alternate"),
        ([ASKED, CALLING, RESULT], {}, "ends_with_user"),
        ([ASKED, {**CALLING, "tool_calls": [{"arguments": "{}"}]}], {}, "bad_tool_call"),
        (
            [ASKED, {**CALLING, "tool_calls": [{"name": "f", "arguments": "{"}]}],
            {},
            "bad_tool_call",
        ),
        (
            [ASKED, {**CALLING, "tool_calls": [{"name": "f", "arguments": [1]}]}],
            {},
            "bad_tool_call",
        ),
        ([ASKED, ANSWER], {"tools": "get the weather"}, "bad_tools"),
        ([ASKED, ANSWER], {"tools": [{"description": "x"}]}, "bad_tools"),
        ([ASKED, ANSWER], {"documents": ["just a text"]}, "wrong_type"),
        ([ASKED, {**ANSWER, "weight": 0.5}], {}, "partly_trained_turn"),
        ([ASKED, {**ANSWER, "train_detail": [{"begin_offset": 0}]}], {}, "partly_trained_turn"),
        ([ASKED, {**ANSWER, "weight": 0}], {}, "no_trained_turn"),
        ([ASKED, {**ANSWER, "name": 7}], {}, "wrong_type"),
        ([ASKED, {**ANSWER, "thinking": "half \ud800"}], {}, "lone_surrogate"),
    ],
)
def test_fields_that_can_not_be_used_are_refused(
    turns: list[dict[str, Any]], columns: dict[str, Any], expected: str
) -> None:
    assert reason(*turns, **columns) == expected


@pytest.mark.parametrize(
    ("row", "shape", "expected"),
    [
        ({"messages": [ASKED, ANSWER], "images": ["a.png"]}, "messages", "wrong_type"),
        ({"messages": [{**ASKED, "images": ["a.png"]}, ANSWER]}, "messages", "wrong_type"),
        ({"messages": [ASKED, {**ANSWER, "audio": {"id": "x"}}]}, "messages", "wrong_type"),
        ({"instruction": "<image>what", "output": "o", "image": "x"}, "alpaca", "wrong_type"),
        ({"instruction": "what", "output": "o", "image": "logo.png"}, "alpaca", None),
        ({"messages": [ASKED, ANSWER], "images": []}, "messages", None),
        ({"text": "a", "images": ["a.png"]}, "text", None),
        ({"prompt": "p", "completion": "c", "label": False}, "prompt_completion",
         "unwanted_answer"),
        ({"prompt": "p", "completion": "c", "label": True}, "prompt_completion", None),
        ({"prompt": "p", "completion": "c", "label": "law"}, "prompt_completion", None),
        ({"prompt": "p", "completion": [ANSWER], "label": False}, "prompt_completion",
         "unwanted_answer"),
        ({"prompt": "p", "completion": ["a", "b"]}, "prompt_completion", "wrong_type"),
        ({"prompt": "p", "completion": "\u3164\u2800\x07"}, "prompt_completion", "empty_output"),
        ({"messages": [{"role": "prompter", "content": "a"}, {"role": "bot", "content": "b"}]},
         "messages", None),
        ({"messages": [ASKED, ANSWER], "tools": "null"}, "messages", None),
    ],
)  # fmt: skip
def test_rows_that_can_not_be_trained_as_they_stand_are_refused(
    row: dict[str, Any], shape: Any, expected: str | None
) -> None:
    """Answers about what no text shows, and answers that are not wanted."""
    found = None
    try:
        conversation(*settle(row, shape, {}), {})
    except RejectedError as error:
        found = error.reason
    assert found == expected


def test_an_image_is_named_as_the_reason() -> None:
    parts = [{"type": "text", "text": "what is"}, {"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(RejectedError, match="a part of type 'image_url', not text"):
        talk({"role": "user", "content": parts}, ANSWER)


@pytest.mark.parametrize("flag", [{"weight": 0}, {"train": False}, {"loss": 0.0}, {"masked": True}])
def test_answers_left_out_of_the_loss_are_marked(flag: dict[str, Any]) -> None:
    found = talk(ASKED, {**ANSWER, **flag}, ASKED, {**ANSWER, "weight": 1, "masked": False})
    assert found == [ASKED, {**ANSWER, "train": False}, ASKED, ANSWER]


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_have_one_name(name: str) -> None:
    assert talk(ASKED, {**ANSWER, name: "let me see"}) == [
        ASKED,
        {**ANSWER, "reasoning_content": "let me see"},
    ]


def test_a_name_that_is_the_role_is_no_speaker() -> None:
    assert talk({**ASKED, "name": "user"}, {**ANSWER, "name": "Ada"}) == [
        ASKED,
        {**ANSWER, "name": "Ada"},
    ]


def test_what_is_stored_comes_back() -> None:
    full = talk(ASKED, {**CALLING, "thinking": "ö"}, RESULT, {**ANSWER, "weight": 0}, ASKED, ANSWER)
    kept = stored(full)
    assert {frozenset(m) for m in kept} == {frozenset({"role", "content", "fields"})}
    assert loaded(json.loads(json.dumps(kept))) == full
    assert loaded(full) == full


def test_unused_columns_and_keys_are_named() -> None:
    row = {
        "messages": [{**ASKED, "id": 1, "train": True}, {**ANSWER, "score": 0.5, "mood": None}],
        "source": "web",
        "license": "",
        "note": None,
    }
    named = {"source", "messages[].id", "messages[].train", "messages[].score"}
    assert ignored(row, "messages", {}) == named
    mapped = {"question": "p", "answer": "c", "prompt": "unused"}
    columns = {"prompt": "question", "completion": "answer"}
    assert ignored(mapped, "prompt_completion", columns) == {"prompt"}
    assert ignored({"text": "t", "url": "u", "id": None}, "text", {}) == {"url"}


def test_what_a_turn_can_not_say_is_named() -> None:
    """A thought or a call of the user, an earlier conversation beside turns, a second thought."""
    asked = {**ASKED, "reasoning_content": "warm?", "tool_calls": [CALL], "weight": 0}
    answer = {**ANSWER, "reasoning_content": "say 12", "thinking": "say 12", "reasoning": "say 13"}
    row = {"messages": [asked, answer], "history": [["a", "b"]]}
    assert ignored(row, "messages", {}) == {
        *("history", "messages[].reasoning_content", "messages[].tool_calls"),
        "messages[].reasoning",
    }


def ignored(row: dict[str, Any], shape: Any, columns: dict[str, str]) -> set[str]:
    return ignored_columns(row, shape, columns) | ignored_keys(*settle(row, shape, columns), shape)


SPOKEN = [
    {"from": "human", "value": "how warm is it in Trier?", "id": 1},
    {"from": "gpt", "value": None, "thinking": "ask", "tool_calls": [CALL], "weight": 0},
    {"from": "observation", "value": "12"},
    {"from": "gpt", "value": "12 degrees", "mood": "calm"},
]
"""Turns in the keys of the other shape."""
BY_COLUMN = {key: [t.get(key) for t in SPOKEN] for key in ("from", "value", "id", "thinking",
             "tool_calls", "weight", "mood")}  # fmt: skip


@pytest.mark.parametrize("shape", ["messages", "sharegpt"])
@pytest.mark.parametrize("written", [SPOKEN, json.dumps(SPOKEN), repr(SPOKEN), BY_COLUMN])
def test_turns_in_every_spelling_keep_their_fields(shape: Any, written: Any) -> None:
    field = {"messages": "messages", "sharegpt": "conversations"}[shape]
    row = {field: written, "system": "Be brief.", "tools": json.dumps([TOOL])}
    values, settled = settle(row, shape, {})
    assert conversation(values, settled, {}) == [
        {"role": "system", "content": "Be brief.", "tools": [TOOL]},
        ASKED,
        {**CALLING, "reasoning_content": "ask", "train": False},
        RESULT,
        ANSWER,
    ]
    assert ignored(row, shape, {}) == {f"{field}[].id", f"{field}[].mood"}


def test_a_prompt_and_a_completion_of_turns_keep_fields_columns_and_history() -> None:
    system = {"role": "system", "content": "Be brief."}
    called = {"role": "assistant", "tool_calls": [CALL], "score": 1}
    row = {
        "prompt": [{"role": "user", "content": "how warm is it in Trier?"}],
        "completion": [called, RESULT, {"from": "gpt", "value": "12 degrees"}],
        "history": [["hello", "good day"]],
        "tools": [TOOL],
        "system": "Be brief.",
        "chosen": "x",
    }
    told = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "good day"},
        ASKED,
        CALLING,
        RESULT,
        ANSWER,
    ]
    expected = [{**system, "tools": [TOOL]}, *told]
    values, shape = settle(row, "prompt_completion", {})
    assert conversation(values, shape, {}) == expected
    assert ignored(row, "prompt_completion", {}) == {"chosen", "prompt/completion[].score"}
    begun = {**row, "prompt": [system, *row["prompt"]], "system": None}  # type: ignore[misc]
    assert conversation(*settle(begun, "prompt_completion", {}), {}) == expected
    with pytest.raises(RejectedError, match="beside the column system"):
        conversation(*settle({**begun, "system": "x"}, "prompt_completion", {}), {})


def test_the_account_names_ignored_columns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {}
    for name in ("law", "code"):
        path = tmp_path / f"{name}.jsonl"
        rows = [
            {
                "prompt": f"{name} {n}",
                "completion": f"a {n}",
                "id": n,
                **({"u": 1} if n < 3 else {}),
            }
            for n in range(20)
        ]
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        config[name] = {"description": name, "sources": [{"path": str(path)}]}
    params = CleanParams(seed=0)
    with caplog.at_level("INFO", "versatune"):
        ref = make_folder(clean(Domains.model_validate(config), params), tmp_path / "clean")
    report = json.loads((ref.path / "report.json").read_text())
    assert report["law"]["ignored_columns"] == {"id": 20, "u": 3}
    assert caplog.text.count("law: ignored columns: id (20 rows), u (3 rows).") == 1


def test_numbers_are_read_as_texts_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of every shape; a truth value is not."""
    rows = [{"instruction": f"law {n} and {n + 1}", "output": 2 * n + 1} for n in range(16)]
    rows += [{"instruction": f"{n} halves", "input": 7, "output": n / 2} for n in range(3)]
    rows += [{"instruction": "is it so", "output": True}]
    turns = [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "model", "content": n}]}
        for n in range(20)
    ]
    shared = [
        {"conversations": [{"from": "human", "value": f"tell {n}"}, {"from": "gpt", "value": n}]}
        for n in range(20)
    ]
    config = {}
    for name, told in (("law", rows), ("code", turns), ("sea", shared)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in told))
        config[name] = {"description": name, "sources": [{"path": str(path)}]}
    params = CleanParams(seed=0, near_duplicate_threshold=None)
    ref = make_folder(clean(Domains.model_validate(config), params), tmp_path / "clean")
    report = json.loads((ref.path / "report.json").read_text())
    assert report["law"]["numbers_as_text"] == {"input": 3, "output": 19}
    assert report["law"]["rejected"]["wrong_type"]["count"] == 1
    assert report["code"]["numbers_as_text"] == {"messages[].content": 20}
    assert report["sea"]["numbers_as_text"] == {"conversations[].value": 20}
    assert caplog.text.count("law: numbers read as texts: input (3 rows), output (19 rows).") == 1
    kept = [r for s in SPLITS for r in datasets.load_from_disk(str(ref.path / s)).to_list()]
    said = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in kept}
    assert (said["law 3 and 4"], said["1 halves\n\n7"]) == ("7", "0.5")
    assert (said["say 12"], said["tell 13"]) == ("12", "13")
