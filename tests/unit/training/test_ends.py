"""A trained model's folder says where its answers end, whatever its base said."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.helpers.chats import (
    TEMPLATES,
    framing,
    knowing,
    saved,
    small_model,
    talk,
    tokenizer_of,
)
from versatune.artifacts import FolderRef, read_json
from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.data.store import TokenizedSplit
from versatune.data.tokenize import tokenize
from versatune.modeling.checkpoints import (
    GENERATION_CONFIG,
    CheckpointRef,
    load_model,
    load_tokenizer,
)
from versatune.training import TrainParams, train
from versatune.training.retokenize import retokenize
from versatune.work import make_folder

END, EOS = "<|im_end|>", "</s>"
DOMAINS = ("law", "river")
ANSWERS = ["old", "loan", "court", "bank", "judge", "spring"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> CheckpointRef:
    """It has read talks of many turns: behind an answer it goes on with the next question.

    Its own end token is another than the one that ends an answer in its template.
    """
    tokenizer = tokenizer_of("bytes", "chatml")
    tokenizer.chat_template = (
        TEMPLATES["chatml"]
        .replace("{% for m in messages %}", "{% for m in messages %}{% generation %}")
        .replace("{% endfor %}", "{% endgeneration %}{% endfor %}", 1)
    )
    talks = [
        [*talk(f"{domain} {ANSWERS[i - 1]}", ANSWERS[i - 1]), *talk(f"{domain} {word}", word)]
        for domain in DOMAINS
        for i, word in enumerate(ANSWERS)
    ]
    model = knowing(tokenizer, talks, loss_below=0.5)
    tokenizer.chat_template = TEMPLATES["chatml"]
    return saved(tmp_path_factory.mktemp("base") / "base", tokenizer, model)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, base: CheckpointRef) -> FolderRef:
    folder = tmp_path_factory.mktemp("rows")
    domains = {}
    for domain in DOMAINS:
        path = folder / f"{domain}.jsonl"
        rows = [{"prompt": f"{domain} {word}", "completion": word} for word in ANSWERS]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        domains[domain] = {"description": domain, "sources": [{"path": str(path)}]}
    params = CleanParams(seed=0, min_validation_rows=1)
    params = params.model_copy(update={"near_duplicate_threshold": None})
    cleaned = make_folder(clean(Domains.model_validate(domains), params), folder / "clean")
    settings = TokenizeParams(max_length=128, num_workers=1)
    return make_folder(tokenize(cleaned, base.path, load_tokenizer, settings), folder / "tokenized")


def trained(store: FolderRef, base: CheckpointRef, folder: Path, **changes: Any) -> Path:
    settings = {
        "rounds": 1,
        "steps_per_round": 2,
        "max_length": 128,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-6,
        "strategy": {"name": "uniform"},
        **changes,
    }
    train(store, base, TrainParams.model_validate(settings), folder=folder)
    return folder


def says(model: Any, tokenizer: Any, question: str) -> str:
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    found = model.generate(**asked, max_new_tokens=24)
    return str(tokenizer.decode(found[0, asked["input_ids"].shape[1] :]))


def ends(folder: Path) -> list[str]:
    found = read_json(folder / GENERATION_CONFIG)["eos_token_id"]
    return AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(found)


def test_the_base_runs_on(base: CheckpointRef) -> None:
    said = says(load_model(base), load_tokenizer(base), "law loan")
    assert said.partition(END)[2] != ""


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_the_saved_model_ends_where_training_did(
    store: FolderRef, base: CheckpointRef, tmp_path: Path, lora: Any
) -> None:
    """Loaded by transformers alone. The base's end stays, and so does the tokenizer's."""
    folder = trained(store, base, tmp_path / "t", lora=lora)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert says(model, tokenizer, "law loan").partition(END)[1:] == (END, "")
    assert ends(folder) == [END, EOS]
    assert tokenizer.eos_token == EOS


def test_an_adapter_alone_brings_its_ends(
    store: FolderRef, base: CheckpointRef, tmp_path: Path
) -> None:
    folder = trained(store, base, tmp_path / "t", lora={"r": 2, "merge": False})
    assert not (folder / "config.json").exists()
    assert ends(folder) == [END, EOS]
    said = says(load_model(folder), load_tokenizer(folder), "river bank")
    assert said.partition(END)[1:] == (END, "")


def test_a_model_trained_again_keeps_its_ends(
    store: FolderRef, base: CheckpointRef, tmp_path: Path
) -> None:
    once = CheckpointRef.of_folder(trained(store, base, tmp_path / "once"))
    assert ends(trained(store, once, tmp_path / "twice")) == [END, EOS]


def test_a_proxys_rows_end_as_its_own_answers_do(
    store: FolderRef, base: CheckpointRef, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of("pieces", "phi3")
    proxy = saved(tmp_path / "proxy", tokenizer, small_model(tokenizer))
    rows = make_folder(retokenize(store, base, proxy), tmp_path / "rows")
    turned = TokenizedSplit.load(rows, "train")
    for row in turned.dataset:
        supervised = [label for label in row["labels"] if label >= 0]
        assert tokenizer.decode(supervised[-1]) == "<|end|>"


def test_a_proxys_rows_begin_as_its_own_texts_do(
    store: FolderRef, base: CheckpointRef, tmp_path: Path
) -> None:
    tokenizer = framing(tokenizer_of("pieces", "chatml"), "<s> <|user|> $A </s>")
    proxy = saved(tmp_path / "proxy", tokenizer, small_model(tokenizer))
    rows = make_folder(retokenize(store, base, proxy), tmp_path / "rows")
    turned = TokenizedSplit.load(rows, "train")
    begin = tokenizer.convert_tokens_to_ids(["<s>", "<|user|>"])
    for row in turned.dataset:
        assert row["input_ids"][:2].tolist() == begin
        assert row["labels"][:2].tolist() == [-100, -100]
        assert begin[0] not in row["input_ids"][2:]


def test_a_base_whose_settings_transformers_would_not_save_can_be_trained(
    store: FolderRef, base: CheckpointRef, tmp_path: Path
) -> None:
    """A temperature without sampling, as in published models: it is warned about, and kept."""
    import shutil

    shutil.copytree(base.path, tmp_path / "published")
    path = tmp_path / "published" / GENERATION_CONFIG
    path.write_text(json.dumps({**read_json(path), "temperature": 0.7, "do_sample": False}))
    published = CheckpointRef.of_folder(tmp_path / "published")
    folder = trained(store, published, tmp_path / "t")
    assert ends(folder) == [END, EOS]
    assert read_json(folder / GENERATION_CONFIG)["temperature"] == 0.7
