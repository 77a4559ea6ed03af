"""The contract of the tokenised store, held by the fixture every other room tests with."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from versatune.artifacts import FolderRef
from versatune.data.arrow import ShardWriter
from versatune.data.encode import SCHEMA
from versatune.data.store import INDEX, TokenizedSplit, write_index
from versatune.errors import VersatuneError


def test_split_gives_contiguous_domains_and_planning_columns(tiny_store: FolderRef) -> None:
    split = TokenizedSplit.load(tiny_store, "train")
    assert split.domains == ("law", "medicine", "code")
    assert split.starts.tolist() == [0, 40, 65, 125]
    assert list(split.rows(1)) == list(range(40, 65))
    row = split.dataset[70]
    assert len(row["input_ids"]) == len(row["labels"]) == split.lengths[70]
    assert int(np.sum(row["labels"] != -100)) == split.supervised[70]


def test_the_index_is_mapped_and_says_what_the_rows_say(
    tiny_store: FolderRef, tmp_path: Path
) -> None:
    ref = FolderRef(path=tmp_path, fingerprint="copy", metadata=tiny_store.metadata)
    shutil.copytree(tiny_store.path / "train", tmp_path / "train")
    from_rows = TokenizedSplit.load(ref, "train")
    write_index(tmp_path / "train")
    split = TokenizedSplit.load(ref, "train")
    for name in ("starts", "lengths", "supervised", "n_bytes"):
        mine, wanted = getattr(split, name), getattr(from_rows, name)
        assert mine.dtype == wanted.dtype and mine.tolist() == wanted.tolist()
    assert np.load(tmp_path / "train" / INDEX).shape == (4, 125)
    # Of the file, not of memory: what another process writes there shows.
    changed = np.load(tmp_path / "train" / INDEX, mmap_mode="r+")
    changed[1, 3] += 1
    changed.flush()
    assert split.lengths[3] == from_rows.lengths[3] + 1


def test_an_index_of_no_rows(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    ShardWriter(tmp_path / "train", SCHEMA, rows=10).close()
    write_index(tmp_path / "train")
    ref = FolderRef(path=tmp_path, fingerprint="empty", metadata={"domains": ["law", "code"]})
    split = TokenizedSplit.load(ref, "train")
    assert split.starts.tolist() == [0, 0, 0] and split.lengths.size == 0


def test_an_index_that_the_disk_does_not_take_is_told(
    tiny_store: FolderRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_store.path / "train", tmp_path / "train")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(VersatuneError, match=r"index\.npy can't be written: .*No space left"):
        write_index(tmp_path / "train")
    assert not (tmp_path / "train" / INDEX).exists()


def test_what_domains_have_in_each_unit() -> None:
    lengths = np.array([2, 3, 4, 5, 60_000], dtype=np.int32)
    supervised = np.array([1, 1, 2, 5, 7], dtype=np.int32)
    nothing: Any = None
    split = TokenizedSplit(
        ("a", "b", "c"), nothing, np.array([0, 3, 3, 5]), lengths, supervised, lengths
    )
    assert split.amounts("rows").tolist() == [3, 0, 2]
    assert split.amounts("tokens").tolist() == [9, 0, 60_005]
    assert split.amounts("supervised_tokens").tolist() == [4, 0, 12]
