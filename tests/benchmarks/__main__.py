"""Every benchmark, one after another: ``make bench MODEL=folder DATA=folder``.

MODEL is a Hugging Face folder (the README's numbers are SmolLM2-135M-Instruct's), DATA a folder
with ``<domain>.jsonl`` instruction rows. Each prints ratios measured side by side in one run.
"""

import os
import subprocess
import sys


def main() -> int:
    model, data = os.environ.get("MODEL"), os.environ.get("DATA")
    if not model or not data:
        sys.exit("make bench MODEL=<Hugging Face folder> DATA=<folder with <domain>.jsonl files>")
    commands = [
        ["bench_ingest", "speed", "--model", model, "--data", data],
        ["bench_ingest", "memory", "--model", model],
        ["bench_planning", "--data", data],
        ["bench_training", "--model", model, "--data", data],
        ["bench_probe", model, "--data", data],
    ]
    failed = []
    for name, *arguments in commands:
        print(f"\n== {name} {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments], check=False
        )
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"\nnot finished: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
