"""The schedulers' files: the child they start, what they watch, and their definitions."""

import ast
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest


@pytest.fixture(scope="module")
def deploy(project_root: Path) -> Path:
    return project_root / "deploy"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runner(deploy: Path) -> ModuleType:
    return load(deploy / "run_pipeline.py")


@pytest.fixture
def child(runner: ModuleType, tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """Run a Python program as the child; its exit code and its log."""

    def run(program: str, **options: Any) -> tuple[int, list[str]]:
        lines: list[str] = []
        command = [sys.executable, "-c", program]
        code = runner.run(command, cwd=tmp_path, log=lines.append, **options)
        return code, lines

    return run


def alive(pid: int) -> bool:
    """Whether a process runs (one that waits to be collected does not)."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(pid: int, within: float = 10.0) -> bool:
    """Whether a process that was sent a signal is gone soon: a signal is not obeyed at once."""
    late = time.monotonic() + within
    while alive(pid) and time.monotonic() < late:
        time.sleep(0.05)
    return not alive(pid)


def test_log_and_exit_code_come_through(child: Callable[..., tuple[int, list[str]]]) -> None:
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    code, lines = child(program)
    assert code == 3 and sorted(lines) == ["err", "out"]
    assert child("pass") == (0, [])
    assert child("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")[0] == 137


def test_the_child_runs_in_the_project_and_bytes_are_no_stumbling_block(
    child: Callable[..., tuple[int, list[str]]], tmp_path: Path
) -> None:
    program = "import os, sys; sys.stdout.buffer.write(b'\\xff ' + os.getcwd().encode() + b'\\n')"
    _, lines = child(program)
    assert lines == [f"\ufffd {tmp_path}"]


GRANDCHILD = """
import subprocess, sys, time
other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])
print(other.pid, flush=True)
time.sleep(100)
"""


def test_when_the_time_is_over_the_whole_family_ends(
    child: Callable[..., tuple[int, list[str]]], runner: ModuleType
) -> None:
    code, lines = child(GRANDCHILD, timeout=3, grace=1)
    assert code == runner.TIMED_OUT and "not done after 3 seconds" in lines[-1]
    assert ends(int(lines[0]))


def test_a_child_that_ignores_sigterm_is_made_to_end(
    child: Callable[..., tuple[int, list[str]]], runner: ModuleType
) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"
    assert child(program, timeout=2, grace=0.5)[0] == runner.TIMED_OUT


def test_what_is_raised_meanwhile_ends_the_child(runner: ModuleType, tmp_path: Path) -> None:
    class CancelledError(BaseException):
        pass

    pids: list[int] = []

    def log(line: str) -> None:
        pids.append(int(line))
        raise CancelledError

    command = [sys.executable, "-c", GRANDCHILD]
    with pytest.raises(CancelledError):
        runner.run(command, cwd=tmp_path, log=log, grace=1)
    assert ends(pids[0])


def stand_in(folder: Path, body: str) -> Path:
    """A program in kedro's place."""
    path = folder / "kedro"
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    path.chmod(0o755)
    return path


def start(deploy: Path, kedro: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            sys.executable,
            str(deploy / "run_pipeline.py"),
            "--project",
            str(kedro.parent),
            *arguments,
        ],
        env={**os.environ, "VERSATUNE_KEDRO": str(kedro)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_line_as_cron_starts_it(deploy: Path, tmp_path: Path) -> None:
    kedro = stand_in(tmp_path, "print(sys.argv[1:]); sys.exit(7)")
    done = start(deploy, kedro, "--env", "night")
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 7
    assert ast.literal_eval(out) == ["run", "--pipeline", "retrain", "--env", "night"]


@pytest.mark.parametrize("name", ["--params=x", "a;b", "$(id)", "a b", ""])
def test_no_name_becomes_an_option_or_a_command(deploy: Path, tmp_path: Path, name: str) -> None:
    kedro = stand_in(tmp_path, "print('started')")
    done = start(deploy, kedro, f"--pipeline={name}")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 2 and out == "" and "no name of a pipeline" in err


def test_sigterm_reaches_the_pipeline(deploy: Path, tmp_path: Path) -> None:
    body = (
        "import signal, time\n"
        "def end(*_):\n    print('ended', flush=True); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('ready', flush=True)\ntime.sleep(100)"
    )
    parent = start(deploy, stand_in(tmp_path, body))
    assert parent.stdout and parent.stdout.readline() == "ready\n"
    parent.send_signal(signal.SIGTERM)
    parent.communicate(timeout=60)
    assert parent.returncode == 143


def test_a_missing_kedro_is_one_sentence(deploy: Path, tmp_path: Path) -> None:
    done = start(deploy, tmp_path / "absent")
    _, err = done.communicate(timeout=60)
    assert done.returncode == 2 and "absent" in err and "Traceback" not in err


def test_the_watch_sees_every_kind_of_change(deploy: Path, tmp_path: Path) -> None:
    watch = load(deploy / "dagster" / "watch.py")
    raw = tmp_path / "ein [Ordner] é" / "raw"
    raw.mkdir(parents=True)
    project = raw.parent

    def look() -> str:
        state: str = watch.state(project, ["raw", "more/*.jsonl", str(tmp_path / "abs")])[0]
        return state

    states = [look()]
    (raw / "a.jsonl").write_text("1\n")
    states.append(look())
    (raw / "a.jsonl").write_text("12\n")
    states.append(look())
    os.utime(raw / "a.jsonl", ns=(1, 1))
    states.append(look())
    (project / "more").mkdir()
    (project / "more" / "b.txt").write_text("not watched")
    assert look() == states[-1]
    (project / "more" / "b.jsonl").write_text("x")
    states.append(look())
    (tmp_path / "abs").write_text("x")
    states.append(look())
    (raw / "a.jsonl").unlink()
    states.append(look())
    assert len(set(states)) == len(states)


@pytest.mark.parametrize(
    ("scheduler", "packages"),
    [("dagster", {"dagster", "dagster-webserver"}), ("airflow", {"apache-airflow"})],
)
def test_pins_are_exact(deploy: Path, scheduler: str, packages: set[str]) -> None:
    lines = (deploy / scheduler / "requirements.txt").read_text().splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    assert packages <= {line.split("==")[0] for line in names}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in names)


