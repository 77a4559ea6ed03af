"""The same rows as people's files hold them: read without help, to the same conversations."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from versatune.artifacts import FolderRef
from versatune.data.clean import SPLITS, clean
from versatune.data.config import CleanParams, Domains
from versatune.errors import VersatuneError
from versatune.work import make_folder

COUNT = 12
PAIRS = [
    (f"question {n}; or, as\u2028said, {n}?", f'the "answer" {n},\x0cline\x85two')
    for n in range(COUNT)
]
ROWS: list[dict[str, Any]] = [{"prompt": q, "completion": a} for q, a in PAIRS]
TALK = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in PAIRS]
SHARE = [[{"from": "human", "value": q}, {"from": "gpt", "value": a}] for q, a in PAIRS]


def cleaned(folder: Path, path: Path | str, **source: Any) -> list[list[dict[str, str]]]:
    """The conversations that cleaning keeps of one source, in the order of their places."""
    other = folder / "other_domain.jsonl"
    other.write_text(
        "".join(
            json.dumps({"prompt": f"other {n}", "completion": f"thing {n}"}) + "\n"
            for n in range(12)
        )
    )
    domains = {
        "law": {"description": "x", "sources": [{"path": str(path), **source}]},
        "other": {"description": "y", "sources": [{"path": str(other)}]},
    }
    params = CleanParams(seed=0, near_duplicate_threshold=None)
    ref: FolderRef = make_folder(clean(Domains.model_validate(domains), params), folder / "clean")
    rows = [
        row
        for split in SPLITS
        for row in datasets.load_from_disk(str(ref.path / split))
        if row["domain"] == 0
    ]
    return [row["messages"] for row in rows]


def same(found: list[list[dict[str, str]]], expected: list[list[dict[str, str]]]) -> bool:
    def texts(talks: list[list[dict[str, str]]]) -> list[list[tuple[str, str]]]:
        return sorted([(m["role"], m["content"]) for m in talk] for talk in talks)

    return texts(found) == texts(expected)


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(
    delimiter: str, rows: list[dict[str, Any]] = ROWS, start: str = "", **quoting: Any
) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, **quoting)
    writer.writeheader()
    writer.writerows(rows)
    return (start + out.getvalue()).encode()


def zstd(content: bytes) -> bytes:
    half = len(content) // 2
    frames = [pa.compress(part, "zstd", asbytes=True) for part in (content[:half], content[half:])]
    return b"".join(frames)  # several frames, as pzstd writes them


FILES: dict[str, Callable[[], bytes]] = {
    "a.jsonl": lambda: jsonl(ROWS),
    "a.jsonl.gz": lambda: gzip.compress(jsonl(ROWS[:5])) + gzip.compress(jsonl(ROWS[5:])),
    "a.jsonl.zst": lambda: zstd(jsonl(ROWS)),
    "a.jsonl.bz2": lambda: bz2.compress(jsonl(ROWS)),
    "a.jsonl.xz": lambda: lzma.compress(jsonl(ROWS)),
    "not_said.jsonl": lambda: gzip.compress(jsonl(ROWS)),
    "no_longer.jsonl.gz": lambda: jsonl(ROWS),
    "list.json": lambda: json.dumps(ROWS).encode(),
    "list.json.gz": lambda: gzip.compress(json.dumps(ROWS, indent=2).encode()),
    "list.jsonl": lambda: json.dumps(ROWS, indent=1).encode(),
    "pretty.json": lambda: "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "pretty.jsonl": lambda: "\n\n".join(json.dumps(row, indent=4) for row in ROWS).encode(),
    "bom.json": lambda: b"\xef\xbb\xbf" + json.dumps(ROWS, indent=2).encode(),
    "lines.json": lambda: jsonl(ROWS),
    "one_line.json": lambda: b"".join(json.dumps(row).encode() for row in ROWS),
    "data.json": lambda: json.dumps({"version": "1.0", "data": ROWS}).encode(),
    "data_pretty.json": lambda: json.dumps({"data": ROWS, "n": COUNT}, indent=2).encode(),
    "data_by_line.json": lambda: (
        b'{"data": [\n' + b",\n".join(jsonl([r])[:-1] for r in ROWS) + b"\n]}"
    ),
    "splits.json": lambda: json.dumps(
        {"test": [{"prompt": "t", "completion": "u"}], "train": ROWS}
    ).encode(),
    "columns.json": lambda: json.dumps({k: [r[k] for r in ROWS] for k in ROWS[0]}).encode(),
    "columns.jsonl": lambda: json.dumps({k: [r[k] for r in ROWS] for k in ROWS[0]}).encode(),
    "columns_pretty.json": lambda: json.dumps(
        {k: [r[k] for r in ROWS] for k in ROWS[0]}, indent=2
    ).encode(),
    "pandas.json": lambda: json.dumps(
        {k: {str(n): r[k] for n, r in enumerate(ROWS)} for k in ROWS[0]}
    ).encode(),
    "messages_columns.json": lambda: json.dumps({"messages": TALK}).encode(),
    "messages_columns.jsonl": lambda: json.dumps({"messages": TALK}).encode(),
    "wrapped_twice.json": lambda: json.dumps({"data": {"test": [{}], "train": ROWS}}).encode(),
    "wrapped_twice_pretty.json": lambda: json.dumps(
        {"about": [{"by": "x"}], "data": {"n": COUNT, "rows": ROWS}}, indent=1
    ).encode(),
    "wrapped_splits.json": lambda: json.dumps(
        {"test": {"rows": [{}]}, "train": {"rows": ROWS}}, indent=1
    ).encode(),
    # As pandas writes a table with its schema, which holds a list of objects too.
    "schema.json": lambda: json.dumps(
        {"schema": {"fields": [{"name": "prompt", "type": "string"}]}, "data": ROWS}
    ).encode(),
    "wrapped.jsonl": lambda: json.dumps({"data": ROWS}).encode(),
    "named.json": lambda: json.dumps({f"id{n}": row for n, row in enumerate(ROWS)}).encode(),
    "talks.json": lambda: json.dumps(TALK).encode(),
    "talks_pretty.json": lambda: json.dumps({"items": TALK}, indent=2).encode(),
    "talks.jsonl": lambda: "\n".join(map(json.dumps, TALK)).encode(),
    "mixed.jsonl": lambda: jsonl(
        [row if n % 2 else {"messages": TALK[n], "prompt": None} for n, row in enumerate(ROWS)]
    ),
    "backslashes.csv": lambda: table(",", doublequote=False, escapechar="\\"),
    "a.csv": lambda: table(","),
    "a.csv.gz": lambda: gzip.compress(table(",")),
    "bom.csv": lambda: table(",", start="\ufeff"),
    "semicolon.csv": lambda: table(";"),
    "semicolon_bom.csv": lambda: table(";", start="\ufeff"),
    "pipe.csv": lambda: table("|"),
    "tabs.csv": lambda: table("\t"),
    "said.csv": lambda: table(";", start="sep=;\r\n"),
    "a.tsv": lambda: table("\t"),
    "a.tab": lambda: table("\t"),
    "commas.tsv": lambda: table(","),
    "blanks.csv": lambda: table(",").replace(b"prompt,completion", b"prompt, completion"),
    "empty_names.csv": lambda: b"".join(r + b",,\r\n" for r in table(",").split(b"\r\n") if r),
}
"""File name -> what stands in it: ROWS, whatever the way of writing."""


@pytest.mark.parametrize("name", FILES)
def test_one_set_of_rows_written_in_every_way_is_read_alike(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name]())
    assert same(cleaned(tmp_path, path), TALK)


def test_quotes_of_a_tsv_that_quotes_nothing_are_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    lines = ["prompt\tcompletion", *(f'"he" said {n}\tin 5" {n}' for n in range(COUNT))]
    path.write_text("\n".join(lines))
    talks = [
        [
            {"role": "user", "content": f'"he" said {n}'},
            {"role": "assistant", "content": f'in 5" {n}'},
        ]
        for n in range(COUNT)
    ]
    assert same(cleaned(tmp_path, path), talks)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_file_of_one_line_for_its_carriage_returns_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name]().replace(b"\r", b"").replace(b"\n", b"\r"))
    with pytest.raises(VersatuneError, match=rf"{name}: its lines end in a carriage return"):
        cleaned(tmp_path, path)


def test_a_broken_row_is_not_taken_for_one_of_another_shape(tmp_path: Path) -> None:
    """A text beside a prompt without its completion is no document."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl([*ROWS, {"prompt": "x", "text": "a whole page"}]))
    with pytest.raises(VersatuneError, match="1 x missing_column"):
        cleaned(tmp_path, path)


