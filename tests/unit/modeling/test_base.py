"""Finding the base model: what is taken, what is refused, and that it costs nothing twice."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from versatune.artifacts import exclusive
from versatune.demo.base_model import BaseModelParams, make_base
from versatune.demo.pretrain_config import PretrainParams
from versatune.errors import VersatuneError
from versatune.io import CheckpointDataset
from versatune.modeling.checkpoints import CheckpointRef
from versatune.modeling.locate import check_loadable, find_checkpoint
from versatune.work import WorkFolder

TINY = PretrainParams(
    vocab_size=300,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_length=64,
    per_device_train_batch_size=4,
    num_train_epochs=1,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = [{"domain": "d", "text": f"The number {n} is followed by {n + 1}."} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def model(tiny_checkpoint: CheckpointRef, tmp_path: Path) -> Path:
    """A copy of a real model folder, to be spoilt."""
    return Path(shutil.copytree(tiny_checkpoint.path, tmp_path / "model"))


def made(params: BaseModelParams, corpus: Path) -> CheckpointRef:
    """The base model by the catalog's dataset, as a run finds or makes it."""
    entry = CheckpointDataset(
        filepath=str(corpus.with_name("base.json")), path=str(corpus.with_name("base"))
    )
    entry.save(make_base(params, corpus))
    return CheckpointRef.from_entry(entry.load())


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_pretraining_is_done_once(corpus: Path) -> None:
    params = BaseModelParams(pretrain=TINY)
    first = made(params, corpus)
    assert first.name == "pretrained on the sample"
    written = (first.path / "model.safetensors").stat().st_mtime_ns
    assert made(params, corpus) == first
    assert (first.path / "model.safetensors").stat().st_mtime_ns == written
    often = params.model_copy(update={"pretrain": TINY.model_copy(update={"save_steps": 1})})
    assert made(often, corpus) == first  # how often it saves changes no result


def test_other_parameters_or_another_corpus_pretrain_anew(corpus: Path) -> None:
    params = BaseModelParams(pretrain=TINY)
    first = made(params, corpus)
    seeded = params.model_copy(update={"pretrain": TINY.model_copy(update={"seed": 1})})
    second = made(seeded, corpus)
    with corpus.open("a") as handle:
        handle.write('{"domain": "d", "text": "One more."}\n')
    third = made(seeded, corpus)
    assert len({ref.fingerprint for ref in (first, second, third)}) == 3


def test_a_base_is_known_by_its_weights_and_not_by_its_inputs(corpus: Path) -> None:
    params = BaseModelParams(pretrain=TINY)
    first = made(params, corpus)
    assert CheckpointRef.from_entry(first.model_dump(mode="json")) == first
    weights = first.path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    (first.path / "manifest.json").unlink()
    work = WorkFolder.open(first.path, json.loads((first.path / "inputs.json").read_text()))
    weights.write_bytes(content)  # what another version of the trainer made
    work.seal()
    second = made(params, corpus)
    assert second.path == first.path and second.fingerprint != first.fingerprint
    assert CheckpointRef.from_entry(second.model_dump(mode="json")) == second
    with pytest.raises(VersatuneError, match="is not the one `ingest` found there"):
        CheckpointRef.from_entry(first.model_dump(mode="json"))


