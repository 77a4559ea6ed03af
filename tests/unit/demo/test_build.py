"""What is built from the facts: exact shares, nothing leaked, the same every time."""

import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.artifacts import MANIFEST, file_digest
from versatune.demo.build import (
    apportion,
    build,
    choose_seen,
    compose_documents,
    describe,
    instruction_rows,
)
from versatune.demo.config import SampleParams
from versatune.demo.facts import (
    Fact,
    Relation,
    load_facts,
    load_templates,
    load_unseen,
    phrase,
)
from versatune.errors import VersatuneError
from versatune.work import make_folder

SHARES = [
    {"law": 0.08, "medicine": 0.14, "finance": 0.10, "science": 0.20, "code": 0.18, "other": 0.30},
    dict.fromkeys(("law", "medicine", "finance", "science", "code", "other"), 1 / 6),
    {"law": 0.50, "medicine": 0.05, "finance": 0.15, "science": 0.10, "code": 0.15, "other": 0.05},
]


@pytest.fixture(scope="module")
def source(project_root: Path) -> Path:
    return project_root / "data" / "01_raw" / "samples"


def built(folder: Path, params: SampleParams) -> dict[str, Any]:
    return describe(make_folder(build(params), folder))


@pytest.fixture(scope="module")
def sample(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sample") / "sample"
    return built(folder, SampleParams(source=source, documents=600))


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("shares", SHARES)
def test_known_shares_are_exact_by_count(
    source: Path, tmp_path: Path, shares: dict[str, float]
) -> None:
    result = built(tmp_path / "s", SampleParams(source=source, documents=300, shares=shares))
    counted = Counter(row["domain"] for row in lines(result["corpus"]))
    assert sum(counted.values()) == 300
    for domain, share in shares.items():
        assert counted[domain] == result["counts"][domain]["documents"] == round(300 * share)
        assert result["shares"][domain] == counted[domain] / 300


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.integers(min_value=0, max_value=500)
)
def test_apportion_sums_and_stays_within_one_of_the_quota(parts: list[int], extra: int) -> None:
    total = 2000 + extra
    shares = {str(i): p / sum(parts) for i, p in enumerate(parts)}
    counts = _apportion_or_none(shares, total)
    if counts is None:
        assert min(shares.values()) * total < 1.01
        return
    assert sum(counts.values()) == total
    for name, share in shares.items():
        assert abs(counts[name] - share * total) < 1.01  # quotas are rounded to 1e-6


def _apportion_or_none(shares: dict[str, float], total: int) -> dict[str, int] | None:
    try:
        return apportion(shares, total)
    except VersatuneError:
        return None


def test_apportion_by_hand() -> None:
    # Quotas 1.2, 2.3, 6.5: floors 1 + 2 + 6 = 9, the one left goes to the largest remainder.
    assert apportion({"a": 0.12, "b": 0.23, "c": 0.65}, 10) == {"a": 1, "b": 2, "c": 7}


def test_a_domain_without_a_document_is_refused() -> None:
    with pytest.raises(VersatuneError, match=r"documents = 5 leaves no document for law"):
        apportion({"law": 0.01, "other": 0.99}, 5)


def test_part_of_each_relation_is_seen() -> None:
    facts = [Fact(f"{r}{i}", r, str(i)) for r in "ab" for i in range(30)]
    seen = choose_seen(facts, 2 / 3, random.Random(0))
    assert len(seen) == 40
    assert Counter(f.relation for f in seen) == {"a": 20, "b": 20}
    assert seen != choose_seen(facts, 2 / 3, random.Random(1))


def test_documents_tell_each_fact_equally_often_in_changing_words() -> None:
    facts = [Fact(f"s{i}", "r", f"o{i}") for i in range(7)]
    statements = [f"Word {n} " + "filler " * 8 + "{subject} {object}." for n in range(3)]
    relation = Relation.model_validate(
        {
            "statements": statements,
            "questions": [{"instruction": "i", "output": "o"}],
            "choice": ["c"],
        }
    )
    texts = compose_documents(facts, {"r": relation}, 60, random.Random(0))
    told = Counter(re.findall(r"s\d", " ".join(texts)))
    assert max(told.values()) - min(told.values()) <= 1
    wordings = Counter(re.findall(r"Word (\d) (?:filler )+s0 ", " ".join(texts)))
    assert len(wordings) == 3 and max(wordings.values()) - min(wordings.values()) <= 1


