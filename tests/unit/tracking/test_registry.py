"""The registry on a real sqlite store: aliases move last, and nothing that serves is deleted."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import CUSTOMER_UNAUTHORIZED, TEMPORARILY_UNAVAILABLE

from tests.helpers.tracked import tracked
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.tracking import registry
from versatune.tracking.spool import Spool, means_offline

NAME = "nightly"


@pytest.fixture
def checkpoint(tiny_checkpoint: CheckpointRef, tmp_path: Path) -> Callable[[int], CheckpointRef]:
    """A checkpoint of its own for every number."""

    def make(number: int) -> CheckpointRef:
        from safetensors.torch import load_file, save_file

        path = tmp_path / f"checkpoint-{number}"
        shutil.copytree(tiny_checkpoint.path, path)
        weights = load_file(path / "model.safetensors")
        weights["model.norm.weight"] += number
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
        return CheckpointRef.of_folder(path)

    return make


Make = Callable[[int], CheckpointRef]


def enter(ref: CheckpointRef, key: str, over: str | None) -> registry.Version:
    version = registry.register(NAME, key, ref, {"reason": f"because of {key}"}, "a")
    assert registry.promote(version, over)
    return version


def aliases() -> dict[str, int]:
    found = mlflow.MlflowClient().get_registered_model(NAME).aliases
    return {alias: int(number) for alias, number in found.items()}


@pytest.mark.usefixtures("store")
def test_from_challenger_to_champion_loadable_by_alias_and_back(
    checkpoint: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    assert registry.champion(NAME) is None
    one, two = checkpoint(1), checkpoint(2)
    version = registry.register(NAME, "night 1", one, {"reason": "r"}, "a")
    printed = "".join(capsys.readouterr())
    assert "registered model" not in printed and "Created version" not in printed
    assert aliases() == {"challenger": 1}
    assert registry.promote(version, over=None)
    assert aliases() == {"champion": 1}
    enter(two, "night 2", one.fingerprint)
    assert aliases() == {"champion": 2, "previous_champion": 1}

    parts = mlflow.transformers.load_model(f"models:/{NAME}@champion", return_type="components")
    wanted = AutoModelForCausalLM.from_pretrained(two.path).state_dict()
    for name, tensor in parts["model"].state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    served = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    assert served.metadata.signature is not None
    assert list(served.input_example) == ["a"]
    assert isinstance(served.predict(served.input_example)[0], str)
    assert registry.champion(NAME).tags["reason"] == "because of night 2"

    old, new = registry.rollback(NAME)
    assert (old.number, new.number) == (2, 1)
    assert aliases() == {"champion": 1}
    with pytest.raises(VersatuneError, match="no previous champion"):
        registry.rollback(NAME)


@pytest.mark.usefixtures("store")
def test_doing_it_again_after_an_interruption_changes_nothing(checkpoint: Make) -> None:
    one, two = checkpoint(1), checkpoint(2)
    enter(one, "night 1", None)
    for _ in range(2):
        assert enter(two, "night 2", one.fingerprint).number == 2
        assert aliases() == {"champion": 2, "previous_champion": 1}


@pytest.mark.usefixtures("store")
def test_a_champion_changed_meanwhile_is_not_pushed_aside(checkpoint: Make) -> None:
    one, two = checkpoint(1), checkpoint(2)
    enter(one, "night 1", None)
    enter(two, "night 2", one.fingerprint)
    late = registry.register(NAME, "night 3", checkpoint(3), {}, "a")
    assert not registry.promote(late, over=one.fingerprint)
    assert not registry.promote(late, over=None)
    assert aliases() == {"champion": 2, "previous_champion": 1, "challenger": 3}


@pytest.mark.usefixtures("store")
def test_rollback_twice_follows_the_line_of_champions(checkpoint: Make) -> None:
    refs = [checkpoint(n) for n in range(3)]
    enter(refs[0], "0", None)
    enter(refs[1], "1", refs[0].fingerprint)
    enter(refs[2], "2", refs[1].fingerprint)
    assert registry.rollback(NAME)[1].number == 2
    assert registry.rollback(NAME)[1].number == 1


@pytest.mark.usefixtures("store")
def test_prune_keeps_what_serves_and_the_newest_and_every_reason(
    checkpoint: Make, tmp_path: Path
) -> None:
    one = checkpoint(1)
    enter(one, "night 1", None)
    enter(checkpoint(2), "night 2", one.fingerprint)
    for number in (3, 4, 5):
        registry.register(NAME, f"night {number}", checkpoint(number), {"reason": "worse"}, "a")
    gone = registry.prune(NAME, keep_last=1)
    assert sorted(v.number for v in gone) == [3, 4]
    assert all(v.tags["reason"] == "worse" for v in gone)
    assert len(list((tmp_path / "artifacts").rglob("model.safetensors"))) == 3
    assert [v.number for v in registry.prune(NAME, keep_last=1)] == [v.number for v in gone]
    mlflow.transformers.load_model(f"models:/{NAME}@champion", return_type="components")
    mlflow.transformers.load_model(f"models:/{NAME}@challenger", return_type="components")
    again = registry.register(NAME, "night 6", checkpoint(3 + 10), {}, "a")
    assert again.number == 6


@pytest.mark.usefixtures("store")
def test_a_model_whose_files_were_deleted_can_be_registered_anew(checkpoint: Make) -> None:
    one, two = checkpoint(1), checkpoint(2)
    enter(one, "night 1", None)
    registry.register(NAME, "night 2", two, {}, "a")
    registry.prune(NAME, keep_last=0)
    registry.promote(registry.register(NAME, "night 3", two, {}, "a"), one.fingerprint)
    mlflow.transformers.load_model(f"models:/{NAME}@champion", return_type="components")


@pytest.mark.usefixtures("store")
def test_a_champion_whose_folder_is_gone_comes_from_mlflow(
    checkpoint: Make, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    one = checkpoint(1)
    version = enter(one, "night 1", None)
    assert registry.checkpoint_of(version, tmp_path / "elsewhere").path == one.path
    kept = load_file(one.path / "model.safetensors")
    shutil.rmtree(one.path)
    found = registry.checkpoint_of(version, tmp_path / "elsewhere")
    assert found.path == tmp_path / "elsewhere" / "version-1"
    again = load_file(found.path / "model.safetensors")
    assert all((again[name] == kept[name]).all() for name in again)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


@pytest.mark.usefixtures("store")
def test_a_flipped_bit_in_the_champions_folder_or_its_copy_is_mended_from_mlflow(
    checkpoint: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = checkpoint(1)
    version = enter(one, "night 1", None)
    weights = (one.path / "model.safetensors").read_bytes()
    flip_a_bit(one.path / "model.safetensors")
    copy = registry.checkpoint_of(version, tmp_path / "champions")
    assert "was changed since it was registered" in caplog.text
    assert (copy.path / "model.safetensors").read_bytes() == weights
    flip_a_bit(copy.path / "model.safetensors")
    assert registry.checkpoint_of(version, tmp_path / "champions") == copy
    assert "was changed or damaged" in caplog.text
    assert (copy.path / "model.safetensors").read_bytes() == weights


@pytest.mark.usefixtures("store")
def test_a_champion_whose_files_are_gone_everywhere_is_not_waited_for(
    checkpoint: Make, tmp_path: Path
) -> None:
    one = checkpoint(1)
    version = enter(one, "night 1", None)
    shutil.rmtree(one.path)
    shutil.rmtree(tmp_path / "artifacts")
    with pytest.raises(VersatuneError, match="Waiting does not help") as refused:
        registry.checkpoint_of(version, tmp_path / "champions")
    assert not isinstance(refused.value, registry.RegistryOfflineError)


@pytest.mark.usefixtures("store")
def test_a_store_that_is_away_is_said_and_nothing_moves(
    tiny_checkpoint: CheckpointRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    with pytest.raises(registry.RegistryOfflineError, match="does not answer"):
        registry.champion(NAME)
    with pytest.raises(registry.RegistryOfflineError):
        registry.register(NAME, "k", tiny_checkpoint, {}, "a")


def answer(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} Client Error", response=response)


AWAY = [
    MlflowException("API request to http://127.0.0.1:9 failed with exception refused"),
    MlflowException("(sqlite3.OperationalError) database is locked", TEMPORARILY_UNAVAILABLE),
    RestException({"error_code": "INTERNAL_ERROR", "message": "a fault of the server"}),
    RestException({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow down"}),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    TimeoutError("timed out"),
    requests.ConnectionError("refused"),
    answer(503),
]
REFUSED = [
    RestException({"error_code": "PERMISSION_DENIED", "message": "not yours"}),
    RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}),
    MlflowException("who are you", CUSTOMER_UNAUTHORIZED),
    MlflowException("(sqlite3.OperationalError) database or disk is full", TEMPORARILY_UNAVAILABLE),
    MlflowException("attempt to write a readonly database", TEMPORARILY_UNAVAILABLE),
    MlflowException("The following failures occurred: 404 Client Error: NOT FOUND for url"),
    OSError(errno.ENOSPC, "No space left on device"),
    PermissionError(errno.EACCES, "Permission denied"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    answer(403),
]


@pytest.mark.parametrize("error", AWAY, ids=str)
def test_what_may_pass_is_waited_for(error: Exception) -> None:
    assert means_offline(error)


@pytest.mark.parametrize("error", REFUSED, ids=str)
def test_what_stays_is_not(error: Exception) -> None:
    assert not means_offline(error)


def test_a_run_that_mlflow_refused_when_it_began_says_so(tmp_path: Path) -> None:
    error = RestException({"error_code": "PERMISSION_DENIED", "message": "not yours"})
    with (
        tracked("local-1", Spool(tmp_path / "spool"), error),
        pytest.raises(VersatuneError, match=r"not yours.*permissions") as refused,
    ):
        registry.champion(NAME)
    assert not isinstance(refused.value, registry.RegistryOfflineError)


@pytest.mark.usefixtures("store")
def test_a_run_that_began_without_mlflow_does_not_touch_the_registry(tmp_path: Path) -> None:
    with (
        tracked("local-1", Spool(tmp_path / "spool")),
        pytest.raises(registry.RegistryOfflineError, match="when this run began"),
    ):
        registry.champion(NAME)
