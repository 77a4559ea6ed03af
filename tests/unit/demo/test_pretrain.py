"""Pretraining at tiny size: exact order, exact resume, documents kept apart."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from versatune.artifacts import MANIFEST, FolderRef
from versatune.demo import pretrain as module
from versatune.demo.pretrain import (
    PROGRESS,
    encode,
    learning_rate,
    new_model,
    plan_epoch,
    pretrain,
    train_tokenizer,
)
from versatune.demo.pretrain_config import PretrainParams
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.work import Piece, WorkFolder, make_folder

TINY: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_length": 64,
    "per_device_train_batch_size": 4,
    "num_train_epochs": 3,
    "save_steps": 2,
}
PARAMS = PretrainParams(**TINY)
TEXTS = [f"The number {n} is followed by {n + 1}." + " And so on." * (n % 4) for n in range(22)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"domain": "d", "text": t}) + "\n" for t in TEXTS))
    return path


def made(folder: Path, params: PretrainParams, corpus: Path) -> FolderRef:
    return make_folder(Piece({"for": "test"}, partial(pretrain, params, corpus)), folder)


class KilledError(Exception):
    """Stands for the end of the process."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let training die at the start of this step (counted from 0)."""
    real = module._step

    def dying(state: Any, rows: Any, rate: float) -> float:
        if state.step == step:
            raise KilledError
        return real(state, rows, rate)

    monkeypatch.setattr(module, "_step", dying)


def test_result_is_a_folder_that_loads(corpus: Path, tmp_path: Path) -> None:
    folder = made(tmp_path / "base", PARAMS, corpus)
    ref = CheckpointRef.of_folder(tmp_path / "base")
    model, tokenizer = load_model(ref), load_tokenizer(ref)
    assert model.num_parameters() == folder.metadata["parameters"]
    assert tokenizer.bos_token_id == model.config.bos_token_id == 0
    assert tokenizer.eos_token_id == model.config.eos_token_id == 1
    assert tokenizer.pad_token_id == model.config.pad_token_id == 2
    assert tokenizer.decode(tokenizer(TEXTS[3])["input_ids"]) == TEXTS[3]
    assert not list((tmp_path / "base").glob("*progress*"))


def test_it_learns(corpus: Path, tmp_path: Path) -> None:
    long = PARAMS.model_copy(update={"num_train_epochs": 30.0, "learning_rate": 1e-2})
    ref = made(tmp_path / "base", long, corpus)
    assert ref.metadata["final_loss"] < 0.6 * np.log(300)


