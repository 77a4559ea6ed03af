"""Where a key is written, and what stands where nobody reads it."""

from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader

from versatune.errors import VersatuneError
from versatune.project.hook import check
from versatune.project.places import Places
from versatune.settings import CONFIG_LOADER_ARGS

BASE = {
    "base/parameters_train.yml": "# how\ntrain:\n  rounds: 3\n  strategy:\n    name: foster\n",
    "base/globals.yml": "seed: 0\ndata: data\nreporting: r\n",
    "local/.gitkeep": "",
}


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "conf", BASE)
    return tmp_path / "conf"


def write(conf: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / name).write_text(text)


def loaded(conf: Path, **given: object) -> OmegaConfigLoader:
    return OmegaConfigLoader(str(conf), runtime_params=given, **CONFIG_LOADER_ARGS)


def refused(conf: Path, **given: object) -> str:
    loader = loaded(conf, **given)
    with pytest.raises(VersatuneError) as caught:
        check(loader, Places(loader))
    return str(caught.value)


def test_the_place_is_the_one_that_takes_precedence(conf: Path) -> None:
    write(conf, {"local/parameters.yml": "train:\n\n  rounds: 4\n"})
    places = Places(loaded(conf, train={"unit": "rows"}))
    assert places.of(("train", "rounds")) == "conf/local/parameters.yml:3"
    assert places.of(("train", "strategy", "name")) == "conf/base/parameters_train.yml:5"
    assert places.of(("train", "unit")) == "--params"
    assert places.of(("probe",)) == ""
    assert places.of(("train", "strategy", "target")) == "conf/base/parameters_train.yml:4"


def test_items_of_a_list_have_a_line(conf: Path) -> None:
    text = "domains:\n  law:\n    sources:\n      - path: a\n      - path: b\n        wieght: 1\n"
    write(conf, {"local/parameters/domains.yml": text})
    place = "conf/local/parameters/domains.yml:6"
    assert Places(loaded(conf)).of(("domains", "law", "sources", 1, "wieght")) == place
    assert f"domains.law.sources.1.wieght ({place}): there is no such par" in refused(conf)


def test_items_of_a_list_on_the_command_line_have_their_place(conf: Path) -> None:
    given = {"law": {"description": "d", "sources": [{"pth": "a.jsonl"}]}}
    assert "domains.law.sources.0.pth (--params): there is no such par" in refused(
        conf, domains=given
    )


def test_a_key_that_stands_twice_is_told_with_both_lines(conf: Path) -> None:
    """YAML's own reader takes the last one, Kedro's names no file."""
    write(conf, {"local/parameters.yml": "train:\n  rounds: 3\n  unit: rows\n  rounds: 4\n"})
    message = refused(conf)
    assert "conf/local/parameters.yml:4: rounds is already in line 2" in message


@pytest.mark.parametrize("name", ["parameters.yml", "parameters_mine.yml", "parameters/a/b.yml"])
def test_an_unknown_block_is_told_with_file_and_line(conf: Path, name: str) -> None:
    write(conf, {f"local/{name}": "# mine\ntrian: {rounds: 3}\n"})
    message = refused(conf)
    assert f"trian (conf/local/{name}:2): there is no such block of parameters" in message
    assert "did you mean 'train'" in message


def test_a_value_given_for_interpolation_must_be_asked_for(conf: Path) -> None:
    assert "model (--params): there is no such block" in refused(conf, model="m")
    write(conf, {"local/parameters.yml": 'train: {attn_implementation: "${runtime_params:model}"}'})
    loader = loaded(conf, model="eager")
    assert check(loader, Places(loader))["train"].attn_implementation == "eager"
    assert "modle (--params)" in refused(conf, model="m", modle="m")


def test_a_helper_begins_with_an_underscore(conf: Path) -> None:
    write(conf, {"local/parameters.yml": "_n: 5\ntrain: {rounds: '${_n}'}\n"})
    loader = loaded(conf)
    assert check(loader, Places(loader))["train"].rounds == 5


