"""`make gpu`: its parts on a CPU, in their tiny form."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.gpu.__main__ import failed, main
from tests.benchmarks.gpu.budget import Budget
from tests.benchmarks.gpu.shapes import config_of
from tests.benchmarks.gpu.table import HEAD, table
from tests.benchmarks.gpu.trained import CONTENDERS, LINES, Clock, Line, bare, ours, params_of
from versatune.training import memory


def short(name: str) -> Line:
    return replace(LINES[name], warm=1, steps=1)


@pytest.mark.parametrize("name", ["SmolLM2 135M, full", "Mistral 7B, QLoRA"])
def test_a_tiny_model_is_trained_in_a_lines_way(name: str) -> None:
    found = ours(short(name), True)
    assert found["layout"] == "varlen"
    assert found["tokens_per_second"] > 0 and 0 < found["adaptivity"] < 1
    assert found["planned_gb"] > 0
    assert (found["mfu"] is None) == (not torch.cuda.is_available())
    json.dumps(found, allow_nan=False)


def test_a_tiny_model_is_sampled() -> None:
    found = {
        who: CONTENDERS[who](LINES["SmolLM2 135M, sampling"], True)
        for who in ("static", "dynamic", "batch 1")
    }
    assert all(given["tokens_per_second"] > 0 for given in found.values())
    shown = table({"checks": {}, "lines": {"sampled": found}})
    assert "times batch 1" in shown and len(shown.splitlines()) == 2


def test_the_bare_loop_takes_the_same_model() -> None:
    assert bare(short("Llama 8B, LoRA"), True)["tokens_per_second"] > 0


def test_activations_are_made_again_only_where_the_plan_says_they_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = LINES["Llama 1B, full"]
    kept = params_of(line, False).model_copy(update={"gradient_checkpointing": False})
    fits = memory.plan_memory(config_of(line.shape, False), kept).device
    for room, again in ((fits * 1.2, False), (fits * 0.9, True)):
        monkeypatch.setattr("tests.benchmarks.gpu.trained.device_bytes", lambda r=room: r)
        assert params_of(line, False).gradient_checkpointing is again


def test_a_window_is_the_median_of_the_steps_between_its_ends() -> None:
    clock = Clock(Line("smollm2", {}, warm=2, steps=2))
    clock.ends = [0.0, 1.0, 3.0, 4.0]
    assert clock.median([99, 99, 5, 5, 4, 4, 3, 3]) == 6  # of 10, 4 and 6 a second


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    sign = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(sign)!r}).touch()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    budget = Budget(60, tmp_path)
    found = budget.run([sys.executable, "-c", code], limit=1)
    assert found["error"] == "took more than 1 s"
    time.sleep(2.5)
    assert not sign.exists()


def test_what_a_command_said_before_its_time_ended_is_kept(tmp_path: Path) -> None:
    found = Budget(60, tmp_path).run(["sh", "-c", "echo '...F.'; sleep 20"], limit=2)
    assert found == {"error": "took more than 2 s", "seconds": 2, "output": "...F.\n"}


def test_one_failure_is_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    budget = Budget(60, tmp_path)
    broken = budget.numbers([sys.executable, "-c", "raise ValueError('out of memory')"], 30)
    assert broken["error"] == "ValueError: out of memory"
    silent = budget.numbers([sys.executable, "-c", "print('hello')"], 30)
    assert silent["error"] == "no numbers: hello"
    whole = budget.numbers([sys.executable, "-c", "print('log'); print('{\"a\": 1}')"], 30)
    assert whole["a"] == 1
    assert "no time left" in Budget(5, tmp_path).run(["true"], 30)["error"]


def entry(**more: Any) -> dict[str, Any]:
    base = {"tokens_per_second": 2000.0, "mfu": 0.4, "peak_gb": 41.0, "planned_gb": 43.0}
    return {**base, "adaptivity": 0.04, "layout": "varlen", "gradient_checkpointing": False, **more}


RESULTS = {
    "checks": {"tests marked gpu": {"said": "9 passed", "seconds": 31.0}},
    "lines": {
        "whole": {"ours": entry(), "trl": {"tokens_per_second": 1600.0, "attention": "sdpa"}},
        "broken": {"ours": {"error": "CUDA out of memory"}},
        "alone": {"ours": entry(), "trl": {"error": "trl is not installed"}},
    },
}


def test_the_table_has_a_row_a_line_and_says_what_failed() -> None:
    said = table(RESULTS).splitlines()
    assert said[0] == "tests marked gpu: 9 passed in 31 s"
    assert said[1].split()[:2] == ["line", HEAD[1]]
    assert "2,000  0.40     41.0     43.0   1.25" in said[2] and said[2].endswith("TRL: sdpa")
    assert said[3].startswith("broken") and said[3].endswith("ours: CUDA out of memory")
    assert said[4].endswith("trl: trl is not installed")
    assert failed(RESULTS) == ["broken, ours"]


def test_without_time_it_still_writes_what_it_ran_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    assert main(["--minutes", "0.1", "--tiny", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["about"]["versions"]["torch"] == torch.__version__
    assert set(found["lines"]) == set(LINES)
    parts = [(n, part) for line in found["lines"].values() for n, part in line.items()]
    assert all("no time left" in part["error"] for name, part in parts if name != "trl")
    assert "line " in capsys.readouterr().out


def test_an_unknown_line_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "Llama 70B"])
    assert "SmolLM2 135M, full" in capsys.readouterr().err