SPELLINGS: dict[str, list[dict[str, Any]]] = {
    "messages": [{"messages": t} for t in TALK],
    "messages with from and value": [{"messages": t} for t in SHARE],
    "conversations": [{"conversations": t} for t in SHARE],
    "conversations with role and content": [{"conversations": t} for t in TALK],
    "both spellings, one null": [
        {"messages": [{**m, "from": None, "value": None} for m in t]} for t in TALK
    ],
    "messages as JSON": [{"messages": json.dumps(t)} for t in TALK],
    "messages as Python prints them": [{"messages": repr(t)} for t in TALK],
    "conversations as JSON": [{"conversations": json.dumps(t)} for t in SHARE],
    "turns by column": [
        {"messages": {k: [m[k] for m in t] for k in ("role", "content")}} for t in TALK
    ],
    "prompt and completion as turns": [{"prompt": t[:1], "completion": t[1:]} for t in TALK],
    "prompt and completion as JSON": [
        {"prompt": json.dumps(t[:1]), "completion": json.dumps(t[1:])} for t in TALK
    ],
    "a prompt of turns and a completion of text": [
        {"prompt": t[:1], "completion": t[1]["content"]} for t in TALK
    ],
    "alpaca beside its rendered text": [
        {"instruction": q, "input": "", "output": a, "text": f"### {q} {a}"} for q, a in PAIRS
    ],
    "messages beside a prompt": [{"prompt": t[0]["content"], "messages": t} for t in TALK],
    "both, one null": [{"messages": t, "instruction": None, "output": None} for t in TALK],
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_every_spelling_of_a_conversation_is_read_alike(
    tmp_path: Path, name: str, kind: str
) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_bytes(jsonl(SPELLINGS[name]))
    else:
        pq.write_table(pa.Table.from_pylist(SPELLINGS[name]), path)
    assert same(cleaned(tmp_path, path), TALK)


def test_earlier_turns_and_the_system_text_stay_in_a_prompt_of_turns(tmp_path: Path) -> None:
    rows = [
        {
            "system": "be brief",
            "prompt": [*TALK[n], {"role": "user", "content": f"and {n}?"}],
            "completion": [{"role": "assistant", "content": f"so {n}"}],
        }
        for n in range(COUNT)
    ]
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows))
    expected = [
        [
            {"role": "system", "content": "be brief"},
            *TALK[n],
            {"role": "user", "content": f"and {n}?"},
            {"role": "assistant", "content": f"so {n}"},
        ]
        for n in range(COUNT)
    ]
    assert same(cleaned(tmp_path, tmp_path / "a.jsonl"), expected)


