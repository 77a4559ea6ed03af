"""A project of one's own: what is found, asked, written, checked and said."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.helpers.support import environment
from versatune.data.config import CleanParams, Domains
from versatune.data.found import find_domains
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.project import first_project
from versatune.project import init as command
from versatune.project.commands import cli
from versatune.project.first_project import (
    Choice,
    _lengths,
    checked_rows,
    read_blocks,
    with_rows_checked,
)
from versatune.project.starter import HERE, write_project
from versatune.training.config import TrainParams

ELEMENTS = [
    "hydrogen",
    "helium",
    "lithium",
    "boron",
    "carbon",
    "nitrogen",
    "oxygen",
    "neon",
    "iron",
]


def rows(file: Path, questions: list[str], broken: int = 0) -> None:
    """Rows of ``questions`` with an answer each, and ``broken`` ones without."""
    file.parent.mkdir(parents=True, exist_ok=True)
    good = [{"prompt": q, "completion": f"Answer {i}."} for i, q in enumerate(questions)]
    bad = [{"prompt": f"What is missing in {i}?", "completion": ""} for i in range(broken)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*good, *bad]), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two domains, one in a sub-folder with questions, and a file that is none."""
    folder = tmp_path / "my data"
    rows(folder / "chemistry.jsonl", [f"What is the number of {e}?" for e in ELEMENTS * 3], 1)
    rows(folder / "legal" / "a.jsonl", [f"What does the act say of {e}?" for e in ELEMENTS])
    rows(folder / "legal" / "b.jsonl", [f"Who may sell {e}?" for e in ELEMENTS])
    questions = folder / "evaluation" / "law.jsonl"
    questions.parent.mkdir()
    questions.write_text(json.dumps({"question": "Is it?", "choices": ["a", "b"], "answer": 0}))
    (folder / "notes.docx").write_text("x")
    (folder / "README.md").write_text("about")
    return folder


def init(*arguments: str, answers: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["init", *arguments], input=answers)


def local(project: Path) -> dict:
    return yaml.safe_load((project / "conf/local/parameters.yml").read_text(encoding="utf-8"))


def test_without_options_and_a_terminal_the_sample_is_written_and_nothing_asked(
    tmp_path: Path,
) -> None:
    done = init(str(tmp_path / "p"))
    assert done.exit_code == 0
    assert done.output == f"Next: cd {tmp_path / 'p'} && kedro run\n"
    assert list((tmp_path / "p/conf/local").iterdir()) == []


def test_own_model_and_data_are_written_checked_and_estimated(
    tmp_path: Path, data: Path, tiny_checkpoint: CheckpointRef
) -> None:
    project = tmp_path / "p"
    done = init(str(project), "--model", str(tiny_checkpoint.path), "--data", str(data), "--yes")
    assert done.exit_code == 0, done.output
    made = local(project)
    assert made["base_model"] == {"kind": "pretrained", "name_or_path": str(tiny_checkpoint.path)}
    assert made["tokenize"] == {"max_length": 256}, "as many tokens as the model takes"
    blocks = read_blocks(project)
    domains, train = blocks["domains"], blocks["train"]
    assert isinstance(domains, Domains)
    assert isinstance(train, TrainParams)
    assert list(domains.active) == ["law", "chemistry"], "law keeps its place of conf/base"
    law = domains.active["law"]
    assert [s.path for s in law.sources] == [str(data / "legal")]
    assert [e.path for e in law.evaluation] == [str(data / "evaluation/law.jsonl")]
    assert domains.active["chemistry"].evaluation == []
    assert (train.max_length, train.learning_rate) == (256, 2e-5)
    assert (
        "chemistry.jsonl: 28 rows, 1 (empty_output) rejected; 21 to train, 6 held out"
        in done.output
    )
    assert f"empty_output, first {data / 'chemistry.jsonl'}:28" in done.output
    assert "legal/: 18 rows; " in done.output
    assert "left out: " in done.output and "notes.docx" in done.output
    assert "README" not in done.output
    tokens = 8 * 50 * 4 * 256
    assert f"at most {tokens:,} tokens" in done.output
    assert "MiB of " in done.output and "; disk: " in done.output
    texts = "1,024 to 10,240 texts of up to 128 tokens from the model"
    assert f"Forecast: {texts}, then 2 short runs of 18 steps; at least " in done.output
    assert done.output.count("; at least ") == 2, "the forecast's time and the training's"
    assert done.output.splitlines()[-4:] == [
        "Next, forecast what a mixture of the domains gains:",
        f"  cd {project} && kedro run --pipelines ingest,probe,mixture,plan",
        "Then train, evaluate and report:",
        f"  cd {project} && kedro run",
    ]


