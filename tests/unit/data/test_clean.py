"""Cleaning as a whole: every row accounted for, faults named, results repeatable."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from versatune.artifacts import INPUTS, FolderRef, fingerprint, read_json
from versatune.data.clean import SPLITS, clean
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.data.ingest_report import ingest_report
from versatune.data.leaks import equal_choices, read_questions
from versatune.data.tokenize import tokenize
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.work import WorkFolder, make_folder

Clean = Callable[..., FolderRef]


def row(prompt: str, answer: str = "yes") -> str:
    return json.dumps({"instruction": prompt, "input": "", "output": answer})


def lines(name: str, count: int = 20) -> list[str]:
    return [row(f"{name} question {n}", f"answer {n}") for n in range(count)]


@pytest.fixture
def cleaner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clean:
    """Write the files, clean two domains made of them; paths are relative to the test's folder."""
    monkeypatch.chdir(tmp_path)

    def run(
        law: list[str], code: list[str] | None = None, evaluation: list[str] = (), **params: Any
    ) -> FolderRef:
        config: dict[str, Any] = {}
        for name, content in (("law", law), ("code", code or lines("code"))):
            path = Path(f"{name} ünder.jsonl")
            path.write_text("\n".join(content) + "\n", encoding="utf-8", errors="surrogateescape")
            config[name] = {"description": name, "sources": [{"path": str(path)}]}
        if evaluation:
            items = [{"question": q, "choices": ["a", "b"], "answer": 7} for q in evaluation]
            Path("eval.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items))
            config["code"]["evaluation"] = [{"path": "eval.jsonl"}]
        piece = clean(Domains.model_validate(config), CleanParams(seed=0, **params))
        return make_folder(piece, "clean")

    return run


def report(ref: FolderRef) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ref.path / "report.json").read_text(encoding="utf-8"))
    return found


def rows(ref: FolderRef, *splits: str) -> list[dict[str, Any]]:
    parts = [datasets.load_from_disk(str(ref.path / s)).to_list() for s in splits or ("train",)]
    return [row for part in parts for row in part]


def used(entry: dict[str, Any]) -> int:
    return (
        sum(r["count"] for r in entry["rejected"].values())
        + sum(entry["duplicates"].values())
        + sum(entry[k] for k in ("leaked", "left_out_by_weight", "left_out_by_limit"))
        + sum(entry[k] for k in ("train_rows", "validation_rows"))
    )


def test_each_fault_is_counted_where_it_stands(cleaner: Clean) -> None:
    law = [
        *lines("law"),
        '{"instruction": "cut off',
        row("no answer", ""),
        row("law question 3", "answer 3"),
        row("LAW  question 3", "Answer 3"),
        row("so which bird is on the coat of arms of Peru, tell", "none"),
        row("code question 5", "answer 5"),
    ]
    question = "Which bird is on the coat of arms of Peru?"
    found = report(cleaner(law, evaluation=[question], max_reject_rate=0.1))
    assert found["law"]["rejected"] == {
        "bad_json": {
            "count": 1,
            "examples": [
                {
                    "where": "law ünder.jsonl:21",
                    "detail": "Unterminated string starting at: line 1 column 17 (char 16)",
                }
            ],
        },
        "empty_output": {
            "count": 1,
            "examples": [
                {"where": "law ünder.jsonl:22", "detail": "a turn of the assistant is empty"}
            ],
        },
    }
    assert found["law"]["duplicates"] == {"exact": 2, "near": 0}
    assert found["law"]["leaked"] == 1
    assert found["code"]["duplicates"] == {"exact": 1, "near": 0}
    assert {name: used(e) for name, e in found.items()} == {"law": 26, "code": 20}


