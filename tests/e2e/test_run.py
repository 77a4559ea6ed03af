"""``kedro run`` from raw files to the report, again with nothing changed, and with mistakes."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from tests.e2e.conftest import FIRST_LOG
from tests.faults.forks import Done, kedro_run
from tests.helpers.support import Kedro, command, copy_project, environment
from versatune.artifacts import exclusive
from versatune.project.run_names import VIEWS
from versatune.reporting import timings
from versatune.work import WorkFolder
from versatune.work.bars import folded

pytestmark = pytest.mark.slow

DATA = Path("data/test")
Forked = Callable[..., Done]


def runs(project: Path) -> list[Run]:
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    return mlflow.search_runs(
        experiment_names=["versatune"], order_by=["start_time DESC"], output_format="list"
    )


def stamps(project: Path) -> dict[str, int]:
    """When each expensive artifact was last written."""
    heavy = ("*.arrow", "*.safetensors", "*.jsonl")
    files = [f for pattern in heavy for f in (project / DATA).rglob(pattern)]
    return {str(f.relative_to(project)): f.stat().st_mtime_ns for f in files}


SLOW = re.compile(
    r"── [\w.]+: |Pretraining: step|held-out loss .* in \d+ steps, |  (Model|Report|MLflow): "
)
"""Lines that only a slow machine adds, and places, whose length is that of this test's folder."""


def at_80_columns(log: str) -> list[str]:
    """The lines of a log as a terminal of 80 columns shows them, without :data:`SLOW`."""
    lines = [line for line in log.splitlines() if not SLOW.search(line)]
    return [part for line in lines for part in folded(line, 80).split("\n")]


def test_the_first_run_fits_two_screens(finished: Path) -> None:
    """Two of 40 lines, with a dozen for the stages' times and three for the places."""
    log = (finished / FIRST_LOG).read_text(encoding="utf-8")
    assert len(at_80_columns(log)) <= 80 - 12 - 3
    assert not re.search(r"\D0 (tokens/s|min left|s left)|\+-|law-law|it/s|Warning", log)


def test_every_contracted_file_is_there(finished: Path) -> None:
    for name in (
        "08_reporting/ingest_report.json",
        "04_feature/knowledge_distribution.json",
        "05_model_input/reference_losses.json",
        "05_model_input/initial_mixture.json",
        "05_model_input/forecast.json",
        "07_model_output/mixture_history.parquet",
        "06_models/trained/manifest.json",
        "06_models/trained/model.safetensors",
        "07_model_output/evaluation.parquet",
        "08_reporting/report.html",
    ):
        assert (finished / DATA / name).is_file(), name


def test_shares_are_shares(finished: Path) -> None:
    known = json.loads((finished / DATA / "04_feature/knowledge_distribution.json").read_text())
    shares = [d["share"] for d in known["domains"].values()]
    assert sum(shares) == pytest.approx(1) and min(shares) >= 0
    assert all(d["low"] <= d["share"] <= d["high"] for d in known["domains"].values())
    mixture = json.loads((finished / DATA / "05_model_input/initial_mixture.json").read_text())
    assert sum(mixture["weights"].values()) == pytest.approx(1)
    history = pd.read_parquet(finished / DATA / "07_model_output/mixture_history.parquet")
    assert history.groupby("round")["weight"].sum().tolist() == pytest.approx(
        [1.0] * history["round"].nunique()
    )


def test_evaluation_covers_both_models_and_every_domain(finished: Path) -> None:
    table = pd.read_parquet(finished / DATA / "07_model_output/evaluation.parquet")
    domains = {"law", "medicine", "finance", "science", "code", "other"}
    for _, part in table.groupby("model"):
        assert domains <= set(part["domain"])
    assert table["model"].nunique() == 2
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_the_trained_folder_loads_with_plain_transformers(finished: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished / DATA / "06_models/trained"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What?"}], return_tensors="pt", return_dict=True
    )
    assert model.generate(**prompt, max_new_tokens=2).shape[1] > prompt["input_ids"].shape[1]


