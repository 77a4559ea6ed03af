"""Names of mutants, drawn by chance: ``make mutate ARGS="$(python -m tests.benchmarks.mutants 200
src/versatune/probing)"``.

All mutants take hours. A sample, the same for the same seed, tells the share that survives.
"""

import argparse
import random
from pathlib import Path

from mutmut.configuration import config
from mutmut.mutation.file_mutation import mutate_file_contents


def names(paths: list[Path]) -> list[str]:
    """All mutants of the files that ``[tool.mutmut]`` changes, in order."""
    files = [f for path in paths for f in ([path] if path.is_file() else path.rglob("*.py"))]
    found = []
    for file in sorted(file for file in files if config().should_mutate(file)):
        module = ".".join(file.relative_to("src").with_suffix("").parts)
        mutants = mutate_file_contents(str(file), file.read_text("utf-8")).mutant_names
        found += [f"{module}.{name}" for name in mutants]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, help="how many")
    parser.add_argument("paths", type=Path, nargs="+", help="files or folders below src")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    every = names(given.paths)
    print(*random.Random(given.seed).sample(every, min(given.n, len(every))))


if __name__ == "__main__":
    main()
