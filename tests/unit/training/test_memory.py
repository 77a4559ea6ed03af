"""The memory plan: counted, not guessed, and its refusals name what would fit."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.modeling.room import GB, RESERVE
from versatune.training import memory, train
from versatune.training.activations import COUNTED
from versatune.training.adapters import with_adapters
from versatune.training.config import TrainParams
from versatune.training.memory import check_fits, plan_memory
from versatune.training.run import too_large

LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
)
N_8B = 8_030_261_248
GATHERED_8B = 2 * 218_112_128 + 128256 * 4096
"""Two layers, a final norm's 32nd part in each, and the head: held whole where weights are divided,
in the 2 bytes of bfloat16."""
MISTRAL_7B = LlamaConfig.from_dict({**LLAMA_8B.to_dict(), "vocab_size": 32768})
"""7.25 billion weights in its shape."""
SHORT = LlamaConfig.from_dict({**LLAMA_8B.to_dict(), "num_hidden_layers": 4})
"""Counted eight times as fast, where no number is of all layers."""

TINY = LlamaConfig(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)

QLORA = {
    "bf16": True,
    "dtype": "bfloat16",
    "lora": {},
    "quantization": "nf4",
    "gradient_checkpointing": True,
    "per_device_train_batch_size": 1,
    "max_length": 2048,
}


def params(**values: object) -> TrainParams:
    return TrainParams.model_validate(values)


def test_full_training_in_float32_by_hand() -> None:
    plan = plan_memory(LLAMA_8B, params(per_device_train_batch_size=1, max_length=8))
    assert plan.weights == 4 * N_8B
    assert plan.gradients == 4 * N_8B
    assert plan.optimizer == 8 * N_8B


def test_autocast_keeps_a_bfloat16_copy_of_float32_weights() -> None:
    small = {"per_device_train_batch_size": 1, "max_length": 8}
    assert plan_memory(LLAMA_8B, params(bf16=True, **small)).weights == 6 * N_8B
    assert plan_memory(LLAMA_8B, params(dtype="bfloat16", **small)).weights == 2 * N_8B


def test_lora_has_gradients_and_moments_of_its_adapters_alone() -> None:
    plan = plan_memory(TINY, params(lora={"r": 2, "target_modules": ["q_proj"]}, max_length=8))
    adapters = 3 * (32 * 2 + 2 * 32)
    assert plan.gradients == 4 * adapters
    assert plan.optimizer == 8 * adapters


@pytest.mark.parametrize(
    ("optim", "bytes_each"),
    [
        *(("adamw_8bit", 2), ("adamw_bnb_8bit", 2), ("lion_8bit", 1), ("lion_32bit", 4)),
        *(("paged_adamw_8bit", 0), ("paged_adamw_32bit", 0), ("paged_lion_8bit", 0)),
        *(("adafactor", 0), ("sgd", 0)),
    ],
)
def test_optimizers_that_keep_less(optim: str, bytes_each: int) -> None:
    plan = plan_memory(TINY, params(optim=optim, max_length=8))
    assert plan.optimizer == bytes_each * AutoModelForCausalLM.from_config(TINY).num_parameters()


@pytest.mark.parametrize(
    ("values", "published"),
    [
        ({"bf16": True}, 120),
        ({"dtype": "bfloat16"}, 60),
        ({"dtype": "bfloat16", "bf16": True, "lora": {}}, 16),
        (QLORA, 6),
    ],
)
def test_the_plan_of_7b_is_near_what_others_publish(
    values: dict[str, object], published: float
) -> None:
    """GB in LLaMA-Factory's README ("Hardware Requirement", estimates), here with short rows."""
    few = {"gradient_checkpointing": True, "per_device_train_batch_size": 1, "max_length": 1024}
    plan = plan_memory(MISTRAL_7B, params(**{**values, **few}))
    assert plan.device / GB == pytest.approx(published, rel=0.12)


def test_a_7b_model_by_qlora_fits_a_card_of_24_gb() -> None:
    plan = check_fits(LLAMA_8B, params(**QLORA), 24 * GB)
    # Linear layers in 4 bits; embeddings and head, 1.05 billion, in bfloat16.
    assert 5.5 * GB < plan.weights < 6.0 * GB
    assert plan.device < 12 * GB


def test_activations_are_the_bytes_autograd_keeps() -> None:
    """The same count on shapes alone as on real numbers, and it grows with the tokens."""
    settings = params(per_device_train_batch_size=2, max_length=16)
    real = AutoModelForCausalLM.from_config(TINY)
    real.set_attn_implementation(COUNTED)
    counted = memory.activation_bytes(memory.meta_model(TINY, settings), 2, 16)
    assert counted == memory.activation_bytes(real.train(), 2, 16)
    assert plan_memory(TINY, settings).activations == counted
    twice = plan_memory(TINY, params(per_device_train_batch_size=4, max_length=16)).activations
    assert 1.8 * counted < twice < 2.1 * counted


