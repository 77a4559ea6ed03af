"""Models, templates and data sets that try to run code or to leave their folder."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from tests.faults.conftest import DATA
from tests.faults.forks import kedro_run
from tests.faults.test_damage import Hostile
from versatune.data.config import DomainConfig
from versatune.data.sources import locate
from versatune.errors import VersatuneError
from versatune.evaluation.config import HarnessParams
from versatune.modeling.checkpoints import CheckpointRef

Copy = Callable[[Path], Path]


def pickled(model: Path, mark: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(mark)))


def with_code(model: Path, mark: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")


def with_template(template: str) -> Callable[[Path, Path], None]:
    def change(model: Path, mark: Path) -> None:
        text = template.replace("MARK", str(mark)) + "{{ messages }}"
        (model / "chat_template.jinja").write_text(text)

    return change


@pytest.mark.slow
def test_a_run_refuses_what_could_run_code(
    copy: Copy, tmp_path: Path, tiny_checkpoint: CheckpointRef
) -> None:
    project = copy(tmp_path / "project")
    for number, (change, reason) in enumerate(
        (
            (pickled, "pickles, which can run code"),
            (with_code, "its own code"),
            (with_template("{{ cycler.__init__.__globals__.os.mknod('MARK') }}"), "unsafe"),
            (with_template("{% for i in range(10 ** 12) %}x{% endfor %}"), "Range too big"),
        )
    ):
        model, mark = tmp_path / f"model-{number}", tmp_path / f"ran-{number}"
        shutil.copytree(tiny_checkpoint.path, model)
        change(model, mark)
        chosen = f"base_model.kind=pretrained,base_model.name_or_path={model}"
        done = kedro_run(project, "--env", "test", "--pipeline", "ingest", "--params", chosen)
        assert not mark.exists()
        assert done.code == 1 and "Traceback" not in done.output, done.output[-3000:]
        assert reason in done.error, done.error
        assert (
            not (project / DATA / "05_model_input/tokenized/manifest.json").exists() or number < 2
        )


def test_a_saved_data_set_cannot_have_other_files_read(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"prompt": ["private"]}).save_to_disk(str(tmp_path / "private"))
    datasets.Dataset.from_dict({"prompt": ["p"]}).save_to_disk(str(tmp_path / "saved"))
    state = tmp_path / "saved" / "state.json"
    content = json.loads(state.read_text())
    content["_data_files"] = [{"filename": "../private/data-00000-of-00001.arrow"}]
    state.write_text(json.dumps(content))
    domain = DomainConfig.model_validate(
        {"description": "d", "sources": [{"path": str(tmp_path / "saved")}]}
    )
    with pytest.raises(VersatuneError, match=r"domains\.law.*outside its folder"):
        locate({"law": domain})


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", " "])
def test_names_that_files_are_named_after_stay_in_the_folder(name: str) -> None:
    evaluation = {"path": "x.jsonl", "task": name}
    with pytest.raises(ValueError, match="part of a file's name"):
        DomainConfig.model_validate(
            {"description": "d", "sources": [{"path": "x"}], "evaluation": [evaluation]}
        )
    with pytest.raises(ValueError, match="part of a file's name"):
        HarnessParams.model_validate({"tasks": {"law": [name]}})


def test_servers_are_started_on_loopback(project_root: Path) -> None:
    starts = ("viz run", "mlflow ui", "dagster dev", "dagster-webserver", "airflow standalone")
    files = [project_root / "Makefile", *(project_root / "deploy").rglob("*.sh")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    commands = [line for line in lines if any(s in line for s in starts) and line[0] not in "#"]
    assert len(commands) >= 3
    assert all("127.0.0.1" in line for line in commands)
