"""Reference losses: minima of held-out curves, cached by domain, and without any run."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import BYTES, save_tiny
from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.mixing.curves import law_facts
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.modeling.heldout import chosen_rows, heldout_losses
from versatune.training import ReferenceParams, TrainParams, reference
from versatune.training.api import history
from versatune.training.job import Job
from versatune.training.reference import measure_references
from versatune.training.retokenize import retokenize

TINY = {
    "eval_steps": 2,
    "max_steps": 8,
    "patience": 2,
    "heldout_rows": 6,
    "learning_rate": 1e-2,
    "max_length": 64,
    "per_device_train_batch_size": 2,
}


def test_is_the_minimum_of_a_run_on_the_domain_alone(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    params = ReferenceParams(folder=tmp_path / "r", **TINY)
    found = measure_references(tiny_store, tiny_checkpoint, params)
    base = heldout_losses(
        load_model(tiny_checkpoint),
        TokenizedSplit.load(tiny_store, "validation"),
        rows_per_domain=6,
        batch_tokens=500,
        progress=False,
    )
    assert list(found["domains"]) == ["law", "medicine", "code"]
    for name, entry in found["domains"].items():
        curve = history(tmp_path / "r" / name)
        assert set(curve["domain"]) == {name}
        assert (curve["weight"] == 1).all()
        assert entry["nats_per_token"] == curve["validation_loss"].min()
        assert (
            entry["step"] == curve.set_index("validation_loss")["step"].loc[entry["nats_per_token"]]
        )
        # The base model on the same rows is where the curve begins.
        assert curve["validation_loss"].iloc[0] == pytest.approx(base[name].nats_per_token)
        assert entry["nats_per_token"] < base[name].nats_per_token
        assert not list((tmp_path / "r" / name).glob("*.safetensors"))


def test_the_curve_is_kept_and_the_other_domains_are_measured_on_the_way(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    params = ReferenceParams(folder=tmp_path / "r", **TINY, transfer=1.0)
    found = measure_references(tiny_store, tiny_checkpoint, params)
    names = list(found["domains"])
    alone = heldout_losses(
        load_model(tiny_checkpoint),
        TokenizedSplit.load(tiny_store, "validation"),
        rows_per_domain=6,
        batch_tokens=500,
        progress=False,
    )
    for name, entry in found["domains"].items():
        curve = entry["curve"]
        assert [p["step"] for p in curve] == list(range(0, entry["steps_run"] + 1, 2))
        assert all(a["learning"] < b["learning"] for a, b in pairwise(curve))
        assert {p["step"] for p in curve if set(p["losses"]) == set(names)} >= {0, 2, 4}
        assert all(name in p["losses"] for p in curve)
        for other in names:
            assert curve[0]["losses"][other] == pytest.approx(alone[other].nats_per_token)
        assert all(p["stderrs"][name] > 0 for p in curve[1:])
        assert entry["nats_per_token"] <= curve[0]["losses"][name]
    facts = law_facts(found)
    assert facts is not None and facts["domains"] == names
    assert (np.diag(facts["slopes"]) > 0).all()


def test_without_transfer_each_run_measures_its_own_domain_alone(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    params = ReferenceParams(folder=tmp_path / "r", **TINY, transfer=0.0)
    found = measure_references(tiny_store, tiny_checkpoint, params)
    for name, entry in found["domains"].items():
        assert all(set(p["losses"]) == {name} for p in entry["curve"])
    assert law_facts(found) is None


def test_a_run_cut_off_while_falling_is_warned_about(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    short = {**TINY, "max_steps": 4, "lr_scheduler_type": "constant"}
    measure_references(tiny_store, tiny_checkpoint, ReferenceParams(folder=tmp_path / "a", **short))
    assert "references.max_steps (4) while its loss was still falling" in caplog.text
    caplog.clear()
    idle = {**short, "learning_rate": 1e-30}
    measure_references(tiny_store, tiny_checkpoint, ReferenceParams(folder=tmp_path / "b", **idle))
    assert "still falling" not in caplog.text


def test_runs_train_as_their_parameters_say(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {
        "lora": {"r": 4}, "weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.95,
        "max_grad_norm": 0.5, "loss_guard": 7.0, "attn_implementation": "eager", "seed": 3,
        "gradient_accumulation_steps": 2, "bf16": True, "dtype": "bfloat16", "packing": False,
        "gradient_checkpointing": True, "warmup_ratio": 0.1, "lr_scheduler_type": "linear",
    }  # fmt: skip
    params = ReferenceParams.model_validate({"folder": tmp_path / "r", **TINY, **given})
    jobs: list[Job] = []

    def noting(job: Job) -> None:
        jobs.append(job)
        raise VersatuneError("enough")

    monkeypatch.setattr(reference, "run_job", noting)
    with pytest.raises(VersatuneError, match="enough"):
        measure_references(tiny_store, tiny_checkpoint, params)
    shared = (set(ReferenceParams.model_fields) & set(TrainParams.model_fields)) - {"folder"}
    assert set(given) <= shared
    for name in shared:
        assert getattr(jobs[0].params, name) == getattr(params, name), name


@pytest.mark.parametrize(
    ("max_steps", "eval_steps", "run"), [(5, 2, 4), (4, 2, 4), (3, 10, 3), (1, 1, 1)]
)
def test_no_more_steps_than_max_steps(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    max_steps: int,
    eval_steps: int,
    run: int,
) -> None:
    jobs: list[Job] = []

    def noting(job: Job) -> None:
        jobs.append(job)
        raise VersatuneError("enough")

    monkeypatch.setattr(reference, "run_job", noting)
    params = ReferenceParams(folder=tmp_path / "r", max_steps=max_steps, eval_steps=eval_steps)
    with pytest.raises(VersatuneError, match="enough"):
        measure_references(tiny_store, tiny_checkpoint, params)
    assert jobs[0].params.rounds * jobs[0].params.steps_per_round == run


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"learning_rate": 3.0, "warmup_ratio": 0.0, "max_steps": 30, "eval_steps": 30,
          "loss_guard": 1.1}, r"law stopped.*references\.loss_guard.*references\.learning_rate"),
        ({"lora": {"target_modules": ["none"]}}, r"references\.lora\.target_modules"),
    ],
)  # fmt: skip
def test_what_goes_wrong_names_the_keys_of_references(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    changes: dict[str, Any],
    told: str,
) -> None:
    params = ReferenceParams.model_validate({"folder": tmp_path / "r", **TINY, **changes})
    with pytest.raises(VersatuneError, match=told) as raised:
        measure_references(tiny_store, tiny_checkpoint, params)
    assert "train." not in str(raised.value)


def test_a_second_call_runs_nothing_and_a_lost_domain_alone_is_run_again(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = ReferenceParams(folder=tmp_path / "r", **TINY)
    first = measure_references(tiny_store, tiny_checkpoint, params)
    ran: list[str] = []
    import versatune.training.run as run_module

    real = run_module.run
    monkeypatch.setattr(
        run_module, "run", lambda job, on_round: (ran.append(job.only), real(job, on_round))
    )
    assert measure_references(tiny_store, tiny_checkpoint, params) == first
    assert ran == []
    (tmp_path / "r" / "medicine" / "manifest.json").unlink()
    assert measure_references(tiny_store, tiny_checkpoint, params) == first
    assert ran == ["medicine"]
    changed = params.model_copy(update={"learning_rate": 5e-3})
    assert measure_references(tiny_store, tiny_checkpoint, changed) != first
    assert ran == ["medicine", "law", "medicine", "code"]


def test_references_depend_on_how_rows_are_chosen_and_trained_models_do_not(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained, of_law = (
        Job(store=tiny_store, base=tiny_checkpoint, params=TrainParams(), folder=tmp_path, **more)
        for more in ({}, {"only": "law", "keeps": False})
    )
    before = trained.inputs(), of_law.inputs()
    monkeypatch.setattr("versatune.training.job.ROW_CHOICE", 3)
    assert trained.inputs() == before[0]
    assert of_law.inputs() != before[1]


def test_stops_early_when_nothing_improves(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    params = ReferenceParams(
        folder=tmp_path / "r", **{**TINY, "learning_rate": 1e-30, "max_steps": 40}
    )
    found = measure_references(tiny_store, tiny_checkpoint, params)
    for entry in found["domains"].values():
        assert entry["steps_run"] < 40


def test_other_seeds_are_measured_on_the_same_rows(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    """Where nothing is learnt the reference is l(0), whatever the order of the training rows."""
    found = [
        measure_references(
            tiny_store,
            tiny_checkpoint,
            ReferenceParams(
                folder=tmp_path / str(seed), **{**TINY, "learning_rate": 1e-30, "seed": seed}
            ),
        )["domains"]
        for seed in (0, 1)
    ]
    for name, entry in found[0].items():
        assert entry["nats_per_token"] == pytest.approx(found[1][name]["nats_per_token"], rel=1e-6)


def test_mode_none_runs_nothing(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reference, "run_job", None)
    found = measure_references(
        tiny_store, tiny_checkpoint, ReferenceParams(folder=tmp_path / "r", mode="none")
    )
    assert found["mode"] == "none"
    assert [e["nats_per_token"] for e in found["domains"].values()] == [None, None, None]
    assert not (tmp_path / "r").exists()


@pytest.fixture
def proxy(tmp_path: Path) -> CheckpointRef:
    """A smaller model whose tokenizer knows bytes alone."""
    return save_tiny(tmp_path / "proxy", vocab_size=BYTES, hidden_size=16, layers=1, seed=1)


def test_a_proxy_with_another_tokenizer_is_compared_in_bits_per_byte(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, proxy: CheckpointRef, tmp_path: Path
) -> None:
    params = ReferenceParams(folder=tmp_path / "r", proxy=proxy.path, **TINY)
    found = measure_references(tiny_store, tiny_checkpoint, params)
    split = TokenizedSplit.load(tiny_store, "validation")
    rows = chosen_rows(split, 6)
    for j, entry in enumerate(found["domains"].values()):
        a_token = split.n_bytes[rows[j]].sum() / split.supervised[rows[j]].sum()
        expected = entry["bits_per_byte"] * math.log(2) * a_token
        assert entry["nats_per_token"] == pytest.approx(expected)
        assert entry["model"] == "proxy"


def test_retokenized_labels_keep_their_text(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, proxy: CheckpointRef, tmp_path: Path
) -> None:
    turned = TokenizedSplit.load(
        retokenize(tiny_store, tiny_checkpoint, proxy, tmp_path / "t"), "validation"
    )
    own = TokenizedSplit.load(tiny_store, "validation")
    old, new = load_tokenizer(tiny_checkpoint), load_tokenizer(proxy)
    assert turned.n_bytes.tolist() == own.n_bytes.tolist()
    for i in (0, 13, 30):
        before, after = own.dataset[i], turned.dataset[i]
        wanted = old.decode([t for t in before["labels"] if t >= 0], skip_special_tokens=True)
        kept = [t for t in after["labels"] if t >= 0]
        got = new.decode(kept, skip_special_tokens=True)
        assert got == wanted
        assert kept[-1] == new.eos_token_id
