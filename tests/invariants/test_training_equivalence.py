"""Settings that must not change the objective: they give one loss and one gradient."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    PhimoeConfig,
    Qwen3NextConfig,
)

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.losses import TokenLoss
from versatune.training import TrainParams, train
from versatune.training.api import TrainResult
from versatune.training.attention import NAME, choose_layout, segment_attention
from versatune.training.batches import Collator, PackedRows, _without_first
from versatune.training.trial import Trial, in_float32

START = {"law": 0.2, "medicine": 0.3, "code": 0.5}
PARAMS: dict[str, Any] = {
    "rounds": 2,
    "steps_per_round": 2,
    "max_length": 64,
    "per_device_train_batch_size": 4,
    "heldout_rows_per_domain": 4,
    "learning_rate": 1e-2,
    "logging_steps": 2,
    "strategy": {"name": "foster", "potential_source": "progress", "sigma": 20.0},
}


def trained(
    store: FolderRef, base: CheckpointRef, folder: Path, **changes: Any
) -> tuple[TrainResult, dict[str, torch.Tensor]]:
    params = TrainParams.model_validate({**PARAMS, **changes})
    result = train(store, base, params, initial_weights=START, folder=folder)
    return result, load_file(folder / "model.safetensors")


def gradients(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.zero_grad()
    inputs = {k: v for k, v in batch.items() if k != "domains"}
    nats = TokenLoss(model)(**inputs)
    nats.sum().backward()
    return nats.detach(), [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("layout", ["varlen", "position_ids", "padded"])
def test_packed_is_unpacked(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, layout: Any
) -> None:
    """Each layout gives every example the losses and gradients it has alone."""
    rows = PackedRows(TokenizedSplit.load(tiny_store, "train"))
    packed = [(3, 50), (70,), (41, 4, 90)]
    if layout == "padded":
        packed = [(i,) for row in packed for i in row]
    model = load_model(tiny_checkpoint, dtype="float32")
    alone = [gradients(model, Collator("padded")([rows[(i,)]])) for r in packed for i in r]
    if layout == "varlen":
        assert choose_layout(model, True, 64) == "varlen"
        assert model.config._attn_implementation == NAME
    nats, found = gradients(model, Collator(layout)([rows[row] for row in packed]))
    torch.testing.assert_close(nats, torch.cat([n for n, _ in alone]), rtol=1e-5, atol=1e-5)
    for i, gradient in enumerate(found):
        expected = sum(g[i] for _, g in alone)
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}
EXPERTS = {**SMALL, "num_local_experts": 3, "num_experts_per_tok": 2, "initializer_range": 0.3}


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        (MistralConfig(**SMALL, sliding_window=4), "varlen"),
        (MixtralConfig(**EXPERTS), "varlen"),
        (Gemma2Config(**SMALL, head_dim=8, attn_logit_softcapping=2.0), "position_ids"),
        (GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2), "varlen"),
        (MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, state_size=4), "padded"),
        # Adds learnt sinks to its scores; its masks know nothing of packed rows.
        (GptOssConfig(**EXPERTS, head_dim=8, rope_scaling=None), "padded"),
        # Their window and chunks are in the mask alone.
        (PhimoeConfig(**EXPERTS, sliding_window=20, rope_scaling=None), "position_ids"),
        (Llama4TextConfig(**EXPERTS, head_dim=8, attention_chunk_size=20), "position_ids"),
    ],
    ids=["mistral", "mixtral", "gemma2", "gpt2", "mamba", "gpt-oss", "phimoe", "llama4"],
)
def test_each_architecture_gets_a_layout_that_keeps_examples_apart(
    config: Any, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    sets = [[torch.randint(1, 60, (n,)).numpy() for n in row] for row in ((3, 9), (8, 30))]
    wanted = [torch.cat([nats(model, "padded", [x]) for x in examples]) for examples in sets]
    found = choose_layout(model, True, 64)
    assert found == layout
    assert ("padded rows" in caplog.text) == (layout == "padded")
    if layout != "padded":
        for examples, expected in zip(sets, wanted, strict=True):
            packed = nats(model, found, examples)
            torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-4)


def nats(model: Any, layout: Any, examples: list[np.ndarray]) -> torch.Tensor:
    """Of every token but the first of each example, packed in one row."""
    labels = [_without_first(x) for x in examples]
    domains = np.zeros(len(examples), np.int64)
    batch = Collator(layout)([{"input_ids": examples, "labels": labels, "domains": domains}])
    batch.pop("domains")
    with torch.no_grad():
        return TokenLoss(model)(**batch).float()


LARGE = {"vocab_size": 200, "hidden_size": 32}
WITH_STATE = {
    "qwen3-next": Qwen3NextConfig(
        **LARGE,
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
        **{"num_key_value_heads": 2, "head_dim": 8, "linear_num_key_heads": 2},
        **{"linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
        **{"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        shared_expert_intermediate_size=32,
        layer_types=["linear_attention", "full_attention"],
    ),
    "bloom": BloomConfig(**LARGE, n_layer=2, n_head=4),
    "mamba": MambaConfig(**LARGE, num_hidden_layers=2, state_size=4),
    "llama": LlamaConfig(**LARGE, num_hidden_layers=2, num_attention_heads=4),
    "mixtral": MixtralConfig(
        **LARGE,
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"intermediate_size": 64, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("qwen3-next", "padded"),
        ("bloom", "padded"),
        ("mamba", "padded"),
        ("llama", "varlen"),
        ("mixtral", "varlen"),
    ],
)
def test_precision_hides_no_leak(name: str, layout: str, dtype: torch.dtype) -> None:
    """What crosses examples crosses them in bfloat16 too, where noise is as large as some leaks."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(WITH_STATE[name])
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.mul_(5.0)  # weights of a trained model's size
    model = model.to(dtype).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    assert choose_layout(model, True, 17) == layout
    assert torch.equal(torch.get_rng_state(), drawn)
    assert model.training
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name


