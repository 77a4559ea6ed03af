"""The configurations for several GPUs and machines parse, by accelerate's own loader."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from tests.benchmarks.memory_table import ROWS, line_of, plan_of
from versatune.training.config import TrainParams

FILES = (
    *("ddp_nodes.yaml", "deepspeed.yaml", "deepspeed_zero3.yaml"),
    *("fsdp.yaml", "fsdp_nodes.yaml"),
)


@pytest.fixture
def accelerate(project_root: Path) -> Path:
    return project_root / "deploy" / "accelerate"


def test_every_file_is_tried_here(accelerate: Path) -> None:
    assert sorted(path.name for path in accelerate.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_accelerate_takes_every_key(name: str, accelerate: Path) -> None:
    found = load_config_from_file(str(accelerate / name))
    known = set(vars(launch_command_parser().parse_args(["script.py"])))
    nested: dict[str, Any] = {}
    for block in ("fsdp_config", "deepspeed_config"):
        nested |= getattr(found, block, None) or {}
    assert nested.keys() <= known, nested.keys() - known
    assert found.num_processes == 8 * found.num_machines


def test_an_unknown_key_is_refused_by_that_loader(accelerate: Path, tmp_path: Path) -> None:
    copy = tmp_path / "x.yaml"
    copy.write_text((accelerate / "fsdp.yaml").read_text() + "num_gpus: 8\n")
    with pytest.raises(ValueError, match="num_gpus"):
        load_config_from_file(str(copy))


def test_more_devices_and_higher_stages_need_less_of_each() -> None:
    full = {"dtype": "bfloat16"}
    alone = plan_of("Qwen 7B", full, None)
    zero2, zero3 = (plan_of("Qwen 7B", full, f"{n}.yaml") for n in ("deepspeed", "deepspeed_zero3"))
    n = alone.weights // 2
    assert (alone.optimizer, zero2.optimizer) == (4 * n, 12 * n // 8), "float32 copies and moments"
    assert zero2.weights == alone.weights
    # Held whole: two layers of 233,057,792 weights (and 128 of the last norm) and the head.
    assert zero3.weights == alone.weights // 8 + 2 * (2 * 233_057_920 + 152064 * 3584)
    assert zero3.gradients == zero2.gradients == alone.gradients // 8


def test_the_documented_table_is_what_the_command_prints(project_root: Path) -> None:
    """Rows of 7B, since 80 layers take seconds to count; those of 70B are there."""
    docs = (project_root / "docs" / "hardware.md").read_text(encoding="utf-8").splitlines()
    for row in (ROWS[1], ROWS[4]):
        assert line_of(*row) in docs, "run python -m tests.benchmarks.memory_table"
    for model, trained, _, file in ROWS:
        begins = f"| {model} | {trained} | {f'`{file}`' if file else 'one GPU'} |"
        assert any(line.startswith(begins) for line in docs), begins


SRUN = """#!/bin/bash
shift  # --kill-on-bad-exit
for node in 0 1; do SLURM_NODEID=$node "$@" & done
wait
"""
KEDRO = """#!/bin/bash
printf '%s\\n' "$@" > kedro.txt
mkdir -p data/06_models/trained && echo job > data/06_models/trained/job.json
"""


def slurm(project_root: Path, folder: Path, job: str, *given: str, **more: str) -> list[str]:
    """What kedro is started with, in a folder where stand-ins are called as Slurm's commands."""
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    programs = {
        "srun": SRUN,
        "kedro": KEDRO,
        "accelerate": "#!/bin/bash\nprintf '%s\\n' \"$@\" > accelerate.txt\n",
        "scontrol": "#!/bin/bash\necho node7; echo node8\n",
        "activate": f'export PATH="{commands}:$PATH"\n',
    }
    for name, text in programs.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    copied = folder / "deploy" / "accelerate"
    copied.mkdir(parents=True, exist_ok=True)
    for file in (project_root / "deploy" / "accelerate").iterdir():
        (copied / file.name).write_text(file.read_text())
    subprocess.run(
        ["bash", str(project_root / "deploy" / "slurm" / "train.sbatch"), *given],
        check=True,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": "n", **more},
        timeout=60,
    )
    return (folder / "kedro.txt").read_text().splitlines()


def test_the_slurm_job_starts_training_alone_on_all_machines(
    project_root: Path, tmp_path: Path
) -> None:
    first = slurm(project_root, tmp_path, "1")
    assert first[:3] == ["run", "--pipeline", "train"]
    key, _, file = first[4].partition("=")
    assert (first[3], key) == ("--params", "train.launcher.config_file")
    TrainParams.model_validate({"launcher": {"config_file": file}})
    config = load_config_from_file(str(tmp_path / file))
    assert config.main_process_ip == "node7"
    script = (project_root / "deploy" / "slurm" / "train.sbatch").read_text()
    assert f"#SBATCH --nodes={config.num_machines}\n" in script
    assert (tmp_path / "accelerate.txt").read_text().splitlines() == [
        *("launch", "--config_file", file, "--machine_rank", "1"),
        *("-m", "versatune.training", "data/06_models/trained/job.json"),
    ]


def test_a_slurm_job_that_is_submitted_again_has_the_same_parameters(
    project_root: Path, tmp_path: Path
) -> None:
    """Else its training would be another one, and would not go on."""
    assert slurm(project_root, tmp_path, "1") == slurm(project_root, tmp_path, "2")


def test_more_parameters_of_a_slurm_job_stand_beside_its_own(
    project_root: Path, tmp_path: Path
) -> None:
    given = "deploy/accelerate/ddp_nodes.yaml", "--env", "mine"
    found = slurm(project_root, tmp_path, "1", *given, PARAMS="train.rounds=12")
    params = "train.launcher.config_file=data/slurm_ddp_nodes.yaml,train.rounds=12"
    assert found == ["run", "--pipeline", "train", "--params", params, "--env", "mine"]


def test_the_kubernetes_job_starts_training_alone(project_root: Path) -> None:
    job = yaml.safe_load((project_root / "deploy/kubernetes/train.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["kedro", "run", "--pipeline", "train"]
    key, _, file = container["args"][1].partition("=")
    assert key == "train.launcher.config_file"
    params = TrainParams.model_validate({"launcher": {"config_file": file}})
    config = load_config_from_file(str(project_root / str(params.launcher.config_file)))
    assert config.num_processes == container["resources"]["limits"]["nvidia.com/gpu"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