def test_rows_keep_their_place_and_order(cleaner: Clean) -> None:
    ref = cleaner(lines("law"))
    kept = rows(ref, *SPLITS)
    assert [r["domain"] for r in rows(ref)] == sorted(r["domain"] for r in rows(ref))
    first = next(r for r in kept if r["row"] == "law ünder.jsonl:4")
    assert first["messages"] == [
        {"role": "user", "content": "law question 3", "fields": None},
        {"role": "assistant", "content": "answer 3", "fields": None},
    ]
    assert len(kept) == 40
    prompts = [{r["prompt"] for r in rows(ref, split)} for split in SPLITS]
    assert len(set.union(*prompts)) == sum(map(len, prompts)) == 40
    assert all(prompts)


def test_rows_that_an_older_version_cleaned_are_cleaned_again(cleaner: Clean) -> None:
    """The older version had one held-out split."""
    made = cleaner(lines("law"))
    inputs = read_json(made.path / INPUTS)
    inputs["version"] -= 1
    WorkFolder.open(made.path, inputs).seal(domains=["law", "code"], rows={})
    assert not (made.path / "report").exists()
    again = cleaner(lines("law"))
    assert again.fingerprint == made.fingerprint != fingerprint(inputs)
    assert rows(again, "report")


def test_too_many_broken_rows_stop_the_run(cleaner: Clean) -> None:
    law = [*lines("law", 17), "{", "{", row("x", "")]
    with pytest.raises(VersatuneError) as caught:
        cleaner(law)
    message = str(caught.value)
    assert "3 of 20 rows are broken" in message
    assert "2 x bad_json, first law ünder.jsonl:18" in message
    assert "1 x empty_output, first law ünder.jsonl:20" in message
    assert "ingest.max_reject_rate (now 0.05)" in message
    assert cleaner(law, max_reject_rate=0.15).metadata["domains"] == ["law", "code"]


def test_lines_in_another_encoding_are_rejected_one_by_one(cleaner: Clean) -> None:
    law = [*lines("law"), row("x", "caf\udce9").replace("\\udce9", "\udce9")]
    found = report(cleaner(law))
    assert found["law"]["rejected"]["not_utf8"]["examples"][0]["where"] == "law ünder.jsonl:21"


def test_files_are_missing_before_any_work(tmp_path: Path) -> None:
    config = {
        name: {
            "description": "",
            "sources": [{"path": f"none/{name}.jsonl"}],
            "evaluation": [{"path": f"none/{name}_eval.jsonl"}],
        }
        for name in ("law", "code")
    }
    params = CleanParams(seed=0)
    with pytest.raises(VersatuneError) as caught:
        clean(Domains.model_validate(config), params)
    for name in ("law", "code"):
        assert f"domains.{name}.sources: none/{name}.jsonl" in str(caught.value)
        assert f"domains.{name}.evaluation: none/{name}_eval.jsonl" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "law", [[], [""], ["\ufeff"], lines("law", 1), [row("a", "b"), row("a", "c")]]
)
def test_domains_too_small_to_split_are_named(cleaner: Clean, law: list[str]) -> None:
    with pytest.raises(VersatuneError, match=r"domains\.law: |law ünder\.jsonl: "):
        cleaner(law)


@pytest.mark.parametrize("rate", [0.05, 1.0])
def test_a_domain_of_rejects_alone_is_named(cleaner: Clean, rate: float) -> None:
    with pytest.raises(VersatuneError, match=r"domains\.law|law ünder\.jsonl"):
        cleaner(["{", row("x", ""), row("", "y")] * 3, max_reject_rate=rate)


def test_columns_of_no_shape_are_named(cleaner: Clean) -> None:
    with pytest.raises(VersatuneError, match=r"law ünder\.jsonl:1: the columns foo fit no known"):
        cleaner(['{"foo": 1}'] * 9)


def mapped(tmp_path: Path, law: list[dict[str, str]], columns: dict[str, str]) -> FolderRef:
    for name, made in (("law", law), ("code", [json.loads(line) for line in lines("code")])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in made))
    config: dict[str, Any] = {
        name: {"description": name, "sources": [{"path": str(tmp_path / f"{name}.jsonl")}]}
        for name in ("law", "code")
    }
    config["law"]["sources"][0]["columns"] = columns
    return make_folder(
        clean(Domains.model_validate(config), CleanParams(seed=0)), tmp_path / "clean"
    )