def test_a_global_that_nothing_uses_is_refused(conf: Path) -> None:
    write(conf, {"local/globals.yml": "\ndta: /big\n"})
    message = refused(conf)
    assert "dta (conf/local/globals.yml:2): nothing uses this key" in message
    assert "did you mean 'data'" in message
    write(conf, {"local/parameters.yml": 'train: {rounds: "${globals:dta}"}'})
    write(conf, {"local/globals.yml": "dta: 7\n"})
    loader = loaded(conf)
    assert check(loader, Places(loader))["train"].rounds == 7


def test_parameters_in_a_file_that_is_not_read_are_refused(conf: Path) -> None:
    write(conf, {"local/paramters.yml": "train: {rounds: 3}\n", "local/other.yml": "note: 1\n"})
    message = refused(conf)
    assert "conf/local/paramters.yml holds parameters (train), but is not read" in message
    assert "other.yml" not in message


def test_parameters_in_whose_place_an_environment_runs_are_named(
    conf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = {"local/parameters_a.yml": "train: {rounds: 4}\nevaluate: {}\n"}
    write(conf, {**local, "local/globals.yml": "data: d\n", "paper/x.yml": "note: 1\n"})
    for env in ("local", "paper"):
        loader = OmegaConfigLoader(str(conf), env=env, **CONFIG_LOADER_ARGS)
        rounds = {"local": 4, "paper": 3}[env]
        assert Places(loader).of(("train", "rounds")).startswith("conf/local") is (rounds == 4)
        assert loader["parameters"]["train"]["rounds"] == rounds
        said = Places(loader).left_out()
        assert said == (
            None
            if env == "local"
            else "with --env paper, conf/paper takes the place of conf/local. Not read: "
            "conf/local/globals.yml (data), conf/local/parameters_a.yml (evaluate, train). Copy "
            "what you need to conf/paper."
        )
        caplog.clear()
        check(loader, Places(loader))
        assert [r.getMessage() for r in caplog.records] == ([said] if said else [])


def test_a_changed_domain_name_is_said(conf: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = "{description: d, sources: [{path: a.jsonl}]}"
    text = f"domains:\n  contract law: {one}\n  Tax: {one}\n  art: {one}\n"
    write(conf, {"local/parameters.yml": text})
    loader = loaded(conf)
    with caplog.at_level("INFO", logger="versatune"):
        check(loader, Places(loader))
    assert [r.getMessage() for r in caplog.records] == [
        "The domain 'contract law' is renamed to contract_law.",
        "The domain 'Tax' is renamed to tax.",
    ]


@pytest.mark.parametrize("name", ["all", "mean", "base", "tuned", "held_out", "Held-out", "ALL"])
def test_a_reserved_domain_name_is_refused(conf: Path, name: str) -> None:
    one = "{description: d, sources: [{path: a.jsonl}]}"
    text = f"domains:\n  {name}: {one}\n  art: {one}\n"
    write(conf, {"local/parameters.yml": text})
    assert f"domains (conf/local/parameters.yml:1): {name!r} can't be a domain" in refused(conf)


@pytest.mark.parametrize("second", ["contract_law", "Contract-Law", "contract  law"])
def test_two_names_that_become_the_same_are_refused(conf: Path, second: str) -> None:
    one = "{description: d, sources: [{path: a.jsonl}]}"
    text = f"domains:\n  contract law: {one}\n  {second}: {one}\n"
    write(conf, {"local/parameters.yml": text})
    assert f"'contract law' and {second!r} are the same domain, 'contract_law'" in refused(conf)


def test_what_looks_like_a_key_is_not_repeated(conf: Path) -> None:
    write(conf, {"local/parameters.yml": "train: {rounds: hf_abcdefghijkl}\n"})
    message = refused(conf)
    assert "train.rounds (conf/local/parameters.yml:1)" in message and "hf_abc" not in message


def test_a_list_in_place_of_a_block_is_told_as_such() -> None:
    """Of such a merge OmegaConf does not name the key."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from versatune.project.commands import _unresolved

    block, given = OmegaConf.create({"report": {"require": {}}}), {"report": {"require": [1]}}
    with pytest.raises(OmegaConfBaseException) as failed:
        OmegaConf.merge(block, given)
    assert _unresolved(failed.value).startswith("a value in --params, or in an environment, is of")