def test_the_least_time_is_that_of_all_matrix_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training of ``flops`` on ``tokens``: 400 steps of 4 rows of 512 are 819,200 tokens."""
    monkeypatch.setattr("versatune.training.throughput.measured_flops", lambda: 1e9)
    write_project(tmp_path / "p")
    times = first_project._least_times(read_blocks(tmp_path / "p"), 3600e9, 819_200.0)
    assert times["training"] == "; at least 1 h 0 min here"
    # 4 runs of 9 steps of 2 rows, and 1,024 texts of 128 tokens at a third: 80,555 tokens.
    assert times["forecast"] == "; at least 5 min 54 s here"


def test_a_terminal_is_asked_for_what_no_option_gives(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    project = tmp_path / "p"
    refused = init(str(project), answers=f"\n{data}\nn\n")
    assert refused.exit_code == 1 and not project.exists(), "nothing is written before the yes"
    done = init(str(project), answers=f"\n{data}\ny\n")
    assert done.exit_code == 0, done.output
    assert "base_model" not in local(project), "the model of the sample"
    assert set(local(project)["domains"]) == {
        *("law", "chemistry", "medicine", "finance", "science", "code", "other")
    }
    assert "Memory and time: the forecast shows them" in done.output


def test_rows_too_long_for_the_model_are_named_before_anything_is_run(
    tmp_path: Path, data: Path, tiny_checkpoint: CheckpointRef
) -> None:
    """One of 28 rows is below the limit of 5 %, two are above it, 30 of 57 are too many."""
    file, own = data / "chemistry.jsonl", ["--model", str(tiny_checkpoint.path), "--data"]
    long = json.dumps({"prompt": "Why?", "completion": "salt and water " * 300}) + "\n"
    file.write_text(file.read_text().replace(file.read_text().splitlines()[-1] + "\n", long))
    done = init(str(tmp_path / "p"), *own, str(data), "--yes")
    assert done.exit_code == 0 and "1 (too_long) dropped in tokenising" in done.output
    assert "max_reject_rate" not in done.output + str(local(tmp_path / "p"))
    file.write_text(long.replace("Why", "How") + file.read_text())
    done = init(str(tmp_path / "q"), *own, str(data), "--yes")
    assert done.exit_code == 0 and "2 (too_long) dropped in tokenising" in done.output
    assert "Rows of more than 256 tokens are left out" in done.output
    assert local(tmp_path / "q")["ingest"] == {"max_reject_rate": 0.5}
    ingest = read_blocks(tmp_path / "q")["ingest"]
    assert isinstance(ingest, CleanParams) and ingest.max_reject_rate == 0.5
    file.write_text(long.replace("Why", "How") * 28 + file.read_text())
    done = init(str(tmp_path / "r"), *own, str(data), "--yes")
    assert done.exit_code == 1, "as ingest would stop"
    assert "30 of 57 rows can't be used" in done.output and "the limit is 256" in done.output


def test_what_is_read_again_is_said_once(
    tmp_path: Path,
    data: Path,
    tiny_checkpoint: CheckpointRef,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Files are looked for, then read for each length that is tried."""
    monkeypatch.setattr(first_project, "LENGTHS", (16, 64))
    for split, questions in {"train": ELEMENTS * 3, "test": ["it"]}.items():
        rows(data / "physics" / f"{split}.jsonl", [f"Who found {e}, and when?" for e in questions])
    for name in ("p", "q"):
        caplog.clear()
        init(str(tmp_path / name), "--model", str(tiny_checkpoint.path), "--data", str(data), "-y")
        assert caplog.text.count("physics: read 1 file of the split 'train'") == 1


