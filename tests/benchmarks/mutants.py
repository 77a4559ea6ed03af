"""Names of mutants, drawn by chance: ``make mutate ARGS="$(python -m tests.benchmarks.mutants 200
src/versatune/probing)"``.

All mutants take hours. A sample, the same for the same seed, tells the share that survives.
"""

import argparse
import random
from pathlib import Path

from mutmut.configuration import config
from mutmut.mutation.file_mutation import mutate_file_contents


def files_of(paths: list[Path]) -> list[Path]:
    """The files that ``[tool.mutmut]`` changes, in order."""
    files = [f for path in paths for f in ([path] if path.is_file() else path.rglob("*.py"))]
    return sorted(file for file in files if config().should_mutate(file))


def module_of(file: Path) -> str:
    """As it is imported."""
    parts = file.relative_to("src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names(files: list[Path]) -> list[str]:
    """All mutants of the files."""
    found = []
    for file in files:
        mutants = mutate_file_contents(str(file), file.read_text("utf-8")).mutant_names
        found += [f"{module_of(file)}.{name}" for name in mutants]
    return found


def drawn(paths: list[Path], n: int, seed: int) -> tuple[list[Path], list[str], int]:
    """The files, names of ``n`` of their mutants, and how many there are."""
    files = files_of(paths)
    every = names(files)
    return files, random.Random(seed).sample(every, min(n, len(every))), len(every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, help="how many")
    parser.add_argument("paths", type=Path, nargs="+", help="files or folders below src")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(*drawn(given.paths, given.n, given.seed)[1])


if __name__ == "__main__":
    main()
