"""Raw rows from files, good and bad."""

import json
from pathlib import Path

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from versatune.data.config import Source
from versatune.data.file_formats import Asked
from versatune.data.files import files_of
from versatune.data.hub import read_hub
from versatune.data.readers import parse, read
from versatune.data.rows import RejectedRow, Row
from versatune.errors import VersatuneError

LIMIT = 2048


def rows(path: Path, kind: str = "jsonl", split: str = "train") -> list[Row | RejectedRow]:
    return list(read(path, kind, Asked(split, LIMIT)))  # type: ignore[arg-type]


def values(found: list[Row | RejectedRow]) -> list[dict]:
    return [r.values for r in found if isinstance(r, Row)]


def faults(found: list[Row | RejectedRow]) -> list[tuple[str, str]]:
    return [(r.where.rsplit(":", 1)[1], r.reason) for r in found if isinstance(r, RejectedRow)]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_byte_order_mark_crlf_and_blank_lines_are_no_faults(tmp_path: Path) -> None:
    path = write(tmp_path / "a b é.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n{"a": 3}')
    assert values(rows(path)) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [r.where for r in rows(path)] == [f"{path}:{n}" for n in (1, 3, 4)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "bad_json"),
        (b"[1, 2]", "bad_json"),
        (b'"text"', "bad_json"),
        (b'{"a": "caf\xe9"}', "not_utf8"),
        (b'{"a": 1, "a": 2}', "duplicate_key"),
        (b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}", None),
        (b"[" * 100_000, "too_deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "bad_json"),
        (b'{"a": "' + b"x" * 3000 + b'"}', "line_too_long"),
        (b"\x07\x08", "bad_json"),
    ],
)
def test_one_bad_line_costs_one_row(tmp_path: Path, line: bytes, reason: str | None) -> None:
    path = write(tmp_path / "a.jsonl", b'{"a": 0}\n' + line + b'\n{"a": 9}\n')
    found = list(
        read(path, "jsonl", Asked("train", LIMIT if reason == "line_too_long" else 1 << 20))
    )
    good = [{"a": 0}, {"a": 9}]
    assert [v for v in values(found) if v in good] == good
    assert faults(found) == ([("2", reason)] if reason else [])


@pytest.mark.parametrize("first", ["[]", '[{"role": "user", "content": "a"}]', '[{"a": 1}]'])
@pytest.mark.parametrize("broken", ["{", "[{", "\udcff", '[{"role": '])
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_list_on_the_first_line_makes_no_list_of_the_file(
    tmp_path: Path, first: str, broken: str, kind: str
) -> None:
    lines = [first, broken, '{"a": 7}', '[{"a": 8}, {"a": 9}]']
    path = write(tmp_path / "a.jsonl", "\n".join(lines).encode(errors="surrogateescape"))
    found = rows(path, kind)
    assert values(found)[-3:] == [{"a": 7}, {"a": 8}, {"a": 9}]
    assert [where for where, _ in faults(found)] == (["1", "2"] if first == "[]" else ["2"])


def test_a_broken_first_line_is_one_row_of_a_file_of_lines(tmp_path: Path) -> None:
    turn = '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'
    path = write(tmp_path / "a.jsonl", "\n".join(['[{"role": ', turn, turn, turn]).encode())
    assert faults(rows(path)) == [("1", "bad_json")]
    assert len(values(rows(path))) == 3


def test_a_line_of_100_megabytes_is_skipped_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as out:
        out.write(b'{"a": 0}\n{"a": "')
        for _ in range(100):
            out.write(b"x" * 1_000_000)
        out.write(b'"}\n{"a": 9}\n')
    found = rows(path)
    assert values(found) == [{"a": 0}, {"a": 9}]
    assert faults(found) == [("2", "line_too_long")]
    assert found[-1].where == f"{path}:3"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x00\x01\x02" * 99, "binary"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08" + b"x" * 40, "gzip"),
        (b"PK\x03\x04xx", "zip"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path / "a.jsonl", content)
    with pytest.raises(VersatuneError, match=words):
        rows(path)


@given(st.lists(st.binary(max_size=40), max_size=8))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_a_row_a_reason_or_a_refusal(tmp_path: Path, lines: list[bytes]) -> None:
    path = write(tmp_path / "a.jsonl", b"\n".join(lines))
    for kind in ("jsonl", "json", "csv"):
        try:
            found = rows(path, kind)
        except VersatuneError as error:
            assert str(path) in str(error)
        else:
            for row in found:
                assert row.where.startswith(f"{path}:")


@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(), max_size=3),
        max_size=8,
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_json_can_hold_is_read_back(tmp_path: Path, objects: list[dict]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(o) + "\n" for o in objects))
    assert values(rows(path)) == objects
    path.write_text(json.dumps(objects, indent=1))
    assert values(rows(path, "json")) == objects


