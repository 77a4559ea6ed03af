"""Evaluation files: every fault is named with file and line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.data.config import Domains
from versatune.errors import VersatuneError
from versatune.evaluation.tasks import COUNTED, domain_tasks, read_task, tell_doubts

CHOICE = {"question": "q", "choices": ["a", "b", "c"], "answer": 2}
HUMANEVAL = {"prompt": "def f():\n", "test": "def check(f): pass", "entry_point": "f"}
MBPP = {"text": "Write f.", "test_list": ["assert f() == 1"]}


def write(path: Path, *items: Any) -> Path:
    lines = [item if isinstance(item, str) else json.dumps(item) for item in items]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (CHOICE, "multiple_choice"),
        ({"question": "q", "answer": "text"}, "generation"),
        (HUMANEVAL, "humaneval"),
        (MBPP, "mbpp"),
        ({"prompt": "Write f.", "test_list": ["assert f()"], "test_imports": []}, "mbpp"),
    ],
)
def test_a_file_is_told_by_its_fields(tmp_path: Path, item: Any, kind: str) -> None:
    task = read_task("law", "t", write(tmp_path / "t.jsonl", item, "", item))
    assert (task.domain, task.name, task.kind) == ("law", "t", kind)
    assert [i["item"] for i in task.items] == ["t:1", "t:3"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (CHOICE | {"answer": 3}, "'answer' is 3, but the choices are 0 to 2"),
        (CHOICE | {"answer": -1}, "'answer' is -1"),
        (CHOICE | {"answer": "2"}, "must be the index of the right choice"),
        (CHOICE | {"answer": True}, "must be the index of the right choice"),
        (CHOICE | {"choices": []}, "a list of at least two, found []"),
        (CHOICE | {"choices": ["only"]}, "at least two"),
        (CHOICE | {"choices": ["a", " "]}, "texts that are not empty"),
        (CHOICE | {"choices": ["a", "b", "a"]}, "'choices' holds 'a' more than once"),
        (CHOICE | {"choices": ["a", "b ", " b"]}, "'choices' holds 'b' more than once"),
        (CHOICE | {"choices": ["a", "\u00e9", "e\u0301"]}, "holds '\u00e9' more than once"),
        (CHOICE | {"question": ""}, "'question' must be a text"),
        ({"choices": ["a", "b"], "answer": 0}, "'question' must be a text"),
        ({"question": "q", "choices": ["a", "b"]}, "'answer' must be the index"),
        ("{not json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"question": "\\ud800", "choices": ["a", "b"], "answer": 0}', "half a character"),
        ("[1, 2]", "a JSON object is needed"),
        ('{"question": "q", "question": "r"}', "'question' stands twice"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, item: Any, message: str) -> None:
    path = write(tmp_path / "t.jsonl", CHOICE, item)
    with pytest.raises(VersatuneError) as error:
        read_task("law", "t", path)
    assert f"{path}:2: " in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"question": "q", "answer": 1}, "'choices' is missing"),
        ({"question": "q"}, "can't tell what is asked from the fields question"),
        ({"question": "q", "answer": " "}, "'answer' must be a text"),
        (HUMANEVAL | {"test": ""}, "'test' must be a text"),
        (MBPP | {"test_list": []}, "a list of assertions"),
        ({"test_list": ["assert 1"]}, "'prompt' must be a text"),
    ],
)
def test_a_first_line_that_is_no_item(tmp_path: Path, item: Any, message: str) -> None:
    with pytest.raises(VersatuneError, match=r"t\.jsonl:1: ") as error:
        read_task("law", "t", write(tmp_path / "t.jsonl", item))
    assert message in str(error.value)


def test_a_file_that_is_empty_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(VersatuneError, match="holds no items"):
        read_task("law", "t", write(tmp_path / "t.jsonl", "", ""))
    with pytest.raises(VersatuneError, match=r"domains\.law\.evaluation: .*can't be read"):
        read_task("law", "t", tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VersatuneError, match=r"bytes\.jsonl is UTF-16"):
        read_task("law", "t", tmp_path / "bytes.jsonl")
    (tmp_path / "pointer.jsonl").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(VersatuneError, match=r"pointer\.jsonl is a Git LFS pointer"):
        read_task("law", "t", tmp_path / "pointer.jsonl")


def test_what_is_not_asked_and_answers_from_1_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [
        CHOICE
        | {
            "answer": 1 + i % 2,
            "context": "the court of the town",
            "subject": "contract law",
            "id": 1,
        }
        for i in range(COUNTED)
    ]
    tell_doubts(read_task("law", "t", write(tmp_path / "t.jsonl", *items)))
    assert "not asked: context (20 items)" in caplog.text
    assert "no answer of 20 items is 0" in caplog.text
    caplog.clear()
    tell_doubts(read_task("law", "t", write(tmp_path / "t.jsonl", *[CHOICE | {"answer": 0}] * 30)))
    tell_doubts(read_task("law", "t", write(tmp_path / "u.jsonl", HUMANEVAL)))
    tell_doubts(read_task("law", "t", write(tmp_path / "v.jsonl", MBPP)))
    assert caplog.text == ""


def test_a_byte_order_mark_and_crlf_are_no_faults(tmp_path: Path) -> None:
    line = json.dumps(CHOICE).encode()
    (tmp_path / "t.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line)
    assert len(read_task("law", "t", tmp_path / "t.jsonl").items) == 2


FIELDS = st.sampled_from(["question", "choices", "answer", "prompt", "test", "test_list", "x"])
VALUES = st.none() | st.booleans() | st.integers(-2, 3) | st.text(max_size=5) | st.floats()


@given(
    content=st.lists(
        st.dictionaries(FIELDS, VALUES | st.lists(VALUES, max_size=3)), max_size=3
    ).map(lambda items: "\n".join(map(json.dumps, items)).encode())
    | st.binary(max_size=60)
)
def test_any_file_is_a_task_or_named(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "t.jsonl"
    path.write_bytes(content)
    try:
        assert read_task("law", "t", path).items
    except VersatuneError as error:
        assert str(path) in str(error)


def test_line_separators_inside_a_text_are_no_new_line(tmp_path: Path) -> None:
    text = json.dumps(CHOICE | {"question": "one\u2028two\u0085three"}, ensure_ascii=False)
    task = read_task("law", "t", write(tmp_path / "t.jsonl", text, {**CHOICE, "answer": 0}))
    assert [item["item"].rpartition(":")[2] for item in task.items] == ["1", "2"]


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    one = read_task("law", "t", write(tmp_path / "a.jsonl", CHOICE))
    moved = read_task("law", "t", write(tmp_path / "b.jsonl", CHOICE))
    other = read_task("law", "t", write(tmp_path / "c.jsonl", CHOICE | {"answer": 0}))
    assert one.fingerprint == moved.fingerprint != other.fingerprint


def asked(**files: list[tuple[Path, bool]]) -> Domains:
    """Domains with these files, each called ``a``, and whether it is apart."""
    return Domains.model_validate(
        {
            name: {
                "description": name,
                "sources": [{"path": "rows.jsonl"}],
                "evaluation": [{"path": str(p), "task": "a", "apart": apart} for p, apart in own],
            }
            for name, own in files.items()
        }
    )


def test_two_files_of_a_domain_need_two_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", CHOICE)
    with pytest.raises(VersatuneError, match="two files are called 'a'"):
        domain_tasks(asked(law=[(path, False), (path, True)], code=[]))
    found = domain_tasks(asked(law=[(path, False)], code=[(path, True)]))
    assert [(t.domain, t.name, t.label) for t in found] == [
        ("law", "a", "a"),
        ("code", "a", "a (apart)"),
    ]
    assert found[0].fingerprint != found[1].fingerprint


def test_tasks_whose_names_mlflow_would_write_alike_keep_their_metrics() -> None:
    import pandas as pd

    from versatune.evaluation.results import metric_values

    about = {"model": "tuned", "metric": "acc", "domain": "law"}
    tasks = ["law", "bar (1)", "bar [1]", "bar é"]
    rows = pd.DataFrame([{**about, "task": t, "value": float(i)} for i, t in enumerate(tasks)])
    assert metric_values(rows) == {
        "tuned/acc/law": 0.0,
        "tuned/acc/law-bar _1_": 1.0,
        "tuned/acc/law-bar _1__": 2.0,
        "tuned/acc/law-bar é": 3.0,
    }


@pytest.mark.parametrize(
    ("item", "question", "truth"),
    [
        (CHOICE, "q", "c"),
        ({"question": "q", "answer": "seven"}, "q", "seven"),
        (MBPP, "Write f.", "a program that passes the tests"),
        (HUMANEVAL, "def f():\n", "a program that passes the tests"),
    ],
)
def test_what_a_person_reads_of_an_item(
    tmp_path: Path, item: Any, question: str, truth: str
) -> None:
    task = read_task("law", "t", write(tmp_path / "t.jsonl", item))
    assert (task.question(task.items[0]), task.truth(task.items[0])) == (question, truth)


def test_guessing_is_right_by_the_number_of_choices(tmp_path: Path) -> None:
    two = {**CHOICE, "choices": ["a", "b"], "answer": 0}
    task = read_task("law", "t", write(tmp_path / "t.jsonl", CHOICE, two, two))
    assert task.chance() == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)
    assert task.chance(1) == pytest.approx(1 / 3)
    text = write(tmp_path / "u.jsonl", {"question": "q", "answer": "a"})
    assert read_task("law", "t", text).chance() is None