def test_a_column_that_no_row_has_is_named_and_not_left_out_silently(tmp_path: Path) -> None:
    law = [
        {"instruction": f"what {n}", "output": f"so {n}", "context": f"of {n}"} for n in range(20)
    ]
    with pytest.raises(
        VersatuneError,
        match=r"law\.jsonl: no row has what `columns` names \(input: contxt\); "
        r"the last one has context, instruction, output",
    ):
        mapped(tmp_path, law, {"input": "contxt"})


def test_a_column_that_one_row_has_is_enough(tmp_path: Path) -> None:
    law = [{"instruction": f"what {n}", "output": f"so {n}"} for n in range(20)]
    law[7]["context"] = "of 7"
    found = rows(mapped(tmp_path, law, {"input": "context"}))
    found += rows(FolderRef.load(tmp_path / "clean"), "steering", "report")
    assert sum("of 7" in r["messages"][0]["content"] for r in found) == 1


def test_equal_choices_are_refused_before_any_training(cleaner: Clean) -> None:
    cleaner(lines("law"), evaluation=["Which is which?"])
    item = {"question": "Which is it, then?", "choices": ["a", "b", " a"], "answer": 0}
    Path("eval.jsonl").write_text(
        json.dumps({**item, "choices": ["a", "A"]}) + "\n" + json.dumps(item)
    )
    config: dict[str, Any] = {
        n: {"description": n, "sources": [{"path": f"{n} ünder.jsonl"}]} for n in ("law", "code")
    }
    config["law"]["evaluation"] = [{"path": "eval.jsonl"}]
    with pytest.raises(VersatuneError, match=r"eval\.jsonl:2: 'choices' holds 'a' more than once"):
        make_folder(clean(Domains.model_validate(config), CleanParams(seed=0)), "clean")


@pytest.mark.parametrize("other", ["a\u00a0b", "a\u2009b ", "a b\u200b", "\ufeffa b", "a\u00ad b"])
def test_choices_that_look_alike_are_equal(other: str) -> None:
    assert equal_choices(["a b", "c", other])
    assert not equal_choices(["a b", "a  b", "a\nb", "A b"])


@pytest.mark.parametrize("items", ["not json", '{"choices": []}', '{"question": " "}', "[1]"])
def test_evaluation_files_without_questions_are_named(cleaner: Clean, items: str) -> None:
    cleaner(lines("law"), evaluation=["Which is which?"])
    Path("eval.jsonl").write_text(items)
    config = {
        n: {"description": n, "sources": [{"path": f"{n} ünder.jsonl"}]} for n in ("law", "code")
    }
    config["law"]["evaluation"] = [{"path": "eval.jsonl"}]  # type: ignore[list-item]
    with pytest.raises(VersatuneError, match=r"eval\.jsonl"):
        make_folder(clean(Domains.model_validate(config), CleanParams(seed=0)), "clean")


def test_what_is_asked_goes_by_several_names(tmp_path: Path) -> None:
    path = tmp_path / "eval.jsonl"
    items = [{"prompt": "def f():", "test": "t"}, {"text": "Write f."}, {"question": "Why?"}]
    path.write_text("\ufeff" + "\r\n".join(map(json.dumps, items)), encoding="utf-8")
    assert read_questions(path) == ["def f():", "Write f.", "Why?"]
    path.write_text('{"question": "\\ud800"}')
    with pytest.raises(VersatuneError, match=r"eval\.jsonl"):
        read_questions(path)


