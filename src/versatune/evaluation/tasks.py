"""Evaluation files of the user: read, checked line by line, their kind found by their fields.

=================  =====================================================  ===========
kind               fields of a line                                       metrics
=================  =====================================================  ===========
multiple_choice    ``question``, ``choices``, ``answer`` (0-based index)  acc, acc_norm
generation         ``question``, ``answer`` (text)                        exact_match
humaneval          ``prompt``, ``test``, ``entry_point``                  pass@1
mbpp               ``text`` or ``prompt``, ``test_list``                  pass@1
=================  =====================================================  ===========

More fields are fine. A file holds one kind; its first line decides.
"""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from versatune.artifacts import file_digest, fingerprint
from versatune.data.config import Domains
from versatune.data.leaks import equal_choices, read_items
from versatune.errors import VersatuneError
from versatune.evaluation.results import APART

Kind = Literal["multiple_choice", "generation", "humaneval", "mbpp"]

CODE_KINDS: tuple[Kind, ...] = ("humaneval", "mbpp")

Item = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalTask:
    """A checked evaluation file."""

    domain: str
    name: str
    kind: Kind
    path: Path
    digest: str
    """SHA-256 of the file."""
    items: tuple[Item, ...]
    """The lines, with ``item`` added: the task's name and the line's number, ``courts:12``, which
    stay when the file is moved."""
    apart: bool = False
    """Whether its results are shown and not counted."""

    @property
    def label(self) -> str:
        """What the tables call it."""
        return self.name + APART if self.apart else self.name

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the questions and of how they are scored."""
        about = {"kind": self.kind, "file": self.digest, "scoring": SCORING}
        return fingerprint({**about, "apart": True} if self.apart else about)

    @property
    def runs_code(self) -> bool:
        """Whether scoring it runs programs that the model wrote."""
        return self.kind in CODE_KINDS

    def question(self, item: Item) -> str:
        """What is asked, as a person reads it."""
        return str(next(item[name] for name in ("question", "text", "prompt") if name in item))

    def truth(self, item: Item) -> str:
        """The right answer, as a person reads it."""
        if self.kind == "multiple_choice":
            return str(item["choices"][item["answer"]])
        return "a program that passes the tests" if self.runs_code else str(item["answer"])

    def chance(self, limit: int | None = None) -> float | None:
        """The accuracy that guessing reaches on the first ``limit`` items; None for no choices."""
        if self.kind != "multiple_choice":
            return None
        asked = self.items[:limit]
        return sum(1 / len(item["choices"]) for item in asked) / len(asked)


_USED: dict[Kind, set[str]] = {
    "multiple_choice": {"item", "question", "choices", "answer"},
    "generation": {"item", "question", "answer"},
    "humaneval": {"item", "prompt", "test", "entry_point", "task_id", "canonical_solution"},
    "mbpp": {
        *("item", "text", "prompt", "test_list", "test_imports", "test_setup_code"),
        *("task_id", "code", "source_file", "challenge_test_list"),
    },
}
"""Keys that are used in questions or scores, and further ones of the benchmarks."""
WORDS = 4
"""A field of fewer words is a label."""
COUNTED = 20
"""Items of four choices of which none is the first by chance in one file of 300."""

SCORING = 11
"""Raised when the same items are asked, scored or named in another way, so that kept results are
not used."""


def read_task(domain: str, name: str, path: Path | str, *, apart: bool = False) -> LocalTask:
    """Read one evaluation file (JSON lines).

    Raises VersatuneError with file and line on the first fault: not JSON, a missing field, no
    choices, two equal ones, an answer that is no index of them.
    """
    path = Path(path)
    if not path.is_file():
        raise VersatuneError(
            f"domains.{domain}.evaluation: {path} can't be read: there is no such file."
        )
    items: list[Item] = []
    kind: Kind | None = None
    for where, item in read_items(path):
        kind = kind or _kind(item, where)
        problem = _CHECKS[kind](item)
        if problem:
            raise VersatuneError(f"{where}: {problem}.")
        items.append({**item, "item": f"{name}:{where.rpartition(':')[2]}"})
    if kind is None:
        raise VersatuneError(f"domains.{domain}.evaluation: {path} holds no items.")
    return LocalTask(domain, name, kind, path, file_digest(path), tuple(items), apart)


def domain_tasks(domains: Domains) -> list[LocalTask]:
    """Every evaluation file of every domain, checked line by line; their names must differ."""
    tasks: list[LocalTask] = []
    for domain, config in domains.active.items():
        seen: set[str] = set()
        for file in config.evaluation:
            if file.task in seen:
                raise VersatuneError(
                    f"domains.{domain}.evaluation: two files are called {file.task!r}; name them "
                    "apart."
                )
            seen.add(file.task)
            tasks.append(read_task(domain, file.task, file.path, apart=file.apart))
    return tasks


def tell_doubts(task: LocalTask) -> None:
    """Warn of texts in the items that are not asked, and of answers that seem to count from 1.

    A passage beside a question is such a text; an item's number or subject is none.
    """
    unused = Counter(
        key
        for item in task.items
        for key, value in item.items()
        if key not in _USED[task.kind] and _is_told(value)
    )
    if unused:
        named = ", ".join(f"{key} ({items} items)" for key, items in sorted(unused.items()))
        logger.warning(
            "%s (%s): not asked: %s. What a model needs for the answer must be in the question.",
            task.path,
            task.domain,
            named,
        )
    if task.kind == "multiple_choice" and len(task.items) >= COUNTED:
        answers = {item["answer"] for item in task.items}
        if 0 not in answers:
            logger.warning(
                "%s (%s): no answer of %d items is 0, the first choice: do they count from 1? "
                "They are indices from 0.",
                task.path,
                task.domain,
                len(task.items),
            )


def _is_told(value: Any) -> bool:
    """Whether a field holds several words, and so perhaps what a question is about."""
    return isinstance(value, str | list | dict) and len(str(value).split()) >= WORDS


def _kind(item: Item, where: str) -> Kind:
    if "entry_point" in item:
        return "humaneval"
    if "test_list" in item:
        return "mbpp"
    if "choices" in item:
        return "multiple_choice"
    if "answer" in item and not isinstance(item["answer"], int):
        return "generation"
    if "answer" in item:
        raise VersatuneError(
            f"{where}: 'choices' is missing (or write the answer as text for a question without)."
        )
    raise VersatuneError(
        f"{where}: can't tell what is asked from the fields {', '.join(sorted(item)) or 'none'}; "
        "give question, choices, answer; or question, answer; or the fields of HumanEval or MBPP."
    )


def _missing(item: Item, *names: str) -> str | None:
    """The first of ``names`` that is not a non-empty text."""
    for name in names:
        if not isinstance(item.get(name), str) or not item[name].strip():
            return f"{name!r} must be a text that is not empty, found {item.get(name)!r}"
    return None


def _check_choice(item: Item) -> str | None:
    choices, answer = item.get("choices"), item.get("answer")
    if problem := _missing(item, "question"):
        return problem
    if not isinstance(choices, list) or len(choices) < 2:
        return f"'choices' must be a list of at least two, found {choices!r}"
    if not all(isinstance(c, str) and c.strip() for c in choices):
        return f"'choices' must be texts that are not empty, found {choices!r}"
    if problem := equal_choices(choices):
        return problem
    if not isinstance(answer, int) or isinstance(answer, bool):
        return f"'answer' must be the index of the right choice, counted from 0, found {answer!r}"
    if not 0 <= answer < len(choices):
        return f"'answer' is {answer}, but the choices are 0 to {len(choices) - 1}"
    return None


def _check_mbpp(item: Item) -> str | None:
    tests = item.get("test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(t, str) for t in tests):
        return f"'test_list' must be a list of assertions, found {tests!r}"
    return _missing(item, "text" if "text" in item else "prompt")


_CHECKS: dict[Kind, Callable[[Item], str | None]] = {
    "multiple_choice": _check_choice,
    "generation": lambda item: _missing(item, "question", "answer"),
    "humaneval": lambda item: _missing(item, "prompt", "test", "entry_point"),
    "mbpp": _check_mbpp,
}
