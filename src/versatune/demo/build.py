"""Generates a corpus with known shares, instruction rows and evaluation items from the facts.

Everything is determined by counting, not by chance: a domain's share of the documents, the part of
its facts the corpus contains, how often each of them, and where the right answer is. Chance, by the
seed, picks only which and in what order.
"""

import json
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from versatune.artifacts import FolderRef, file_digest, write_atomic
from versatune.demo.config import SampleParams
from versatune.demo.facts import (
    Fact,
    Relation,
    facts_path,
    load_facts,
    load_templates,
    load_unseen,
    phrase,
    templates_path,
    unseen_path,
)
from versatune.domains import canonical
from versatune.errors import VersatuneError
from versatune.work import Piece

logger = logging.getLogger(__name__)

DOCUMENT_WORDS = (20, 32)
"""A document is filled with statements until it has this many words or more: the bound is drawn
evenly between these two, alike in every domain, so that documents are comparable in length."""


def build(params: SampleParams) -> Piece:
    """The files of the sample: corpus, instruction rows and evaluation items.

    Raises VersatuneError, when it is made, on missing or malformed facts and templates, and when a
    document count is too small for every domain to have one.
    """
    shares = {canonical(name): share for name, share in params.shares.items()}
    sources = [templates_path(params.source), *(facts_path(params.source, d) for d in shares)]
    unseen = [unseen_path(params.source, d) for d in shares]
    inputs = {
        **params.model_dump(mode="json", exclude={"source"}),
        "sources": {p.name: file_digest(p) for p in sources if p.is_file()},
        "unseen": {p.name: file_digest(p) for p in unseen if p.is_file()},
    }
    return Piece(inputs, partial(_write, params, shares))


def describe(made: FolderRef) -> dict[str, Any]:
    """The contents of the sample's folder, as JSON.

    ``folder``, ``fingerprint``, ``corpus`` (path), ``instructions`` and ``evaluation`` (domain ->
    path), ``shares`` (domain -> known share of the corpus documents) and ``counts`` (domain ->
    ``facts``, ``seen``, ``documents``, ``rows``, ``items``, ``unseen``).
    """
    return {
        "folder": str(made.path),
        "fingerprint": made.fingerprint,
        "corpus": str(made.path / "corpus.jsonl"),
        **{
            kind: {d: str(made.path / kind / f"{d}.jsonl") for d in made.metadata["shares"]}
            for kind in ("instructions", "evaluation")
        },
        **made.metadata,
    }


def _write(params: SampleParams, shares: dict[str, float], folder: Path) -> dict[str, Any]:
    templates = load_templates(params.source)
    documents = apportion(shares, params.documents)
    corpus: list[dict[str, str]] = []
    counts: dict[str, dict[str, int]] = {}
    for domain, number in documents.items():
        facts = load_facts(params.source, domain)
        relations = _relations(facts, templates.get(domain, {}), domain)
        # A generator a purpose: one more document moves no row and no item.
        seen = choose_seen(facts, params.seen_fraction, _rng(params.seed, domain, "seen"))
        texts = compose_documents(
            [f for f in facts if f in seen], relations, number, _rng(params.seed, domain, "corpus")
        )
        corpus += [{"domain": domain, "text": text} for text in texts]
        rows = instruction_rows(facts, relations, params.phrasings)
        _rng(params.seed, domain, "rows").shuffle(rows)
        items = choice_items(
            facts, relations, seen, params.choices, _rng(params.seed, domain, "items")
        )
        _write_lines(folder / "instructions" / f"{domain}.jsonl", rows)
        _write_lines(folder / "evaluation" / f"{domain}.jsonl", items)
        new = load_unseen(params.source, domain, facts)
        if new:
            _relations(new, templates.get(domain, {}), domain)
            rng = _rng(params.seed, domain, "unseen")
            asked = choice_items(new, relations, set(), params.choices, rng, told=facts)
            _write_lines(folder / "unseen" / f"{domain}.jsonl", asked)
        counts[domain] = {
            "facts": len(facts),
            "seen": len(seen),
            "documents": number,
            "rows": len(rows),
            "items": len(items),
            "unseen": len(new),
        }
    _rng(params.seed, "all", "corpus").shuffle(corpus)
    _write_lines(folder / "corpus.jsonl", corpus)
    logger.info(
        "Embedded sample: %s rows, for domains without data of your own.",
        f"{sum(c['rows'] for c in counts.values()):,}",
    )
    return {
        "shares": {domain: number / params.documents for domain, number in documents.items()},
        "counts": counts,
    }