def test_weights_have_their_bits_again_after_float32() -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), dtype=torch.bfloat16)
    tied = model.lm_head.weight = model.model.embed_tokens.weight
    model.model.register_buffer("mine", torch.tensor([1 / 3]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with in_float32(model):
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is tied is model.model.embed_tokens.weight
    after = model.state_dict()
    assert after["model.mine"].dtype == torch.float32
    assert all(after[n].dtype == v.dtype and torch.equal(after[n], v) for n, v in before.items())


def test_a_model_that_runs_in_no_layout_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL))

    def broken(*given: Any) -> None:
        if len(given[1][0]) > 1:
            raise RuntimeError("one row at a time")

    model.model.layers[0].register_forward_pre_hook(broken)
    with pytest.raises(VersatuneError, match=r"LlamaForCausalLM can't .* one row at a time"):
        choose_layout(model, False, 64)


@pytest.mark.parametrize("longest", [20, 64])
def test_a_window_no_example_leaves_is_not_tried(longest: int) -> None:
    model = AutoModelForCausalLM.from_config(PhimoeConfig(**EXPERTS, sliding_window=20))
    assert choose_layout(model, True, longest) == ("varlen" if longest == 20 else "position_ids")


@pytest.mark.parametrize("more", [{"s_aux": torch.zeros(2)}, {"softcap": 2.0}, {"new": 0.5}])
def test_attention_that_is_more_than_causal_is_refused(more: dict[str, Any]) -> None:
    query = torch.ones(1, 2, 3, 4)
    segment_attention(None, query, query, query, None, use_cache=False, softcap=None)
    with pytest.raises(NotImplementedError, match=next(iter(more))):
        segment_attention(None, query, query, query, None, **more)
    with pytest.raises(NotImplementedError, match="plain causal"):
        segment_attention(None, query, query, query, None, is_causal=False)


