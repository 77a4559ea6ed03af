"""The embedded facts and templates: well-formed, enough, told in sound sentences."""

import re
from collections import Counter
from pathlib import Path

import pytest

from versatune.demo.build import wrong_objects
from versatune.demo.facts import (
    Fact,
    Relation,
    Templates,
    load_facts,
    load_templates,
    load_unseen,
    phrase,
    phrasings,
)
from versatune.errors import VersatuneError

DOMAINS = ("law", "medicine", "finance", "science", "code", "other")


@pytest.fixture(scope="module")
def source(project_root: Path) -> Path:
    return project_root / "data" / "01_raw" / "samples"


def every_fact(source: Path, domain: str) -> list[Fact]:
    """Those that are trained on, and those that are not."""
    told = load_facts(source, domain)
    return told + load_unseen(source, domain, told)


@pytest.fixture(scope="module")
def templates(source: Path) -> Templates:
    return load_templates(source)


@pytest.mark.parametrize("domain", DOMAINS)
def test_facts_are_enough_unique_and_short(source: Path, domain: str) -> None:
    facts = every_fact(source, domain)
    assert len(facts) >= 150
    keys = [(f.subject.casefold(), f.relation) for f in facts]
    assert [k for k, n in Counter(keys).items() if n > 1] == []
    for fact in facts:
        assert 1 <= len(fact.object.split()) <= 5, fact
        assert re.fullmatch(r"[a-z_]+", fact.relation), fact
        for cell in (fact.subject, fact.object):
            assert cell == " ".join(cell.split()), fact
            assert not re.search(r"[{}]", cell), fact


def test_no_fact_is_told_twice_over_all_domains(source: Path) -> None:
    told = Counter(
        (f.subject.casefold(), f.object.casefold()) for d in DOMAINS for f in every_fact(source, d)
    )
    assert [pair for pair, n in told.items() if n > 1] == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_templates_cover_exactly_the_relations(
    source: Path, templates: Templates, domain: str
) -> None:
    used = {f.relation for f in load_facts(source, domain)}
    assert used == templates[domain].keys()
    assert 5 <= len(used) <= 10
    for relation in templates[domain].values():
        assert len(relation.statements) >= 4
        assert len(relation.questions) >= 4
        assert len(relation.choice) >= 2
        texts = phrasings(relation)
        assert len({t for t in texts if t}) >= len(relation.statements) + 4


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_sentence_is_filled_and_looks_like_one(
    source: Path, templates: Templates, domain: str
) -> None:
    for fact in every_fact(source, domain):
        relation = templates[domain][fact.relation]
        for text in phrasings(relation):
            filled = phrase(text, fact)
            assert not re.search(r"[{}]", filled), filled
            assert "  " not in filled
            assert not re.search(r"\b(\w+) \1\b", filled, re.IGNORECASE), filled
            # An article before a word that brings its own, or before the wrong sound.
            assert not re.search(r"\b(the|a|an) (the|a|an)\b", filled, re.IGNORECASE), filled
        for text in relation.statements:
            filled = phrase(text, fact)
            assert filled.endswith("."), filled
            assert not filled[0].islower(), filled
            assert fact.subject.casefold() in filled.casefold()
            assert fact.object.casefold() in filled.casefold()
        for text in relation.choice:
            assert fact.subject in phrase(text, fact)
            assert "{object}" not in text.casefold()
            assert not re.search(rf"(?<!\w){re.escape(fact.object)}(?!\w)", text), (fact, text)


def test_indefinite_articles_fit_the_words_after_them(source: Path) -> None:
    """Articles stand in the cells alone, so the cells are where they can be wrong."""
    for domain in DOMAINS:
        for fact in every_fact(source, domain):
            for article, word in re.findall(
                r"\b(an?) (\w+)", f"{fact.subject}. {fact.object}", re.IGNORECASE
            ):
                vowel = word[0].lower() in "aeiou" and not word.lower().startswith(("uni", "one"))
                assert (article.lower() == "an") == (vowel or word == "heir"), fact


def test_templates_bring_no_indefinite_article_of_their_own(templates: Templates) -> None:
    for relations in templates.values():
        for relation in relations.values():
            for text in phrasings(relation):
                assert not re.search(r"\ban? \{", text), text


def test_every_object_of_a_confusable_group_exists(source: Path, templates: Templates) -> None:
    for domain in DOMAINS:
        facts = load_facts(source, domain)
        for name, relation in templates[domain].items():
            objects = {f.object for f in facts if f.relation == name}
            for group in relation.confusable:
                assert set(group) <= objects, (domain, name, set(group) - objects)
                assert len(group) >= 2


def test_each_relation_has_objects_enough_to_choose_from(
    source: Path, templates: Templates
) -> None:
    for domain in DOMAINS:
        facts = every_fact(source, domain)
        for name, relation in templates[domain].items():
            assert len({f.object for f in facts if f.relation == name}) >= 8, (domain, name)
            for fact in facts:
                if fact.relation == name:
                    assert len(wrong_objects(fact, facts, relation)) >= 3, fact


