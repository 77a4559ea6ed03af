"""Weights between base and trained model: the arithmetic, the choice, and what training saves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.tiny import save_tiny
from versatune.artifacts import FolderRef, read_json
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.interpolate import between, scale_adapter, write_between
from versatune.training import TrainParams, train

PARTS = {"parts": [0.5]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_between_is_exact_at_both_ends(dtype: torch.dtype) -> None:
    base, trained = torch.randn(2, 64, 8).to(dtype)
    assert torch.equal(between(base, trained, 0.0), base)
    assert torch.equal(between(base, trained, 1.0), trained)
    assert between(torch.tensor([1.0]), torch.tensor([5.0]), 0.25).item() == 2.0
    assert between(torch.tensor([1]), torch.tensor([5]), 0.25).item() == 5


def test_written_weights_are_the_line_between_the_files(tmp_path: Path) -> None:
    """Also of several shards, in another type, and with tied weights."""
    base = save_tiny(tmp_path / "base", vocab_size=300, seed=0)
    other = load_model(save_tiny(tmp_path / "other", vocab_size=300, seed=1))
    other.to(torch.bfloat16).save_pretrained(tmp_path / "trained", max_shard_size="20KB")
    assert len(list((tmp_path / "trained").glob("*.safetensors"))) > 1
    ends = [dict(load_model(p).named_parameters()) for p in (base, tmp_path / "trained")]
    for part in (0.0, 0.25, 1.0):
        write_between(base, tmp_path / "trained", part, tmp_path / str(part))
        model = load_model(tmp_path / str(part))
        assert model.lm_head.weight is model.model.embed_tokens.weight
        for name, found in model.named_parameters():
            first, last = (end[name].float() for end in ends)
            wanted = (first + part * (last - first)).to(torch.bfloat16)
            assert torch.equal(found, wanted), name


def params(**changes: Any) -> TrainParams:
    return TrainParams.model_validate(
        {
            "rounds": 1,
            "steps_per_round": 3,
            "max_length": 64,
            "per_device_train_batch_size": 2,
            "heldout_rows_per_domain": 4,
            "learning_rate": 3e-3,
            **changes,
        }
    )


def test_training_saves_the_part_it_chose_and_says_so(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    plain = train(tiny_store, tiny_checkpoint, params(), folder=tmp_path / "plain")
    made = train(tiny_store, tiny_checkpoint, params(interpolate=PARTS), folder=tmp_path / "half")
    base, last, half = (
        load_file(f / "model.safetensors")
        for f in (tiny_checkpoint.path, plain.model_ref.path, made.model_ref.path)
    )
    for name, found in half.items():
        assert torch.equal(found, between(base[name], last[name], 0.5)), name
        assert not torch.equal(found, last[name])
    assert not (made.model_ref.path / "between").exists()
    whose = "the model 0.5 of the way from the base to the trained one"
    assert f"The saved model has the held-out losses of {whose}." in caplog.text
    noted = made.model_ref.metadata["interpolation"]
    assert noted["part"] == 0.5
    losses = {(row["part"], row["domain"]): row["validation_loss"] for row in noted["table"]}
    assert {part for part, _ in losses} == {0.0, 0.5, 1.0}
    for row in made.history.to_dict("records"):
        part = float(row["round"])  # round 0 is the base model, round 1 the trained one
        assert losses[part, row["domain"]] == pytest.approx(row["validation_loss"], rel=1e-5)
    assert read_json(made.model_ref.path / "history.json")["interpolation"] == noted


def _loss(table: dict[tuple[float, str], dict[str, Any]], part: float, name: str) -> float:
    return float(table[part, name]["validation_loss"])


def test_expand_goes_back_where_it_broke_a_tolerance(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At so high a learning rate losses rise; at a low one all fall."""
    target, *others = tiny_store.metadata["domains"]
    strategy = {"name": "expand", "target": target, "rule": "constrained"}
    rough, gentle = (
        train(
            tiny_store,
            tiny_checkpoint,
            params(
                strategy=strategy,
                objective={"tolerance": 0.02},
                learning_rate=rate,
                heldout_rows_per_domain=None,
            ),
            initial_weights=dict.fromkeys((target, *others), 1.0),
            folder=tmp_path / str(rate),
        )
        for rate in (0.3, 1e-4)
    )
    noted = rough.model_ref.metadata["interpolation"]
    table = {(row["part"], row["domain"]): row for row in noted["table"]}
    assert noted["part"] < 1.0 and len({part for part, _ in table}) == 11
    [told] = [m for m in caplog.messages if "beyond tolerance" in m]
    ends = {name: _loss(table, 1.0, name) / _loss(table, 0.0, name) for name in others}
    assert max(ends.values()) > 1.02
    assert [name for name in others if name in told] == [n for n in others if ends[n] > 1.02]
    assert target not in told
    for name in others:
        taken = table[noted["part"], name]
        with_margin = taken["validation_loss"] * (1 + 1.5 * taken["since_base_stderr"])
        assert with_margin <= 1.02 * _loss(table, 0.0, name)
    assert "interpolation" not in gentle.model_ref.metadata


@pytest.mark.parametrize("merge", [True, False])
def test_an_adapter_is_scaled(
    merge: bool, tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    lora = {"r": 2, "merge": merge}
    folders = []
    for name, asked in (("plain", None), ("half", PARTS)):
        asked_for = params(lora=lora, learning_rate=3e-2, interpolate=asked)
        made = train(tiny_store, tiny_checkpoint, asked_for, folder=tmp_path / name)
        folders.append(made.model_ref.path)
    models = [load_model(p).state_dict() for p in (tiny_checkpoint.path, *folders)]
    name = "model.layers.0.mlp.up_proj.weight"
    base, last, half = (of[name] for of in models)
    torch.testing.assert_close(half - base, (last - base) / 2, rtol=1e-3, atol=1e-6)
    assert (last - base).abs().max() > 1e-3
    where = [f / "adapter" if merge else f for f in folders]
    whole, scaled = (load_file(f / "adapter_model.safetensors") for f in where)
    for key, value in scaled.items():
        assert torch.equal(value, whole[key] * (0.5 if "lora_B" in key else 1.0)), key


def test_a_scaled_adapter_of_part_0_changes_nothing(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    asked_for = params(lora={"r": 2, "merge": False}, learning_rate=3e-2)
    trained = train(tiny_store, tiny_checkpoint, asked_for, folder=tmp_path / "t").model_ref.path
    ids = torch.arange(3, 19)[None]
    own = load_model(tiny_checkpoint)(ids).logits
    for part, same in ((0.0, own), (1.0, load_model(trained)(ids).logits)):
        out = tmp_path / str(part)
        write_between(tiny_checkpoint, trained, part, out)
        assert torch.equal(load_model(out)(ids).logits, same)
    scale_adapter(trained, 0.0, out)
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 2


def test_parts_are_different_numbers_from_0_to_1() -> None:
    for wrong in ([], [1.5], [0.5, 0.5]):
        with pytest.raises(ValueError, match="parts"):
            params(interpolate={"parts": wrong})
    assert "interpolate" not in params().fingerprint_fields()
    assert params(interpolate=PARTS).fingerprint_fields()["interpolate"] == PARTS
    expanding = {"name": "expand", "target": "law", "rule": "constrained"}
    assert params(strategy=expanding).fingerprint_fields()["interpolate"] == "auto"
    assert "interpolate" not in params(strategy=expanding, interpolate=None).fingerprint_fields()
