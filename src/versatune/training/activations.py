"""Bytes of the activations of a training step, computed from shapes.

The forward pass runs on the meta device, and every tensor that autograd keeps for the backward pass
is added up.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

COUNTED = "versatune_counted"
"""transformers' name of an attention that keeps what fused kernels keep, and computes nothing."""


def activation_bytes(model: Any, rows: int, columns: int, *, autocast: bool = False) -> int:
    """Bytes that autograd keeps of one forward pass over (rows, columns) tokens, head left out.

    ``model`` may lie on the meta device; its own parameters are not counted, nor the copies of them
    that ``autocast`` to bfloat16 makes. Attention counts as the fused kernels do it: queries, keys,
    values and results.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = {x.untyped_storage()._cdata for x in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}
    products: AbstractContextManager[Any] = _Bfloat16Products(own) if autocast else nullcontext()

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return x

    device = next(model.parameters()).device
    ids = torch.zeros(rows, columns, dtype=torch.long, device=device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), products:
        base.base_model(input_ids=ids, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


class _Bfloat16Products(TorchFunctionMode):
    """What autocast does to the products of matrices; the meta device has none of its own."""

    def __init__(self, own: set[int]) -> None:
        super().__init__()
        self._own, self._copies = own, list[Tensor]()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _PRODUCTS:
            args = [self._cast(x) for x in args]
            kwargs = {name: self._cast(x) for name, x in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))

    def _cast(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or x.dtype != torch.float32:
            return x
        result = x.to(torch.bfloat16)
        if x.untyped_storage()._cdata in self._own:
            self._own.add(result.untyped_storage()._cdata)
            self._copies.append(result)  # so that no other storage takes its place
        return result


_PRODUCTS = (
    torch.nn.functional.linear,
    torch.addmm,
    torch.matmul,
    torch.bmm,
    Tensor.matmul,
    Tensor.__matmul__,
)


class _Attention(torch.autograd.Function):
    """Keeps what a fused kernel keeps; computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.empty_like, ctx.saved_tensors[:3]))


def counted_attention(
    _module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, None]:
    """Stands in for an attention, by the name :data:`COUNTED`."""
    # Kernels take one type: that of the values, since positions turn the others into float32.
    query, key = query.to(value.dtype), key.to(value.dtype)
    out: Tensor = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2), None