def test_the_check_finds_examples_that_leak() -> None:
    """A model that ignores seq_lens (a plain causal mask) is not taken for one that packs."""
    from transformers import AttentionInterface

    def leaking(*args: Any, **kwargs: Any) -> Any:
        return segment_attention(*args, **{**kwargs, "seq_lens": None})

    AttentionInterface.register("leaking", leaking)
    model = AutoModelForCausalLM.from_config(MistralConfig(**SMALL, sliding_window=None))
    trial = Trial(model, 64)
    model.set_attn_implementation("leaking")
    assert trial.fault("varlen") == "the loss of an example depends on another one"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [1.2, 4.0])
def test_the_check_finds_attention_that_is_not_the_models_own(
    factor: float, dtype: torch.dtype
) -> None:
    """What changes packed examples and those alone alike is found too, bfloat16's noise or not."""
    from transformers import AttentionInterface

    def hotter(*args: Any, **kwargs: Any) -> Any:
        return segment_attention(*args, **{**kwargs, "scaling": factor * kwargs["scaling"]})

    AttentionInterface.register(NAME, segment_attention)
    AttentionInterface.register("hotter", hotter)
    torch.manual_seed(0)
    config = MistralConfig(**SMALL, sliding_window=None, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    trial = Trial(model, 64)
    for name, fault in (("hotter", "an example has other losses than alone"), (NAME, None)):
        model.set_attn_implementation(name)
        assert trial.fault("varlen") == fault


@pytest.mark.parametrize(("factor", "layout"), [(1, "varlen"), (-1, "position_ids")])
def test_the_check_takes_the_way_of_training(
    factor: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 on a CPU attention by blocks is what is tried."""
    from versatune.training.attention import SegmentAttention

    real = SegmentAttention.apply
    monkeypatch.setattr(SegmentAttention, "apply", lambda *given: factor * real(*given))
    torch.manual_seed(0)
    config = MistralConfig(**SMALL, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    assert choose_layout(model, True, 64) == layout


def test_sliding_window_in_a_long_example() -> None:
    """An example longer than the window is masked as transformers masks it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MistralConfig(**SMALL, sliding_window=4)).eval()
    ids = torch.randint(1, 60, (1, 15))
    expected = model(input_ids=ids).logits
    choose_layout(model, True, 15)
    found = model(input_ids=ids, seq_lens=(15,), use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 5, 70])
@pytest.mark.parametrize("seq_lens", [(13, 7), (300, 1, 129), (64, 65, 128)])
@pytest.mark.parametrize(
    ("heads", "shared", "size"), [(4, 2, 8), (9, 3, 64), (3, 3, 16), (4, 1, 16)]
)
def test_attention_by_blocks_is_the_fused_one(
    window: int | None, seq_lens: tuple[int, ...], heads: int, shared: int, size: int
) -> None:
    """bfloat16 on a CPU takes another way in training; against float32, to bfloat16's digits."""
    torch.manual_seed(0)
    made = [torch.randn(1, n, sum(seq_lens), size) for n in (heads, shared, shared)]
    exact = [x.bfloat16().float().requires_grad_() for x in made]
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    found, wanted = (
        segment_attention(None, *x, None, seq_lens=seq_lens, sliding_window=window)[0]
        for x in (rounded, exact)
    )
    torch.testing.assert_close(found.float(), wanted, rtol=3e-2, atol=3e-2)
    found.float().square().sum().backward()
    wanted.square().sum().backward()
    for a, b in zip(rounded, exact, strict=True):
        torch.testing.assert_close(a.grad.float(), b.grad, rtol=5e-2, atol=1e-1)


