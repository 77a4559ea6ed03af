"""The call of the GPU's kernel, against attention written with plain products.

Where there is no GPU, a stand-in written from the kernel's documentation takes the call, so that
its arguments are checked; the tests marked ``gpu`` make the same comparison with the kernel.
"""

import math
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from versatune.modeling.losses import IGNORE, TokenLoss
from versatune.training import varlen
from versatune.training.attention import choose_layout
from versatune.training.batches import Collator
from versatune.training.varlen import attend

CASES = [
    pytest.param((5, 9, 1), 4, 4, None, id="plain"),
    pytest.param((5, 9, 1), 4, 2, None, id="grouped heads"),
    pytest.param((7, 12), 4, 1, 3, id="window, one key head"),
    pytest.param((4,), 2, 2, 1, id="a window of the token alone"),
]


def starts_of(lengths: tuple[int, ...], room: int) -> Tensor:
    """As a batch has them, filled up to shape (room + 1,) with examples of no tokens."""
    starts = [0, *accumulate(lengths)]
    return torch.tensor(starts + starts[-1:] * (room + 1 - len(starts)), dtype=torch.int32)


def by_plain_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    window: int | None,
    scale: float,
) -> Tensor:
    """Every example by itself, every pair of tokens by itself."""
    heads, groups = query.shape[1], query.shape[1] // key.shape[1]
    rows, first = [], 0
    for length in lengths:
        for at in range(length):
            seen_from = 0 if window is None else max(0, at - window + 1)
            seen = slice(first + seen_from, first + at + 1)
            row = []
            for head in range(heads):
                scores = key[0, head // groups, seen] @ query[0, head, first + at] * scale
                weights = (scores - scores.max()).exp()
                row.append(weights / weights.sum() @ value[0, head // groups, seen])
            rows.append(torch.stack(row))
        first += length
    return torch.stack(rows)[None]


def documented_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """torch.nn.attention.varlen.varlen_attn as its documentation says, with masks."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert enable_gqa or query.shape[1] == key.shape[1]
    # Not in its documentation, but in what its kernel checks.
    assert query.shape[-1] == key.shape[-1] == value.shape[-1] and query.shape[-1] % 8 == 0
    lengths = cu_seq_q.diff()
    assert int(lengths.max()) <= max_q == max_k
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    parts = []
    for start, stop in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
        q, k, v = (x[start:stop].transpose(0, 1) for x in (query, key, value))
        at = torch.arange(stop - start)
        ahead = at[None, :] - at[:, None]
        left, right = window_size
        mask = (ahead <= right) if right >= 0 else torch.ones_like(ahead, dtype=torch.bool)
        if left >= 0:
            mask &= ahead >= -left
        scores = (q @ k.mT * scale).masked_fill(~mask, -math.inf)
        parts.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


def inputs(
    lengths: tuple[int, ...],
    heads: int,
    shared: int,
    size: int = 8,
    of_values: int = 8,
    **kind: Any,
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(1, n, sum(lengths), width, generator=generator, dtype=torch.float64)
        .to(**kind)
        .requires_grad_()
        for n, width in ((heads, size), (shared, size), (shared, of_values))
    )


@pytest.mark.parametrize("sizes", [(8, 8), (24, 16), (5, 5)], ids=["even", "values of", "odd"])
@pytest.mark.parametrize(("lengths", "heads", "shared", "window"), CASES)
def test_the_call_means_attention_within_each_example(
    lengths: tuple[int, ...],
    heads: int,
    shared: int,
    window: int | None,
    sizes: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", documented_kernel)
    tensors = inputs(lengths, heads, shared, *sizes)
    found = attend(*tensors, starts_of(lengths, room=6), max(lengths) + 2, window, 0.3)
    wanted = by_plain_products(*tensors, lengths, window, 0.3)
    torch.testing.assert_close(found, wanted)
    direction = torch.linspace(-1, 1, wanted.numel(), dtype=torch.float64).view_as(wanted)
    for ours, reference in zip(
        torch.autograd.grad((found * direction).sum(), tensors),
        torch.autograd.grad((wanted * direction).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(ours, reference)


@pytest.mark.gpu
@pytest.mark.parametrize(("lengths", "heads", "shared", "window"), CASES)
def test_the_kernel_gives_attention_within_each_example(
    lengths: tuple[int, ...], heads: int, shared: int, window: int | None
) -> None:
    tensors = inputs(lengths, heads, shared, device="cuda", dtype=torch.bfloat16)
    found = attend(*tensors, starts_of(lengths, room=6).cuda(), max(lengths), window, 0.3)
    exact = tuple(x.detach().double().cpu().requires_grad_() for x in tensors)
    wanted = by_plain_products(*exact, lengths, window, 0.3)
    torch.testing.assert_close(found.double().cpu(), wanted, rtol=2e-2, atol=2e-2)
    for ours, reference in zip(
        torch.autograd.grad(found.sum(), tensors),
        torch.autograd.grad(wanted.sum(), exact),
        strict=True,
    ):
        torch.testing.assert_close(ours.double().cpu(), reference, rtol=5e-2, atol=5e-2)


def test_what_the_kernel_does_not_take_stays_elsewhere() -> None:
    on_cpu = torch.zeros(1, 2, 3, 8, dtype=torch.bfloat16)
    assert not varlen.takes(on_cpu, 0.0)


def _tiny_model(kind: str) -> tuple[Any, Any]:
    shape = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    window = {"sliding_window": 4} if kind == "mistral" else {}
    config = AutoConfig.for_model(kind, **shape, **heads, **window)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    rng = np.random.default_rng(0)
    examples = [rng.integers(5, 60, n) for n in (9, 3, 14)]
    labels = [np.concatenate([[IGNORE], x[1:]]) for x in examples]  # nothing predicts the first
    row = {"input_ids": examples, "labels": labels, "domains": np.arange(3)}
    return model, row


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_packed_row_goes_through_the_kernel_and_has_the_losses_of_its_examples(
    kind: str, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, row = _tiny_model(kind)
    model = model.cuda() if autocast else model.cuda().to(torch.bfloat16)
    calls = []
    real = varlen.attend
    monkeypatch.setattr(varlen, "attend", lambda *a: (calls.append(1), real(*a))[1])
    assert choose_layout(model, True, 14, bf16=autocast) == "varlen"
    calls.clear()
    loss = TokenLoss(model)

    def losses(layout: Any) -> Tensor:
        parts = [{k: v[i : i + 1] for k, v in row.items()} for i in range(3)]
        batch = Collator(layout)([row] if layout == "varlen" else parts)
        batch.pop("domains")
        moved = {k: v.cuda() if isinstance(v, Tensor) else v for k, v in batch.items()}
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            return loss(**moved)

    packed = losses("varlen")
    assert len(calls) == 2, "one call a layer"
    packed.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.set_attn_implementation("eager")
    torch.testing.assert_close(packed, losses("padded"), rtol=3e-2, atol=3e-2)


def test_flash_attention_is_told_where_the_examples_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In its own words: else it looks at the positions in every layer, and a GPU waits.

    The package is made for GPUs; the reference above takes its call.
    """
    told: list[dict[str, Any]] = []

    def flash(
        _module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **given: Any
    ) -> tuple[Tensor, None]:
        if "cu_seq_lens_q" not in given:  # one example a row
            groups = query.shape[1] // key.shape[1]
            key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
            out = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=given["scaling"]
            )
            return out.transpose(1, 2), None
        assert mask is None and not {"starts", "seq_lens", "longest"} & given.keys()
        assert torch.equal(given["cu_seq_lens_q"], given["cu_seq_lens_k"])
        told.append({k: given[k] for k in ("max_length_q", "max_length_k")})
        lengths = tuple(given["cu_seq_lens_q"].diff().tolist())
        return by_plain_products(query, key, value, lengths, None, given["scaling"]), None

    model, row = _tiny_model("llama")
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", flash)
    monkeypatch.setattr(
        type(model), "_check_and_adjust_attn_implementation", lambda _self, name, *_, **__: name
    )
    parts = [{k: v[i : i + 1] for k, v in row.items()} for i in range(3)]
    padded = Collator("padded")(parts)
    wanted = TokenLoss(model)(**{k: v for k, v in padded.items() if k != "domains"})
    model.set_attn_implementation("flash_attention_2")
    assert choose_layout(model, True, 14) == "varlen"
    assert model.config._attn_implementation == "flash_attention_2"
    told.clear()
    batch = Collator("varlen")([row])
    batch.pop("domains")
    torch.testing.assert_close(TokenLoss(model)(**batch), wanted, rtol=1e-4, atol=1e-4)
    assert told == [{"max_length_q": 14, "max_length_k": 14}] * 2


def test_the_collator_says_where_packed_examples_begin() -> None:
    _, row = _tiny_model("llama")
    batch = Collator("varlen")([row, row])
    assert batch["seq_lens"] == (9, 3, 14) * 2
    assert batch["starts"].tolist() == [0, 9, 12, 26, 35, 38, 52]
    assert batch["starts"].dtype == torch.int32
    assert "starts" not in Collator("position_ids")([row])