def test_the_count_is_near_what_the_fused_kernel_keeps() -> None:
    plan = memory.activation_bytes(memory.meta_model(TINY, params(max_length=64)), 2, 64)
    real = AutoModelForCausalLM.from_config(TINY, attn_implementation="sdpa").train()
    assert plan == pytest.approx(memory.activation_bytes(real, 2, 64), rel=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_activations_of_autocast_are_those_that_autocast_keeps(
    dtype: str, lora: dict[str, int] | None
) -> None:
    """Sums and norms of float32 weights stay in float32; products are bfloat16."""
    settings = params(bf16=True, dtype=dtype, lora=lora)
    counted = memory.activation_bytes(memory.meta_model(TINY, settings), 2, 15, autocast=True)
    real = AutoModelForCausalLM.from_config(TINY, dtype=getattr(torch, dtype))
    real.set_attn_implementation(COUNTED)
    if settings.lora:
        real = with_adapters(real, settings.lora, "train")
    weights = {tuple(shape) for p in real.parameters() for shape in (p.shape, p.shape[::-1])}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if tuple(x.shape) not in weights:  # no activation has the shape of a weight here
            kept[x.untyped_storage()._cdata] = x.untyped_storage()
        return x

    base = real.get_base_model() if settings.lora else real
    ids = torch.zeros(2, 15, dtype=torch.long)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        base.train().base_model(input_ids=ids, use_cache=False)
    assert counted == pytest.approx(sum(s.nbytes() for s in kept.values()), rel=0.02)


def test_checkpointing_keeps_one_block_and_the_inputs_of_the_others() -> None:
    plain = params(per_device_train_batch_size=2, max_length=16)
    saving = plain.model_copy(update={"gradient_checkpointing": True})
    kept = plan_memory(TINY, plain).activations
    assert plan_memory(TINY, saving).activations == 2 * 16 * 32 * 4 * 3 + kept // 3


def test_adapters_are_float32_beside_weights_in_bfloat16() -> None:
    values = {"lora": {"r": 2, "target_modules": ["q_proj"]}, "max_length": 8}
    plan = plan_memory(TINY, params(**values, bf16=True, dtype="bfloat16"))
    adapters, whole = 3 * (32 * 2 + 2 * 32), AutoModelForCausalLM.from_config(TINY)
    assert plan.weights == 2 * whole.num_parameters() + 4 * adapters
    assert (plan.gradients, plan.optimizer) == (4 * adapters, 8 * adapters)


def test_four_bits_leave_the_other_weights_in_the_training_dtype() -> None:
    """0.5 + 0.127/8 bytes for 6,979,321,856 weights of linear layers, the rest by its type."""
    linear, rest = 6_979_321_856, N_8B - 6_979_321_856
    for dtype, size in (("bfloat16", 2), ("float32", 4)):
        plan = plan_memory(LLAMA_8B, params(**{**QLORA, "dtype": dtype}))
        adapters = plan.gradients
        assert plan.weights == pytest.approx(linear * 0.515875 + rest * size + adapters, rel=1e-6)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(VersatuneError) as refused:
        check_fits(LLAMA_8B, params(bf16=True), 24 * GB)
    said = str(refused.value)
    parts = "weights 48.2, gradients 32.1, optimizer 64.2, activations 32.9, logits 0.5"
    assert f"178.0 GB ({parts})" in said
    assert "22.6 GB of its 24.0 can be used" in said
    assert "train.lora: {} with dtype: bfloat16" in said
    assert "train.quantization: nf4" in said


def test_every_advice_fits_when_it_is_taken() -> None:
    given = params(bf16=True, max_length=4096)
    limit = 20 * GB
    with pytest.raises(VersatuneError) as refused:
        check_fits(SHORT, given, limit)
    said = []
    for sentence, changed in memory._changes(given, "train"):
        fits = plan_memory(SHORT, changed).device <= limit * (1 - RESERVE)
        said.append(f"{sentence} (" in str(refused.value))
        assert said[-1] == fits
        if fits:
            check_fits(SHORT, changed, limit)
    assert said == [False] * 5 + [True] * 2


def test_nothing_helps_on_a_device_that_is_far_too_small() -> None:
    with pytest.raises(VersatuneError, match="no change of parameters on this device"):
        check_fits(SHORT, params(bf16=True), 2 * GB)


def test_fsdp_divides_weights_gradients_and_moments(tmp_path: Path) -> None:
    file = tmp_path / "fsdp.yaml"
    file.write_text("distributed_type: FSDP\nnum_processes: 8\n")
    one = plan_memory(LLAMA_8B, params(bf16=True))
    eight = plan_memory(LLAMA_8B, params(bf16=True, launcher={"config_file": str(file)}))
    assert (eight.weights, eight.gradients, eight.optimizer) == (
        one.weights // 8 + 2 * GATHERED_8B,
        one.gradients // 8,
        one.optimizer // 8,
    )
    assert eight.activations == one.activations


@pytest.mark.parametrize(("stage", "divided"), [(1, (1, 1, 8)), (2, (1, 8, 8)), (3, (8, 8, 8))])
def test_zero_divides_more_with_each_stage(
    tmp_path: Path, stage: int, divided: tuple[int, int, int]
) -> None:
    file = tmp_path / "zero.yaml"
    file.write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 8\n"
        f"deepspeed_config: {{zero_stage: {stage}}}\n"
    )
    one = plan_memory(TINY, params())
    many = plan_memory(TINY, params(launcher={"config_file": str(file)}))
    weights, gradients, optimizer = divided
    # Two layers of 9,280 weights, a third of the last norm's 32 in each, and the head, in float32.
    whole = 4 * (2 * 9_290 + 128 * 32) if weights > 1 else 0
    assert many.weights == one.weights // weights + whole
    assert many.gradients == one.gradients // gradients
    assert many.optimizer == one.optimizer // optimizer


