"""Mutants against some tests, in a tenth of mutmut's time: ``python -m tests.benchmarks.try_mutants
60 src/versatune/mixing/steering.py --tests tests/unit/mixing/test_steering_rules.py``.

The mutants are those that ``make mutate`` tries, drawn as :mod:`tests.benchmarks.mutants` draws
them. mutmut collects the tests for each of them; here they are collected once, and each mutant is a
fork in which those tests run that reach its function, the quickest first, up to the first failure.
Prints what became of each, and the count (``mutmut show NAME`` prints what a mutant changes).

``--fixtures`` is for tests that take fixtures of a conftest. Fixtures of modules and of the session
are made once, before the forks; those that reached the mutant's function are made again with it.
A process that a test starts has no mutants.
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
from _pytest.scope import Scope
from mutmut.mutation import trampoline
from mutmut.mutation.file_mutation import mutate_file_contents

from tests.benchmarks.mutants import drawn, module_of

MORE = 10.0
"""A mutant may take so many times the processor time of its tests, and as many seconds more."""

WAITS = 120
"""Seconds by the clock after which a test that only waits has failed."""


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
        self.counts: Counter[str] = Counter()
        self.kept: list[pytest.FixtureDef[Any]] = []
        self.within: dict[str, set[str]] = {}
        """Functions that were reached while a fixture, or one that it takes, was made."""
        self.reached: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = session.items
        trampoline.record_trampoline_hit = lambda name, **_: self.reached.add(name)  # type: ignore[assignment]
        trampoline.set_mutant_under_test("stats")
        _make_fixtures(session)
        ran: list[Ran] = pickle.loads(_forked(lambda: pickle.dumps(self._ran(items)))[1])
        print(f"{len(ran)} of {len(items)} tests are used", flush=True)
        for name in self.names:
            function = name.rpartition("__mutmut_")[0]
            mine = sorted((r for r in ran if function in r.reached), key=lambda r: r.seconds)
            found = "killed" if mine and self._dies(name, items, mine) else "survived"
            self.counts[found] += 1
            print(name, found if mine else "is reached by no test", flush=True)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Any:
        """Notes what is reached while a fixture is made."""
        before, self.reached = self.reached, set()
        try:
            return (yield)
        finally:
            within = self.within.setdefault(fixturedef.argname, set())
            within.update(self.reached, *(self.within.get(n, ()) for n in fixturedef.argnames))
            self.reached |= before
            self.kept.append(fixturedef)

    def _ran(self, items: Sequence[pytest.Item]) -> list[Ran]:
        """The tests that pass, with the functions they reach."""
        found = []
        for number, passed, seconds in _results(items):
            if passed:
                fixtures = getattr(items[number], "fixturenames", ())
                before = self.reached.union(*(self.within.get(name, ()) for name in fixtures))
                found.append(Ran(number, seconds, frozenset(before)))
            self.reached.clear()
        return found

    def _dies(self, name: str, items: Sequence[pytest.Item], mine: Sequence[Ran]) -> bool:
        """Whether one of the tests fails, or takes far too long, with the mutant."""
        function = name.rpartition("__mutmut_")[0]

        def tried() -> bytes:
            limit = int(_used() + MORE + MORE * sum(r.seconds for r in mine))
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 1)
            os.dup2(nothing, 2)
            for fixture in self.kept:
                if function in self.within[fixture.argname]:
                    fixture.cached_result = None
                    fixture._finalizers.clear()
            trampoline.set_mutant_under_test(name)
            passed = all(passed for _, passed, _ in _results([items[r.item] for r in mine]))
            return b"survived" if passed else b""

        code, said = _forked(tried)
        return code != 0 or not said


def _make_fixtures(session: pytest.Session) -> None:
    """Makes those of modules and of the session, which stay: a fork finds them made."""
    functions = [item for item in session.items if isinstance(item, pytest.Function)]
    for fixture in {f for item in functions for f in _fixtures(item)}:
        if fixture.scope == "module":
            fixture._scope = Scope.Session  # type: ignore[misc]
    session.config.option.setuponly = True
    for item in session.items:
        runtestprotocol(item, log=False, nextitem=session)  # type: ignore[arg-type]
    session.config.option.setuponly = False


def _fixtures(item: pytest.Function) -> list[pytest.FixtureDef[Any]]:
    """What the test takes."""
    return [f for same in item._fixtureinfo.name2fixturedefs.values() for f in same]


def _results(items: Sequence[pytest.Item]) -> Any:
    """Of each test its number, whether it passed, and its processor time."""
    for number, item in enumerate(items):
        before = _used()
        reports = runtestprotocol(item, log=False, nextitem=item.session)  # type: ignore[arg-type]
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
    parser.add_argument("--fixtures", action="store_true", help="with what the conftests hold")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    files, names, total = drawn(given.paths, given.n, given.seed)
    sys.meta_path.insert(0, Mutated(files))
    trial = Trial(names)
    settings = ["-q", "-s", "-p", "no:cacheprovider", f"--timeout={WAITS}"]
    settings += [] if given.fixtures else ["--noconftest"]
    code = int(pytest.main([*settings, *given.tests], plugins=[trial]))
    print(f"{dict(trial.counts)} of {len(names)} drawn of {total}")
    return code if code != pytest.ExitCode.NO_TESTS_COLLECTED else 0


if __name__ == "__main__":
    sys.exit(main())
