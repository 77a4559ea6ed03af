"""Held-out loss as rows: the three metrics are one number in three units."""

import math

import numpy as np
import pytest

from versatune.artifacts import FolderRef
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.heldout import loss_rows, measure_heldout
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.heldout import HeldOut


def test_three_units_by_hand() -> None:
    """2 nats a token, 4 bytes a token: 2 / (4 ln 2) bits a byte, perplexity e^2."""
    loss = HeldOut(
        nats_per_token=2.0,
        bits_per_byte=2 / (4 * math.log(2)),
        stderr=0.1,
        n_rows=3,
        n_tokens=30,
    )
    nats, bits, perplexity = loss_rows(loss)
    assert (nats["low"], nats["high"]) == pytest.approx((2 - 0.43027, 2 + 0.43027), abs=1e-5)
    assert bits["stderr"] == pytest.approx(0.1 / (4 * math.log(2)))
    assert perplexity["value"] == pytest.approx(math.e**2)
    assert perplexity["stderr"] == pytest.approx(0.1 * math.e**2)
    assert perplexity["high"] == pytest.approx(math.exp(nats["high"]))
    assert {row["n"] for row in (nats, bits, perplexity)} == {3}


def test_extreme_losses_stay_numbers() -> None:
    huge = HeldOut(nats_per_token=1e4, bits_per_byte=1.0, stderr=1.0, n_rows=2, n_tokens=2)
    assert loss_rows(huge)[2]["value"] == math.inf
    one = HeldOut(nats_per_token=1.0, bits_per_byte=1.0, stderr=0.0, n_rows=1, n_tokens=2)
    for row in loss_rows(one):
        assert math.isnan(row["low"]) and math.isnan(row["high"]), row


def test_items_add_up_to_the_loss(tiny_checkpoint: CheckpointRef, tiny_store: FolderRef) -> None:
    params = EvaluateParams(rows_per_domain=5)
    model = load_model(tiny_checkpoint, dtype="float32")
    found = measure_heldout(tiny_store, params, model)
    for domain in tiny_store.metadata["domains"]:
        mine = found.items[found.items["domain"] == domain]
        rows = found.rows[found.rows["domain"] == domain].set_index("metric")["value"]
        assert len(mine) == 5
        nats = mine["score"].sum() / mine["weight"].sum()
        assert rows["nats_per_token"] == pytest.approx(nats)
        # In the store of the tests each supervised token is three bytes.
        assert rows["bits_per_byte"] == pytest.approx(nats / (3 * math.log(2)))
    assert np.isfinite(found.rows["stderr"]).all()


def test_a_batch_holds_no_more_tokens_than_asked(
    tiny_checkpoint: CheckpointRef, tiny_store: FolderRef
) -> None:
    model, tokens = load_model(tiny_checkpoint, dtype="float32"), []
    found = measure_heldout(tiny_store, EvaluateParams(rows_per_domain=5), model)
    embeddings = model.get_input_embeddings()
    embeddings.register_forward_pre_hook(lambda _, given: tokens.append(given[0].numel()))
    small = EvaluateParams(rows_per_domain=5, batch_tokens=70)
    again = measure_heldout(tiny_store, small, model)
    assert len(tokens) > 3 and max(tokens) <= 70
    assert again.rows["value"].tolist() == pytest.approx(found.rows["value"].tolist(), rel=1e-5)


@pytest.mark.parametrize("nats", [2.0, 0.5, 0.0])
def test_bits_have_the_interval_of_the_nats(nats: float) -> None:
    """4 bytes a token; t(2) = 4.3027 times an error of a tenth."""
    bits = nats / (4 * math.log(2))
    loss = HeldOut(nats_per_token=nats, bits_per_byte=bits, stderr=nats / 10, n_rows=3, n_tokens=30)
    found = loss_rows(loss)[1]
    wanted = (bits * (1 - 0.43027), bits * (1 + 0.43027))
    assert (found["low"], found["high"]) == pytest.approx(wanted, abs=1e-5)
