"""The README's own configuration, run as it is written there."""

import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.support import command, copy_project, environment
from versatune.modeling.checkpoints import CheckpointRef

pytestmark = pytest.mark.slow


def test_your_model_your_data(
    project_root: Path, tmp_path: Path, tiny_checkpoint: CheckpointRef
) -> None:
    """Only the places of model and files are changed, and the length to what the model takes."""
    text = (project_root / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(base_model:.*?)```", text, re.DOTALL)
    data = tmp_path / "data"
    places = {
        "HuggingFaceTB/SmolLM2-135M-Instruct": str(tiny_checkpoint.path),
        "/data/": f"{data}/",
        "max_length: 1024": "max_length: 256",
    }
    for place, here in places.items():
        assert place in example
        example = example.replace(place, here)
    project = copy_project(project_root, tmp_path / "project")
    (project / "conf" / "local" / "parameters.yml").write_text(example)
    (data / "law").mkdir(parents=True)
    rows = [{"instruction": f"What is {n}?", "output": f"It is {n * n}."} for n in range(60)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "law" / "a.jsonl").write_text(lines)
    pd.DataFrame(
        {"question": [f"Who owns {n}?" for n in range(30)], "answer": ["The court."] * 30}
    ).to_csv(data / "more.csv", index=False)
    pd.DataFrame(rows).assign(instruction=[f"Weigh {n} moles." for n in range(60)]).to_parquet(
        data / "chemistry.parquet"
    )
    (data / "law_questions.jsonl").write_text(
        json.dumps({"question": "Who judges?", "choices": ["a court", "a cat"], "answer": 0}) + "\n"
    )
    done = subprocess.run(
        command("--pipeline", "ingest"),
        cwd=project,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads((project / "data/08_reporting/ingest_report.json").read_text())
    assert set(report["domains"]) == {"law", "medicine", "science", "code", "other", "chemistry"}
    read = {name: entry["read"] for name, entry in report["domains"].items()}
    assert (read["law"], read["chemistry"]) == (90, 60)
    assert all(entry["train_rows"] > 10 for entry in report["domains"].values())
    assert report["max_length"] == 256
