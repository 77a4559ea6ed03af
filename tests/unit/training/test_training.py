"""Training on a tiny store: signals, guards, adapters, refusals."""

import json
import logging
import math
import shutil
from collections import namedtuple
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    TrainingArguments,
)

from tests.helpers.references import measure_references
from versatune.artifacts import MANIFEST, FolderRef, write_json
from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.heldout import measure_heldout
from versatune.mixing.interface import Decision
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.modeling.heldout import HeldOut, heldout_losses, row_losses
from versatune.training import TrainParams, TrainResult, __main__, train
from versatune.training import trainer_checkpoints as checkpoints
from versatune.training.adapters import with_adapters
from versatune.training.api import refuse_changed
from versatune.training.callback import RoundCallback
from versatune.training.config import LoraParams
from versatune.training.job import Job
from versatune.training.reference_config import ReferenceParams
from versatune.training.rounds import Mixture
from versatune.training.saved import check_saved
from versatune.training.trainer import MixtureTrainer, arguments

START = {"law": 0.2, "medicine": 0.3, "code": 0.5}
REFERENCE = {"law": 5.0, "medicine": 2.0, "code": 4.0}
PARAMS: dict[str, Any] = {
    "rounds": 2,
    "steps_per_round": 3,
    "max_length": 64,
    "per_device_train_batch_size": 2,
    "heldout_rows_per_domain": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "strategy": {"name": "foster", "sigma": 2.0},
}


@pytest.fixture
def run(tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path) -> Any:
    def start(name: str = "t", **changes: Any) -> TrainResult:
        options = {k: changes.pop(k) for k in ("on_round",) if k in changes}
        return train(
            tiny_store,
            tiny_checkpoint,
            TrainParams.model_validate({**PARAMS, **changes}),
            initial_weights=START,
            reference_losses=REFERENCE,
            detected_shares=START,
            folder=tmp_path / name,
            **options,
        )

    return start


def by_round(result: TrainResult, column: str) -> np.ndarray:
    return result.history.pivot(index="round", columns="domain", values=column)[
        ["law", "medicine", "code"]
    ].to_numpy(dtype=float)