def test_the_corpus_tells_seen_facts_alone(source: Path, sample: dict[str, Any]) -> None:
    templates = load_templates(source)
    corpus = lines(sample["corpus"])
    for domain, path in sample["evaluation"].items():
        seen = [item["seen"] for item in lines(path)]
        text = "\n".join(row["text"] for row in corpus if row["domain"] == domain)
        for fact, told in zip(load_facts(source, domain), seen, strict=True):
            statements = templates[domain][fact.relation].statements
            assert told == any(phrase(s, fact) in text for s in statements), fact


def test_some_facts_are_wholly_out_of_training(source: Path, sample: dict[str, Any]) -> None:
    """No document and no row tells them: what is asked of them is not recall in other words."""
    templates = load_templates(source)
    corpus = "\n".join(row["text"] for row in lines(sample["corpus"]))
    for domain, path in sample["instructions"].items():
        told = load_facts(source, domain)
        unseen = load_unseen(source, domain, told)
        items = lines(Path(sample["folder"]) / "unseen" / f"{domain}.jsonl")
        assert len(items) == len(unseen) == sample["counts"][domain]["unseen"] == 24
        rows = {json.dumps(row, sort_keys=True) for row in lines(path)}
        objects = {(f.relation, f.object) for f in [*told, *unseen]}
        for fact, item in zip(unseen, items, strict=True):
            relation = templates[domain][fact.relation]
            assert not any(phrase(s, fact) in corpus for s in relation.statements), fact
            asked = instruction_rows([fact], templates[domain], 4)
            assert rows.isdisjoint(json.dumps(row, sort_keys=True) for row in asked), fact
            assert item["choices"][item["answer"]] == fact.object and not item["seen"]
            assert all((fact.relation, choice) in objects for choice in item["choices"])
        assert Counter(item["answer"] for item in items) == dict.fromkeys(range(4), 6)


def test_facts_out_of_training_move_no_row(
    source: Path, sample: dict[str, Any], tmp_path: Path
) -> None:
    """Where there are none, every other file of the sample is the same to the byte."""
    plain = tmp_path / "source"
    shutil.copytree(source, plain, ignore=shutil.ignore_patterns("unseen"))
    without = Path(built(tmp_path / "sample", SampleParams(source=plain, documents=600))["folder"])
    files = [p for p in Path(sample["folder"]).rglob("*.jsonl") if p.parent.name != "unseen"]
    assert len(files) == 13 and not (without / "unseen").exists()
    for file in files:
        there = without / file.relative_to(sample["folder"])
        assert there.read_bytes() == file.read_bytes(), there


def test_a_fact_that_is_trained_on_is_not_unseen(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "unseen" / "other.csv").open("a") as file:
        file.write("France,capital,Lyon\n")
    with pytest.raises(VersatuneError, match=r"unseen/other\.csv: 'France' has a 'capital' in"):
        built(tmp_path / "out", SampleParams(source=tmp_path, documents=600))


def test_two_thirds_are_seen_in_every_domain(sample: dict[str, Any]) -> None:
    for domain, counts in sample["counts"].items():
        items = lines(sample["evaluation"][domain])
        assert counts["seen"] == sum(item["seen"] for item in items)
        assert counts["seen"] == int(counts["facts"] * 2 / 3)


def test_documents_are_of_comparable_length_across_domains(sample: dict[str, Any]) -> None:
    lengths: dict[str, list[int]] = {}
    for row in lines(sample["corpus"]):
        lengths.setdefault(row["domain"], []).append(len(row["text"].split()))
    means = {domain: sum(v) / len(v) for domain, v in lengths.items()}
    assert max(means.values()) / min(means.values()) < 1.15


def test_instruction_rows(sample: dict[str, Any]) -> None:
    for domain, path in sample["instructions"].items():
        rows = lines(path)
        assert 400 <= len(rows) <= 900
        assert len(rows) == sample["counts"][domain]["rows"]
        assert all(row.keys() == {"instruction", "input", "output"} for row in rows)
        assert all(row["instruction"] and row["output"] for row in rows)
        prompts = Counter((row["instruction"], row["input"]) for row in rows)
        assert max(prompts.values()) == 1


def test_multiple_choice_items_are_true_and_balanced(source: Path, sample: dict[str, Any]) -> None:
    templates = load_templates(source)
    for domain, path in sample["evaluation"].items():
        facts, items = load_facts(source, domain), lines(path)
        assert len(items) == len(facts) == sample["counts"][domain]["items"]
        truth = {(f.subject, f.relation): f.object for f in facts}
        for fact, item in zip(facts, items, strict=True):
            relation = templates[domain][fact.relation]
            assert item["question"] in [phrase(c, fact) for c in relation.choice]
            assert len(set(item["choices"])) == len(item["choices"]) == 4
            assert item["choices"][item["answer"]] == fact.object
            assert sum(c == truth[fact.subject, fact.relation] for c in item["choices"]) == 1
            for group in relation.confusable:
                if fact.object in group:
                    assert set(item["choices"]) & set(group) == {fact.object}
        places = Counter(item["answer"] for item in items)
        assert max(places.values()) - min(places.values()) <= 1
        assert {item["seen"] for item in items} == {True, False}


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def grams(text: str, size: int) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}


