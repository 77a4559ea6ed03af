"""Checkpoint references: safe to load, with what the product needs of a tokenizer."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import (
    PLAIN_CHAT_TEMPLATE,
    CheckpointRef,
    load_model,
    load_tokenizer,
    saved_dtype,
)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


@pytest.fixture
def folder(tiny_checkpoint: CheckpointRef, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint.path, tmp_path / "model"))


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("said", [True, False], ids=["in config.json", "by the weights alone"])
def test_the_saved_type_is_the_one_that_loading_finds(folder: Path, dtype: str, said: bool) -> None:
    load_model(folder, dtype=dtype).save_pretrained(folder)
    if not said:
        edit(folder / "config.json", dtype=None)
    assert saved_dtype(folder) == dtype
    assert str(load_model(folder).dtype) == f"torch.{dtype}"


def test_a_reference_stands_for_the_content(folder: Path) -> None:
    ref = CheckpointRef.of_folder(folder)
    assert ref.name == "model"
    assert CheckpointRef.of_folder(str(folder), name="mine").name == "mine"
    assert CheckpointRef.model_validate(ref.model_dump(mode="json")) == ref
    edit(folder / "config.json", comment="x")
    assert CheckpointRef.of_folder(folder).fingerprint != ref.fingerprint


def test_the_folder_one_stands_in_has_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert CheckpointRef.of_folder(".").name == "model"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "x.ckpt"])
def test_a_pickle_alone_is_refused_unopened(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    with pytest.raises(VersatuneError, match=rf"{name} is a pickle, which can run code"):
        CheckpointRef.of_folder(folder)
    with pytest.raises(VersatuneError, match="can't be loaded"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_safetensors_is_never_read(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    load_model(CheckpointRef.of_folder(folder))
    assert not (tmp_path / "ran").exists()


def test_code_in_the_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (folder / "modeling.py").write_text(f"open({str(marker)!r}, 'w')")
    edit(
        folder / "config.json",
        model_type="homemade",
        auto_map={"AutoConfig": "modeling.A", "AutoModelForCausalLM": "modeling.B"},
    )
    with pytest.raises(VersatuneError, match="can't be loaded"):
        load_model(folder)
    assert not marker.exists()


def test_damaged_weights_are_told(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(VersatuneError, match="can't be loaded"):
        load_model(folder)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    for load in (load_model, load_tokenizer):
        with pytest.raises(VersatuneError, match="can't be loaded"):
            load(tmp_path / "nowhere")
    with pytest.raises(VersatuneError, match=r"has no config\.json"):
        CheckpointRef.of_folder(tmp_path / "nowhere")


def test_a_model_is_loaded_for_evaluation_in_the_type_asked_for(folder: Path) -> None:
    model = load_model(folder, dtype="bfloat16")
    assert not model.training
    assert model.dtype == torch.bfloat16
    assert load_model(CheckpointRef.of_folder(folder)).dtype == torch.float32


def test_a_missing_pad_token_is_the_end_token(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", pad_token=None)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None


def test_a_missing_end_token_is_told(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", eos_token=None, pad_token=None)
    with pytest.raises(VersatuneError, match="has no eos_token; set one"):
        load_tokenizer(folder)


def test_a_missing_chat_template_is_the_plain_one(folder: Path) -> None:
    for template in folder.glob("chat_template*"):
        template.unlink()
    edit(folder / "tokenizer_config.json", chat_template=None)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.chat_template == PLAIN_CHAT_TEMPLATE


def test_a_chat_template_of_its_own_is_kept(folder: Path) -> None:
    for template in folder.glob("chat_template*"):
        template.write_text("{{ 'own' }}")
    assert load_tokenizer(folder).chat_template == "{{ 'own' }}"


def test_the_plain_template_marks_answers_and_their_end(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    messages = [
        {"role": "system", "content": "be the judge"},
        {"role": "user", "content": "what is a court"},
        {"role": "assistant", "content": "the court"},
        {"role": "user", "content": "and a loan"},
        {"role": "assistant", "content": "the bank"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<s>be the judge\nwhat is a court\nthe court</s>and a loan\nthe bank</s>"
    encoded = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    answers = [
        i for i, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m
    ]
    assert tokenizer.decode(answers) == "the court</s>the bank</s>"