@pytest.mark.parametrize(("heads", "shared"), [(9, 3), (4, 4), (4, 1)])
def test_packed_in_bfloat16_is_the_model_alone_in_float32(heads: int, shared: int) -> None:
    """Losses and gradients of a whole model, to bfloat16's digits; a wrong example is far off."""
    torch.manual_seed(0)
    small = {**SMALL, "num_attention_heads": heads, "num_key_value_heads": shared}
    config = LlamaConfig(**{**small, "hidden_size": 8 * heads}, initializer_range=0.1)
    rounded = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    exact = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    exact.load_state_dict(rounded.state_dict())
    lengths = (70, 5, 130)
    ids = [torch.randint(1, 60, (n,)).numpy() for n in lengths]

    def batch(layout: Any, examples: list[Any]) -> dict[str, Any]:
        domains = np.zeros(len(examples), np.int64)
        labels = [_without_first(x) for x in examples]
        return Collator(layout)([{"input_ids": examples, "labels": labels, "domains": domains}])

    parts = [gradients(exact, batch("padded", [x])) for x in ids]
    assert choose_layout(rounded, True, max(lengths)) == "varlen"
    nats, found = gradients(rounded, batch("varlen", ids))
    wanted = torch.cat([n for n, _ in parts])
    assert (nats - wanted).abs().mean() < 0.02 * wanted.mean()
    for i, gradient in enumerate(found):
        expected = sum(g[i] for _, g in parts)
        assert (gradient.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("packing", [True, False])
def test_accumulation_is_a_larger_batch(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path, packing: bool
) -> None:
    whole, a = trained(tiny_store, tiny_checkpoint, tmp_path / "a", packing=packing)
    parts, b = trained(
        tiny_store,
        tiny_checkpoint,
        tmp_path / "b",
        packing=packing,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
    )
    assert parts.history["train_loss"].tolist() == pytest.approx(
        whole.history["train_loss"].tolist(), rel=1e-5, nan_ok=True
    )
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataloader_num_workers": 2},
        {"save_steps": 1, "save_total_limit": 5},
        {"heldout_batch_tokens": 50},
    ],
    ids=lambda c: next(iter(c)),
)
def test_what_decides_nothing_changes_nothing(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path, changes: dict[str, Any]
) -> None:
    plain, a = trained(tiny_store, tiny_checkpoint, tmp_path / "a")
    other, b = trained(tiny_store, tiny_checkpoint, tmp_path / "b", **changes)
    assert plain.model_ref.fingerprint == other.model_ref.fingerprint
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-6, atol=1e-6)


def test_gradient_checkpointing_changes_nothing(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    _, a = trained(tiny_store, tiny_checkpoint, tmp_path / "a")
    _, b = trained(tiny_store, tiny_checkpoint, tmp_path / "b", gradient_checkpointing=True)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6)


def test_padded_rows_train_too(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    result, _ = trained(
        tiny_store, tiny_checkpoint, tmp_path / "a", packing=False, steps_per_round=8, rounds=3
    )
    last = result.history.groupby("round")["validation_loss"].mean()
    assert last.iloc[-1] < last.iloc[0]


def test_labels_and_domains_keep_their_place(tiny_store: FolderRef) -> None:
    split = TokenizedSplit.load(tiny_store, "train")
    row = (2, 45, 110)
    batch = Collator("varlen")([PackedRows(split)[row]])
    examples = [split.dataset[i] for i in row]
    assert batch["input_ids"][0].tolist() == [t for e in examples for t in e["input_ids"]]
    assert batch["seq_lens"] == tuple(int(split.lengths[i]) for i in row)
    assert batch["position_ids"][0].tolist() == [p for n in batch["seq_lens"] for p in range(n)]
    assert "attention_mask" not in batch
    # Every supervised token is predicted from the place before it, and knows its domain.
    expected = [(int(t), j) for j, e in enumerate(examples) for t in e["labels"] if t != -100]
    found = list(zip(batch["targets"].tolist(), batch["domains"].tolist(), strict=True))
    assert found == expected
    ids = batch["input_ids"].flatten()
    assert ids[batch["positions"] + 1].tolist() == batch["targets"].tolist()


def test_a_supervised_first_token_is_not_learnt_from_its_neighbour() -> None:
    row = {
        "input_ids": [np.array([5, 6]), np.array([7, 8])],
        "labels": [np.array([5, 6]), np.array([7, 8])],
        "domains": np.array([0, 1]),
    }
    row["labels"] = [_without_first(x) for x in row["labels"]]
    batch = Collator("varlen")([row])
    assert batch["targets"].tolist() == [6, 8]
    assert batch["positions"].tolist() == [0, 2]
