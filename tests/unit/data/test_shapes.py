"""Shapes: told from the columns, or refused with what would fit."""

from pathlib import Path
from typing import Any

import pytest

from versatune.data.config import CleanParams, DomainConfig, Source
from versatune.data.conversations import RejectedError
from versatune.data.row_check import check_rows
from versatune.data.shapes import detect_shape, settle
from versatune.errors import VersatuneError

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("row", "columns", "shape"),
    [
        ({"text": "t"}, {}, "text"),
        ({"text": "t", "id": 1, "url": "u"}, {}, "text"),
        ({"body": "t"}, {"text": "body"}, "text"),
        ({"instruction": "i", "output": "o", "text": "t"}, {}, "alpaca"),
        ({"messages": TURNS, "prompt": "p", "completion": None}, {}, "messages"),
        # the map says which of two is meant
        ({"messages": TURNS, "q": "p", "completion": "c"}, {"prompt": "q"}, "prompt_completion"),
    ],
)
def test_shapes_are_told_from_what_is_there(
    row: dict[str, Any], columns: dict[str, str], shape: str
) -> None:
    assert detect_shape(row, columns, "f:1") == shape


@pytest.mark.parametrize(
    ("row", "columns", "words"),
    [
        (
            {"question": "q", "answer": "a"},
            {},
            r"perhaps \{instruction: question, output: answer\} \(that makes it alpaca\)",
        ),
        ({"Prompt": "q", "Completion": "a"}, {}, r"\{prompt: Prompt, completion: Completion\}"),
        ({"conversation": TURNS}, {}, r"\{conversations: conversation\} \(that makes it share"),
        ({"article": "t"}, {}, r"\{text: article\} \(that makes it text\)"),
        ({"a": 1, "b": 2}, {}, "`shape` or `format`"),
        # What else would be left out is named, too.
        (
            {"instruction": "i", "context": "c", "response": "r"},
            {},
            r"\{output: response, input: context\}",
        ),
        (
            {"system_prompt": "s", "question": "q", "response": "r"},
            {},
            r"\{instruction: question, output: response, system: system_prompt\}",
        ),
        # A column is advised only where its values can be what the field holds.
        ({"prompt": "q", "chosen": TURNS, "rejected": TURNS}, {}, r"\{messages: chosen\}"),
        ({"chosen": "Human: q", "rejected": "b"}, {}, "`shape` or `format`"),
        ({"question": "q", "answers": {"text": ["a"]}}, {}, "`shape` or `format`"),
        ({"method": "POST", "body": {"messages": TURNS}}, {}, "`shape` or `format`"),
        ({"question": "q", "choices": ["a", "b"], "answer": 1}, {}, "to a domain's `evaluation`"),
        # As YAML reads them back.
        ({"prompt ": "q", "completion": "a"}, {}, r'\{prompt: "prompt "\}'),
        ({"text": "t", "role": "user", "parent_id": None}, {}, "holds one turn of a conversation"),
        (
            {"question": "q", "answer": "a"},
            {"prompt": "question", "completion": "anwser"},
            r"names columns that do not exist \(completion: anwser, nearest 'answer'\)\. Fix",
        ),
        (
            {"prompt": "q", "completion": "a"},
            {"instruction": "prompt"},
            r"perhaps \{instruction: prompt, output: completion\} \(that makes it alpaca\)",
        ),
        (
            {"Frage": "q", "Antwort": "a"},
            {"prompt": "Frage"},
            r"shape prompt_completion `columns` must also say which column is completion "
            r"\(left are Antwort\)",
        ),
        (
            {"messages": TURNS, "prompt": "p", "completion": "c"},
            {},
            r"fit several shapes \(prompt_completion, messages\). Set the source's `shape`",
        ),
    ],
)
def test_what_fits_no_shape_or_several_is_refused_with_what_would_fit(
    row: dict[str, Any], columns: dict[str, str], words: str
) -> None:
    with pytest.raises(VersatuneError, match=words):
        detect_shape(row, columns, "f:1")


def test_a_text_beside_a_role_is_a_document_where_the_source_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a b", "role": "user"}\n')
    domain = {"description": "x", "sources": [{"path": str(tmp_path / "a.jsonl"), "shape": "text"}]}
    found = check_rows({"law": DomainConfig.model_validate(domain)}, CleanParams(seed=0))["law"]
    assert (found.read, found.rejects.total if found.rejects else 0) == (1, 0)


def test_two_fields_from_one_column_are_refused() -> None:
    with pytest.raises(ValueError, match="takes prompt and completion from one column, 'text'"):
        Source(path="a.jsonl", columns={"prompt": "text", "completion": "text"})
    with pytest.raises(RejectedError, match="for two fields"):
        settle({"output": "o", "x": 1}, "alpaca", {"instruction": "output"})


def test_a_missing_column_is_named_as_the_file_would_have_it() -> None:
    with pytest.raises(RejectedError, match=r"no 'anwser' \(`columns` takes completion from it\)"):
        settle({"prompt": "p"}, "prompt_completion", {"completion": "anwser"})


def test_a_completion_that_is_json_for_its_own_sake_stays_text() -> None:
    for completion in ('[{"role": "user", "content": "x"}]', '{"role": "a", "content": "b"}'):
        row = {"prompt": "write a conversation", "completion": completion}
        assert settle(row, "prompt_completion", {}) == (row, "prompt_completion")