def test_data_parallelism_divides_nothing_and_sums_gradients_in_buckets(tmp_path: Path) -> None:
    file = tmp_path / "ddp.yaml"
    file.write_text("distributed_type: MULTI_GPU\nnum_processes: 8\n")
    one = plan_memory(TINY, params(bf16=True))
    for launcher in ({"config_file": str(file)}, {"processes": 2}):
        many = plan_memory(TINY, params(bf16=True, launcher=launcher))
        assert many.gradients == 2 * one.gradients
        assert many.device - many.gradients == one.device - one.gradients


def test_deepspeed_holds_bfloat16_weights_and_float32_copies(tmp_path: Path) -> None:
    """ZeRO (arXiv 1910.02054, section 3.1): 2 + 2 bytes, and 12 of the optimiser, divided."""
    file = tmp_path / "zero.yaml"
    file.write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 8\nmixed_precision: bf16\n"
        "deepspeed_config: {zero_stage: 2}\n"
    )
    for dtype in ("float32", "bfloat16"):
        given = params(bf16=True, dtype=dtype, launcher={"config_file": str(file)})
        plan = plan_memory(LLAMA_8B, given)
        assert plan.weights == 2 * N_8B
        assert plan.gradients == 2 * N_8B // 8
        assert plan.optimizer == 12 * N_8B // 8


def test_fsdp_with_autocast_trains_float32_weights(tmp_path: Path) -> None:
    file = tmp_path / "fsdp.yaml"
    file.write_text("distributed_type: FSDP\nnum_processes: 8\n")
    for bf16, size in ((False, 2), (True, 4)):
        values = {"dtype": "bfloat16", "bf16": bf16, "launcher": {"config_file": str(file)}}
        plan = plan_memory(LLAMA_8B, params(**values))
        assert plan.weights == size * N_8B // 8 + 2 * GATHERED_8B
        assert plan.optimizer == 2 * size * N_8B // 8


def test_an_unreadable_launcher_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    with pytest.raises(VersatuneError, match=r"config_file .*none.yaml can't be read"):
        plan_memory(TINY, params(launcher={"config_file": str(missing)}))


def test_counting_leaves_the_configuration_as_it_was() -> None:
    """A model made from it afterwards has the attention it would have had."""
    config = LlamaConfig.from_dict(TINY.to_dict())
    plan_memory(config, params(max_length=8))
    assert AutoModelForCausalLM.from_config(config).config._attn_implementation == "sdpa"


def test_counting_touches_no_numbers() -> None:
    model = memory.meta_model(LLAMA_8B, params(**QLORA))
    assert all(p.device == torch.device("meta") for p in model.parameters())


def test_training_is_refused_before_any_weight_is_loaded(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a weight was loaded")

    monkeypatch.setattr("versatune.training.precision.load_model", refuse)
    given = params(max_length=64, rounds=1, steps_per_round=1)
    with monkeypatch.context() as small:
        small.setattr("versatune.training.run.device_bytes", lambda: 10**5)
        with pytest.raises(VersatuneError, match=r"training needs about .* GB of its 0\.0"):
            train(tiny_store, tiny_checkpoint, given, folder=tmp_path / "t")
    with pytest.raises(AssertionError, match="a weight was loaded"):
        train(tiny_store, tiny_checkpoint, given, folder=tmp_path / "t")


def test_a_model_that_can_not_be_counted_is_trained_all_the_same(
    tiny_checkpoint: CheckpointRef,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel on meta")

    caplog.set_level("DEBUG", "versatune")
    monkeypatch.setattr(memory, "activation_bytes", fail)
    assert too_large(tiny_checkpoint.path, params(), "train") is None
    assert "can't be estimated: RuntimeError: no such kernel on meta" in caplog.text


def test_the_estimate_draws_no_random_number(tiny_checkpoint: CheckpointRef) -> None:
    before = torch.get_rng_state()
    given = params(lora={"r": 2}, max_length=64)
    assert too_large(tiny_checkpoint.path, given, "train") is None
    assert torch.equal(torch.get_rng_state(), before)
