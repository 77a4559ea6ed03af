"""Rows of every shape, and the reasons for which rows are turned away."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.data.config import Domains, EvaluationFile, Source
from versatune.data.conversations import RejectedError, conversation
from versatune.data.shapes import detect_shape
from versatune.errors import VersatuneError

U, A, S = "user", "assistant", "system"


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in pairs]


@pytest.mark.parametrize(
    ("shape", "row", "expected"),
    [
        ("alpaca", {"instruction": "i", "input": "", "output": "o"}, turns((U, "i"), (A, "o"))),
        (
            "alpaca",
            {"instruction": "a", "input": "x", "output": "o"},
            turns((U, "a\n\nx"), (A, "o")),
        ),
        ("alpaca", {"instruction": "", "input": "x", "output": "o"}, turns((U, "x"), (A, "o"))),
        ("alpaca", {"instruction": "i", "output": "o"}, turns((U, "i"), (A, "o"))),
        (
            "alpaca",
            {"instruction": "i", "input": float("nan"), "output": "o", "system": "s"},
            turns((S, "s"), (U, "i"), (A, "o")),
        ),
        ("prompt_completion", {"prompt": "p", "completion": " c\n"}, turns((U, "p"), (A, " c\n"))),
        ("messages", {"messages": turns((U, "p"), (A, "c"))}, turns((U, "p"), (A, "c"))),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "p"}]},
                          {"role": "assistant", "content": "c", "tool_calls": None}]},
            turns((U, "p"), (A, "c")),
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c"}],
             "system": "s"},
            turns((S, "s"), (U, "p"), (A, "c")),
        ),
        ("alpaca", {"instruction": "שלום", "output": "مرحبا"}, turns((U, "שלום"), (A, "مرحبا"))),
    ],
)  # fmt: skip
def test_every_shape_becomes_messages(shape: Any, row: dict, expected: list) -> None:
    assert detect_shape(row, {}, "f:1") == shape
    assert conversation(row, shape, {}) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "i", "output": ""}, "empty_output"),
        ({"instruction": "i", "output": " \n\u200b\ufeff"}, "empty_output"),
        ({"instruction": "", "output": "o"}, "empty_prompt"),
        ({"instruction": "i"}, "missing_column"),
        ({"instruction": "i", "output": None}, "wrong_type"),
        ({"instruction": "i", "output": True}, "wrong_type"),
        ({"instruction": ["i"], "output": "o"}, "wrong_type"),
        ({"instruction": "i", "output": float("nan")}, "nan"),
        ({"instruction": "i", "output": "a\ud800b"}, "lone_surrogate"),
        ({"instruction": "i", "output": "caf\udce9"}, "not_utf8"),
    ],
)
def test_alpaca_rows_are_turned_away(row: dict, reason: str) -> None:
    with pytest.raises(RejectedError) as caught:
        conversation(row, "alpaca", {})
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (turns((U, "a")), "no_assistant_turn"),
        ([], "no_assistant_turn"),
        (turns((S, "a")), "no_assistant_turn"),
        (turns((A, "a"), (U, "b")), "roles_inverted"),
        (turns((A, "a"), (U, "b"), (A, "c"), (U, "d")), "roles_inverted"),
        (turns((A, "a"), (U, "b"), (A, "c")), "roles_do_not_alternate"),
        (turns((U, "a"), (U, "b"), (A, "c")), "roles_do_not_alternate"),
        (turns((U, "a"), (A, "b"), (A, "c")), "roles_do_not_alternate"),
        (turns((U, "a"), (S, "b"), (A, "c")), "roles_do_not_alternate"),
        (turns((U, "a"), (A, "b"), (U, "c")), "ends_with_user"),
        (turns((U, "a"), (A, ""), (U, "c"), (A, "d")), "empty_output"),
        (turns((S, ""), (A, "d")), "roles_do_not_alternate"),
        (turns((U, "a"), ("tool", "b"), (A, "c")), "roles_do_not_alternate"),
        (turns((U, "a"), ("critic", "b"), (A, "c")), "unknown_role"),
        ("text", "wrong_type"),
        (None, "wrong_type"),
        ([{"role": "user"}], "wrong_type"),
        (["hello"], "wrong_type"),
        ([{"content": "x"}], "wrong_type"),
    ],
)
def test_conversations_are_turned_away(messages: Any, reason: str) -> None:
    with pytest.raises(RejectedError) as caught:
        conversation({"messages": messages}, "messages", {})
    assert caught.value.reason == reason


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "text"]), inner)
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_any_value_is_a_conversation_or_has_a_reason(one: Any, other: Any) -> None:
    rows = {
        "messages": {"messages": one},
        "sharegpt": {"conversations": one, "system": other},
        "alpaca": {"instruction": one, "output": other},
    }
    for shape, row in rows.items():
        try:
            found = conversation(row, shape, {})  # type: ignore[arg-type]
        except RejectedError as error:
            assert error.reason
        else:
            assert found[-1]["role"] == "assistant"
            assert "".join(m["content"] for m in found).encode()


def test_columns_are_mapped_and_unknown_ones_named() -> None:
    mapping = {"prompt": "question", "completion": "answer"}
    row = {"question": "p", "answer": "c"}
    assert detect_shape(row, mapping, "f:1") == "prompt_completion"
    assert conversation(row, "prompt_completion", mapping) == turns((U, "p"), (A, "c"))
    with pytest.raises(VersatuneError, match=r"f:1: the columns answer, question fit no known"):
        detect_shape(row, {}, "f:1")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, "either `path` or `hub`"),
        ({"path": "a", "hub": "b/c"}, "either `path` or `hub`"),
        ({"path": "a", "revision": "x"}, "belong to a `hub`"),
        ({"path": "a", "streaming": True}, "`streaming` belongs to a `hub`"),
        ({"hub": "a/b", "format": "csv"}, "belongs to a `path`"),
        ({"path": "a", "columns": {"promt": "x"}}, "'promt', which is no field"),
        ({"path": "a", "shape": "alpaca", "columns": {"prompt": "x"}}, "no field of alpaca"),
        ({"path": "a", "weight": -1}, "greater than or equal to 0"),
        ({"path": "a", "wieght": 1}, "there is no such parameter"),
    ],
)
def test_sources_are_refused(source: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Source.model_validate(source)


def domain(*weights: float | None) -> dict[str, Any]:
    return {"description": "d", "sources": [{"path": "a", "weight": w} for w in weights]}


@pytest.mark.parametrize(
    ("domains", "words"),
    [
        ({"law": domain(1, None), "code": domain(None)}, "or none"),
        ({"law": domain(0, 0), "code": domain(None)}, "sum to zero"),
        ({"law": domain(), "code": domain(None)}, "at least 1 item"),
        ({"law": domain(None)}, "at least two domains"),
        ({"law": domain(None), "Legal": domain(None)}, "the same domain, 'law'"),
        ({"law": domain(None), "../x": domain(None)}, "can't be a domain name"),
    ],
)
def test_domains_are_refused(domains: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Domains.model_validate(domains)


def test_domains_keep_their_order_and_drop_nulls() -> None:
    found = Domains.model_validate(
        {"other": domain(None), "medical": domain(None), "law": None, "my-own": domain(1, 2)}
    )
    assert list(found.active) == ["other", "medicine", "my_own"]
    assert EvaluationFile.model_validate({"path": "x/law.jsonl"}).task == "law"
