"""Parameters are shown, secrets are not."""

import shlex
import subprocess
from pathlib import Path

import pytest

from versatune.reporting import configuration
from versatune.tracking.secrets import MASK, masked


@pytest.mark.parametrize(
    "key", ["api_key", "apikey", "token", "hf_token", "password", "client_secret", "Authorization"]
)
def test_keys_that_name_a_credential_are_masked_at_any_level(key: str) -> None:
    assert masked({"probe": {key: "abc"}}) == {f"probe.{key}": MASK}
    assert masked({key: {"value": "abc"}}) == {f"{key}.value": MASK}
    assert masked({"probe": [{key: "abc"}]}) == {"probe": f"{key}: {MASK}"}


@pytest.mark.parametrize(
    "value",
    ["sk-abcdefghijklmnop", "hf_ABCDEFGHIJKLMNOP", "ghp_abcdefghijklmnop", "Bearer abcdefghijkl"],
)
def test_values_that_look_like_keys_are_masked_under_any_name(value: str) -> None:
    assert value not in masked({"note": f"use {value} here"})["note"]


def test_a_password_in_a_url_is_masked_and_the_rest_stays() -> None:
    shown = masked({"uri": "https://me:pw@host:5000/path"})
    assert shown["uri"] == f"https://{MASK}@host:5000/path"


def test_ordinary_parameters_stay() -> None:
    given = {"train": {"max_new_tokens": 64, "batch_tokens": 8, "seed": 3, "lora": None, "x": []}}
    assert masked(given) == {
        "train.max_new_tokens": "64",
        "train.batch_tokens": "8",
        "train.seed": "3",
        "train.lora": "",
        "train.x": "",
    }
    assert configuration.seeds(given) == {"train.seed": 3}


def test_versions_are_those_installed() -> None:
    import plotly

    found = configuration.environment()
    assert found["plotly"] == plotly.__version__
    assert "python" in found and "versatune" in found


def test_commit_is_told_with_a_mark_for_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    assert configuration.git_commit(tmp_path) is None
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "a")
    commit = configuration.git_commit(tmp_path)
    assert commit is not None and len(commit) == 40
    (tmp_path / "a").write_text("2")
    assert configuration.git_commit(tmp_path) == f"{commit}+changes"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a.rounds=3,probe.api_key=plain", "a.rounds=3,probe.api_key=••••••"),
        ("--params=token=plain", "--params=token=••••••"),
        ("--params=a=1,b.token=plain==,c=2", "--params=a=1,b.token=••••••,c=2"),
        ("password=plain and plain,c=x=y z", "password=••••••,c=x=y z"),
        ("x=http://me:plain@host/", "x=http://••••••@host/"),
    ],
)
def test_a_command_is_shown_without_credentials(
    monkeypatch: pytest.MonkeyPatch, given: str, shown: str
) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/kedro", "run", given])
    words = shlex.split(configuration.command())
    assert words == ["kedro", "run", shown]
