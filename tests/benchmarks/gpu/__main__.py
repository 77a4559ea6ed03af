"""What a GPU makes of this: tests, the embedded sample, speed, share of the peak, memory.

    make gpu [PYTHON=python3] [WHEELS=FOLDER] [ARGS="..."]
    python -m tests.benchmarks.gpu [--out gpu.json] [--minutes 8] [--only NAME ...] [--tiny]

1. the tests marked ``gpu`` and a run of the whole pipeline on the embedded sample (``--env test``);
2. a line a model with random weights of a real shape, in bfloat16, on packed rows of made-up
   examples (lengths log-normal about 350 tokens, as instruction data has them). ``ours`` is this
   project's training, ``bare`` forward, backward and AdamW on full rows with transformers' default
   attention, ``trl`` TRL's SFTTrainer, packed, with its best attention (left out where TRL is not
   installed). Medians of three runs of steps after a warm-up;
3. among these lines, texts of 128 tokens drawn 256 at a time by the engines of the probe, and one
   by one.

Each is a process of its own with a limit; one that fails, hangs or runs out of memory is a line
that says so. After ``--minutes`` nothing runs any more. The results go to ``--out`` as they come,
with card, driver and versions. MFU is ``versatune.training.throughput``'s; the peak is the card's
dense bfloat16 one. Exit code 1 when something failed.

``--tiny`` takes shapes of a few thousand weights, and is what a machine without a GPU runs.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.gpu.budget import Budget
from tests.benchmarks.gpu.table import said, table
from tests.benchmarks.gpu.trained import CONTENDERS, LINES, lacking
from tests.helpers.support import copy_project
from versatune.training.throughput import peak_flops

ROOT = Path(__file__).parents[3]
PACKAGES = ("torch", "transformers", "accelerate", "peft", "trl", "bitsandbytes", "flash-attn")
CHECKS = {"tests marked gpu": 100.0, "embedded sample": 180.0}
"""What is tried before the lines, and its seconds at most."""

MINUTES = 8.0
"""For everything; with more of them, the limit of each part grows alike."""


def about() -> dict[str, Any]:
    """Card, driver and versions; None for a package that is not installed."""
    found: dict[str, Any] = {"device": _processor(), "driver": None, "cuda": torch.version.cuda}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": torch.cuda.get_device_name(0),
            "devices": torch.cuda.device_count(),
            "memory_bytes": properties.total_memory,
            "driver": _driver(),
        }
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {**found, "peak_bf16_flops": peak_flops(), "versions": versions}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _driver() -> str | None:
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            check=False,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (asked.stdout.strip().splitlines() or [None])[0]


def check(name: str, budget: Budget) -> dict[str, Any]:
    """Run a check: ``said`` and ``seconds``, or ``error``."""
    needed = {"tests marked gpu": "pytest", "embedded sample": "kedro"}[name]
    if importlib.util.find_spec(needed) is None:
        return {"error": f"{needed} is not installed"}
    if name == "tests marked gpu":
        if not torch.cuda.is_available():
            return {"said": "none run: there is no GPU", "seconds": 0.0}
        # Named one by one: the others need packages that a bare machine may lack.
        files = [str(path) for path in sorted(ROOT.glob("tests/**/test_*.py")) if _marked(path)]
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", *files]
        done = budget.run(command, CHECKS[name])
        last = (done.get("output", "").strip().splitlines() or [""])[-1].strip("= ")
        if "error" in done:
            ended = (
                done["seconds"] >= CHECKS[name] * budget.stretch or "no time left" in done["error"]
            )
            said = f"{done['error']}: {last or 'no test was done'}" if ended else last
            return {"error": said or done["error"], "seconds": done["seconds"]}
        return {"said": last, "seconds": done["seconds"]}
    with tempfile.TemporaryDirectory() as folder:
        project = copy_project(ROOT, Path(folder) / "project")
        command = [sys.executable, "-m", "kedro", "run", "--env", "test"]
        done = budget.run(command, CHECKS[name], project)
        written = (project / "data" / "test" / "08_reporting" / "report.html").is_file()
    if "error" not in done and not written:
        return {"error": "the run wrote no report", "seconds": done["seconds"]}
    if "error" in done:
        return {"error": done["error"], "seconds": done["seconds"]}
    return {"said": "ran to its report", "seconds": done["seconds"]}


def _marked(path: Path) -> bool:
    return "pytest.mark.gpu" in path.read_text(encoding="utf-8")


def measure(name: str, tiny: bool, budget: Budget) -> Iterator[tuple[str, dict[str, Any]]]:
    """The line's contenders and what each came to; ``error`` when it fails.

    Each in a process of its own, whose memory is all its own, unless the line says otherwise. Tiny
    ones, which take less time than their imports, are in one.
    """
    line = LINES[name]
    reasons = {c: lacking(line, c) for c in line.contenders}
    able = [c for c in line.contenders if reasons[c] is None]
    for c in line.contenders:
        if reasons[c] is not None:
            yield c, {"error": reasons[c]}
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *(["--tiny"] if tiny else [])]
    for group in [able] if able and (tiny or line.together) else [[c] for c in able]:
        found = budget.numbers([*command, "--measure", name, *group], line.limit * len(group))
        for c in group:
            yield c, found.get(c, found)


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything")
    parser.add_argument("--only", nargs="*", metavar="NAME", default=[*CHECKS, *LINES])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--measure", nargs="+", metavar=("LINE", "CONTENDER"))
    options = parser.parse_args(arguments)
    unknown = [name for name in options.only if name not in (*CHECKS, *LINES)]
    if unknown:
        parser.error(f"--only {unknown[0]!r}: the names are {', '.join([*CHECKS, *LINES])}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    if options.measure:
        name, *contenders = options.measure
        found = {c: CONTENDERS[c](LINES[name], options.tiny) for c in contenders}
        print(json.dumps(found))
        return 0
    # The last process may be killed on time, but the table still has to be written.
    budget = Budget(60 * options.minutes - 5, ROOT, stretch=max(1.0, options.minutes / MINUTES))
    tiny = options.tiny or not torch.cuda.is_available()
    results: dict[str, Any] = {"about": about(), "tiny": tiny, "checks": {}, "lines": {}}
    if not torch.cuda.is_available():
        print("There is no GPU here: tiny shapes run on the CPU, and their speed means nothing.")
    print(json.dumps(results["about"]), flush=True)

    def save() -> None:
        results["seconds"] = budget.seconds - budget.left
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    for name in (n for n in CHECKS if n in options.only):
        results["checks"][name] = check(name, budget)
        print(f"{name}: {said(results['checks'][name])}", flush=True)
        save()
    for name in (n for n in LINES if n in options.only):
        found = results["lines"].setdefault(name, {})
        for contender, given in measure(name, tiny, budget):
            found[contender] = given
            speed = given.get("tokens_per_second")
            shown = f"{speed:,.0f} tokens/s" if speed else given["error"]
            print(f"{name}, {contender}: {shown}", flush=True)
            save()
    print(f"\n{table(results)}\n\n{results['seconds']:.0f} s; written to {options.out}")
    return 1 if failed(results) else 0


def failed(results: dict[str, Any]) -> list[str]:
    """What went wrong, what is not installed and what there was no time for left out."""
    entries = {
        **results["checks"],
        **{f"{n}, {c}": g for n, found in results["lines"].items() for c, g in found.items()},
    }
    excused = ("is not installed", "no time left")
    return [
        name
        for name, entry in entries.items()
        if "error" in entry and not any(reason in entry["error"] for reason in excused)
    ]


if __name__ == "__main__":
    sys.exit(main())
