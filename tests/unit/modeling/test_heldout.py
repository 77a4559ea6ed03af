"""The held-out loss against a row-by-row recomputation."""

import math

import numpy as np
import pytest
import torch

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.heldout import batches, chosen_rows, heldout_losses, pad


@pytest.fixture(scope="module")
def split(tiny_store: FolderRef) -> TokenizedSplit:
    return TokenizedSplit.load(tiny_store, "steering")


def by_hand(model, split: TokenizedSplit, rows) -> tuple[float, int, int]:
    nats, tokens, n_bytes = 0.0, 0, 0
    for row in rows:
        item = split.dataset[int(row)]
        ids = torch.tensor(item["input_ids"])[None].long()
        labels = torch.tensor(item["labels"]).long()
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        nats += float(torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum"))
        tokens += int((labels[1:] != -100).sum())
        n_bytes += int(split.n_bytes[row])
    return nats, tokens, n_bytes


@pytest.mark.parametrize("batch_tokens", [1, 100, 5000])
def test_equals_rows_one_by_one(
    tiny_checkpoint: CheckpointRef, split: TokenizedSplit, batch_tokens: int
) -> None:
    model = load_model(tiny_checkpoint)
    found = heldout_losses(
        model, split, rows_per_domain=5, batch_tokens=batch_tokens, progress=False
    )
    assert list(found) == ["law", "medicine", "code"]
    for name, rows in zip(split.domains, chosen_rows(split, 5), strict=True):
        nats, tokens, n_bytes = by_hand(model, split, rows)
        assert found[name].nats_per_token == pytest.approx(nats / tokens, rel=1e-5)
        assert found[name].bits_per_byte == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
        assert (found[name].n_rows, found[name].n_tokens) == (5, tokens)
        assert found[name].stderr > 0


def test_processes_together_measure_what_one_does(
    tiny_checkpoint: CheckpointRef, split: TokenizedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks' sums add up to the whole: the reduction is replaced by collecting."""
    model = load_model(tiny_checkpoint)
    options = {"rows_per_domain": 5, "batch_tokens": 120, "progress": False}
    whole = heldout_losses(model, split, **options)
    shares: list[torch.Tensor] = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda t: shares.append(t.clone()))
    monkeypatch.setattr("versatune.modeling.heldout.summary", lambda *_: None)
    for rank in range(2):
        heldout_losses(model, split, **options, rank=rank, world=2)
    total = sum(shares).sum(0)
    assert total[1] == sum(h.n_tokens for h in whole.values())
    assert float(total[0]) == pytest.approx(
        sum(h.nats_per_token * h.n_tokens for h in whole.values())
    )
    assert all(float(s.sum()) > 0 for s in shares)


def test_leaves_the_model_as_it_was(tiny_checkpoint: CheckpointRef, split: TokenizedSplit) -> None:
    model = load_model(tiny_checkpoint).train()
    heldout_losses(model, split, rows_per_domain=2, batch_tokens=500, progress=False)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_the_subset_is_fixed_and_grows(split: TokenizedSplit) -> None:
    few, more = chosen_rows(split, 4), chosen_rows(split, 8)
    for a, b, again in zip(few, more, chosen_rows(split, 4), strict=True):
        assert a.tolist() == again.tolist()
        assert len(a) == 4
        assert set(a) <= set(b)
    assert [len(r) for r in chosen_rows(split, None)] == [12, 12, 12]


def test_rows_are_added_until_they_have_so_many_supervised_tokens(split: TokenizedSplit) -> None:
    few = chosen_rows(split, 2)
    for wanted in (1, 40, 60, 10_000):
        found = chosen_rows(split, 2, wanted)
        for rows, least, domain in zip(found, few, range(len(split.domains)), strict=True):
            tokens, whole = split.supervised[rows].sum(), len(split.rows(domain))
            assert set(least) <= set(rows)
            assert tokens >= wanted or len(rows) == whole
            if 2 < len(rows) < whole:  # and not one row more
                assert tokens - split.supervised[rows].max() < wanted
    assert any(2 < len(rows) < 12 for rows in chosen_rows(split, 2, 40))


def test_batches_hold_their_limit_and_every_row() -> None:
    lengths = np.array([5, 60, 7, 7, 30, 1])
    parts = batches(lengths, 60)
    assert [p.tolist() for p in parts] == [[1], [4, 2], [3, 0, 5]]
    assert sorted(np.concatenate(parts).tolist()) == list(range(6))
    assert [p.tolist() for p in batches(np.array([90, 80]), 10)] == [[0], [1]]


def test_pad_by_hand() -> None:
    ids, labels = pad(
        [{"input_ids": [4, 5], "labels": [-100, 5]}, {"input_ids": [6], "labels": [6]}]
    )
    assert ids.tolist() == [[4, 5], [6, 0]]
    assert labels.tolist() == [[-100, 5], [6, -100]]


def test_standard_error_by_hand() -> None:
    from versatune.modeling.heldout import summary

    # Two rows: 2 tokens of 1 nat and 2 tokens of 3 nats: mean 2, residuals -2 and 2,
    # variance 2/1 * 8 = 16, stderr 4/4 = 1.
    result = summary("law", np.array([2.0, 6.0]), np.array([2.0, 2.0]), 8)
    assert result.nats_per_token == 2.0
    assert result.stderr == 1.0
    assert result.bits_per_byte == pytest.approx(8 / math.log(2) / 8)


def test_a_domain_with_nothing_to_measure_is_refused() -> None:
    from versatune.modeling.heldout import summary

    with pytest.raises(VersatuneError, match=r"'law' has no supervised token.*more rows"):
        summary("law", np.zeros(2), np.zeros(2), 3)