@pytest.mark.parametrize("step", [1, 2, 5, 6, 11, 17])
def test_resume_ends_bit_for_bit_where_no_interruption_ends(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    made(tmp_path / "whole", PARAMS, corpus)
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(KilledError):
            made(tmp_path / "killed", PARAMS, corpus)
    assert (tmp_path / "killed" / PROGRESS).is_file() == (step >= 2)
    taken: list[int] = []
    real = module._step
    monkeypatch.setattr(
        module, "_step", lambda state, *rest: taken.append(state.step) or real(state, *rest)
    )
    made(tmp_path / "killed", PARAMS, corpus)
    assert taken == list(range(step - step % 2, 18))  # 6 batches an epoch, 3 epochs
    for name in ("model.safetensors", "tokenizer.json", "config.json", "manifest.json"):
        whole, resumed = (tmp_path / run / name for run in ("whole", "killed"))
        assert whole.read_bytes() == resumed.read_bytes(), name


def test_a_process_killed_outright_is_gone_on_from(corpus: Path, tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"num_train_epochs": 15.0})
    script = (
        "import sys; from pathlib import Path\n"
        "from functools import partial\n"
        "from versatune.demo.base_model import PretrainParams\n"
        "from versatune.demo.pretrain import pretrain\n"
        "from versatune.work import Piece, make_folder\n"
        "params = PretrainParams.model_validate_json(sys.argv[1])\n"
        "made = partial(pretrain, params, Path(sys.argv[2]))\n"
        "make_folder(Piece({'for': 'test'}, made), sys.argv[3])\n"
    )
    folder = tmp_path / "base"
    process = subprocess.Popen(
        [sys.executable, "-c", script, params.model_dump_json(), str(corpus), str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (folder / PROGRESS).is_file():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / MANIFEST).exists()
    made(folder, params, corpus)
    made(tmp_path / "whole", params, corpus)
    weights = [(f / "model.safetensors").read_bytes() for f in (folder, tmp_path / "whole")]
    assert weights[0] == weights[1]


def test_damaged_progress_starts_anew_and_says_so(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path / "whole", PARAMS, corpus)
    damaged = WorkFolder.open(tmp_path / "damaged", {"for": "test"})
    (damaged.path / PROGRESS).write_bytes(b"\x00" * 100)
    made(damaged.path, PARAMS, corpus)
    assert "starts over" in caplog.text
    for run in ("whole", "damaged"):
        assert load_file(tmp_path / run / "model.safetensors").keys()
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (
        tmp_path / "damaged" / "model.safetensors"
    ).read_bytes()


def test_seeds_settle_the_model_and_leave_torch_alone() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    before = torch.random.get_rng_state()
    one, two = (new_model(PARAMS, tokenizer) for _ in range(2))
    other = new_model(PARAMS.model_copy(update={"seed": 1}), tokenizer)
    assert torch.equal(before, torch.random.get_rng_state())
    first = [model.model.embed_tokens.weight for model in (one, two, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_tokenizer_is_the_same_every_time_and_loses_nothing() -> None:
    one, two = (train_tokenizer(TEXTS, 300) for _ in range(2))
    assert one.backend_tokenizer.to_str() == two.backend_tokenizer.to_str()
    for text in ("Größe ≠ 2", "`len()`\n\tx", "日本"):
        assert one.decode(one(text)["input_ids"]) == text


def test_encode_frames_documents_and_refuses_long_ones() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    rows = encode(tokenizer, TEXTS, 64)
    assert all(row[0] == 0 and row[-1] == 1 and 0 not in row[1:] for row in rows)
    assert tokenizer.decode(rows[5][1:-1]) == TEXTS[5]
    with pytest.raises(VersatuneError, match=r"max_length = 16: raise it"):
        encode(tokenizer, TEXTS, 16)


def test_padding_changes_no_loss() -> None:
    """A batch's loss is that of its documents alone, weighted by their predicted tokens."""
    tokenizer = train_tokenizer(TEXTS, 300)
    model = new_model(PARAMS, tokenizer)
    rows = sorted(encode(tokenizer, TEXTS, 64), key=len)
    picked = [rows[0], rows[-1]]
    assert len(picked[0]) < len(picked[1])
    alone = [
        model(input_ids=torch.tensor([r]), labels=torch.tensor([r])).loss.item() for r in picked
    ]
    weights = [len(r) - 1 for r in picked]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    together = module._step(module._State(model, optimizer, 7.0), picked, 0.0)
    assert together == pytest.approx(np.average(alone, weights=weights), rel=1e-5)


def test_bfloat16_passes_keep_float32_weights(corpus: Path, tmp_path: Path) -> None:
    """Learns as float32 does, to bfloat16's digits, and by another way."""
    found = {}
    for bf16 in (False, True):
        ref = made(tmp_path / str(bf16), PretrainParams(**TINY, bf16=bf16), corpus)
        found[bf16] = ref.metadata["final_loss"]
        weights = load_file(ref.path / "model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert found[True] == pytest.approx(found[False], rel=0.02)
    assert found[True] != found[False]


def test_a_token_weighs_the_same_in_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches move the weights as far as one batch of all their documents."""
    monkeypatch.setattr(module, "MAX_GRAD_NORM", float("inf"))
    tokenizer = train_tokenizer(TEXTS, 300)
    rows = sorted(encode(tokenizer, TEXTS, 64), key=len)

    def moved(batch: list[list[int]]) -> torch.Tensor:
        model = new_model(PARAMS, tokenizer)
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        optimizer = torch.optim.SGD(model.parameters())
        module._step(module._State(model, optimizer, 50.0), batch, 1.0)
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before

    short, long = rows[:4], rows[-4:]
    apart = moved(short) + moved(long)
    assert apart.abs().max() > 1e-3
    assert torch.allclose(apart, moved(short + long), atol=1e-6)


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_takes_every_row_once(rows: int, batch_size: int, seed: int, epoch: int) -> None:
    plan = plan_epoch(rows, batch_size, seed, epoch)
    assert sorted(i for batch in plan for i in batch) == list(range(rows))
    assert len(plan) == -(-rows // batch_size)
    assert all(1 <= len(batch) <= batch_size for batch in plan)
    assert plan == plan_epoch(rows, batch_size, seed, epoch)


def test_epochs_differ() -> None:
    assert plan_epoch(3200, 40, 0, 0) != plan_epoch(3200, 40, 0, 1)


def test_learning_rate_by_hand() -> None:
    # 10 steps, 2 of warm-up: thirds of the peak, then half a cosine over 8 steps.
    rates = [learning_rate(step, 10, 3.0, 0.2) for step in range(11)]
    assert rates[:3] == pytest.approx([1.0, 2.0, 3.0])
    assert rates[6] == pytest.approx(1.5)
    assert rates[10] == pytest.approx(0.0)
    assert learning_rate(0, 1, 2.0, 0.0) == 2.0


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("")
    with pytest.raises(VersatuneError, match="holds no documents"):
        made(tmp_path / "base", PARAMS, tmp_path / "corpus.jsonl")


def test_documents_end_at_line_feeds_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["one\u2028two\x85three\x0cfour\x1cfive", "six\u2029seven"]
    path = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    path.write_bytes("".join(lines).encode())
    seen: list[list[str]] = []

    def stops(texts: list[str], *_: object) -> None:
        seen.append(texts)
        raise KeyboardInterrupt

    monkeypatch.setattr("versatune.demo.pretrain.train_tokenizer", stops)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "model", PARAMS, path)
    assert seen == [texts]