def test_no_question_of_the_evaluation_is_trained_on(sample: dict[str, Any]) -> None:
    """Neither whole, nor thirteen words in a row: the bound of ingest's own check."""
    trained = [row["text"] for row in lines(sample["corpus"])]
    for path in sample["instructions"].values():
        trained += [f"{row['instruction']} {row['input']} {row['output']}" for row in lines(path)]
    joined = "\n".join(" ".join(words(text)) for text in trained)
    runs = set().union(*(grams(text, 13) for text in trained))
    for path in sample["evaluation"].values():
        for item in lines(path):
            assert " ".join(words(item["question"])) not in joined, item
            assert not grams(item["question"], 13) & runs, item
            for choice in item["choices"]:
                assert not grams(f"{item['question']} {choice}", 13) & runs, item


def digests(result: dict[str, Any]) -> dict[str, str]:
    folder = Path(result["folder"])
    return {p.relative_to(folder).as_posix(): file_digest(p) for p in folder.rglob("*.jsonl")}


def test_the_same_parameters_give_the_same_files_and_another_seed_others(
    source: Path, sample: dict[str, Any], tmp_path: Path
) -> None:
    again = built(tmp_path / "a", SampleParams(source=source, documents=600))
    assert digests(again) == digests(sample)
    assert again["fingerprint"] == sample["fingerprint"]
    other = built(tmp_path / "b", SampleParams(source=source, documents=600, seed=1))
    assert other["fingerprint"] != sample["fingerprint"]
    assert not set(digests(other).values()) & set(digests(sample).values())
    assert other["shares"] == sample["shares"]


def test_the_number_of_documents_moves_neither_rows_nor_items(
    source: Path, sample: dict[str, Any], tmp_path: Path
) -> None:
    fewer = digests(built(tmp_path / "a", SampleParams(source=source, documents=300)))
    changed = {name for name, digest in digests(sample).items() if fewer[name] != digest}
    assert changed == {"corpus.jsonl"}


def test_a_finished_sample_is_found_and_a_changed_one_made_again(
    source: Path, tmp_path: Path
) -> None:
    params = SampleParams(source=source, documents=100)
    first = built(tmp_path / "s", params)
    written = (tmp_path / "s" / MANIFEST).stat().st_mtime_ns
    assert built(tmp_path / "s", params) == first
    assert (tmp_path / "s" / MANIFEST).stat().st_mtime_ns == written
    more = built(tmp_path / "s", params.model_copy(update={"documents": 200}))
    assert more["fingerprint"] != first["fingerprint"]
    assert len(lines(more["corpus"])) == 200


def test_the_result_is_json(sample: dict[str, Any]) -> None:
    assert json.loads(json.dumps(sample)) == sample
    assert sample.keys() == {
        "folder", "fingerprint", "corpus", "instructions", "evaluation", "shares", "counts",
    }  # fmt: skip


def test_domains_may_go_by_another_name(source: Path, tmp_path: Path) -> None:
    result = built(
        tmp_path / "s",
        SampleParams(
            source=source,
            documents=10,
            shares={"Legal": 0.5, "general": 0.5},
        ),
    )
    assert result["shares"] == {"law": 0.5, "other": 0.5}


def test_a_domain_without_facts_is_named(source: Path, tmp_path: Path) -> None:
    params = SampleParams(source=source, shares={"law": 0.5, "cooking": 0.5})
    with pytest.raises(VersatuneError, match="no facts of the domain 'cooking'"):
        built(tmp_path / "s", params)


def test_too_many_choices_are_refused(source: Path, tmp_path: Path) -> None:
    params = SampleParams(source=source, documents=100, choices=30)
    with pytest.raises(VersatuneError, match=r"wrong answers exist for .* asks for 29"):
        built(tmp_path / "s", params)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"law": 0.5, "other": 0.4}, "sum to 0.9 and not to 1"),
        ({"law": 1.0, "other": 0.0}, "above 0"),
        ({"law": 1.5, "other": -0.5}, "above 0"),
        ({"law": 0.5, "legal": 0.5}, "given twice"),
    ],
)
def test_bad_shares_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleParams(shares=shares)
