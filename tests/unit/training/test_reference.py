"""Reference losses: minima of held-out curves, cached by domain, and without any run."""

import math
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.references import measure_references
from tests.helpers.tiny import BYTES, save_tiny
from versatune.artifacts import INPUTS, FolderRef, read_json
from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.mixing.traces import read_traces, traces_of
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.modeling.heldout import chosen_rows, heldout_losses
from versatune.params import warn_renamed
from versatune.training import ReferenceParams, TrainParams, reference
from versatune.training.api import history, train
from versatune.training.diagnostics import reference_warnings
from versatune.training.job import Job
from versatune.training.retokenize import retokenize
from versatune.work import make_folder

TINY: dict[str, Any] = {"eval_steps": 2, "max_steps": 8, "patience": 2, "mixes": 0}
TRAIN = TrainParams(
    heldout_rows_per_domain=6, learning_rate=1e-2, max_length=64, per_device_train_batch_size=2
)


def measured(
    store: FolderRef,
    base: CheckpointRef,
    folder: Path,
    train: dict[str, Any] | None = None,
    **params: Any,
) -> dict[str, Any]:
    """The stage with small runs; ``train``: what differs from :data:`TRAIN`."""
    given = ReferenceParams.model_validate({**TINY, "train": train or {}, **params})
    return measure_references(store, base, folder, given, TRAIN)


