"""Nothing between the logged steps that the host of a GPU would have to wait for."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.modeling.losses import TokenLoss
from versatune.training import TrainParams, attention, varlen
from versatune.training.adapters import with_adapters
from versatune.training.attention import candidates, choose_layout
from versatune.training.batches import Collator, PackedRows
from versatune.training.config import LoraParams
from versatune.training.trainer import MixtureTrainer, arguments

WAITING = (
    "_local_scalar_dense",  # .item(), float(tensor), if tensor
    "nonzero",  # tensor[mask]
    "_unique2",
    "unique_dim",
    "masked_select",
    "equal",
    "is_nonzero",
)
"""Operations whose result, or its size, the host has to know before it goes on."""

READ = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")
"""Methods that take numbers to the host. On a CPU some of them are no operation at all."""

SHAPE = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


class Waits(TorchDispatchMode):
    """Counts them while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if self.on and name in WAITING:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Counts the methods of :data:`READ` while ``waits`` is on."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if self.waits.on and name in READ:
            self.waits.found[name] += 1
        return func(*args, **(kwargs or {}))


class Mixed(TorchDispatchMode):
    """Lists the operations on tensors of two devices, copies and indices included: what lies on the
    host is copied to the device while it waits. A number in a tensor is passed on without."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dim()]
        tensors += [x for x in tree_leaves(made) if isinstance(x, Tensor)]
        if len({x.device.type for x in tensors}) > 1:
            self.found.append(str(func))
        return made


class Between(TrainerCallback):
    """On from the end of a logged step to the end of the step before the next logged one."""

    def __init__(self, waits: Waits, every: int) -> None:
        self.waits, self.every = waits, every
        self.steps = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.waits.on = (state.global_step + 1) % self.every != 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.steps += self.waits.on
        # What the Trainer does between two steps counts too: it goes on until the next begins.
        self.waits.on = state.global_step % self.every != 0


def config_of(kind: str) -> Any:
    scale = {"logits_scaling": 4.0} if kind == "granite" else {}
    return AutoConfig.for_model(kind, **SHAPE, **HEADS, **scale)


def trainer_of(store: FolderRef, folder: Path, kind: str, **values: Any) -> MixtureTrainer:
    split = TokenizedSplit.load(store, "train")
    params = TrainParams.model_validate(
        {
            **{"rounds": 1, "steps_per_round": 6, "logging_steps": 3, "max_length": 64},
            **{"per_device_train_batch_size": 2, **values},
        }
    )
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config_of(kind))
    if params.lora:
        model = with_adapters(model, params.lora, "train")
    layout = choose_layout(model.train(), True, 64)
    assert layout == "varlen"
    rows = [(i, i + 40) for i in range(0, 2 * 6 * params.gradient_accumulation_steps)]
    return MixtureTrainer(
        model, arguments(params, folder), params, folder, split, Collator(layout), lambda _: rows
    )


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("llama", {"lora": {"dropout": 0.1}, "bf16": True, "max_grad_norm": 0}),
        ("llama", {"gradient_accumulation_steps": 2, "gradient_checkpointing": True}),
        ("granite", {}),  # the loss goes through the whole model, at some columns
    ],
)
def test_no_step_between_the_logged_ones_waits(
    kind: str, values: dict[str, Any], tiny_store: FolderRef, tmp_path: Path
) -> None:
    trainer = trainer_of(tiny_store, tmp_path, kind, **values)
    waits = Waits()
    between = Between(waits, every=3)
    trainer.add_callback(between)
    with waits, Reads(waits):
        trainer.train()
    assert between.steps == 4
    assert not waits.found


def test_waiting_is_found(tiny_store: FolderRef, tmp_path: Path) -> None:
    """The test above can fail: a loss that is looked at in every step shows."""
    trainer = trainer_of(tiny_store, tmp_path, "llama")
    plain = trainer.compute_loss

    def looking(*args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = plain(*args, **kwargs)
        assert loss.item() > 0 and loss[None].tolist()
        return loss

    trainer.compute_loss = looking  # type: ignore[method-assign]
    waits = Waits()
    trainer.add_callback(Between(waits, every=3))
    with waits, Reads(waits):
        trainer.train()
    assert waits.found == {"_local_scalar_dense": 4, "item": 4, "tolist": 4}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("llama", {"lora": {"dropout": 0.1}}),
        ("mistral", {"gradient_checkpointing": True}),
        ("granite", {}),
    ],
)
@pytest.mark.parametrize("shape", [None, (2, 192)])
def test_a_step_through_the_kernel_needs_no_number(
    kind: str,
    values: dict[str, Any],
    shape: tuple[int, int] | None,
    tiny_store: FolderRef,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The meta device has shapes and types alone: whatever reads a number raises there.

    The kernel's own rules for shapes take the call, forward and backward.
    """
    torch.manual_seed(0)
    window = {"sliding_window": 16} if kind == "mistral" else {}
    config = AutoConfig.for_model(kind, **SHAPE, **HEADS, **window)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    if "lora" in values:
        model = with_adapters(model, LoraParams.model_validate(values["lora"]), "train")
    if "gradient_checkpointing" in values:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train().set_attn_implementation(candidates(model, True)[0].attention)
    loss = TokenLoss(model)
    rows = PackedRows(TokenizedSplit.load(tiny_store, "train"))
    batch = Collator("varlen", shape)([rows[(0, 40)], rows[(1, 41, 42)]])
    batch.pop("domains")
    model.to("meta")
    there = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in batch.items()}
    calls, real = [], varlen.varlen_attn
    monkeypatch.setattr(varlen, "takes", lambda *_: True)
    monkeypatch.setattr(attention, "_autocast", lambda *tensors: tensors)  # none on this device
    monkeypatch.setattr(
        varlen, "varlen_attn", lambda *a, **k: (calls.append(a[3].dtype), real(*a, **k))[1]
    )
    with Mixed() as mixed:
        nats = loss(**there)
        nats.sum().backward()
    assert nats.device.type == "meta" and nats.dtype == torch.float32
    assert not mixed.found
    layers = SHAPE["num_hidden_layers"] * (2 if "gradient_checkpointing" in values else 1)
    assert calls == [torch.int32] * layers
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with pytest.raises(RuntimeError):
        nats.sum().item()
    with mixed:
        nats[batch["positions"][:1]]
    assert mixed.found, "an index on the host is found"


def test_the_optimiser_is_fused_and_copies_from_pinned_memory_do_not_wait(
    tiny_store: FolderRef, tmp_path: Path
) -> None:
    trainer = trainer_of(tiny_store, tmp_path, "llama")
    assert trainer.create_optimizer().defaults["fused"]
    on_gpu = torch.cuda.is_available()
    assert trainer.args.accelerator_config.non_blocking is on_gpu
    assert trainer.get_train_dataloader().pin_memory is on_gpu


def test_columns_of_one_row_are_those_of_the_targets() -> None:
    """Without counting which columns there are, for which a GPU would have to wait."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config_of("granite"))
    loss = TokenLoss(model.eval())
    assert loss.way == "columns"
    ids = torch.from_numpy(np.random.default_rng(0).integers(3, 400, (1, 20)))
    at = torch.tensor([2, 3, 9, 18])
    whole = model(input_ids=ids).logits[0, at].log_softmax(-1)
    wanted = -whole.gather(-1, ids[0, at + 1][:, None])[:, 0]
    torch.testing.assert_close(loss(ids, at, ids[0, at + 1]), wanted, rtol=1e-4, atol=1e-4)
