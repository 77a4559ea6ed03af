"""People as judges: the file they fill in."""

import csv
from pathlib import Path

import numpy as np
import pytest

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.probing.config import PersonParams
from versatune.probing.judges.base import About, Labelled
from versatune.probing.judges.person import Person, open_judge, text_id, train
from versatune.work import make_folder

DOMAINS = ["law", "medicine", "other"]
TEXTS = ["The court\nruled.", "Take two pills, daily.", " =cmd();+1"]


def filled(file: Path, domains: dict[str, str]) -> None:
    """Write domains beside the texts, as a spreadsheet would."""
    rows = read(file)
    for row in rows:
        row["domain"] = domains.get(row["id"], row["domain"])
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture
def person(tmp_path) -> Person:
    return Person(DOMAINS, tmp_path / "answers" / "labels.csv")


def test_the_first_run_makes_the_file_and_says_what_to_do(person):
    with pytest.raises(VersatuneError, match=r"labels\.csv: 3 of 3 texts wait .*law, medicine"):
        person.judge(TEXTS)
    rows = read(person.file)
    assert [r["domain"] for r in rows] == ["", "", ""]
    assert rows[0]["text"] == TEXTS[0]
    assert rows[2]["text"] == " '=cmd();'+1"  # a spreadsheet reads it as text


def test_what_was_written_is_the_judgement(person):
    with pytest.raises(VersatuneError):
        person.judge(TEXTS)
    ids = [text_id(t) for t in TEXTS]
    filled(person.file, {ids[0]: "Legal", ids[1]: " medicine ", ids[2]: "?"})
    found = person.judge([TEXTS[1], TEXTS[0], TEXTS[2], TEXTS[0]])
    assert found.status == ["ok", "ok", "refused", "ok"]
    assert found.probabilities[:2].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert found.probabilities[3].tolist() == [1, 0, 0]
    assert np.isnan(found.probabilities[2]).all() and np.isnan(found.vocab_coverage).all()


def test_texts_that_come_later_are_added_and_what_was_written_stays(person):
    with pytest.raises(VersatuneError):
        person.judge(TEXTS[:1])
    filled(person.file, {text_id(TEXTS[0]): "law"})
    with pytest.raises(VersatuneError, match="1 of 2 texts wait"):
        person.judge(TEXTS[:2])
    assert person.judge(TEXTS[:1]).probabilities.tolist() == [[1, 0, 0]]


def test_what_is_no_domain_is_named_with_its_line(person):
    with pytest.raises(VersatuneError):
        person.judge(TEXTS)
    filled(person.file, {text_id(TEXTS[1]): "cooking"})
    with pytest.raises(VersatuneError, match=r"labels\.csv:4: 'cooking' is no domain"):
        person.judge(TEXTS)  # line 4: the first text has two lines
    filled(person.file, {text_id(TEXTS[1]): "!"})
    with pytest.raises(VersatuneError, match=r"labels\.csv:4: '!' is no domain"):
        person.judge(TEXTS)


def test_semicolons_of_a_spreadsheet_are_understood(person):
    person.file.parent.mkdir()
    lines = ["id;domain;text", f"{text_id(TEXTS[1])};medicine;Take two pills, daily."]
    person.file.write_text("\n".join(lines), encoding="utf-8")
    assert person.judge(TEXTS[1:2]).probabilities.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"text,domain\nx,law\n", r"labels\.csv:1: the columns id, domain, text"),
        ("id,domain,text\na,law,caf\xe9\n".encode("latin-1"), "is not UTF-8"),
        (b'id,domain,text\na,law,"cut off', r"labels\.csv:2: "),
        (b'"id,domain,text\na,law,x\n', r"labels\.csv:2: "),
        (b"", r"labels\.csv:1: the columns"),
    ],
)
def test_a_damaged_file_is_told_and_left_alone(person, content, said):
    person.file.parent.mkdir()
    person.file.write_bytes(content)
    with pytest.raises(VersatuneError, match=said):
        person.judge(TEXTS)
    assert person.file.read_bytes() == content


def test_what_people_add_stays_when_texts_are_added(person):
    key = text_id(TEXTS[1])
    person.file.parent.mkdir()
    lines = ["who,id,domain,text", f"me,{key},Medical,pills,and a remark", "you,tdead,,gone"]
    person.file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(VersatuneError, match="1 of 2 texts wait"):
        person.judge(TEXTS[:2])
    rows = read(person.file)
    assert [r["who"] for r in rows] == ["me", "you", ""]
    assert list(rows[0].values()) == ["me", key, "Medical", "pills", "and a remark"]
    assert person.judge(TEXTS[1:2]).probabilities.tolist() == [[0, 1, 0]]


def test_the_same_text_twice_is_one_answer_or_a_contradiction(person):
    key = text_id(TEXTS[1])
    person.file.parent.mkdir()
    rows = ["id,domain,text", f"{key},law,x", f"{key},,x"]
    person.file.write_text("\n".join(rows), encoding="utf-8")
    assert person.judge(TEXTS[1:2]).probabilities.tolist() == [[1, 0, 0]]
    person.file.write_text("\n".join([*rows, f"{key},other,x"]), encoding="utf-8")
    with pytest.raises(VersatuneError, match=r"labels\.csv:4: .* is other here and law in line 2"):
        person.judge(TEXTS[1:2])


def test_domains_of_texts_that_are_not_asked_do_not_matter(person):
    person.file.parent.mkdir()
    rows = ["id,domain,text", f"{text_id(TEXTS[1])},law,x", "told,astrology,x"]
    person.file.write_text("\n".join(rows), encoding="utf-8")
    assert person.judge(TEXTS[1:2]).status == ["ok"]


def test_a_text_of_any_length_is_read_again(person):
    long = "word " * 60_000
    with pytest.raises(VersatuneError, match="wait"):
        person.judge([long])
    filled(person.file, {text_id(long): "other"})
    assert person.judge([long]).status == ["ok"]


def test_a_folder_in_the_files_place_is_told(tmp_path):
    with pytest.raises(VersatuneError, match="can't be read"):
        Person(DOMAINS, tmp_path).judge(TEXTS)


def test_no_id_is_a_number_to_a_spreadsheet():
    assert all(text_id(str(i)).startswith("t") for i in range(3))


def test_a_judge_of_people_is_their_file_and_always_right(tmp_path):
    clean = FolderRef(path=tmp_path, fingerprint="rows", metadata={"domains": DOMAINS})
    about = About(keep=tmp_path / "answers")
    ref = make_folder(train(clean, PersonParams(), about), tmp_path / "judge")
    kind = {"kind": "person", "name": "people, in labels.csv"}
    assert dict(ref.metadata) == {**kind, "domains": DOMAINS, "accuracy": None}
    assert Labelled.load(ref).probabilities.tolist() == np.eye(3).tolist()
    assert Labelled.load(ref).labels.tolist() == [0, 1, 2]
    opened = open_judge(ref, PersonParams(), about)
    assert (opened.domains, opened.file) == (DOMAINS, tmp_path / "answers" / "labels.csv")
    named = PersonParams(file=tmp_path / "other.csv")
    assert open_judge(ref, named, about).file == tmp_path / "other.csv"
    assert train(clean, named, about).fingerprint != ref.fingerprint
