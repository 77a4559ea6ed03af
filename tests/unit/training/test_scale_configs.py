"""The configurations for several GPUs and machines parse, by accelerate's own loader."""

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
    assert zero2.weights == alone.weights and zero2.optimizer == alone.optimizer // 8
    assert zero3.weights == alone.weights // 8
    assert zero3.gradients == zero2.gradients == alone.gradients // 8


def test_the_documented_table_is_what_the_command_prints(project_root: Path) -> None:
    """Rows of 7B, since 80 layers take seconds to count; those of 70B are there."""
    docs = (project_root / "docs" / "hardware.md").read_text(encoding="utf-8").splitlines()
    for row in (ROWS[1], ROWS[4]):
        assert line_of(*row) in docs, "run python -m tests.benchmarks.memory_table"
    for model, trained, _, file in ROWS:
        begins = f"| {model} | {trained} | {f'`{file}`' if file else 'one GPU'} |"
        assert any(line.startswith(begins) for line in docs), begins


def test_the_slurm_job_is_a_shell_script_that_starts_training_alone(project_root: Path) -> None:
    script = project_root / "deploy" / "slurm" / "train.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "kedro run --pipeline train" in text and "-m versatune.training" in text
    nodes = load_config_from_file(str(project_root / "deploy/accelerate/fsdp_nodes.yaml"))
    assert f"--nodes={nodes.num_machines}" in text


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
