"""Device memory and disk that a training needs, computed before any weight is loaded.

The model is built on the meta device (shapes without numbers), so parameters are counted and not
guessed; activations are counted too (``activations``).
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from versatune.data.lengths import text_config
from versatune.errors import VersatuneError
from versatune.modeling.room import GB, RESERVE
from versatune.training.activations import COUNTED, activation_bytes, counted_attention
from versatune.training.adapters import with_adapters
from versatune.training.config import MOMENT_BYTES, LoraParams, TrainParams
from versatune.training.precision import resolved

NF4_BYTES = 0.5 + 0.127 / 8
"""Of a weight in NF4: 4 bits, and 0.127 bits of constants with double quantisation
(arXiv 2305.14314, section 3)."""


class DoesNotFitError(VersatuneError):
    """Training needs more memory than a device has."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each device while training, by what they are for, and bytes on the disk."""

    weights: int
    """Where they are divided, those that a device puts together to compute with included."""
    gradients: int
    optimizer: int
    activations: int
    logits: int
    disk: int
    """Checkpoints and the trained model."""

    @property
    def device(self) -> int:
        """Everything on one device at the worst moment."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits

    def __str__(self) -> str:
        parts = {k: v for k, v in asdict(self).items() if k != "disk" and v}
        listed = ", ".join(f"{name} {value / GB:.1f}" for name, value in parts.items())
        return f"{self.device / GB:.1f} GB ({listed})"


@dataclass(frozen=True)
class _Counted:
    """A model as it is trained, in numbers of parameters and bytes."""

    frozen: int
    trained: int
    linear: int
    """Frozen parameters of linear layers other than the head: those that NF4 takes."""
    layers: int
    width: int
    vocabulary: int
    gathered: int
    """Of two layers and the head: what a device holds whole while all else is divided."""


def plan_memory(config: Any, params: TrainParams) -> MemoryPlan:
    """What training a model of this configuration needs with these parameters.

    ``config``: a transformers configuration. The step's rows are taken as full. Raises
    VersatuneError as :func:`versatune.training.adapters.with_adapters` does.
    """
    params = resolved(params)
    model = meta_model(config, params)
    counted = _count(model)
    shards = _shards(params)
    base = 4 if params.dtype == "float32" else 2
    computed = 2 if params.bf16 or params.dtype == "bfloat16" else 4
    # peft holds adapters in float32 whatever the type of the weights beside them.
    own = 4 if params.lora or (shards.raised and params.bf16) else base
    moments = 2 * own if (given := MOMENT_BYTES[params.optim]) is None else given
    if shards.masters:  # DeepSpeed trains float32 copies of bfloat16 weights
        base, own, moments = 2, 2, 4 + (8 if given is None else given)
    quantised = counted.linear if params.quantization == "nf4" else 0
    rest = counted.frozen - quantised
    weights = counted.trained * own + rest * base + quantised * NF4_BYTES
    # The layer at work, the next one on its way, and the head, which is kept from the forward to
    # the backward pass.
    gathered = 0 if shards.weights == 1 else counted.gathered * computed
    if params.bf16 and params.dtype == "float32" and not quantised and not shards.masters:
        weights += (counted.trained + counted.frozen) * 2  # autocast keeps a bfloat16 copy
    rows, columns = params.per_device_train_batch_size, params.max_length
    kept = activation_bytes(model, rows, columns, autocast=params.autocast)
    if params.gradient_checkpointing:
        kept = rows * columns * counted.width * base * counted.layers + kept // counted.layers
    at_once = min(rows * columns * counted.vocabulary, 1 << 28)
    return MemoryPlan(
        weights=int(weights / shards.weights) + gathered,
        gradients=counted.trained * own * shards.copies // shards.gradients,
        optimizer=counted.trained * moments // shards.optimizer,
        activations=kept,
        logits=at_once * computed,
        disk=disk_bytes(counted.trained * base, (counted.trained + counted.frozen) * base, params),
    )


def disk_bytes(trained: int, whole: int, params: TrainParams, *, sharded: bool = False) -> int:
    """Bytes that checkpoints and the trained model take on the disk, at most.

    ``trained``, ``whole``: bytes of the trained and of all weights. A checkpoint holds weights
    (FSDP writes them twice, to load and to go on with) and AdamW's two moments; there is one more
    than the limit while it is written, and the best one; then the model, staged and final.
    """
    return (4 if sharded else 3) * trained * (params.save_total_limit + 2) + 2 * whole


def check_fits(config: Any, params: TrainParams, available: int, key: str = "train") -> MemoryPlan:
    """The plan, when it fits into ``available`` bytes of each device.

    Raises DoesNotFitError with the plan and the first changes that would make it fit, each tried
    with :func:`plan_memory`. ``key`` is where the parameters are written.
    """
    plan, limit = plan_memory(config, params), int(available * (1 - RESERVE))
    if plan.device <= limit:
        return plan
    fitting = [
        f"{change} ({smaller.device / GB:.1f} GB)"
        for change, changed in _changes(params, key)
        if (smaller := plan_memory(config, changed)).device <= limit
    ]
    advice = "; or ".join(fitting[:3]) if fitting else "no change of parameters on this device"
    raise DoesNotFitError(
        f"training needs about {plan} on each device, and {limit / GB:.1f} GB of its "
        f"{available / GB:.1f} can be used. What would fit: {advice}."
    )


def _changes(params: TrainParams, key: str) -> Iterator[tuple[str, TrainParams]]:
    """Sentences and parameters, each step including what fits best of those before it."""
    rows = params.per_device_train_batch_size * params.gradient_accumulation_steps
    small = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": rows}
    said_small = f"{key}.per_device_train_batch_size: 1 with gradient_accumulation_steps: {rows}"
    checkpointing = {"gradient_checkpointing": True}
    said_checkpointing = f"{key}.gradient_checkpointing: true"
    lora = {"lora": params.lora or LoraParams(), "bf16": True}
    steps: list[tuple[str, dict[str, Any]]] = [
        (said_small, small),
        (said_checkpointing, checkpointing),
        (f"{said_checkpointing} and {said_small}", checkpointing | small),
        (
            f"{key}.optim: adamw_8bit with {said_checkpointing}",
            {"optim": "adamw_8bit"} | checkpointing,
        ),
        (f"{key}.dtype: bfloat16 with {said_checkpointing}", {"dtype": "bfloat16"} | checkpointing),
        (
            f"{key}.lora: {{}} with dtype: bfloat16, bf16: true and gradient_checkpointing: true",
            lora | {"dtype": "bfloat16"} | checkpointing,
        ),
        (
            f"{key}.quantization: nf4 with lora: {{}}, dtype: bfloat16, bf16: true, "
            f"gradient_checkpointing: true and {said_small.removeprefix(key + '.')}",
            lora | {"quantization": "nf4", "dtype": "bfloat16"} | checkpointing | small,
        ),
    ]
    for sentence, values in steps:
        if any(getattr(params, name) != value for name, value in values.items()):
            yield sentence, params.model_copy(update=values)


def meta_model(config: Any, params: TrainParams) -> Any:
    """The model as it will be trained, adapters included, without any numbers."""
    from transformers import AttentionInterface, AutoModelForCausalLM

    AttentionInterface.register(COUNTED, counted_attention)
    config = copy.deepcopy(config)  # the model writes its attention's name into it
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, params.dtype))
        if model._supports_attention_backend:
            model.set_attn_implementation(COUNTED)
        if params.lora:
            model = with_adapters(model, params.lora, "train")
    return model.train()


def _count(model: Any) -> _Counted:
    config = text_config(model.config)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings()
    linear = {
        id(module.weight)
        for module in base.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    parameters = list(model.parameters())
    ends = {
        id(module.weight): module.weight.numel()
        for module in (head, base.get_input_embeddings())
        if module is not None
    }
    layer = (sum(p.numel() for p in parameters) - sum(ends.values())) // config.num_hidden_layers
    return _Counted(
        frozen=sum(p.numel() for p in parameters if not p.requires_grad),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        linear=sum(p.numel() for p in parameters if not p.requires_grad and id(p) in linear),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocabulary=config.vocab_size,
        gathered=2 * layer + (0 if head is None else head.weight.numel()),
    )


@dataclass(frozen=True)
class _Shards:
    """Over how many devices each part is divided."""

    weights: int = 1
    gradients: int = 1
    optimizer: int = 1
    copies: int = 1
    """Of the gradients: data parallelism sums them in buckets beside them."""
    raised: bool = False
    """Whether what is trained in bfloat16 arithmetic is raised to float32 (FSDP, by accelerate)."""
    masters: bool = False
    """Whether weights are bfloat16, and the optimiser holds float32 copies (DeepSpeed)."""


def _shards(params: TrainParams) -> _Shards:
    file = params.launcher.config_file
    if file is None:
        return _Shards(copies=2 if params.launcher.processes > 1 else 1)
    settings = read_accelerate(file)
    n = int(settings.get("num_processes", 1))
    match settings.get("distributed_type"):
        case "FSDP":
            resharded = (settings.get("fsdp_config") or {}).get("fsdp_reshard_after_forward", True)
            return _Shards(n if resharded else 1, n, n, raised=True)
        case "DEEPSPEED":
            stage = int((settings.get("deepspeed_config") or {}).get("zero_stage", 2))
            weights, gradients, optimizer = (n if stage >= least else 1 for least in (3, 2, 1))
            masters = settings.get("mixed_precision") == "bf16"
            return _Shards(weights, gradients, optimizer, masters=masters)
        case _:
            return _Shards(copies=2 if n > 1 else 1)


def read_accelerate(file: Path) -> Mapping[str, Any]:
    """The settings of an accelerate configuration. Raises VersatuneError when it can't be read."""
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise VersatuneError(f"train.launcher.config_file {file} can't be read: {error}") from error
    if not isinstance(settings, Mapping):
        raise VersatuneError(f"train.launcher.config_file {file} holds no settings.")
    return settings