def test_one_mlflow_run_with_flat_parameters_metrics_by_step_and_artifacts(finished: Path) -> None:
    run = runs(finished)[-1]
    assert run.info.status == "FINISHED"
    assert run.data.params["train.strategy.name"]
    for name in ("learning_rate", "max_length", "seed"):  # not given: those of `train` were used
        assert run.data.params[f"references.{name}"] == run.data.params[f"train.{name}"], name
    assert run.data.params["references.per_device_train_batch_size"] == "2"  # given
    assert "loss/law" in run.data.metrics
    client = mlflow.MlflowClient()
    history = client.get_metric_history(run.info.run_id, "loss/law")
    assert len({m.step for m in history}) > 1
    names = [f.path for f in client.list_artifacts(run.info.run_id)]
    assert {"report.html", "timings.json"} <= set(names)
    assert not [name for name in run.data.metrics if name.startswith("seconds/")]
    assert {"loss/mean", "share/law", "step/loss", "step/learning_rate"} <= set(run.data.metrics)
    assert {"mean_loss", "mean_accuracy"} <= set(run.data.metrics)
    assert re.fullmatch(r"foster · 2 x 3 · sample model · test · \d\d:\d\d", run.info.run_name)
    assert "| law | " in run.data.tags["mlflow.note.content"]
    model = mlflow.get_logged_model(run.data.tags["model.uri"].rpartition("/")[2])
    assert model.name == "pretrained-on-the-sample-foster"
    assert run.data.metrics["forecast/headroom_low"] <= run.data.metrics["forecast/headroom"]
    assert 0 <= run.data.metrics["forecast/outcomes_inside"] <= 1
    figures = [f.path for f in client.list_artifacts(run.info.run_id, "figures")]
    assert {"figures/forecast.json", "figures/forecast_and_outcome.json"} <= set(figures)
    assert {f.removesuffix(".json") for f in figures if f.endswith(".json")} == {
        f.removesuffix(".png") for f in figures if f.endswith(".png")
    }
    for tag in ("data_fingerprint", "base_model", "model.uri", "strategy", "versatune.version"):
        assert run.data.tags.get(tag), tag
    head = subprocess.run(
        ["git", "-C", str(finished), "rev-parse", "HEAD"], check=True, capture_output=True
    )
    assert run.data.tags["git.commit"] == head.stdout.decode().strip()
    assert run.data.tags["git.changed"] == "false"


def test_the_report_shows_the_parameters_that_mlflow_has(finished: Path) -> None:
    """Those that were used: references take from `train` what they are not given."""
    page = (finished / DATA / "08_reporting/report.html").read_text(encoding="utf-8")
    table = page.partition("<summary>All parameters")[2].partition("</details>")[0]
    rows = re.findall(r'<tr><th scope="row">([\w.]+)</th><td>(.*?)</td></tr>', table)
    shown = {key: html.unescape(value) for key, value in rows}
    numbers = {k for k, v in shown.items() if re.fullmatch(r"[\w.+-]+", v)}
    assert len(numbers) > 100
    # The report is of one of the runs here: tests of other files may have made it anew.
    logged = [run.data.params for run in runs(finished) if set(run.data.params) == set(shown)]
    assert any(all(shown[k] == params[k] for k in numbers) for params in logged)
    assert shown["references.learning_rate"] == shown["train.learning_rate"]


def test_the_saved_comparisons_are_what_mlflows_page_reads(finished: Path) -> None:
    runs(finished)
    tags = mlflow.MlflowClient().get_experiment_by_name("versatune").tags
    for name, view in VIEWS.items():
        assert json.loads(tags[f"mlflow.sharedViewState.{name}"]) == view
    pages = (Path(mlflow.__file__).parent / "server" / "js" / "build").rglob("*.js")
    code = "".join(page.read_text(encoding="utf-8") for page in pages)
    words = ("mlflow.sharedViewState.", "viewStateShareKey", "workflowType")
    for word in (*words, "chartsSearchFilter", "selectedColumns"):
        assert word in code, word


