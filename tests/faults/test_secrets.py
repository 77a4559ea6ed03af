"""Keys, tokens and passwords go to the server they are for, and show nowhere else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forks import kedro_run
from tests.helpers.hostile_server import Handler, chat, serving

pytestmark = pytest.mark.slow

CANARY = "canary-4f1c9a7e"
GIVEN = "hf_canary0b7d21"
"""Looks like a key, and is given by ``--params`` or in the environment."""
GOOD = chat(
    '{"law": 0.4, "medicine": 0.2, "finance": 0.1, "science": 0.1, "code": 0.1, "other": 0.1}'
)


def echo(handler: Handler, _: dict[str, Any]) -> None:
    """An error that repeats the key, as careless servers do."""
    said = handler.headers["Authorization"]
    handler.send(401, f'{{"error": {{"message": "wrong key: {said}"}}}}'.encode())


def use_key(project: Path, url: str) -> None:
    """The test settings as conf/local, with an endpoint as judge and its key."""
    local = project / "conf" / "local"
    shutil.copytree(project / "conf" / "test", local, dirs_exist_ok=True)
    (local / "credentials.yml").write_text(f"probe_judge: {{api_key: {CANARY}}}\n")
    (local / "parameters_judge.yml").write_text(
        "probe:\n  judge:\n    kind: endpoint\n    endpoint:\n      labelled_per_domain: 10\n"
        f"      server: {{url: '{url}', model: m}}\n"
    )


def places(project: Path, secret: str) -> list[str]:
    """Every file of the project that holds a secret."""
    return [
        str(file.relative_to(project))
        for file in project.rglob("*")
        if file.is_file() and secret.encode() in file.read_bytes()
    ]


@pytest.mark.parametrize("reply", [GOOD, echo], ids=["taken", "refused"])
def test_the_key_shows_nowhere(copy: Callable[[Path], Path], tmp_path: Path, reply: Any) -> None:
    project = copy(tmp_path / "project")
    with serving(lambda _: reply) as server:
        use_key(project, server.url)
        given = ("--params", f"retrain.model_name={GIVEN}")
        done = kedro_run(project, "--pipelines", "probe,report", *given)
        assert server.authorisations == {f"Bearer {CANARY}"}
    assert (done.code == 0) == (reply is GOOD), done.output[-3000:]
    assert CANARY not in done.output and GIVEN not in done.output
    assert places(project, CANARY) == ["conf/local/credentials.yml"]
    assert places(project, GIVEN) == []


def test_a_token_and_the_trackers_password_show_nowhere(
    copy: Callable[[Path], Path], tmp_path: Path
) -> None:
    """The tracking server is away, so its address is spoken of; the token is the hub's."""
    project = copy(tmp_path / "project")
    uri = f"http://me:{CANARY}@127.0.0.1:9"
    (project / "conf/test/mlflow.yml").write_text(f"server: {{mlflow_tracking_uri: '{uri}'}}\n")
    environment = {"HF_TOKEN": GIVEN}
    done = kedro_run(project, "--env", "test", "--pipeline", "report", environment=environment)
    assert done.code == 0, done.output[-3000:]
    assert "MLflow does not answer" in done.output
    assert CANARY not in done.output and GIVEN not in done.output
    assert places(project, CANARY) == ["conf/test/mlflow.yml"]
    assert places(project, GIVEN) == []
