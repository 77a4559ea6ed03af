"""People as judges: the file they fill in."""

import csv
from pathlib import Path

import pytest

from versatune.errors import VersatuneError
from versatune.probing.judges.person import Person, text_id

DOMAINS = ["law", "medicine", "other"]
TEXTS = ["The court\nruled.", "Take two pills, daily.", "=cmd()"]


def filled(file: Path, domains: dict[str, str]) -> None:
    """Write domains beside the texts, as a spreadsheet would."""
    with file.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        row["domain"] = domains.get(row["id"], row["domain"])
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, ["id", "domain", "text"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def person(tmp_path) -> Person:
    return Person(DOMAINS, tmp_path / "answers" / "labels.csv")


def test_the_first_run_makes_the_file_and_says_what_to_do(person):
    with pytest.raises(VersatuneError, match=r"labels\.csv: 3 of 3 texts wait .*law, medicine"):
        person.judge(TEXTS)
    with person.file.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [r["domain"] for r in rows] == ["", "", ""]
    assert rows[0]["text"] == TEXTS[0]
    assert rows[2]["text"] == "'=cmd()"  # no spreadsheet runs it


def test_what_was_written_is_the_judgement(person):
    with pytest.raises(VersatuneError):
        person.judge(TEXTS)
    ids = [text_id(t) for t in TEXTS]
    filled(person.file, {ids[0]: "Legal", ids[1]: " medicine ", ids[2]: "?"})
    found = person.judge([TEXTS[1], TEXTS[0], TEXTS[2], TEXTS[0]])
    assert found.status == ["ok", "ok", "refused", "ok"]
    assert found.probabilities[:2].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert found.probabilities[3].tolist() == [1, 0, 0]


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
    ],
)
def test_a_damaged_file_is_told_and_left_alone(person, content, said):
    person.file.parent.mkdir()
    person.file.write_bytes(content)
    with pytest.raises(VersatuneError, match=said):
        person.judge(TEXTS)
    assert person.file.read_bytes() == content