def test_hand_checked_facts(source: Path) -> None:
    """One of each kind, known by heart: the files say what they are meant to say."""
    for domain, subject, relation, obj in [
        ("law", "pacta sunt servanda", "latin", "agreements must be kept"),
        ("medicine", "metoprolol", "drug_class", "beta blockers"),
        ("finance", "the Riksbank", "central_bank", "Sweden"),
        ("science", "gold", "atomic_number", "79"),
        ("code", "//", "operator", "floor division"),
        ("other", "Australia", "capital", "Canberra"),
    ]:
        assert Fact(subject, relation, obj) in load_facts(source, domain)


def test_atomic_numbers_and_builtins_agree_with_other_sources(source: Path) -> None:
    import builtins
    import importlib.util
    import shutil

    first_numbers = {"helium": 2, "carbon": 6, "oxygen": 8, "neon": 10, "argon": 18, "calcium": 20}
    for fact in load_facts(source, "science"):
        if fact.relation == "atomic_number" and fact.subject in first_numbers:
            assert int(fact.object) == first_numbers[fact.subject], fact
    for fact in load_facts(source, "code"):
        if fact.relation == "builtin":
            assert callable(getattr(builtins, fact.subject)), fact
        elif fact.relation == "exception":
            assert issubclass(getattr(builtins, fact.subject), BaseException), fact
        elif fact.relation == "module":
            assert importlib.util.find_spec(fact.subject) is not None, fact
        elif fact.relation == "unix" and fact.subject in ("ls", "cp", "mv", "wc", "uniq"):
            assert shutil.which(fact.subject)


def test_capital_placeholders_begin_with_a_capital() -> None:
    fact = Fact("the Riksbank", "central_bank", "ächt schwedisch")
    assert phrase("{Subject}: {object}; {Object}: {subject}", fact) == (
        "The Riksbank: ächt schwedisch; Ächt schwedisch: the Riksbank"
    )


def test_a_cell_with_braces_is_not_filled_again() -> None:
    assert phrase("{subject} {object}", Fact("{object}", "r", "x")) == "{object} x"


def _facts_file(tmp_path: Path, text: str) -> Path:
    (tmp_path / "facts").mkdir()
    (tmp_path / "facts" / "law.csv").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"law.csv:1: the first line must be subject,relation,object"),
        ("a,b,c\n", r"law.csv:1"),
        ("subject,relation,object\nx,r,y\nz,r\n", r"law.csv:3: a fact needs"),
        ("subject,relation,object\nx,r, \n", r"law.csv:2: a fact needs"),
        ("subject,relation,object\nx,r,y\nx,r,z\n", r"law.csv:3: 'x' already has an object"),
        ("subject,relation,object\nx,r,y\nx,r,y\n", r"law.csv:3: 'x' already has an object"),
    ],
)
def test_malformed_facts_are_refused_with_file_and_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(VersatuneError, match=message):
        load_facts(_facts_file(tmp_path, text), "law")


def test_a_missing_facts_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VersatuneError, match=r"no facts of the domain 'law'.*law\.csv is missing"):
        load_facts(tmp_path, "law")


GOOD = "{statements: ['{subject}'], questions: [{instruction: a, output: b}], choice: [c]}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("law: {latin: [", "is not valid YAML"),
        ("just words", "must map domains to relations"),
        ("law: [latin]", "must map domains to relations"),
        ("law: {latin: {statements: []}}", r"law\.latin: statements"),
        (f"law: {{latin: {GOOD.replace('choice', 'choices')}}}", r"law\.latin: choice"),
        (f"law: {{latin: {GOOD.replace('subject', 'subjekt')}}}", r"no placeholder \{subjekt\}"),
        (f"law: {{latin: {GOOD.replace('subject', 'SUBJECT')}}}", r"no placeholder \{SUBJECT\}"),
        (f"law: {{latin: {GOOD.replace('subject', '')}}}", r"no placeholder \{\}"),
    ],
)
def test_malformed_templates_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "templates.yml").write_text(text, encoding="utf-8")
    with pytest.raises(VersatuneError, match=message):
        load_templates(tmp_path)


def test_missing_templates_are_named(tmp_path: Path) -> None:
    with pytest.raises(VersatuneError, match=r"templates\.yml"):
        load_templates(tmp_path)


def test_wrong_objects_leave_out_truth_and_what_is_close_to_it() -> None:
    facts = [Fact(s, "r", o) for s, o in [("a", "x"), ("b", "y"), ("c", "z"), ("d", "x")]]
    relation = Relation.model_validate(
        {
            "statements": ["s"],
            "questions": [{"instruction": "i", "output": "o"}],
            "choice": ["c"],
            "confusable": [["x", "y"]],
        }
    )
    facts.append(Fact("a", "other", "w"))
    assert wrong_objects(facts[0], facts, relation) == ["z"]
    assert wrong_objects(facts[2], facts, relation) == ["x", "y"]