def test_a_column_given_to_one_field_is_not_read_as_another(tmp_path: Path) -> None:
    """`input` would else stand twice in every prompt: as the instruction, and as alpaca's input."""
    rows = [{"input": q, "target": a} for q, a in PAIRS]
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows))
    columns = {"instruction": "input", "output": "target"}
    assert same(cleaned(tmp_path, tmp_path / "a.jsonl", columns=columns), TALK)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"prompt,completion,completion\nq,1,2\n", r"a\.csv:1: .*'completion' twice"),
        ("a.csv", b"\xef\xbb\xbfprompt;prompt ;completion\nq;1;2\n", r"a\.csv:1: .*'prompt' twice"),
        (
            "a.tsv",
            b"prompt\tcompletion\tprompt\tprompt\nq\t1\t2\t3\n",
            r"a\.tsv:1: .*'prompt' 3 ti",
        ),
        ("a.csv", b"sep=;\na;a;b\n1;2;3\n", r"a\.csv:2: .*'a' twice"),
        ("a.csv.gz", gzip.compress(b"a,a\n1,2\n", mtime=0), r"a\.csv\.gz:1: .*'a' twice"),
        (
            "a.jsonl.gz",
            gzip.compress(jsonl(ROWS) * 99, mtime=0)[:-20],
            "can't be read to its end as gzip",
        ),
        ("a.jsonl.zst", zstd(jsonl(ROWS) * 99)[:-20], "can't be read to its end as zstd"),
        ("a.jsonl.gz", b"\x1f\x8b\x08" + b"x" * 40, "can't be read to its end as gzip"),
        (
            "a.parquet",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "git lfs pull",
        ),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.json", b'{"train": [{"prompt": "p"}, ', "broken or cut off"),
        (
            "a.json",
            b'{"test": [{"prompt": "p", "completion": "c"}]}',
            "no split 'train'; there are test",
        ),
        (
            "a.json",
            b'{"a": [{"prompt": "p"}], "b": [{"prompt": "q"}]}',
            "two lists of rows, 'a' and 'b'",
        ),
        (
            "a.json",
            b'{"prompt": ["p", "q"], "completion": ["c"]}',
            r"differ in length \(prompt: 2, com",
        ),
    ],
)
def test_what_can_be_read_in_two_ways_or_none_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VersatuneError, match=words):
        cleaned(tmp_path, path)