def test_again_with_nothing_changed_does_no_work_twice(finished: Path, kedro: Kedro) -> None:
    """The log says so, and ends with what came of the run and where it lies."""
    before = stamps(finished)
    done = kedro()
    assert done.returncode == 0, done.stdout[-3000:]
    assert stamps(finished) == before
    assert re.search(r"── unchanged, kept: .*train \(train_model\)", done.stderr)
    run = runs(finished)[0].info
    page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning"
    *_, model, report, link, time = done.stderr.strip().splitlines()
    assert model.endswith(str(finished / DATA / "06_models/trained"))
    assert report.endswith(str(finished / DATA / "08_reporting/report.html"))
    assert link.endswith(page) and re.search(r"Done in \d", time)
    assert len(at_80_columns(done.stderr)) <= 60 - 2 and "\r" not in done.stderr
    assert not re.search(r"\D0 (tokens/s|min left|s left)|\+-|law-law|it/s", done.stderr)


def test_a_result_that_is_not_what_was_required_is_exit_code_2(
    finished: Path, forked: Forked
) -> None:
    require = "report.require.max_loss.law=0.5,report.require.no_domain_worse=true"
    done = forked("--pipeline", "report", "--params", require)
    assert done.code == 2 and "Traceback" not in done.output
    last = done.output.strip().splitlines()[-1]
    assert re.fullmatch(
        r"Error: the result does not meet report\.require: held-out loss of law is 5\.\d+, "
        r"above 0\.5 \(max_loss\)\.",
        last,
    )
    run = runs(finished)[0]
    assert run.info.status == "FINISHED" and "max_loss" in run.data.tags["report.require"]
    assert forked("--pipeline", "report").code == 0


def test_a_changed_parameter_never_meets_a_stale_artifact(finished: Path, forked: Forked) -> None:
    mixture = finished / DATA / "05_model_input/initial_mixture.json"
    before = json.loads(mixture.read_text())
    done = forked("--pipeline", "mixture", "--params", "mixture.strategy.name=inverse")
    assert done.code == 0, done.output[-3000:]
    assert runs(finished)[0].info.run_name.startswith("mixture · strategy.name=inverse · test · ")
    after = json.loads(mixture.read_text())
    assert after["strategy"] == "inverse" and after["weights"] != before["weights"]
    assert forked("--pipeline", "mixture").code == 0
    assert json.loads(mixture.read_text()) == before


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("train.learning_rte=0.1", ["train.learning_rte", "learning_rate"]),
        ("train.learning_rate=-1", ["train", "learning_rate", "-1"]),
        ("train.strategy.name=fostr", ["strategy"]),
        ("domains.law.sources=none", ["domains", "law"]),
    ],
)
def test_a_typo_is_one_sentence(project: Path, parameters: str, words: list[str]) -> None:
    done = kedro_run(project, "--env", "test", "--params", parameters)
    assert done.code == 1 and "Traceback" not in done.output
    assert all(word in done.error for word in words), done.output


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a": "train: {rounds: 3"}, "parameters_a.yml is not valid YAML: expected ',' or '}'"),
        (
            {"a": "train:\n\trounds: 3"},
            "character '\\t' that cannot start any token, line 2, column 1.",
        ),
        (
            {"a": "train: {rounds: 3, rounds: 4}"},
            "parameters_a.yml:1: rounds is already in line 1: remove one of the two.",
        ),
        (
            {"a": "seed: 1", "b": "seed: 2"},
            ".yml: seed. Within an environment a key may be in only one file",
        ),
        ({"a": "size: ${runtime_params:n}"}, "size needs a value that was not given: add n=... to"),
        ({"a": "size: ${globals:n}"}, "size can't be resolved: Globals key 'n' not found"),
        ({"a": "- 1"}, "conf/broken/parameters_a.yml: holds no keys with values, but a list."),
        ({"a": "size: ${n}"}, "size can't be resolved: Interpolation key 'n' not found"),
    ],
    ids=["cut", "tab", "twice", "two files", "not given", "no global", "a list", "no key"],
)
def test_broken_configuration_is_one_sentence(
    project: Path, files: dict[str, str], sentence: str
) -> None:
    folder = project / "conf" / "broken"
    folder.mkdir()
    try:
        for name, text in files.items():
            (folder / f"parameters_{name}.yml").write_text(text)
        done = kedro_run(project, "--env", "broken", "--pipeline", "report")
    finally:
        shutil.rmtree(folder)
    assert done.code == 1 and "Traceback" not in done.output
    assert sentence in " ".join(done.error.split()), done.output


