"""Which files a path means: folders, splits, configurations."""

import logging
from pathlib import Path
from typing import Any

import pytest

from versatune.data.config import Source
from versatune.data.files import files_of
from versatune.errors import VersatuneError


def folder(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def found(root: Path, path: Path | str | None = None, **source: Any) -> list[str]:
    files = files_of(Source(path=str(path or root), **source))
    return [f"{kind} {file.relative_to(root)}" for file, kind in files]


CLONE = (
    "README.md",
    ".gitattributes",
    ".git/objects/a.json",
    "data/train-00000-of-00002.parquet",
    "data/train-00001-of-00002.parquet",
    "data/test-00000-of-00001.parquet",
    "dataset_infos.json",
)


def test_of_a_hub_clone_the_parquet_files_of_the_split_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder(tmp_path, *CLONE)
    with caplog.at_level(logging.INFO):
        assert found(tmp_path) == [
            "parquet data/train-00000-of-00002.parquet",
            "parquet data/train-00001-of-00002.parquet",
        ]
    assert "read 2 files of the split 'train' and left out 1 (" in caplog.text
    assert found(tmp_path, split="test") == ["parquet data/test-00000-of-00001.parquet"]
    with pytest.raises(VersatuneError, match="no split 'dev'; its splits are test, train"):
        found(tmp_path, split="dev")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b.jsonl", "a.jsonl.gz", "LICENSE.txt"], ["jsonl a.jsonl.gz", "jsonl b.jsonl"]),
        (["x/a.csv", "y/z/b.tsv"], ["csv x/a.csv", "tsv y/z/b.tsv"]),
        (["train.jsonl", "validation.jsonl", "test.jsonl"], ["jsonl train.jsonl"]),
        (["train/a.json", "dev/a.json"], ["json train/a.json"]),
        (["cases.jsonl", "test.jsonl"], ["jsonl cases.jsonl"]),
        (["a.parquet", "notes.txt", "README.md"], ["parquet a.parquet"]),
        (
            ["a.txt", "notice of termination.md", "README.de.md", "LICENSE-APACHE.txt"],
            ["text a.txt", "text notice of termination.md"],
        ),
        # Names of shards that say nothing of splits.
        (
            ["data-00000-of-00002.parquet", "data-00001-of-00002.parquet"],
            ["parquet data-00000-of-00002.parquet", "parquet data-00001-of-00002.parquet"],
        ),
        (["x/part-00000-of-00001.parquet"], ["parquet x/part-00000-of-00001.parquet"]),
        (
            ["one.txt", "two.md", "test of time.txt"],
            ["text one.txt", "text test of time.txt", "text two.md"],
        ),
    ],
)
def test_folders_of_data_files(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    assert found(folder(tmp_path, *names)) == expected


@pytest.mark.parametrize(
    ("names", "source", "words"),
    [
        (
            ["a.jsonl", "a.parquet"],
            {},
            r"several formats \(JSON, Parquet\).*set the source's `form",
        ),
        (
            ["en/train-00000-of-00001.parquet", "de/train-00000-of-00001.parquet"],
            {},
            "several conf",
        ),
        (
            ["train_sft-00000-of-00001.parquet", "test_sft-00000-of-00001.parquet"],
            {},
            "splits are test_sft, train_sft",
        ),
        (["a.jsonl"], {"split": "test"}, "names contain no split"),
        (["test_sft-00000-of-00001.parquet"], {}, "no split 'train'; its splits are test_sft"),
        (["a.pdf"], {}, "neither a saved data set nor a folder with data files"),
        ([".git/a.json"], {}, "neither a saved data set"),
    ],
)
def test_folders_that_can_be_meant_in_two_ways_are_refused(
    tmp_path: Path, names: list[str], source: dict[str, str], words: str
) -> None:
    with pytest.raises(VersatuneError, match=words):
        found(folder(tmp_path, *names), **source)


def test_a_link_to_a_file_that_is_not_there_is_no_file_less(tmp_path: Path) -> None:
    """A hub clone whose files were not fetched."""
    folder(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("../../blobs/x")
    with pytest.raises(
        VersatuneError, match=r"b\.jsonl is a link to \.\./\.\./blobs/x, which is not"
    ):
        found(tmp_path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.jsonl.zip", "unpack it"),
        ("a.tar.gz", "unpack it"),
        ("a.XLSX", "save it as CSV"),
        ("a.pdf", "convert it to text"),
        ("data-00000-of-00001.arrow", "convert it to Parquet"),
        ("a.unknown", "set the source's `format` to one of csv"),
    ],
)
def test_files_that_are_not_read_are_refused_with_what_to_do(
    tmp_path: Path, name: str, advice: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(VersatuneError, match=advice):
        files_of(Source(path=str(tmp_path / name)))


@pytest.mark.parametrize("path", ["https://x.org/a.jsonl", "s3://x/a.jsonl", "hf://datasets/x/y"])
def test_an_address_is_no_file(path: str) -> None:
    with pytest.raises(VersatuneError, match=r"is an address.*\{hub: owner/name\}"):
        files_of(Source(path=path))


def test_a_format_settles_which_files_of_a_folder_are_meant(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl", "b.parquet", "c.txt")
    assert found(tmp_path, format="parquet") == ["parquet b.parquet"]
    assert found(tmp_path, format="lines") == ["lines c.txt"]


def test_a_recursive_glob_reads_no_file_twice(tmp_path: Path) -> None:
    folder(tmp_path, "x/a.jsonl", "x/y/b.jsonl")
    expected = ["jsonl x/a.jsonl", "jsonl x/y/b.jsonl"]
    assert sorted(found(tmp_path, f"{tmp_path}/**")) == expected