def apportion(shares: dict[str, float], total: int) -> dict[str, int]:
    """``total`` documents in the proportions of ``shares``, by largest remainders.

    The counts sum to ``total`` and each is within 1 of its exact quota. Raises VersatuneError
    when a domain would get none.
    """
    exact = {d: Fraction(s).limit_denominator(10**6) for d, s in shares.items()}
    quotas = {d: total * s / sum(exact.values()) for d, s in exact.items()}
    counts = {d: int(q) for d, q in quotas.items()}
    left = sorted(quotas, key=lambda d: counts[d] - quotas[d])
    for domain in left[: total - sum(counts.values())]:
        counts[domain] += 1
    empty = [d for d, n in counts.items() if n == 0]
    if empty:
        raise VersatuneError(
            f"sample.documents = {total} leaves no document for {', '.join(empty)}: raise it."
        )
    return counts


def choose_seen(facts: Sequence[Fact], fraction: float, rng: random.Random) -> set[Fact]:
    """The facts that the corpus contains: ``fraction`` of each relation, to within one fact."""
    order = sorted(facts, key=lambda fact: (fact.relation, rng.random()))
    part = Fraction(fraction).limit_denominator(1000)
    return {fact for i, fact in enumerate(order) if int((i + 1) * part) > int(i * part)}


def compose_documents(
    facts: Sequence[Fact], relations: dict[str, Relation], number: int, rng: random.Random
) -> list[str]:
    """``number`` documents that tell each fact equally often, to within one time."""
    statements = _statements(facts, relations, rng)
    documents = []
    for _ in range(number):
        bound, words, text = rng.randint(*DOCUMENT_WORDS), 0, []
        while words < bound:
            statement = next(statements)
            text.append(statement)
            words += len(statement.split())
        documents.append(" ".join(text))
    return documents


def _statements(
    facts: Sequence[Fact], relations: dict[str, Relation], rng: random.Random
) -> Iterator[str]:
    """Statements without end: pass after pass over the facts, each time in other words."""
    order = list(facts)
    starts = {fact: rng.randrange(1000) for fact in facts}
    for turn in count():
        rng.shuffle(order)
        for fact in order:
            templates = relations[fact.relation].statements
            yield phrase(templates[(starts[fact] + turn) % len(templates)], fact)


def instruction_rows(
    facts: Iterable[Fact], relations: dict[str, Relation], phrasings: int
) -> list[dict[str, str]]:
    """Alpaca rows: every fact in the first ``phrasings`` phrasings of its relation."""
    return [
        {key: phrase(text, fact) for key, text in question.model_dump().items()}
        for fact in facts
        for question in relations[fact.relation].questions[:phrasings]
    ]


def choice_items(
    facts: Sequence[Fact],
    relations: dict[str, Relation],
    seen: set[Fact],
    choices: int,
    rng: random.Random,
    told: Sequence[Fact] = (),
) -> list[dict[str, Any]]:
    """One multiple-choice item a fact: ``question, choices, answer`` (an index) and ``seen``.

    Wrong choices are objects of other facts of the relation, those of ``told`` among them, never
    one that could be argued to be right. The right answer stands in each place equally often.
    """
    items = []
    for number, fact in enumerate(facts):
        relation = relations[fact.relation]
        wrong = wrong_objects(fact, [*facts, *told], relation)
        if len(wrong) < choices - 1:
            raise VersatuneError(
                f"{fact.relation}: only {len(wrong)} wrong answers exist for {fact.subject!r}, "
                f"sample.choices asks for {choices - 1}."
            )
        options = rng.sample(wrong, choices - 1)
        answer = number % choices
        options.insert(answer, fact.object)
        question = phrase(relation.choice[number // choices % len(relation.choice)], fact)
        items.append(
            {"question": question, "choices": options, "answer": answer, "seen": fact in seen}
        )
    return items


def wrong_objects(fact: Fact, facts: Iterable[Fact], relation: Relation) -> list[str]:
    """The objects of the relation that are surely wrong for ``fact``, sorted."""
    close = {o for group in relation.confusable if fact.object in group for o in group}
    objects = {f.object for f in facts if f.relation == fact.relation}
    return sorted(objects - close - {fact.object})


def _relations(
    facts: Sequence[Fact], templates: dict[str, Relation], domain: str
) -> dict[str, Relation]:
    missing = sorted({f.relation for f in facts} - templates.keys())
    if missing:
        raise VersatuneError(f"templates.yml has no phrasings for {domain}.{missing[0]}.")
    return templates


def _rng(seed: int, *purpose: str) -> random.Random:
    return random.Random(f"{seed}/{'/'.join(purpose)}")


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