def test_parquet_columns_and_fields_called_alike_are_refused(tmp_path: Path) -> None:
    column = pa.array(["x"] * COUNT)
    pq.write_table(
        pa.table([column] * 3, ["prompt", "completion", "prompt"]), tmp_path / "a.parquet"
    )
    with pytest.raises(VersatuneError, match=r"a\.parquet: .*'prompt' twice"):
        cleaned(tmp_path, tmp_path / "a.parquet")
    turns = pa.ListArray.from_arrays(
        list(range(COUNT + 1)),
        pa.StructArray.from_arrays([column] * 3, ["role", "content", "content"]),
    )
    pq.write_table(pa.table([turns], ["messages"]), tmp_path / "b.parquet")
    with pytest.raises(VersatuneError, match=r"b\.parquet: messages: .*'content' twice"):
        cleaned(tmp_path, tmp_path / "b.parquet")


def test_long_wrapped_files_are_streamed_with_their_lines(tmp_path: Path) -> None:
    """Beyond the limit of a row: the wrapper is no row, and its rows have their own lines."""
    from versatune.data.file_formats import Asked
    from versatune.data.readers import read

    rows = [{"prompt": f"p{n}" + "x" * 500, "completion": "c"} for n in range(100)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": rows}, indent=0))
    found = list(read(path, "json", Asked("train", 2048)))
    assert [row.values for row in found] == rows  # type: ignore[union-attr]
    assert [row.where for row in found[:2]] == [f"{path}:3", f"{path}:7"]
    path.write_text(json.dumps({k: [r[k] for r in rows] for k in rows[0]}))
    found = list(read(path, "json", Asked("train", 2048)))
    assert [row.values for row in found] == rows  # type: ignore[union-attr]


CELL = st.text(st.sampled_from("ab ;,\t|\"'\n\r\u2028\x85é"), min_size=1, max_size=12)


@given(
    rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=2, max_size=8),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_delimiter_is_found_whatever_the_cells_hold(
    tmp_path: Path, rows: list[tuple[str, str, str]], delimiter: str
) -> None:
    from versatune.data.file_formats import Asked
    from versatune.data.readers import read

    made = [dict(zip(("id", "prompt", "completion"), row, strict=True)) for row in rows]
    path = tmp_path / "a.csv"
    path.write_bytes(table(delimiter, made))
    found = list(read(path, "csv", Asked("train", 1 << 20)))
    assert [row.values for row in found] == made  # type: ignore[union-attr]