def test_is_the_minimum_of_a_run_on_the_domain_alone(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    found = measured(tiny_store, tiny_checkpoint, tmp_path / "r")
    base = heldout_losses(
        load_model(tiny_checkpoint),
        TokenizedSplit.load(tiny_store, "steering"),
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
        assert entry["steps_run"] == curve["step"].max()
        assert entry["at_limit"] == (entry["steps_run"] - entry["step"] < 2 * TINY["eval_steps"])
        # The base model on the same rows is where the curve begins.
        assert curve["validation_loss"].iloc[0] == pytest.approx(base[name].nats_per_token)
        assert entry["nats_per_token"] < base[name].nats_per_token
        assert not list((tmp_path / "r" / name).glob("*.safetensors"))


def test_the_curve_is_kept_and_the_other_domains_are_measured_on_the_way(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    found = measured(tiny_store, tiny_checkpoint, tmp_path / "r", transfer=1.0)
    names = list(found["domains"])
    alone = heldout_losses(
        load_model(tiny_checkpoint),
        TokenizedSplit.load(tiny_store, "steering"),
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
    facts = traces_of(found)
    assert facts is not None and facts["domains"] == names
    traces = read_traces(facts)
    assert [t.weights[0].tolist() for t in traces] == np.eye(3).tolist()
    assert all(0 <= rate <= 1 for t in traces for rate in t.rate)


def test_short_runs_on_mixes_measure_all_domains_and_anneal(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    found = measured(tiny_store, tiny_checkpoint, tmp_path / "r", mode="mixes", mixes=4)
    made = {p.name for p in (tmp_path / "r").iterdir() if p.is_dir()}
    assert made == {"rows", *(f"mix-{n}" for n in range(4))}
    assert all(entry["nats_per_token"] is None for entry in found["domains"].values())
    facts = traces_of(found)
    assert facts is not None
    traces = read_traces(facts)
    # 50 rounds of 10 steps by default: a tenth of them in two runs of three measurements.
    like = TRAIN.rounds * TRAIN.steps_per_round
    assert ReferenceParams().mix_steps(TRAIN) == int(0.1 * like / 2) // 3 * 3
    for one, trace in enumerate(traces):
        assert trace.rate[-1] < trace.rate[0] <= 1
        np.testing.assert_allclose(trace.weights.sum(1), 1)
        history_of = history(tmp_path / "r" / f"mix-{one}")
        last = history_of[history_of["round"] == 3].set_index("domain")
        assert trace.losses[-1].tolist() == last["validation_loss"].tolist()
        assert trace.passes[-1].tolist() == last["epochs_seen"].tolist()
        assert (trace.stderrs[1:] > 0).all()
    # Over the runs each domain is up as often as down.
    ups = np.array([t.weights[0] > 1 / 3 for t in traces])
    assert (ups.sum(0) == 2).all()


@pytest.mark.parametrize(
    ("strategy", "uses"),
    [
        ({"name": "mixing_law"}, True),
        ({"name": "expand", "rule": "constrained", "target": ["law", "code"]}, True),
        ({"name": "uniform"}, False),
    ],
)
def test_what_runs_before_did_reaches_training_with_strategies_that_use_them(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    strategy: dict[str, Any],
    uses: bool,
) -> None:
    traces = traces_of(measured(tiny_store, tiny_checkpoint, tmp_path / "r", transfer=1.0))
    params = TRAIN.changed({"strategy": strategy, "rounds": 2, "steps_per_round": 2})
    folder, start = tmp_path / "trained", {"law": 0.2, "medicine": 0.3, "code": 0.5}
    trained = train(
        tiny_store, tiny_checkpoint, params, initial_weights=start, traces=traces, folder=folder
    )
    assert trained.history["round"].max() == 2
    assert ("traces" in read_json(folder / INPUTS)) is uses


def test_without_transfer_each_run_measures_its_own_domain_alone(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    found = measured(tiny_store, tiny_checkpoint, tmp_path / "r", transfer=0.0)
    for name, entry in found["domains"].items():
        assert all(set(p["losses"]) == {name} for p in entry["curve"])
    assert traces_of(found) is None


def test_with_runs_on_mixes_each_other_run_measures_its_own_domain_alone(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    found = measured(tiny_store, tiny_checkpoint, tmp_path / "r", mixes=2, transfer=1.0)
    for name, entry in found["domains"].items():
        assert all(set(p["losses"]) == {name} for p in entry["curve"])
    facts = traces_of(found)
    assert facts is not None and len(facts["traces"]) == 2


def test_a_run_cut_off_while_falling_is_warned_about_and_one_at_rest_is_not(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    flat = {"lr_scheduler_type": "constant"}
    falling = measured(tiny_store, tiny_checkpoint, tmp_path / "a", flat, max_steps=4)
    assert all(e["at_limit"] and e["still_falling"] for e in falling["domains"].values())
    (said,) = reference_warnings(falling)
    assert said.startswith("the reference runs of all domains ended at their limit of 4 steps")
    idle = {**flat, "learning_rate": 1e-30}
    resting = measured(tiny_store, tiny_checkpoint, tmp_path / "b", idle, max_steps=4)
    assert all(not e["still_falling"] for e in resting["domains"].values())
    assert reference_warnings(resting) == []


def test_runs_train_as_training_does_but_for_what_is_given(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef
) -> None:
    as_training = {
        "weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.95, "max_grad_norm": 0.5,
        "loss_guard": 7.0, "attn_implementation": "eager", "seed": 3, "bf16": True,
        "gradient_accumulation_steps": 2, "dtype": "bfloat16", "packing": False,
        "gradient_checkpointing": True, "max_length": 64, "learning_rate": 3e-4,
        "heldout_rows_per_domain": 77, "lora": {"r": 4, "alpha": 8}, "lookahead": 3,
    }  # fmt: skip
    train = TrainParams.model_validate(
        {**as_training, "rounds": 50, "warmup_ratio": 0.5, "strategy": {"name": "foster"},
         "epoch_cap": 2.0, "launcher": {"processes": 4}, "lr_scheduler_type": "linear",
         "objective": {"kind": "worst"}}
    )  # fmt: skip
    given = {"learning_rate": 5e-4, "lora": {"r": 8}}
    params = ReferenceParams.model_validate({**TINY, "warmup_ratio": 0.1, "train": given})
    rows = not_needed_rows(tiny_store)
    pieces = reference.reference_runs(tiny_store, rows, tiny_checkpoint, params, train)
    found = pieces["law"].inputs["train"]
    expected = {**as_training, "learning_rate": 5e-4, "lora": {"r": 8, "alpha": 8}}
    for name, value in expected.items():
        if name == "loss_guard":  # safety is no part of the fingerprint
            assert params.of_run(train).loss_guard == value
        elif name == "lora":
            assert {key: found["lora"][key] for key in value} == value
        else:
            assert found[name] == value, name
    assert (found["rounds"], found["steps_per_round"], found["warmup_ratio"]) == (4, 2, 0.1)
    assert found["strategy"]["name"] == "uniform" and found["epoch_cap"] is None
    assert found["objective"]["kind"] == "mean"  # of one domain, which has no reference yet
    assert (found["lr_scheduler_type"], found["launcher"]["processes"]) == ("linear", 1)
    assert [piece.inputs["only"] for piece in pieces.values()] == ["law", "medicine", "code"]
    for piece in pieces.values():  # so that another process can make it
        assert pickle.loads(pickle.dumps(piece)).fingerprint == piece.fingerprint


def not_needed_rows(store: FolderRef) -> FolderRef:
    return store.model_copy(update={"metadata": {"skipped": True}})


def test_keys_of_the_version_before_are_taken_with_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_renamed.cache_clear()
    old = {"heldout_rows": 9, "learning_rate": 1e-4, "max_steps": 5, "train": {"seed": 2}}
    found = ReferenceParams.model_validate(old)
    assert found.train == {"heldout_rows_per_domain": 9, "learning_rate": 1e-4, "seed": 2}
    assert found.max_steps == 5
    assert "references.heldout_rows was renamed to references.train.heldout_rows_per_domain" in (
        caplog.text
    )
    with pytest.raises(ValueError, match="rounds: set by the references"):
        ReferenceParams.model_validate({"train": {"rounds": 3}})
    with pytest.raises(ValueError, match="learnin_rate"):
        ReferenceParams.model_validate({"train": {"learnin_rate": 3}})


@pytest.mark.parametrize(
    ("max_steps", "eval_steps", "run"), [(5, 2, 4), (4, 2, 4), (3, 10, 3), (1, 1, 1)]
)
def test_no_more_steps_than_max_steps(max_steps: int, eval_steps: int, run: int) -> None:
    found = ReferenceParams(max_steps=max_steps, eval_steps=eval_steps).of_run(TrainParams())
    assert found.rounds * found.steps_per_round == run


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": {"learning_rate": 3.0, "loss_guard": 1.1}, "warmup_ratio": 0.0,
          "max_steps": 30, "eval_steps": 30},
         r"law stopped.*references\.train\.loss_guard.*references\.train\.learning_rate"),
        ({"train": {"lora": {"target_modules": ["none"]}}},
         r"references\.train\.lora\.target_modules"),
    ],
)  # fmt: skip
def test_what_goes_wrong_names_the_keys_of_references(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    changes: dict[str, Any],
    told: str,
) -> None:
    with pytest.raises(VersatuneError, match=told) as raised:
        measured(tiny_store, tiny_checkpoint, tmp_path / "r", **changes)
    assert "train." not in str(raised.value).replace("references.train.", "")


def test_a_second_call_runs_nothing_and_a_lost_domain_alone_is_run_again(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = measured(tiny_store, tiny_checkpoint, tmp_path)
    ran: list[str | None] = []
    import versatune.training.run as run_module

    real = run_module.run
    monkeypatch.setattr(
        run_module, "run", lambda job, *listeners: (ran.append(job.domain), real(job, *listeners))
    )
    assert measured(tiny_store, tiny_checkpoint, tmp_path) == first
    assert ran == []
    (tmp_path / "medicine" / "manifest.json").unlink()
    assert measured(tiny_store, tiny_checkpoint, tmp_path) == first
    assert ran == ["medicine"]
    assert measured(tiny_store, tiny_checkpoint, tmp_path, {"learning_rate": 5e-3}) != first
    assert ran == ["medicine", "law", "medicine", "code"]


def test_references_depend_on_how_rows_are_chosen_and_trained_models_do_not(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained, of_law = (
        Job(store=tiny_store, base=tiny_checkpoint, params=TrainParams(), folder=tmp_path, **more)
        for more in ({}, {"domain": "law", "save_model": False})
    )
    before = trained.inputs(), of_law.inputs()
    monkeypatch.setattr("versatune.training.job.ROW_CHOICE", 3)
    assert trained.inputs() == before[0]
    assert of_law.inputs() != before[1]


def test_stops_early_when_nothing_improves(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    found = measured(
        tiny_store, tiny_checkpoint, tmp_path / "r", {"learning_rate": 1e-30}, max_steps=40
    )
    for entry in found["domains"].values():
        assert entry["steps_run"] < 40


def test_other_seeds_are_measured_on_the_same_rows(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    """Where nothing is learnt the reference is l(0), whatever the order of the training rows."""
    found = [
        measured(
            tiny_store,
            tiny_checkpoint,
            tmp_path / str(seed),
            {"learning_rate": 1e-30, "seed": seed},
        )["domains"]
        for seed in (0, 1)
    ]
    for name, entry in found[0].items():
        assert entry["nats_per_token"] == pytest.approx(found[1][name]["nats_per_token"], rel=1e-6)


def test_mode_none_runs_nothing(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    found = measured(tiny_store, tiny_checkpoint, tmp_path / "r", mode="none")
    assert found["mode"] == "none"
    assert [e["nats_per_token"] for e in found["domains"].values()] == [None, None, None]
    assert [path.name for path in (tmp_path / "r").iterdir() if path.is_dir()] == ["rows"]


@pytest.fixture
def proxy(tmp_path: Path) -> CheckpointRef:
    """A smaller model whose tokenizer knows bytes alone."""
    return save_tiny(tmp_path / "proxy", vocab_size=BYTES, hidden_size=16, layers=1, seed=1)


def test_a_proxy_with_another_tokenizer_is_compared_in_bits_per_byte(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, proxy: CheckpointRef, tmp_path: Path
) -> None:
    found = measured(tiny_store, tiny_checkpoint, tmp_path / "r", proxy=proxy.path)
    split = TokenizedSplit.load(tiny_store, "steering")
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
        make_folder(retokenize(tiny_store, tiny_checkpoint, proxy), tmp_path / "t"), "steering"
    )
    own = TokenizedSplit.load(tiny_store, "steering")
    old, new = load_tokenizer(tiny_checkpoint), load_tokenizer(proxy)
    assert turned.n_bytes.tolist() == own.n_bytes.tolist()
    for i in (0, 13, 30):
        before, after = own.dataset[i], turned.dataset[i]
        wanted = old.decode([t for t in before["labels"] if t >= 0], skip_special_tokens=True)
        kept = [t for t in after["labels"] if t >= 0]
        got = new.decode(kept, skip_special_tokens=True)
        assert got == wanted
        assert kept[-1] == new.eos_token_id


def test_a_cut_document_ends_with_the_end_token_in_its_last_piece_alone(
    tiny_checkpoint: CheckpointRef, proxy: CheckpointRef
) -> None:
    from versatune.data.documents import DocumentEncoder, DocumentSpec
    from versatune.training.retokenize import _turn

    old, new = load_tokenizer(tiny_checkpoint), load_tokenizer(proxy)
    text = "the court heard of the contract and the judge of the loan and of the river map"
    (pieces,) = DocumentEncoder(DocumentSpec.of(old), 10).encode([text])
    assert isinstance(pieces, list) and len(pieces) > 2
    turned = []
    for piece in pieces:
        ids = piece.ids.tolist()
        row = {"input_ids": ids, "labels": [-100, *ids[1:]]}
        turned.append(_turn(row, old, new, new.unk_token_id, old.all_special_ids))
    ends = [row["input_ids"][-1] == new.eos_token_id for row in turned]
    assert ends == [False] * (len(pieces) - 1) + [True]
    assert all(row["labels"][0] == -100 for row in turned)
    kept = [new.decode(row["input_ids"], skip_special_tokens=True) for row in turned]
    assert "".join(kept) == text


def test_marks_that_a_tokenizer_only_added_are_not_copied_to_a_proxy(proxy: CheckpointRef) -> None:
    from tests.helpers.chats import TEMPLATES, byte_level
    from versatune.data.marks import control_texts
    from versatune.training.retokenize import _turn

    old, new = byte_level(special=False), load_tokenizer(proxy)
    old.chat_template = TEMPLATES["chatml"]
    control = old.convert_tokens_to_ids(list(control_texts(old)))
    asked, answer = (
        old(t, add_special_tokens=False)["input_ids"] for t in ("<|im_start|>why", "law<|im_end|>")
    )
    row = {"input_ids": [*asked, *answer], "labels": [-100] * len(asked) + answer}
    turned = _turn(row, old, new, new.unk_token_id, control)
    assert new.decode(turned["input_ids"][:-1]) == "whylaw"
    assert turned["labels"][-1] == new.unk_token_id


def test_an_answer_that_is_cut_off_gets_no_end(
    tiny_checkpoint: CheckpointRef, proxy: CheckpointRef
) -> None:
    from versatune.training.retokenize import _turn

    old, new = load_tokenizer(tiny_checkpoint), load_tokenizer(proxy)
    asked, answer = (old(t, add_special_tokens=False)["input_ids"] for t in ("the court", "a map"))
    for cut in (False, True):
        given = answer if cut else [*answer, old.eos_token_id]
        row = {"input_ids": [*asked, *given], "labels": [-100] * len(asked) + given}
        turned = _turn(row, old, new, new.unk_token_id, old.all_special_ids)
        assert (turned["labels"][-1] == new.unk_token_id) is not cut
        assert new.eos_token_id not in turned["input_ids"]