def test_json_lists_are_read_in_pieces(tmp_path: Path) -> None:
    objects = [{"n": n, "text": "é" * (n % 50), "in": [[n], {"a": "]},"}]} for n in range(3000)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(objects, ensure_ascii=False, indent=2), encoding="utf-8")
    found = rows(path, "json")
    assert values(found) == objects
    assert found[1].where == f"{path}:14"


def test_json_files_with_one_object_a_line_are_read_as_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", b'{"a": 1}\n{"a": 2}\n')
    assert values(rows(path, "json")) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "content", [b'[{"a": 1}, {"a"', b'[{"a": 1},\n {"a": nope}]', b"[", b"[1 2"]
)
def test_a_broken_json_list_names_the_line(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(VersatuneError, match=rf"a\.json:{content.count(bytes([10])) + 1}: "):
        rows(path, "json")


def test_a_long_row_of_a_json_list_is_told_from_a_broken_one(tmp_path: Path) -> None:
    long = json.dumps([{"a": 0}, {"a": "x" * 100_000}, {"a": 9}], indent=0)
    path = write(tmp_path / "a.json", long.encode())
    with pytest.raises(VersatuneError, match=r"a\.json:5: .* longer than ingest\.max_line_bytes"):
        rows(path, "json")
    assert len(list(read(path, "json", Asked("train", 200_000)))) == 3


def test_csv_fields_may_hold_line_breaks(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfq,a\r\n"one\r\ntwo",x\r\nthree,y\r\nshort\r\nf\xe9,z\r\n'
    found = rows(write(tmp_path / "a.csv", content), "csv")
    assert values(found)[:2] == [{"q": "one\r\ntwo", "a": "x"}, {"q": "three", "a": "y"}]
    assert faults(found) == [("5", "bad_csv")]
    assert "\udce9" in values(found)[2]["q"]


def test_a_csv_quote_left_open_costs_every_line_it_swallows(tmp_path: Path) -> None:
    content = b'q,a\n1,2\n"3,4\n5,6\n7,8\n'
    found = rows(write(tmp_path / "a.csv", content), "csv")
    assert values(found) == [{"q": "1", "a": "2"}]
    assert faults(found) == [("3", "bad_csv"), ("4", "bad_csv"), ("5", "bad_csv")]


def test_long_csv_lines(tmp_path: Path) -> None:
    content = b"q,a\n1,2\n" + b"x" * 5000 + b",3\n4,5\n"
    found = rows(write(tmp_path / "a.csv", content), "csv")
    assert values(found) == [{"q": "1", "a": "2"}, {"q": "4", "a": "5"}]
    assert faults(found) == [("3", "line_too_long")]


def test_a_csv_record_with_a_line_left_out_is_no_row(tmp_path: Path) -> None:
    content = b'q,a\n"one\n' + b"x" * 5000 + b'\nthree",2\n4,5\n'
    found = rows(write(tmp_path / "a.csv", content), "csv")
    assert values(found) == [{"q": "4", "a": "5"}]
    assert faults(found) == [("3", "line_too_long")]


def test_a_long_csv_line_in_a_field_without_end_costs_no_row_after_it(tmp_path: Path) -> None:
    """The field outgrows the limit at its fourth line; what follows is read."""
    long = b"x" * 5000 + b"\n" + (b"y" * 1500 + b"\n") * 2
    content = b'q,a\n"one\n' + long + b"4,5\n"
    found = rows(write(tmp_path / "a.csv", content), "csv")
    assert values(found) == [{"q": "4", "a": "5"}]
    assert faults(found) == [(str(n), "bad_csv") for n in (2, 3, 4, 5)]


def test_a_csv_header_that_is_too_long_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"q," + b"a" * 5000 + b"\n1,2\n")
    with pytest.raises(VersatuneError, match=r"a\.csv: its header is longer than ingest\."):
        rows(path, "csv")


def test_a_header_in_the_midst_is_no_row(tmp_path: Path) -> None:
    """Files that were put behind each other."""
    found = rows(write(tmp_path / "a.csv", b"q, a\n1,2\nQ,A\n3,4\nq,b\n"), "csv")
    assert values(found) == [{"q": "1", "a": "2"}, {"q": "3", "a": "4"}, {"q": "q", "a": "b"}]
    assert faults(found) == [("3", "header_again")]


def test_a_quote_that_ends_no_field_is_never_dropped(tmp_path: Path) -> None:
    found = rows(write(tmp_path / "a.csv", b'q,a\n1,"yes" he said\n2,"no"\n'), "csv")
    assert values(found) == [{"q": "2", "a": "no"}]
    assert faults(found) == [("2", "bad_csv")]


def test_files_behind_each_other_may_each_begin_with_a_mark(tmp_path: Path) -> None:
    """As ``cat`` makes one of two files that a spreadsheet program wrote."""
    table = b"\xef\xbb\xbfq,a\r\n1,2\r\n"
    found = rows(write(tmp_path / "a.csv", table * 2), "csv")
    assert values(found) == [{"q": "1", "a": "2"}] * 2
    assert faults(found) == [("3", "header_again")]
    line = b'\xef\xbb\xbf{"a": 1}\n'
    assert values(rows(write(tmp_path / "a.jsonl", line * 2))) == [{"a": 1}] * 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'q, a\n"x, y", "1, 2"\n"z", "3"\n', [("x, y", "1, 2"), ("z", "3")]),
        (b'q, a\n"z", "3"\nx, 4\n', [("z", "3"), ("x", "4")]),
        (b'q,a\nhe said, "no"\n', [("he said", "no")]),
        (b"q,a\nz, 4\n", [("z", " 4")]),  # nothing is quoted, so a blank is a blank
        (b'q;a\n"z"; "3; 4"\n', [("z", "3; 4")]),
    ],
)
def test_fields_quoted_behind_a_blank_have_no_quotes(
    tmp_path: Path, content: bytes, expected: list[tuple[str, str]]
) -> None:
    found = rows(write(tmp_path / "a.csv", content), "csv")
    assert [tuple(v.values()) for v in values(found)] == expected
    assert faults(found) == []


