"""The embedded facts and the templates that put them into words."""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import Field

from versatune.errors import VersatuneError
from versatune.params import Params

COLUMNS = ["subject", "relation", "object"]

_PLACEHOLDER = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Fact:
    """One true statement: ``subject`` has ``object`` as its only ``relation``."""

    subject: str
    relation: str
    object: str


class Question(Params):
    """An instruction row in words, alpaca shape."""

    instruction: str
    input: str = ""
    output: str


class Relation(Params):
    """How the facts of one relation are put into words."""

    statements: list[str] = Field(min_length=1)
    """Sentences of the pretraining corpus."""
    questions: list[Question] = Field(min_length=1)
    """Instruction rows."""
    choice: list[str] = Field(min_length=1)
    """Questions of the multiple-choice items; trained on nowhere."""
    confusable: list[list[str]] = Field(default=[])
    """Groups of objects that are never offered against one another in multiple choice."""


Templates = dict[str, dict[str, Relation]]
"""Domain -> relation -> phrasings."""


def facts_path(source: Path, domain: str) -> Path:
    """Where the facts of ``domain`` lie."""
    return source / "facts" / f"{domain}.csv"


def unseen_path(source: Path, domain: str) -> Path:
    """Where those facts of ``domain`` lie that no training sees; there may be none."""
    return source / "unseen" / f"{domain}.csv"


def load_facts(source: Path, domain: str) -> list[Fact]:
    """The facts of one domain, in the order of the file; see :func:`read_facts`."""
    path = facts_path(source, domain)
    if not path.is_file():
        raise VersatuneError(
            f"the sample has no facts of the domain {domain!r}: {path} is missing."
        )
    return read_facts(path)


def load_unseen(source: Path, domain: str, told: Iterable[Fact]) -> list[Fact]:
    """The facts of one domain that no training sees; empty without a file.

    Raises VersatuneError as :func:`read_facts`, and where one of ``told`` is about the same.
    """
    path = unseen_path(source, domain)
    if not path.is_file():
        return []
    known = {(fact.subject, fact.relation) for fact in told}
    unseen = read_facts(path)
    for fact in unseen:
        if (fact.subject, fact.relation) in known:
            raise VersatuneError(
                f"{path}: {fact.subject!r} has a {fact.relation!r} in {facts_path(source, domain)} "
                "too, which is trained on: take it out of one of them."
            )
    return unseen


def read_facts(path: Path) -> list[Fact]:
    """The facts of a file, in its order.

    Raises VersatuneError, naming file and line, on other columns than ``subject,relation,object``,
    an empty cell, or a second object for a subject and relation.
    """
    facts: dict[tuple[str, str], Fact] = {}
    with path.open(encoding="utf-8", newline="") as handle:
        rows = csv.reader(handle)
        if next(rows, None) != COLUMNS:
            raise VersatuneError(f"{path}:1: the first line must be {','.join(COLUMNS)}.")
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if len(row) != len(COLUMNS) or not all(cell.strip() for cell in row):
                raise VersatuneError(f"{where}: a fact needs subject, relation and object: {row}.")
            fact = Fact(*(cell.strip() for cell in row))
            if facts.setdefault((fact.subject, fact.relation), fact) is not fact:
                raise VersatuneError(
                    f"{where}: {fact.subject!r} already has an object for {fact.relation!r}."
                )
    return list(facts.values())


def templates_path(source: Path) -> Path:
    """Where the phrasings lie."""
    return source / "templates.yml"


def load_templates(source: Path) -> Templates:
    """The phrasings of every domain and relation.

    Raises VersatuneError on a missing or malformed file, and on a placeholder that is none of
    ``{subject} {object} {Subject} {Object}``.
    """
    path = templates_path(source)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VersatuneError(f"the sample's templates can't be read: {path} ({error}).") from error
    except yaml.YAMLError as error:
        raise VersatuneError(f"{path} is not valid YAML: {error}") from error
    if not (isinstance(raw, dict) and all(isinstance(r, dict) for r in raw.values())):
        raise VersatuneError(f"{path} must map domains to relations, and those to phrasings.")
    templates: Templates = {}
    for domain, relations in raw.items():
        for name, body in relations.items():
            try:
                relation = Relation.model_validate(body)
            except ValueError as error:
                raise VersatuneError(f"{path}: {domain}.{name}: {error}") from error
            for text in phrasings(relation):
                _check_placeholders(text, f"{path}: {domain}.{name}")
            templates.setdefault(domain, {})[name] = relation
    return templates


def phrasings(relation: Relation) -> list[str]:
    """Every template text of a relation."""
    questions = [t for q in relation.questions for t in (q.instruction, q.input, q.output)]
    return [*relation.statements, *questions, *relation.choice]


def phrase(template: str, fact: Fact) -> str:
    """``template`` with the fact put in; ``{Subject}`` and ``{Object}`` begin with a capital."""
    values = {
        "subject": fact.subject,
        "object": fact.object,
        "Subject": _capital(fact.subject),
        "Object": _capital(fact.object),
    }
    return _PLACEHOLDER.sub(lambda match: values[match.group(1)], template)


def _check_placeholders(text: str, where: str) -> None:
    for name in _PLACEHOLDER.findall(text):
        if name.lower() not in ("subject", "object") or name.upper() == name:
            raise VersatuneError(f"{where}: there is no placeholder {{{name}}} in {text!r}.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