def test_finding_what_is_done_imports_no_torch(corpus: Path) -> None:
    params = BaseModelParams(pretrain=TINY)
    ref = made(params, corpus)
    script = (
        "import sys; from pathlib import Path\n"
        "from versatune.io import CheckpointDataset\n"
        "from versatune.pipelines.ingest.nodes import make_base_model\n"
        "from versatune.demo.base_model import BaseModelParams\n"
        "params = BaseModelParams.model_validate_json(sys.argv[1])\n"
        "folder = Path(sys.argv[2]).with_name('base')\n"
        "entry = CheckpointDataset(filepath=f'{folder}.json', path=str(folder))\n"
        "entry.save(make_base_model(params, {'corpus': sys.argv[2]}))\n"
        "print(entry.load()['fingerprint'])\n"
        "assert not {'torch', 'transformers', 'datasets'} & sys.modules.keys()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, params.model_dump_json(), str(corpus)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ref.fingerprint


def test_two_runs_at_once_are_refused(corpus: Path, tmp_path: Path) -> None:
    params = BaseModelParams(pretrain=TINY)
    with (
        exclusive(tmp_path / ".base.lock", "the base model"),
        pytest.raises(VersatuneError, match=r"another run is working on .*base"),
    ):
        made(params, corpus)


def test_a_folder_of_the_user(model: Path, corpus: Path) -> None:
    params = BaseModelParams(kind="pretrained", name_or_path=str(model))
    ref = made(params, corpus)
    assert ref == CheckpointRef.of_folder(model)
    assert CheckpointRef.model_validate(ref.model_dump(mode="json")) == ref
    edit_config(model, comment="changed")
    assert made(params, corpus).fingerprint != ref.fingerprint


def test_pickled_weights_are_refused(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(VersatuneError, match=r"no \*\.safetensors weights.*run code"):
        find_checkpoint(str(model))


def test_code_of_its_own_is_refused(model: Path) -> None:
    edit_config(
        model, model_type="homemade", auto_map={"AutoModelForCausalLM": "modeling.HomeMade"}
    )
    (model / "modeling.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(VersatuneError, match=r"needs its own code.*'homemade'"):
        find_checkpoint(str(model))


def test_auto_map_beside_a_class_of_transformers_is_fine(model: Path) -> None:
    edit_config(model, auto_map={"AutoModelForCausalLM": "modeling.Llama"})
    assert find_checkpoint(str(model)).path == model


def test_an_encoder_decoder_is_refused(model: Path) -> None:
    edit_config(model, is_encoder_decoder=True)
    with pytest.raises(VersatuneError, match="encoder-decoder"):
        find_checkpoint(str(model))


def test_an_adapter_is_refused(model: Path) -> None:
    (model / "config.json").rename(model / "adapter_config.json")
    with pytest.raises(VersatuneError, match="is an adapter, not a model: merge it"):
        find_checkpoint(str(model))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VersatuneError, match=r"not a model folder: it has no config\.json"):
        find_checkpoint(str(tmp_path))


def test_a_missing_shard_is_named(model: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(VersatuneError, match=r"incomplete: .*model-00002-of-00002\.safetensors"):
        check_loadable(model, "model")


@pytest.mark.parametrize(
    "shard", ["../other/model.safetensors", "/etc/passwd", "sub/model.safetensors"]
)
def test_an_index_that_leaves_the_folder_is_refused(model: Path, shard: str) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(VersatuneError, match="outside its folder"):
        check_loadable(model, "model")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_config_is_named(model: Path, text: str) -> None:
    (model / "config.json").write_text(text)
    with pytest.raises(VersatuneError, match=r"config\.json"):
        find_checkpoint(str(model))


def test_a_revision_is_for_the_hub(model: Path) -> None:
    with pytest.raises(VersatuneError, match=r"revision 'main' is for hub models"):
        find_checkpoint(str(model), "main")


@pytest.mark.parametrize("name", ["./no/such/folder", "/nowhere/at/all", "a/b/c", "../up", "a b"])
def test_what_is_neither_folder_nor_id_is_refused(name: str) -> None:
    with pytest.raises(VersatuneError, match=r"there is no folder .* hub model"):
        find_checkpoint(name)


def test_an_unreachable_hub_is_one_clear_sentence() -> None:
    """The tests run with HF_HUB_OFFLINE=1, so this asks nobody."""
    with pytest.raises(VersatuneError) as caught:
        find_checkpoint("nobody-at-all/none-such-model", "v9")
    message = str(caught.value)
    assert "nobody-at-all/none-such-model at revision 'v9'" in message
    assert "can't be reached" in message
    assert "\n" not in message and "http" not in message


def hub_cache(root: Path, source: Path, name: str, commit: str) -> None:
    """Lay a model folder into a hub cache as a download of its main branch would."""
    repository = root / f"models--{name.replace('/', '--')}"
    shutil.copytree(source, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def test_a_downloaded_model_is_found_offline_by_its_commit(
    tiny_checkpoint: CheckpointRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    hub_cache(tmp_path, tiny_checkpoint.path, "somebody/tiny", commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    ref = find_checkpoint("somebody/tiny")
    assert (ref.name, ref.fingerprint) == ("somebody/tiny", commit)
    assert (ref.path / "model.safetensors").is_file()
    assert find_checkpoint("somebody/tiny", commit) == ref


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("RepositoryNotFoundError", "there is no such model"),
        ("GatedRepoError", "grants access on request"),
        ("RevisionNotFoundError", "no such revision"),
    ],
)
def test_answers_of_the_hub_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, error: str, message: str
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    kind = getattr(errors, error)

    def refuse(*_: Any, **__: Any) -> str:
        raise kind.__new__(kind)  # without the answer it was made from

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(VersatuneError, match=message):
        find_checkpoint("somebody/model")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "pretrained"}, "needs name_or_path"),
        ({"name_or_path": "a/b"}, "kind is 'pretrain'"),
        ({"revision": "main"}, "kind is 'pretrain'"),
        ({"kind": "download"}, "kind"),
        ({"pretrain": {"hidden_size": 30, "num_attention_heads": 4}}, "even multiple"),
        ({"pretrain": {"learning_rate": -1}}, "learning_rate"),
        ({"pretrain": {"hiden_size": 30}}, "hiden_size"),
    ],
)
def test_bad_parameters_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BaseModelParams.model_validate(values)
