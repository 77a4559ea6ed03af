"""Mutants against some tests, in a tenth of mutmut's time: ``python -m tests.benchmarks.try_mutants
60 src/versatune/mixing/steering.py --tests tests/unit/mixing/test_steering_rules.py``.

The mutants are those that ``make mutate`` tries, drawn as :mod:`tests.benchmarks.mutants` draws
them. mutmut collects the tests for each of them; here they are collected once, and each mutant is a
fork in which those tests run that reach its function, the quickest first, up to the first failure.
Prints the count, and each survivor's name (``mutmut show NAME`` prints what it changes).
"""

import argparse
import importlib.machinery
import importlib.util
import os
import pickle
import resource
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder, SourceLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation import trampoline
from mutmut.mutation.file_mutation import mutate_file_contents

from tests.benchmarks.mutants import drawn, module_of

MORE = 10.0
"""A mutant may take so many times the processor time of its tests, and as many seconds more."""


class Mutated(MetaPathFinder, SourceLoader):
    """Imports the files with all their mutants in them, of which one is chosen by name."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = {module_of(file): file for file in files}
        self.code = {
            name: mutate_file_contents(str(file), file.read_text("utf-8")).code
            for name, file in self.files.items()
        }

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname not in self.code:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self.files[fullname].resolve(), loader=self
        )

    def get_filename(self, fullname: str) -> str:
        return str(self.files[fullname].resolve())

    def get_data(self, path: bytes | str) -> bytes:
        return Path(os.fsdecode(path)).read_bytes()

    def get_code(self, fullname: str) -> CodeType:
        """Compiled anew: a kept .pyc would be of the file without mutants."""
        code: CodeType = compile(self.code[fullname], self.get_filename(fullname), "exec")
        return code


class Ran(NamedTuple):
    """A test that passes without a mutant."""

    item: int
    seconds: float
    reached: frozenset[str]
    """Functions that have mutants."""


class Trial:
    """A pytest plugin that runs the collected tests for each mutant and not once."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.survived: list[str] = []
        self.counts: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = session.items
        ran: list[Ran] = pickle.loads(_forked(lambda: pickle.dumps(_reached(items)))[1])
        for name in self.names:
            function = name.rpartition("__mutmut_")[0]
            mine = sorted((r for r in ran if function in r.reached), key=lambda r: r.seconds)
            found = "killed" if mine and _dies(name, items, mine) else "survived"
            self.counts[found] += 1
            if found == "survived":
                self.survived.append(name)
        return True


def _reached(items: Sequence[pytest.Item]) -> list[Ran]:
    """The tests that pass, with the functions they reach."""
    reached: set[str] = set()
    trampoline.record_trampoline_hit = lambda name, **_: reached.add(name)  # type: ignore[assignment]
    trampoline.set_mutant_under_test("stats")
    found = []
    for number, passed, seconds in _results(items):
        if passed:
            found.append(Ran(number, seconds, frozenset(reached)))
        reached.clear()
    return found


def _dies(name: str, items: Sequence[pytest.Item], mine: Sequence[Ran]) -> bool:
    """Whether one of the tests fails, or takes far too long, with the mutant."""

    def tried() -> bytes:
        limit = int(_used() + MORE + MORE * sum(r.seconds for r in mine))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        trampoline.set_mutant_under_test(name)
        passed = all(passed for _, passed, _ in _results([items[r.item] for r in mine]))
        return b"survived" if passed else b""

    code, said = _forked(tried)
    return code != 0 or not said


def _results(items: Sequence[pytest.Item]) -> Any:
    """Of each test its number, whether it passed, and its processor time."""
    for number, item in enumerate(items):
        before, after = _used(), items[number + 1] if number + 1 < len(items) else None
        reports = runtestprotocol(item, log=False, nextitem=after)
        yield number, all(report.passed for report in reports), _used() - before


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _forked(function: Callable[[], bytes]) -> tuple[int, bytes]:
    """The exit status of a fork that calls ``function``, and what this gave."""
    end, begin = os.pipe()
    if pid := os.fork():
        os.close(begin)
        with os.fdopen(end, "rb") as said:
            given = said.read()
        return os.waitpid(pid, 0)[1], given
    try:
        with os.fdopen(begin, "wb") as said:
            said.write(function())
        os._exit(0)
    finally:  # an exception of any kind
        os._exit(1)


def main() -> int:
    """Try them; 0 unless tests could not be collected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, help="how many")
    parser.add_argument("paths", type=Path, nargs="+", help="files or folders below src")
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    files, names, total = drawn(given.paths, given.n, given.seed)
    sys.meta_path.insert(0, Mutated(files))
    trial = Trial(names)
    settings = ["-q", "-s", "-p", "no:cacheprovider", "--noconftest"]
    code = int(pytest.main([*settings, *given.tests], plugins=[trial]))
    print(f"{dict(trial.counts)} of {len(names)} drawn of {total}", *trial.survived, sep="\n")
    return code if code != pytest.ExitCode.NO_TESTS_COLLECTED else 0


if __name__ == "__main__":
    sys.exit(main())