@pytest.mark.parametrize("content", [b'[{"q": "a"}]', b'{"q": "a"}\n{"q": "b"}\n', b" [\n {"])
def test_json_called_csv_is_refused_with_its_format(tmp_path: Path, content: bytes) -> None:
    """On one line it would be a header without rows."""
    with pytest.raises(VersatuneError, match=r"a\.csv is JSON.* set the source's `format` to json"):
        rows(write(tmp_path / "a.csv", content), "csv")


def test_parquet_and_saved_data_sets(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list([{"a": "x"}, {"a": None}])
    data.to_parquet(str(tmp_path / "a.parquet"))
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=data).save_to_disk(str(tmp_path / "several"))
    for path in ("a.parquet", "one", "several"):
        source = Source(path=str(tmp_path / path))
        ((file, kind),) = files_of(source)
        assert values(list(read(file, kind, Asked("train", 9)))) == [{"a": "x"}, {"a": None}]
    with pytest.raises(VersatuneError, match="no split 'test'"):
        rows(tmp_path / "several", "dataset", "test")


@pytest.mark.parametrize(("name", "kind"), [("a.parquet", "parquet"), ("folder", "dataset")])
def test_damaged_parquet_and_folders_are_named(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "dataset":
        path.mkdir()
    else:
        path.write_bytes(b"PAR1 and no more")
    with pytest.raises(VersatuneError, match=name):
        rows(path, kind)


def test_hub_data_sets_are_read_without_code(tmp_path: Path) -> None:
    """A local folder stands for the hub: the same loader, which takes data files alone."""
    (tmp_path / "data.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    found = list(read_hub(Source(hub=str(tmp_path))))
    assert values(found) == [{"prompt": "p", "completion": "c"}]
    (tmp_path / "data.jsonl").unlink()
    marker = tmp_path / "ran"
    (tmp_path / f"{tmp_path.name}.py").write_text(f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(VersatuneError, match="can't be read"):
        list(read_hub(Source(hub=str(tmp_path))))
    assert not marker.exists()


def test_globs_brackets_and_unknown_suffixes(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "odd[1].jsonl", "c.dat"):
        (tmp_path / name).write_text("")
    found = files_of(Source(path=f"{tmp_path}/?.jsonl"))
    assert [p.name for p, _ in found] == ["a.jsonl", "b.jsonl"]
    assert files_of(Source(path=f"{tmp_path}/odd[1].jsonl"))[0][0].name == "odd[1].jsonl"
    assert files_of(Source(path=f"{tmp_path}/c.dat", format="jsonl"))[0][1] == "jsonl"
    with pytest.raises(VersatuneError, match="its suffix names no format"):
        files_of(Source(path=f"{tmp_path}/c.dat"))
    with pytest.raises(VersatuneError, match=r"no such file or folder\.$"):
        files_of(Source(path=f"{tmp_path}/none.jsonl"))
    with pytest.raises(VersatuneError, match=r"folder \(for one on the hub, give \{hub: a/b-1\}\)"):
        files_of(Source(path="a/b-1"))


def test_lone_surrogates_survive_parsing_for_the_row_checks() -> None:
    [found] = parse("f:1", b'{"a": "\\ud800"}')
    assert isinstance(found, Row)
    assert found.values == {"a": "\ud800"}


@pytest.mark.parametrize("content", [b'{"prompt": "q", "completion": "a"}\n', b'[\n{"text": "a"}]'])
def test_rows_in_a_file_called_text_are_no_document(tmp_path: Path, content: bytes) -> None:
    """Its braces would be trained on. A source that says its format is believed."""
    path = write(tmp_path / "a.txt", content)
    with pytest.raises(VersatuneError, match=r"a\.txt: .* holds JSON rows; set the source's `for"):
        rows(path, "text")
    (document,) = read(path, "text", Asked("train", LIMIT, said=True))
    assert isinstance(document, Row) and document.values["text"] == content.decode()
    other = write(tmp_path / "b.txt", b'{"width": 3} is JSON, but no row.')
    assert len(values(rows(other, "text"))) == 1
