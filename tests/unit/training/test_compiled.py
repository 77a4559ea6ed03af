"""One shape for all steps, so that blocks are compiled once; the loss stays what it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.losses import TokenLoss
from versatune.training import TrainParams, train, varlen
from versatune.training import run as run_module
from versatune.training.attention import choose_layout
from versatune.training.batches import Collator, PackedRows, Row
from versatune.training.compiled import compile_blocks
from versatune.training.trainer import _Forward

ROWS: list[list[Row]] = [[(0, 1), (50,)], [(2,), (41, 42, 43)], [(70, 71), (72, 3)], [(5,), (60,)]]
SHAPE = (2, 192)


@pytest.fixture
def model(tiny_checkpoint: CheckpointRef) -> Any:
    torch._dynamo.reset()
    found: Any = load_model(tiny_checkpoint, dtype="float32")
    assert choose_layout(found, True, 64) == "varlen"
    return found.train()


@pytest.fixture
def rows(tiny_store: FolderRef) -> PackedRows:
    return PackedRows(TokenizedSplit.load(tiny_store, "train"))


def batch_of(rows: PackedRows, chosen: list[Row], shape: tuple[int, int] | None) -> dict[str, Any]:
    batch = Collator("varlen", shape)([rows[row] for row in chosen])
    batch.pop("domains")
    return batch


def test_a_filled_batch_has_one_shape_and_the_same_targets(rows: PackedRows) -> None:
    for chosen in ROWS:
        plain, filled = batch_of(rows, chosen, None), batch_of(rows, chosen, SHAPE)
        assert filled["input_ids"].shape == filled["position_ids"].shape == (1, 2 * 192)
        assert "seq_lens" not in filled and filled["longest"] == 192
        assert int(filled["position_ids"].max()) < 192, "no position beyond a row's"
        assert int(filled["starts"].diff().max()) <= 192
        assert int(filled["starts"][-1]) == 2 * 192
        for name in ("positions", "targets"):
            assert torch.equal(plain[name], filled[name])
        length = plain["input_ids"].shape[1]
        assert torch.equal(plain["input_ids"], filled["input_ids"][:, :length])


def test_a_full_batch_is_left_as_it_is() -> None:
    row = {
        "input_ids": [np.arange(4), np.arange(4)],
        "labels": [np.arange(4)] * 2,
        "domains": [0, 1],
    }
    assert Collator("varlen", (1, 8))([row])["starts"].tolist() == [0, 4, 8]


def test_no_filling_example_is_longer_than_a_model_has_positions(rows: PackedRows) -> None:
    """Rows of 192 tokens, for a model of 80 positions."""
    batch = Collator("varlen", SHAPE, longest=80)([rows[row] for row in ROWS[1]])
    assert batch["input_ids"].shape == (1, 2 * 192)
    assert batch["longest"] == 80 and int(batch["starts"].diff().max()) <= 80
    assert int(batch["position_ids"].max()) < 80
    assert Collator("varlen", SHAPE, longest=4096).longest == 192, "a bound, near for the kernel"


def test_rows_whose_positions_restart_have_one_width(rows: PackedRows) -> None:
    for chosen in ROWS:
        given = [rows[row] for row in chosen]
        plain = Collator("position_ids")(given)
        filled = Collator("position_ids", SHAPE)(given)
        assert filled["input_ids"].shape == filled["position_ids"].shape == (2, 192)
        assert torch.equal(plain["targets"], filled["targets"])
        for i, row in enumerate(given):
            used = sum(map(len, row["input_ids"]))
            assert not filled["position_ids"][i, used:].any(), "an example a token"
            longest = max(map(len, row["input_ids"]))
            assert int(plain["position_ids"][i].max()) == longest - 1


def test_filling_changes_no_loss_and_no_gradient(model: Any, rows: PackedRows) -> None:
    loss = TokenLoss(model)
    for chosen in ROWS[:2]:
        found = []
        for shape in (None, SHAPE):
            model.zero_grad()
            nats = loss(**batch_of(rows, chosen, shape))
            nats.sum().backward()
            found.append((nats.detach(), [p.grad.clone() for p in model.parameters()]))
        torch.testing.assert_close(found[0][0], found[1][0])
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)


def traced_kernel(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, *_: Any, **options: Any
) -> Tensor:
    """What the kernel of a GPU computes, by plain products that torch.compile can follow."""
    assert options["enable_gqa"] is (query.shape[1] != key.shape[1])
    at = torch.arange(query.shape[0], device=query.device)
    owner = torch.searchsorted(starts[1:].contiguous(), at, right=True)
    seen = (owner[:, None] == owner[None, :]) & (at[:, None] >= at[None, :])
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    out = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, scale=options["scale"], enable_gqa=options["enable_gqa"]
    )
    return out[0].transpose(0, 1)


@pytest.mark.parametrize(("kernel", "checkpointing"), [(False, False), (True, True)])
def test_blocks_are_compiled_once_and_give_the_losses_they_gave(
    model: Any,
    rows: PackedRows,
    kernel: bool,
    checkpointing: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = TokenLoss(model)
    plain = [loss(**batch_of(rows, chosen, None)).detach() for chosen in ROWS]
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if kernel:  # as on a GPU: the attention is part of the graph
        monkeypatch.setattr(varlen, "takes", lambda *_: True)
        monkeypatch.setattr(varlen, "varlen_attn", traced_kernel)
    counter = CompileCounterWithBackend("eager")
    assert compile_blocks(model, counter) == 2
    forward = _Forward(loss)
    counts = []
    for chosen, wanted in zip(ROWS, plain, strict=True):
        nats = forward(**batch_of(rows, chosen, SHAPE))
        nats.sum().backward()
        torch.testing.assert_close(nats.detach(), wanted, rtol=1e-4, atol=1e-5)
        counts.append(counter.frame_count)
        stance = torch.compiler.set_stance("force_eager")
        with stance, torch.no_grad():  # as held-out rows are measured between rounds
            loss(**batch_of(rows, chosen, None))
    assert len(set(counts)) == 1, f"graphs after each step: {counts}"
    if kernel:
        assert counts[0] == 1, "one graph, which all blocks share"
    else:
        assert counts[0] > 0


def test_a_model_without_blocks_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert compile_blocks(torch.nn.Linear(2, 2)) == 0
    assert "Linear names no blocks to compile" in caplog.text


def test_a_compiled_training_is_the_training(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(run_module, "compile_blocks", lambda model: compile_blocks(model, counter))
    params = {
        **{"rounds": 2, "steps_per_round": 2, "max_length": 64, "heldout_rows_per_domain": 4},
        **{"per_device_train_batch_size": 2, "learning_rate": 1e-3},
    }
    losses = {
        compiled: train(
            tiny_store,
            tiny_checkpoint,
            TrainParams.model_validate({**params, "torch_compile": compiled}),
            folder=tmp_path / str(compiled),
        ).history["validation_loss"]
        for compiled in (False, True)
    }
    assert counter.frame_count > 0
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-4)