def test_an_environment_without_its_parameters_is_one_sentence(project: Path) -> None:
    done = kedro_run(project, "--env", "smollm2")
    assert done.code == 1 and "Traceback" not in done.output
    assert "base_model.name_or_path needs a value that was not given: add model=" in done.error


def test_an_unknown_pipeline_is_one_sentence(project: Path) -> None:
    done = kedro_run(project, "--env", "test", "--pipeline", "trian")
    assert done.code == 1 and "Traceback" not in done.output
    assert "trian" in done.error


@pytest.fixture
def heeded_interrupts() -> Iterator[None]:
    """A shell makes its background jobs ignore SIGINT, and their children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_interrupts")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_is_killed_in_mlflow_and_goes_on(
    finished: Path, forked: Forked, stop: signal.Signals
) -> None:
    # Rounds enough that training is not over before the signal arrives.
    params = f"train.seed={int(stop)},train.resume=restart,train.rounds=8"
    changed = ("--pipeline", "train", "--params", params)
    with subprocess.Popen(
        command("--env", "test", *changed),
        cwd=finished,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if "held-out loss" in line:  # training begins
                break
        os.kill(child.pid, stop)
        child.stdout.read()
    assert child.returncode == 128 + stop
    assert runs(finished)[0].info.status == "KILLED"
    assert forked(*changed).code == 0
    assert runs(finished)[0].info.status == "FINISHED"


@pytest.fixture
def fresh(tmp_path: Path, project_root: Path) -> Path:
    """A project in which nothing has run."""
    return copy_project(project_root, tmp_path / "fresh")


def test_an_unfinished_training_with_other_parameters_is_told_before_all_work(
    fresh: Path,
) -> None:
    WorkFolder.open(fresh / DATA / "06_models/trained", {"train": {"rounds": 2}})
    done = kedro_run(fresh, "--env", "test", "--params", "train.rounds=5")
    assert done.code == 1 and "Traceback" not in done.output
    assert "train.rounds: 2 -> 5" in done.error and "train.resume: restart" in done.error
    assert "train.folder" not in done.error
    assert not timings.read(fresh / DATA / "08_reporting/timings.json")[1]  # no node ended


def test_places_among_the_parameters_are_refused_with_where_places_are(fresh: Path) -> None:
    """All of them in one run."""
    blocks = ("train", "ingest", "probe", "references")
    names = [*(f"{block}.folder" for block in blocks), "retrain.cleaned"]
    given = ",".join(f"{name}=elsewhere" for name in names)
    done = kedro_run(fresh, "--env", "test", "--params", given)
    assert done.code == 1 and "Traceback" not in done.output
    said = " ".join(done.error.split())
    for name in names:
        assert f"{name} (--params): parameters no longer name output paths" in said
    assert said.count("`data` in globals.yml") == len(names)
    assert not timings.read(fresh / DATA / "08_reporting/timings.json")[1]  # no node ended


@pytest.mark.parametrize("option", [["--async"], ["--runner", "ThreadRunner"]])
def test_what_works_on_several_nodes_at_a_time_is_refused(fresh: Path, option: list[str]) -> None:
    done = kedro_run(fresh, "--env", "test", "--pipeline", "ingest", *option)
    assert done.code == 1 and "Traceback" not in done.output
    assert f"{' '.join(option)} " in done.error and "Leave it out" in done.error
    assert not (fresh / DATA / "02_intermediate").exists()


def test_two_runs_at_once_in_one_folder(finished: Path) -> None:
    with exclusive(finished / DATA / ".lock", "the data folder"):
        done = kedro_run(finished, "--env", "test", "--pipeline", "report")
    assert done.code == 1 and "Traceback" not in done.output
    assert "another run is working" in done.error


def test_a_rollback_during_a_run_leaves_with_a_message(project: Path) -> None:
    from versatune.artifacts import exclusive

    with exclusive(project / DATA / ".lock", "the data folder"):
        done = subprocess.run(
            [command()[0], "rollback", "--env", "test"],
            cwd=project,
            env=environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "another run is working" in done.stderr
