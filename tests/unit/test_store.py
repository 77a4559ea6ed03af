"""The contract of the tokenised store, held by the fixture every other room tests with."""

import numpy as np

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit


def test_split_gives_contiguous_domains_and_planning_columns(tiny_store: FolderRef) -> None:
    split = TokenizedSplit.load(tiny_store, "train")
    assert split.domains == ("law", "medicine", "code")
    assert split.starts.tolist() == [0, 40, 65, 125]
    assert list(split.rows(1)) == list(range(40, 65))
    row = split.dataset[70]
    assert len(row["input_ids"]) == len(row["labels"]) == split.lengths[70]
    assert int(np.sum(row["labels"] != -100)) == split.supervised[70]