def test_the_length_is_the_first_that_suits_the_rows(
    data: Path, tiny_checkpoint: CheckpointRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_project, "LENGTHS", (16, 64, 128, 512))
    file = data / "chemistry.jsonl"
    rows(file, [f"What is the number of {e}, in words and figures?" for e in ELEMENTS * 3])
    chosen, seen = with_rows_checked(Choice(str(tiny_checkpoint.path), find_domains(data)))
    assert not any(check.problem for check in seen.values())
    lengths = {16: True, 64: False}
    assert chosen.length == 64 and lengths == {
        length: any(c.too_long for c in checked_rows(replace(chosen, length=length)).values())
        for length in lengths
    }
    assert _lengths(str(tiny_checkpoint.path)) == [16, 64, 128, 256], "the model takes 256"


def test_a_wrong_answer_is_asked_again_with_the_reason(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    monkeypatch.chdir(tmp_path)
    answers = [data.name, "new one", "no such model", "someone/model", "nowhere", f"'{data}' ", ""]
    done = init(answers="".join(f"{answer}\n" for answer in answers))
    assert done.exit_code == 0, done.output
    for reason in ("is not empty", "can't be the id of a hub model", "there is no such folder"):
        assert done.output.count(f"{reason}") == 1
    assert local(tmp_path / "new one")["base_model"]["name_or_path"] == "someone/model"
    assert "someone/model is not on this disk: the first run downloads it." in done.output


def test_without_a_terminal_the_folder_must_be_named() -> None:
    done = init()
    assert done.exit_code == 2 and "Missing argument 'FOLDER'" in done.output


def test_one_domain_is_kept_company_by_the_models_own_texts(tmp_path: Path, data: Path) -> None:
    done = init(str(tmp_path / "p"), "--data", str(data / "legal"), "--yes")
    assert done.exit_code == 0, done.output
    assert "a.jsonl" in done.output and "b.jsonl" in done.output
    (data / "legal/b.jsonl").unlink()
    done = init(str(tmp_path / "q"), "--data", str(data / "legal"), "--yes")
    assert done.exit_code == 0, done.output
    domains = read_blocks(tmp_path / "q")["domains"]
    assert isinstance(domains, Domains)
    assert {n: c.only_own for n, c in domains.active.items()} == {"other": True, "a": False}
    assert "References: " not in done.output, "its strategy needs none"
    assert "Forecast: " not in done.output and done.output.splitlines()[-2] == "Next, train:"


def test_data_that_cannot_be_used_is_named_with_what_to_do(tmp_path: Path, data: Path) -> None:
    (data / "sums.csv").write_text("left,right\n1,2\n3,4\n")
    done = init(str(tmp_path / "p"), "--data", str(data), "--yes")
    assert done.exit_code == 1
    assert "sums" in done.output and "can't be used" in done.output
    assert "sums: fix the data, or set what the reason names in" in done.output
    assert "sums" in local(tmp_path / "p")["domains"], "to be mended there"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "no such model"), "can't be the id of a hub model"),
        (("--data", "nowhere"), "there is no such folder"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_written(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    done = init(str(tmp_path / "p"), *options, "--yes")
    assert done.exit_code == 1 and words in done.output
    assert not (tmp_path / "p").exists()


def test_a_folder_that_holds_something_is_refused_before_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    (tmp_path / "mine").write_text("mine")
    done = init(str(tmp_path))
    assert done.exit_code == 1 and "is not empty" in done.output and "Model" not in done.output


def test_names_of_files_become_domains(tmp_path: Path) -> None:
    for name in (
        *("legal.jsonl", "law-00000-of-00002.jsonl", "2024 Tax-law.jsonl", "poems_train.jsonl"),
        *("poems_test.jsonl", "mean.jsonl", "7.jsonl", ".hidden.jsonl", "code.csv.gz"),
    ):
        (tmp_path / name).write_text("{}")
    found = find_domains(tmp_path)
    assert {name: [p.name for p in paths] for name, paths in found.sources.items()} == {
        "tax_law": ["2024 Tax-law.jsonl"],
        "code": ["code.csv.gz"],
        "law": ["law-00000-of-00002.jsonl", "legal.jsonl"],
        "poems": ["poems_train.jsonl"],
    }
    assert set(found.left_out) == {"poems_test.jsonl", "mean.jsonl", "7.jsonl"}
    assert "'test'" in found.left_out["poems_test.jsonl"]


def test_questions_may_lie_in_the_folder_of_their_domain(tmp_path: Path) -> None:
    rows(tmp_path / "law" / "a.jsonl", [f"Who may sell {e}?" for e in ELEMENTS * 3])
    rows(tmp_path / "law" / "eval" / "rows.jsonl", [f"Who may buy {e}?" for e in ELEMENTS])
    asked = tmp_path / "law" / "evaluation" / "bar.jsonl"
    asked.parent.mkdir()
    asked.write_text(json.dumps({"question": "Is it?", "choices": ["a", "b"], "answer": 0}) + "\n")
    found = find_domains(tmp_path)
    assert found.evaluation == {"law": [asked]}, "rows of a split are no questions"
    seen = checked_rows(Choice(None, found))["law"]
    assert (seen.questions, seen.read, seen.dropped) == (1, 27, None)


def test_no_file_of_questions_is_passed_over(tmp_path: Path) -> None:
    """Named after a split, as questions are; of another format; with a wrong answer."""
    for name in ("law", "Ärzte"):
        rows(tmp_path / f"{name}.jsonl", [f"What of {name} and {e}?" for e in ELEMENTS * 3])
    folder = tmp_path / "evaluation"
    folder.mkdir()
    wrong = json.dumps({"question": "Is it?", "choices": ["a", "b"], "answer": "B"})
    for name in ("law_test.jsonl", "arzte.csv", "zoo.jsonl", "7.jsonl", ".x.jsonl", "README.md"):
        (folder / name).write_text(wrong)
    found = find_domains(tmp_path)
    assert list(found.sources) == ["law", "arzte"]
    assert found.evaluation == {"law": [folder / "law_test.jsonl"]}
    assert list(found.left_out) == [
        f"evaluation/{n}" for n in ("7.jsonl", "arzte.csv", "zoo.jsonl")
    ]
    assert "JSON lines" in found.left_out["evaluation/arzte.csv"]
    seen = checked_rows(Choice(None, found))
    assert "law_test.jsonl:1: 'answer' must be the index" in str(seen["law"].problem)
    assert seen["arzte"].problem is None


def test_the_splits_of_one_data_set_are_no_domains(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl", "README.md"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(VersatuneError, match="one data set with its splits"):
        find_domains(tmp_path)


@pytest.mark.slow
def test_kedro_new_makes_the_same_project(tmp_path: Path, data: Path) -> None:
    answers = {"project_name": "My own", "model": "sample", "data": data.name}
    (data / "sums.csv").write_text("left,right\n1,2\n3,4\n")  # can't be used: to be mended there
    (tmp_path / "new.yml").write_text(yaml.safe_dump(answers))
    kedro = str(Path(sys.executable).parent / "kedro")
    starter = ["new", "--starter", str(HERE / "template"), "--config", "new.yml"]
    subprocess.run(
        [kedro, *starter], cwd=tmp_path, env=environment() | {"DO_NOT_TRACK": "true"}, check=True
    )
    assert init(str(tmp_path / "same"), "--data", str(data), "--yes").exit_code == 1
    assert local(tmp_path / "my-own") == local(tmp_path / "same")
    made, same = (
        {f.relative_to(tmp_path / name) for f in (tmp_path / name).rglob("*")}
        for name in ("my-own", "same")
    )
    assert made - same == {Path("README.md")} and same <= made


def test_the_alias_of_the_starter_is_registered(project_root: Path) -> None:
    import importlib
    import tomllib

    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["kedro.starters"]["versatune"].partition(":")
    (spec,) = getattr(importlib.import_module(module), name)
    assert spec.alias == "versatune" and Path(spec.template_path, "cookiecutter.json").is_file()