class Noted:
    """In the place of Airflow's classes: what they were given, the last of each name."""

    given: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, **arguments: Any) -> None:
        self.given[type(self).__name__] = arguments

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def airflow(deploy: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What the definition gives to DAG and BashOperator, loaded as Airflow would."""
    places = {"airflow.sdk": "DAG", "airflow.providers.standard.operators.bash": "BashOperator"}
    for place, name in places.items():
        words = place.split(".")
        for end in range(1, len(words) + 1):
            parent = ".".join(words[:end])
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        setattr(sys.modules[place], name, type(name, (Noted,), {}))
    monkeypatch.setenv("VERSATUNE_CRON", "5 4 * * *")
    load(deploy / "airflow" / "versatune_retraining.py")
    return Noted.given


def test_airflows_definition_loads_and_its_command_is_a_constant(
    airflow: dict[str, dict[str, Any]], deploy: Path
) -> None:
    dag, task = airflow["DAG"], airflow["BashOperator"]
    assert dag["schedule"] == "5 4 * * *" and dag["max_active_runs"] == 1 and not dag["catchup"]
    assert task["append_env"] and task["retries"] == 0 and "{{" not in task["bash_command"]
    tree = ast.parse((deploy / "airflow" / "versatune_retraining.py").read_text())
    (value,) = (
        keyword.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "bash_command"
    )
    assert isinstance(value, ast.Constant)


@pytest.mark.parametrize(("code", "env"), [(0, "night"), (5, None), (0, "$(touch hit)")])
def test_airflows_command_ends_as_the_pipeline_does(
    airflow: dict[str, dict[str, Any]], deploy: Path, tmp_path: Path, code: int, env: str | None
) -> None:
    project = tmp_path / "ein Projekt é"
    (project / ".venv" / "bin").mkdir(parents=True)
    python = project / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (project / "deploy").mkdir()
    shutil.copy(deploy / "run_pipeline.py", project / "deploy")
    stand_in(project / ".venv" / "bin", f"print(sys.argv[1:]); sys.exit({code})")
    own = {k: v for k, v in os.environ.items() if not k.startswith("VERSATUNE_")}
    done = subprocess.run(
        ["bash", "-c", airflow["BashOperator"]["bash_command"]],
        env=own | {"VERSATUNE_PROJECT": str(project)} | ({"VERSATUNE_ENV": env} if env else {}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if env and "$" in env:
        assert done.returncode == 2 and "no name of a pipeline" in done.stderr
        assert not (tmp_path / "hit").exists()
    else:
        assert done.returncode == code, done.stderr
        given = ["--env", env] if env else []
        assert ast.literal_eval(done.stdout) == ["run", "--pipeline", "retrain", *given]


@pytest.fixture(scope="module")
def dagster_python(deploy: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of Dagster's own environment; where CI is set it is made, else it is needed.

    Making it takes a minute and the package index.
    """
    default = deploy / "dagster" / ".venv"
    venv = Path(os.environ.get("VERSATUNE_DAGSTER_VENV", default))
    if not venv.is_dir() and "CI" in os.environ:
        venv = tmp_path_factory.mktemp("dagster") / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--no-compile"]
        pins = ["-r", str(deploy / "dagster" / "requirements.txt")]
        made = subprocess.run([*pip, *pins], check=False, capture_output=True, text=True)
        assert made.returncode == 0, f"Dagster's environment can't be made: {made.stderr[-300:]}"
    if not venv.is_dir():
        pytest.skip(
            f"Dagster's environment is not there ({venv}); deploy/dagster/start.sh makes it"
        )
    return str(venv / "bin" / "python")


RUN_JOB = """
import json, sys
sys.path.insert(0, sys.argv[1])
import dagster as dg, definitions
job = definitions.defs.resolve_job_def("retraining")
with dg.DagsterInstance.ephemeral() as instance:
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    failures = [e.event_specific_data.error.message for e in result.all_events if e.is_step_failure]
    sensor = definitions.defs.resolve_sensor_def("new_data")
    first = dg.build_sensor_context(instance=instance, cursor=None)
    skipped = list(sensor._raw_fn(first))
    again = dg.build_sensor_context(instance=instance, cursor="something else")
    asked = list(sensor._raw_fn(again))
    print("RESULT" + json.dumps({
        "success": result.success,
        "failures": failures,
        "cron": definitions.defs.resolve_schedule_def("nightly").cron_schedule,
        "given_up_after": job.tags["dagster/max_runtime"],
        "first": type(skipped[0]).__name__, "again": type(asked[0]).__name__,
    }))
"""


FAMILY = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_DFL); time.sleep(100)"
other = subprocess.Popen([sys.executable, "-c", child])
print(other.pid, flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_start_sh_starts_ends_with_it(deploy: Path, number: signal.Signals) -> None:
    """A shell makes its background jobs ignore SIGINT: so does this one."""
    family = str(deploy / "dagster" / "family.py")
    shell = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    command = [*shell, sys.executable, family, sys.executable, "-c", FAMILY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(number)
        assert parent.wait(60) == 143
    assert ends(pid)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("code", [0, 5])
def test_dagsters_job_ends_as_the_pipeline_does(
    dagster_python: str, deploy: Path, tmp_path: Path, code: int
) -> None:
    raw = tmp_path / "data" / "01_raw"
    raw.mkdir(parents=True)
    (raw / "a.jsonl").write_text("x")
    kedro = stand_in(tmp_path, f"print('a line of the pipeline'); sys.exit({code})")
    done = subprocess.run(
        [dagster_python, "-c", RUN_JOB, str(deploy / "dagster")],
        env={
            **os.environ,
            "VERSATUNE_PROJECT": str(tmp_path),
            "VERSATUNE_KEDRO": str(kedro),
            "VERSATUNE_CRON": "5 4 * * *",
            "VERSATUNE_SETTLE": "0",
            "VERSATUNE_TIMEOUT": "100",
            "DAGSTER_DISABLE_TELEMETRY": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "RESULT" in done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.split("RESULT")[1])
    assert found["success"] == (code == 0)
    assert "a line of the pipeline" in done.stderr
    assert found["cron"] == "5 4 * * *" and found["given_up_after"] == "700"
    assert (found["first"], found["again"]) == ("SkipReason", "RunRequest")
    if code:
        assert "exit code 5" in found["failures"][0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dagsters_schedule_fires_by_itself(
    dagster_python: str, deploy: Path, tmp_path: Path
) -> None:
    """As start.sh starts it, with a cron of every minute and a pipeline that notes when it ran."""
    (tmp_path / "data" / "01_raw").mkdir(parents=True)
    shutil.copytree(deploy / "dagster" / "home", tmp_path / "home")
    noted = tmp_path / "noted"
    kedro = stand_in(tmp_path, f"open({str(noted)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "log").open("w") as log:
        started = subprocess.Popen(
            ["sh", str(deploy / "dagster" / "start.sh")],
            env={
                **os.environ,
                "VERSATUNE_DAGSTER_VENV": str(Path(dagster_python).parents[1]),
                "VERSATUNE_DAGSTER_PORT": str(port),
                "DAGSTER_HOME": str(tmp_path / "home"),
                "VERSATUNE_PROJECT": str(tmp_path),
                "VERSATUNE_KEDRO": str(kedro),
                "VERSATUNE_CRON": "* * * * *",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        late = time.monotonic() + 240
        while not noted.exists() and started.poll() is None and time.monotonic() < late:
            time.sleep(0.5)
    finally:
        started.terminate()
        code = started.wait(120)
    said = (tmp_path / "log").read_text()
    assert noted.is_file(), said[-3000:]
    assert noted.read_text().splitlines()[0] == "run --pipeline retrain"
    assert code in (0, 143), said[-3000:]