def test_what_steers_and_what_reports_never_read_each_others_rows(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    """Training and references run without the report's rows, evaluation without the steering ones,
    and each gives the numbers it gives with both there."""
    params = TrainParams.model_validate({**PARAMS, "rounds": 1})
    of_one = ReferenceParams(eval_steps=2, max_steps=2)
    evaluation = EvaluateParams()
    model = load_model(tiny_checkpoint, dtype="float32")

    def steered(store: FolderRef, name: str) -> tuple[Any, Any]:
        known = {"initial_weights": START, "reference_losses": REFERENCE}
        trained = train(store, tiny_checkpoint, params, folder=tmp_path / name, **known)
        found = measure_references(store, tiny_checkpoint, tmp_path / f"r_{name}", of_one, params)
        return by_round(trained, "validation_loss"), found

    def without(split: str) -> FolderRef:
        copy = shutil.copytree(tiny_store.path, tmp_path / f"no_{split}")
        shutil.rmtree(copy / split)
        return tiny_store.model_copy(update={"path": copy})

    (losses, references), (alone, references_alone) = (
        steered(tiny_store, "both"),
        steered(without("report"), "alone"),
    )
    np.testing.assert_array_equal(alone, losses)
    assert references_alone == references
    whole, apart = (
        measure_heldout(store, evaluation, model) for store in (tiny_store, without("steering"))
    )
    assert apart.rows.equals(whole.rows)
    assert set(whole.items["item"].str.partition(":")[0]) == {"report"}
    assert not np.isclose(whole.items["score"].sum(), row_sum(model, tiny_store, "steering"))


def row_sum(model: Any, store: FolderRef, split: Any) -> float:
    rows = TokenizedSplit.load(store, split)
    return float(row_losses(model, rows, np.arange(len(rows.lengths)), None)[:, 0].sum())


def test_foster_shifts_weights_as_the_formula_says(run: Any) -> None:
    result = run(rounds=3)
    losses, weights = by_round(result, "validation_loss"), by_round(result, "weight")
    reference = np.array([REFERENCE[d] for d in ("law", "medicine", "code")])
    assert weights[1].tolist() == [0.2, 0.3, 0.5]
    for t in (1, 2):
        gamma = np.maximum((losses[t] - reference) / losses[t], 0)
        raised = weights[t] * (1 + 2.0 * gamma)
        np.testing.assert_allclose(weights[t + 1], raised / raised.sum(), rtol=1e-12)
        np.testing.assert_allclose(by_round(result, "learnable_potential")[t], gamma, rtol=1e-12)
    assert weights[3, 1] > weights[1, 1]


def test_round_0_is_the_base_model(
    run: Any, tiny_store: FolderRef, tiny_checkpoint: CheckpointRef
) -> None:
    measured = heldout_losses(
        load_model(tiny_checkpoint),
        TokenizedSplit.load(tiny_store, "steering"),
        rows_per_domain=4,
        batch_tokens=100,
        progress=False,
    )
    first = run().history.query("round == 0").set_index("domain")["validation_loss"]
    for name, entry in measured.items():
        assert first[name] == pytest.approx(entry.nats_per_token, rel=1e-6)


def test_train_loss_by_domain_is_that_of_a_recomputation(
    run: Any,
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a learning rate of nothing the model is the base, whose losses are known by row."""
    drawn: list[tuple[int, ...]] = []
    real = Mixture.rows

    def noting(self: Mixture, round_: int) -> Any:
        rows = real(self, round_)
        drawn.extend(rows)
        return rows

    monkeypatch.setattr(Mixture, "rows", noting)
    result = run(learning_rate=1e-30, rounds=1)
    split = TokenizedSplit.load(tiny_store, "train")
    examples = np.array([i for row in drawn for i in row])
    sums = row_losses(load_model(tiny_checkpoint), split, examples, 500, progress=False)
    domain = np.searchsorted(split.starts, examples, side="right") - 1
    for j in range(3):
        part = sums[domain == j].sum(0)
        assert by_round(result, "train_loss")[1, j] == pytest.approx(part[0] / part[1], rel=1e-5)


def test_realised_shares_follow_the_weights(run: Any) -> None:
    result = run(rounds=1, steps_per_round=20, unit="supervised_tokens")
    realised = by_round(result, "realised_share_supervised_tokens")[1]
    np.testing.assert_allclose(realised, [0.2, 0.3, 0.5], atol=0.05)


def test_one_optimiser_and_one_schedule_run_through_all_rounds(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warm-up over 3 of 12 steps, then a cosine over 9: neither begins anew with a round."""
    rates, steps = [], []
    real = RoundCallback.on_step_end

    def noting(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        real(self, args, state, control, **rest)
        rates.append(rest["lr_scheduler"].get_last_lr()[0])
        moments = rest["optimizer"].state_dict()["state"]
        steps.append({int(of["step"]) for of in moments.values()})

    monkeypatch.setattr(RoundCallback, "on_step_end", noting)
    run(rounds=4, steps_per_round=3, warmup_ratio=0.25)
    falling = [(1 + math.cos(math.pi * t / 9)) / 2 for t in range(1, 10)]
    assert rates == pytest.approx([0.01 * part for part in (1 / 3, 2 / 3, 1, *falling)])
    assert steps == [{n} for n in range(1, 13)]


def test_the_folder_is_a_model_with_its_tokenizer(run: Any, tiny_checkpoint: CheckpointRef) -> None:
    result = run()
    folder = result.model_ref.path
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template
    assert model.dtype == load_model(tiny_checkpoint).dtype
    assert FolderRef.load(folder).metadata["steps"] == 6
    assert model.config._attn_implementation == "sdpa"
    assert not (folder / "checkpoints").exists()


def test_a_finished_training_is_not_done_again(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run()
    monkeypatch.setattr("versatune.training.run.run", None)
    assert run().model_ref == first.model_ref


def test_a_finished_training_is_kept_when_another_begins(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = run().model_ref
    second = run(learning_rate=2e-2).model_ref
    assert second.path == first.path and second.fingerprint != first.fingerprint
    assert "train.learning_rate: 0.01 -> 0.02" in caplog.text
    previous = first.path.with_name("t.previous")
    assert FolderRef.load(previous).fingerprint == first.fingerprint
    run(rounds=1, resume="restart")
    assert FolderRef.load(previous).fingerprint == first.fingerprint
    assert FolderRef.load(first.path).metadata["rounds"] == 1


def test_an_unfinished_training_is_not_given_up_unless_told_to(run: Any, tmp_path: Path) -> None:
    params = TrainParams.model_validate(PARAMS)
    place = tmp_path / "t"
    changed = params.model_copy(update={"learning_rate": 2e-2})
    refuse_changed(params, place)  # nothing is there
    (run().model_ref.path / MANIFEST).unlink()
    refuse_changed(params, place)
    refuse_changed(changed.model_copy(update={"resume": "restart"}), place)
    with pytest.raises(VersatuneError, match=r"unfinished .* train\.learning_rate: 0\.01 -> 0\.02"):
        refuse_changed(changed, place)
    with pytest.raises(VersatuneError, match=r"not finished: train\.learning_rate: 0\.01 -> 0\.02"):
        run(learning_rate=2e-2)
    assert run(learning_rate=2e-2, resume="restart").model_ref.metadata["steps"] == 6
    refuse_changed(params, place)  # what is there is finished


def test_events_name_their_metrics(run: Any) -> None:
    events: list[dict[str, Any]] = []
    result = run(on_round=events.append)
    assert [(e["round"], e["step"]) for e in events] == [(0, 0), (1, 3), (2, 6)]
    last = result.history.query("round == 2 and domain == 'law'").iloc[0]
    assert events[2]["metrics"]["loss/law"] == last["validation_loss"]
    assert {"share/code", "train_loss/medicine", "tokens_per_second"} <= events[2]["metrics"].keys()
    kept = (result.model_ref.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == events


def test_adapters_train_alone_and_are_merged(run: Any, tiny_checkpoint: CheckpointRef) -> None:
    merged = run("merged", lora={"r": 4}).model_ref.path
    apart = run("apart", lora={"r": 4, "merge": False}).model_ref.path
    assert (merged / "adapter" / "adapter_model.safetensors").is_file()
    assert not (apart / "model.safetensors").exists()
    base, trained = load_model(tiny_checkpoint), load_model(merged)
    before, after = base.state_dict(), trained.state_dict()
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before[name], after[name])
    ids = torch.arange(3, 20)[None]
    both, whole = AutoModelForCausalLM.from_pretrained(apart), load_model(apart)
    for model in (both, whole):
        torch.testing.assert_close(
            model(input_ids=ids).logits, trained(input_ids=ids).logits, rtol=1e-4, atol=1e-4
        )
    # As it is evaluated and logged: the base with the adapter in its weights, nothing beside.
    assert whole.state_dict().keys() == after.keys()


@pytest.mark.parametrize(
    ("modules", "merge"),
    [
        (["q_proj", "lm_head"], True),
        (["q_proj", "embed_tokens"], False),
        (r".*(lm_head|embed_tokens|up_proj)", True),
    ],
)
def test_adapters_of_tied_embeddings_are_saved_as_trained(
    run: Any,
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    modules: Any,
    merge: bool,
) -> None:
    """Head and embeddings are one weight; with an adapter of one, the saved model has two."""
    assert load_model(tiny_checkpoint).config.tie_word_embeddings
    result = run(
        lora={"r": 4, "alpha": 8, "target_modules": modules, "merge": merge}, learning_rate=0.05
    )
    assert not [w.message for w in recwarn if issubclass(w.category, UserWarning | FutureWarning)]
    saved = load_model(result.model_ref.path)
    assert not saved.config.tie_word_embeddings
    assert "were one weight (tie_word_embeddings)" in caplog.text
    found = heldout_losses(
        saved,
        TokenizedSplit.load(tiny_store, "steering"),
        rows_per_domain=4,
        batch_tokens=100,
        progress=False,
    )
    history = result.history.query("round == 2").set_index("domain")["validation_loss"]
    for name, measured in found.items():
        assert measured.nats_per_token == pytest.approx(history[name], rel=1e-4)


def test_adapters_of_a_weight_that_can_not_be_parted_are_refused() -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}

    def tied() -> Any:
        config = LlamaConfig(vocab_size=30, num_hidden_layers=2, **small)
        model = AutoModelForCausalLM.from_config(config)
        first, second = model.model.layers
        second.mlp.up_proj.weight = first.mlp.up_proj.weight
        return model

    with pytest.raises(
        VersatuneError, match=r"train\.lora.*0\.mlp\.up_proj and \S+ are one weight"
    ):
        with_adapters(tied(), LoraParams(r=2), "train")
    with_adapters(tied(), LoraParams(r=2, target_modules=["down_proj"]), "train")


def test_all_linear_leaves_out_what_returns_more_than_a_linear_layer() -> None:
    """Llama 4's router is a Linear by class and returns two things."""
    config = Llama4TextConfig(
        **{"vocab_size": 30, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0},
        **{"intermediate_size_mlp": 16, "num_local_experts": 2},
    )
    model = with_adapters(AutoModelForCausalLM.from_config(config), LoraParams(r=2), "train")
    adapted = {name.split(".")[-2] for name, _ in model.named_modules() if name.endswith("lora_A")}
    assert {"q_proj", "down_proj"} <= adapted and "router" not in adapted
    model(input_ids=torch.arange(5)[None])


def test_the_saved_configuration_is_the_bases(run: Any, tiny_checkpoint: CheckpointRef) -> None:
    """Training changes weights; a model that had a cache keeps it."""
    saved = json.loads((run().model_ref.path / "config.json").read_text())
    assert saved == json.loads((tiny_checkpoint.path / "config.json").read_text())


def test_the_saved_model_is_measured_against_the_history(
    run: Any,
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    folder = run().model_ref.path
    assert "The saved model has the held-out losses of round 2" in caplog.text
    job = Job(
        store=tiny_store,
        base=tiny_checkpoint,
        params=TrainParams.model_validate(PARAMS),
        folder=folder,
    )
    check_saved(job)
    file, name = folder / "model.safetensors", "model.embed_tokens.weight"
    weights = load_file(file)
    for factor in (30.0, math.nan):
        save_file({**weights, name: weights[name] * factor}, file, {"format": "pt"})
        with pytest.raises(VersatuneError, match=r"not the trained one: its .* \S+ instead of"):
            check_saved(job)
    save_file({**weights, name: weights[name] * 1.1}, file, {"format": "pt"})
    check_saved(job)
    assert "not quite the trained one: its held-out loss is" in caplog.text
    save_file(weights, file, {"format": "pt"})
    check_saved(job)


def test_a_training_killed_before_its_last_check_is_checked_again(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the check is passed, the folder has its checkpoints and no seal."""
    whole = run("whole")

    def killed(_: Job) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("versatune.training.saved.check_saved", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not (tmp_path / "t" / MANIFEST).exists()
    assert checkpoints.complete(tmp_path / "t" / "checkpoints")
    again = run()
    assert not (tmp_path / "t" / "checkpoints").exists()
    a, b = (load_file(r.model_ref.path / "model.safetensors") for r in (whole, again))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("base", "trained"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_rounding_alone_is_no_other_model(
    base: str, trained: str, tiny_checkpoint: CheckpointRef, tiny_store: FolderRef, tmp_path: Path
) -> None:
    """Trained in one type and saved in another, whole and by adapters."""
    model = load_model(tiny_checkpoint, dtype=base)
    model.save_pretrained(tmp_path / "base")
    load_tokenizer(tiny_checkpoint).save_pretrained(tmp_path / "base")
    checkpoint = CheckpointRef.of_folder(tmp_path / "base")
    for name, lora in (("full", None), ("lora", {"r": 4})):
        params = {**PARAMS, "dtype": trained, "bf16": trained == "bfloat16", "lora": lora}
        params["strategy"] = {"name": "uniform"}
        train(tiny_store, checkpoint, TrainParams.model_validate(params), folder=tmp_path / name)


def test_examples_longer_than_the_model_takes_are_refused(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint.path, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    write_json(tmp_path / "base" / "config.json", {**config, "max_position_embeddings": 40})
    params = TrainParams.model_validate({**PARAMS, "strategy": {"name": "uniform"}})
    with pytest.raises(VersatuneError, match=r"takes 40 at most: set tokenize\.max_length"):
        train(tiny_store, CheckpointRef.of_folder(tmp_path / "base"), params, folder=tmp_path / "t")


def test_layers_that_peft_refuses_are_left_out_where_all_are_meant() -> None:
    """Mamba's kernels read one of its linear layers past an adapter."""
    config = MambaConfig(vocab_size=20, hidden_size=8, state_size=4, num_hidden_layers=1)
    model = with_adapters(AutoModelForCausalLM.from_config(config), LoraParams(r=2), "train")
    names = [name for name, _ in model.named_modules() if name.endswith("lora_A")]
    adapted = {name.split(".")[-2] for name in names}
    assert adapted == {"in_proj", "x_proj", "dt_proj"}
    named = LoraParams(r=2, target_modules=["out_proj"])
    with pytest.raises(VersatuneError, match=r"train\.lora\.target_modules: .*'out_proj'"):
        with_adapters(AutoModelForCausalLM.from_config(config), named, "train")


def test_an_adapter_that_is_a_pickle_or_has_lost_its_base_is_told(run: Any, tmp_path: Path) -> None:
    apart = run(lora={"r": 4, "merge": False}).model_ref.path
    config = json.loads((apart / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (apart / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(VersatuneError, match=r"can't be loaded: .*gone"):
        load_model(apart)
    (apart / "adapter_model.safetensors").rename(apart / "adapter_model.bin")
    with pytest.raises(VersatuneError, match=r"no adapter_model\.safetensors"):
        load_model(apart)


def test_unknown_target_modules_are_told(run: Any) -> None:
    with pytest.raises(VersatuneError, match="target_modules"):
        run(lora={"r": 4, "target_modules": ["nonsense"]})


def test_bfloat16_both_ways(run: Any) -> None:
    for name, changes in {
        "mixed": {"bf16": True},
        "pure": {"dtype": "bfloat16"},
    }.items():
        losses = by_round(run(name, steps_per_round=6, **changes), "validation_loss").mean(1)
        assert losses[-1] < losses[0] - 0.05


def test_nan_stops_with_the_last_good_checkpoint_named(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MixtureTrainer.compute_loss

    def breaking(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = real(self, *args, **kwargs)
        return loss * math.nan if self.state.global_step >= 4 else loss

    monkeypatch.setattr(MixtureTrainer, "compute_loss", breaking)
    with pytest.raises(VersatuneError, match=r"NaN.*last good checkpoint is .*checkpoint-3"):
        run()
    assert [p.name for p in checkpoints.complete(tmp_path / "t" / "checkpoints")] == [
        "checkpoint-3"
    ]


def test_an_exploding_loss_stops(run: Any) -> None:
    with pytest.raises(VersatuneError, match=r"loss_guard.*no checkpoint yet"):
        run(
            learning_rate=300.0,
            lr_scheduler_type="constant",
            warmup_ratio=0.0,
            rounds=1,
            steps_per_round=30,
            loss_guard=1.5,
        )


def test_weights_that_are_not_finite_are_never_saved(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RoundCallback.on_step_end

    def spoil(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        real(self, args, state, control, **rest)
        if state.global_step == 5:
            next(rest["model"].parameters()).data[0] = math.inf

    monkeypatch.setattr(RoundCallback, "on_step_end", spoil)
    with pytest.raises(VersatuneError, match=r"weights hold NaN.*checkpoint-4"):
        run(save_steps=1)
    kept = checkpoints.complete(tmp_path / "t" / "checkpoints")
    assert [checkpoints.step_of(path) for path in kept] == [3, 4]


def test_a_full_disk_is_found_before_training(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    monkeypatch.setattr(MixtureTrainer, "train", None)
    with pytest.raises(VersatuneError, match=r"GB free.*save_total_limit"):
        run()


@pytest.fixture
def cut_short(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a training that ended in its second round."""
    with monkeypatch.context() as patch:
        real = MixtureTrainer.compute_loss

        def ending(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == 4:
                raise KeyboardInterrupt
            return real(self, *args, **kwargs)

        patch.setattr(MixtureTrainer, "compute_loss", ending)
        with pytest.raises(KeyboardInterrupt):
            run()
    return tmp_path / "t" / "checkpoints" / "checkpoint-3"


def test_what_lies_on_the_disk_is_not_asked_for_again(
    run: Any, cut_short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(checkpoints, "check_space", lambda _, needed: asked.append(needed))
    run("new")
    run()
    trained = (cut_short.parents[2] / "new" / "model.safetensors").stat().st_size
    assert asked[0] - asked[1] > 3 * trained  # weights and two moments


@pytest.mark.parametrize(("before", "told"), [(2, "by 2"), (None, "by an unknown number of")])
def test_other_processes_do_not_go_on(
    run: Any, cut_short: Path, before: int | None, told: str
) -> None:
    state = checkpoints.state_of(cut_short)
    assert state.pop("world_size") == 1
    (cut_short / checkpoints.STATE).unlink()
    checkpoints.mark(cut_short, state | ({"world_size": before} if before else {}))
    with pytest.raises(VersatuneError, match=rf"{told} processes, and now there are 1.*launcher"):
        run()


def test_of_several_devices_a_process_uses_one(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = by_round(run("plain"), "validation_loss")
    real = TrainingArguments.__dict__["_setup_devices"].func

    def with_two(self: TrainingArguments) -> torch.device:
        device = real(self)
        self._n_gpu = 2
        return device

    devices = cached_property(with_two)
    devices.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", devices)
    assert arguments(TrainParams(), tmp_path).n_gpu == 1
    np.testing.assert_array_equal(by_round(run("two"), "validation_loss"), plain)
    assert "One of 2 GPUs is used: train.launcher.processes" in caplog.text


def test_only_the_first_process_writes_events(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MixtureTrainer, "is_world_process_zero", lambda _: False)
    run()
    assert not (tmp_path / "t" / "metrics.jsonl").exists()


@pytest.mark.parametrize(("rank", "level"), [("0", logging.INFO), ("1", logging.ERROR)])
def test_one_process_says_what_all_know(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rank: str,
    level: int,
) -> None:
    job = Job(store=tiny_store, base=tiny_checkpoint, params=TrainParams(), folder=tmp_path)
    write_json(tmp_path / "job.json", job)
    levels: list[int] = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(logging, "basicConfig", lambda **given: levels.append(given["level"]))
    monkeypatch.setattr("versatune.training.run.run", lambda _: None)
    monkeypatch.setattr("sys.argv", ["versatune.training", str(tmp_path / "job.json")])
    assert __main__.main() == 0
    assert levels == [level]


def test_a_domain_the_model_knows_by_heart_is_told(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = HeldOut(nats_per_token=0.0, bits_per_byte=0.0, stderr=0.0, n_rows=4, n_tokens=9)
    monkeypatch.setattr(
        "versatune.training.callback.heldout_losses", lambda *_, **__: dict.fromkeys(START, known)
    )
    with pytest.raises(VersatuneError, match=r"held-out loss of law is 0.*leave it out"):
        run()


def test_the_base_is_loaded_once(
    run: Any, tiny_checkpoint: CheckpointRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []

    def noting(ref: Any, **options: Any) -> Any:
        loaded.append(ref)
        return load_model(ref, **options)

    for module in ("run", "precision"):
        monkeypatch.setattr(f"versatune.training.{module}.load_model", noting)
    run()
    assert loaded.count(tiny_checkpoint) == 1


def test_an_unwritable_folder_is_found_before_training(run: Any, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a file in the way")
    with pytest.raises(VersatuneError, match="was not made by versatune"):
        run()


def test_a_strategy_without_its_references_is_refused(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    with pytest.raises(VersatuneError, match="needs reference losses"):
        train(
            tiny_store,
            tiny_checkpoint,
            TrainParams.model_validate(PARAMS),
            initial_weights=START,
            folder=tmp_path / "t",
        )


def test_weights_for_other_domains_are_refused(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    with pytest.raises(VersatuneError, match=r"the initial mixture.*medicine"):
        train(
            tiny_store,
            tiny_checkpoint,
            TrainParams.model_validate({**PARAMS, "strategy": {"name": "constant"}}),
            initial_weights={"law": 0.5, "code": 0.5},
            folder=tmp_path / "t",
        )


@pytest.mark.parametrize("stop", ["stop", "rollback"])
def test_the_guard_ends_training_and_a_rollback_takes_the_best_round(
    run: Any, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    """Round 1 is called the best, round 3 ends it: the model is round 1's, or round 3's."""
    from versatune.mixing.adaptive import Expand

    def decided(_: Any, signals: Any) -> Decision:
        none = np.zeros(3)
        ends = stop if signals.round == 3 else None
        return Decision(signals.weights, none, none, "it forgets", ends, signals.round == 1)

    monkeypatch.setattr(Expand, "update", decided)
    strategy = {"name": "expand", "rule": "paper", "target": "law", "guard": {"action": stop}}
    options = {"strategy": strategy, "rounds": 6, "lr_scheduler_type": "constant"}
    ended = run("ended", save_total_limit=1, **options)
    assert ended.model_ref.metadata["ended"] == "it forgets"
    assert ended.history["round"].max() == 3
    assert set(ended.history.query("round == 3")["reason"]) == {"it forgets"}
    monkeypatch.setattr(
        Expand,
        "update",
        lambda _, s: Decision(
            s.weights, np.zeros(3), np.zeros(3), "", "stop" if s.round == rounds else None, False
        ),
    )
    rounds = 1 if stop == "rollback" else 3
    plain = run("plain", **options)
    a, b = (load_file(r.model_ref.path / "model.safetensors") for r in (ended, plain))
    for name in a:
        torch.testing.assert_close(a[name], b[name])