def test_sources_stand_in_their_proportions(tmp_path: Path) -> None:
    config: dict[str, Any] = {}
    for name, weights in (("law", [3.0, 1.0]), ("code", [None, None])):
        sources = []
        for part, (count, weight) in enumerate(zip((30, 20), weights, strict=True)):
            path = tmp_path / f"{name}{part}.jsonl"
            path.write_text("\n".join(lines(f"{name}{part}", count)))
            sources.append({"path": str(path), "weight": weight})
        config[name] = {"description": name, "sources": sources}
    ref = make_folder(
        clean(Domains.model_validate(config), CleanParams(seed=0)), tmp_path / "clean"
    )
    kept = rows(ref, *SPLITS)
    counts = {
        f"{n}{p}": sum(f"{n}{p}.jsonl" in r["row"] for r in kept)
        for n in ("law", "code")
        for p in (0, 1)
    }
    assert counts == {"law0": 30, "law1": 10, "code0": 30, "code1": 20}
    assert report(ref)["law"]["left_out_by_weight"] == 10


def test_limits_and_other_seeds(cleaner: Clean) -> None:
    first = cleaner(lines("law", 60), max_rows=30)
    assert report(first)["law"]["left_out_by_limit"] == 30
    kept = {r["row"] for r in rows(first)}
    other = cleaner(lines("law", 60), max_rows=30, near_duplicate_threshold=None)
    assert {r["row"] for r in rows(other)} == kept
    assert other.metadata["data_fingerprint"] == first.metadata["data_fingerprint"]
    assert other.fingerprint != first.fingerprint


def test_the_data_fingerprint_stands_for_what_is_written(cleaner: Clean) -> None:
    """Indentation decides no duplicate, and yet it makes other rows."""
    found = {
        cleaner([*lines("law"), row("loop", answer)]).metadata["data_fingerprint"]
        for answer in ("if x:\n    y()", "if x:\n  y()", "if X:\n    y()")
    }
    assert len(found) == 3


def test_nothing_left_is_told_by_what_was_lost(cleaner: Clean) -> None:
    questions = [f"{name} question {n}" for name in ("law", "code") for n in range(20)]
    with pytest.raises(
        VersatuneError, match=r"domains\.law: no rows are left \(20 leaked from evaluation files\)"
    ):
        cleaner(lines("law"), evaluation=questions)


def test_unchanged_data_is_not_read_again_and_changed_data_is(
    cleaner: Clean, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_again(*_: Any) -> None:
        raise AssertionError("the rows were read again")

    first = cleaner(lines("law"))
    with monkeypatch.context() as patch:
        patch.setattr("versatune.data.clean._clean", read_again)
        assert cleaner(lines("law")) == first
    assert cleaner(lines("law", 21)).fingerprint != first.fingerprint


BROKEN = st.sampled_from(
    ["{", "[]", row("x", ""), row("", "x"), '{"instruction": "x"}', '{"output": NaN}', "\udcff"]
)
SOUND = st.builds(row, st.sampled_from([f"what {n}" for n in range(9)]), st.sampled_from("abc"))
LONG = st.builds(row, st.just("the court " * 40), st.sampled_from("abc"))


@given(law=st.lists(SOUND | BROKEN | LONG, max_size=30), code=st.lists(SOUND, max_size=10))
@example(law=["[]", "{"], code=[])
@example(law=["[]", "\udcff"], code=[])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_row_read_is_accounted_for(
    cleaner: Clean, tiny_checkpoint: CheckpointRef, law: list[str], code: list[str]
) -> None:
    law, code = law + lines("law", 8), code + lines("code", 8)
    cleaned = cleaner(law, code, evaluation=["what 3"], max_reject_rate=1, max_rows=25)
    params = TokenizeParams(max_length=64)
    tokenized = make_folder(
        tokenize(cleaned, tiny_checkpoint.path, load_tokenizer, params), "tokenized"
    )
    found = ingest_report(cleaned, tokenized)
    for name, written in (("law", law), ("code", code)):
        entry = found["domains"][name]
        assert entry["read"] == len(written)
        assert used(entry) == entry["read"]
        assert tokenized.metadata["train"][name]["tokens"] == entry["train_tokens"]
        assert min(entry["steering_rows"], entry["report_rows"]) >= 1
        for unit in ("rows", "tokens", "supervised_tokens"):
            both = entry[f"steering_{unit}"] + entry[f"report_{unit}"]
            assert entry[f"validation_{unit}"] == both
    json.dumps(found, allow_nan=False)
