"""Duplicates, leaks, proportions, limits and the split, on keys worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.data.config import CleanParams, DomainConfig
from versatune.data.duplicates import (
    answer_key,
    band_rows,
    near_duplicates,
    signatures,
)
from versatune.data.leaks import LeakIndex
from versatune.data.selection import (
    Keys,
    RowStatus,
    decide,
    exact_duplicates,
    left_out_by_limit,
    left_out_by_weight,
)
from versatune.data.text import Vocabulary, flatten, fold, key, only_words, uniform
from versatune.errors import VersatuneError

WORDS = [f"w{n}" for n in range(4000)]


def near(texts: list[str], answers: list[str], threshold: float = 0.85) -> list[bool]:
    vocabulary = Vocabulary()
    ids = [vocabulary.ids(fold(f"{t}\n{a}")) for t, a in zip(texts, answers, strict=True)]
    keys = [answer_key(fold(a), len(vocabulary.ids(fold(a)))) for a in answers]
    alive = np.ones(len(texts), dtype=bool)
    sign = signatures(*flatten(ids))
    found = near_duplicates(sign, np.array(keys, dtype=np.uint64), alive, threshold)
    assert (found < np.arange(len(texts))).all()  # a duplicate of a row before it
    return (found >= 0).tolist()


def leaks(question: str, row: str, n: int = 13) -> bool:
    ids = flatten([Vocabulary().ids(fold(row))])
    index = LeakIndex([question], n)
    return bool(index.leaking(*ids)[0] | index.is_question(*ids)[0])


def jaccard(one: str, other: str) -> float:
    """The definition that signatures estimate: sets of runs of five, blanks around the row."""
    sets = []
    for text in (one, other):
        tokens = ["_"] * 4 + text.split() + ["_"] * 4
        sets.append({tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_fold_joins_spellings() -> None:
    assert fold(" Ｆull\twidth  ﬁ\n") == "full width fi"
    assert fold("a + b") != fold("a - b")


def test_words_and_punctuation_are_told_apart() -> None:
    vocabulary = Vocabulary()
    flat, starts = flatten([vocabulary.ids("a, b!"), vocabulary.ids("..."), vocabulary.ids("c")])
    assert np.diff(starts).tolist() == [4, 3, 1]
    words, starts = only_words(flat, starts)
    assert words.tolist() == [vocabulary[w] for w in "abc"]
    assert starts.tolist() == [0, 2, 2, 3]
    assert len(vocabulary.ids("黄金的符号")) == 5


def test_signatures_estimate_the_jaccard_similarity() -> None:
    rng = np.random.default_rng(0)
    texts = []
    for changed in (0, 1, 5, 20, 60):
        words = WORDS[:120]
        for place in rng.choice(120, changed, replace=False):
            words[place] = f"x{place}"
        texts.append(" ".join(words))
    vocabulary = Vocabulary()
    sign = signatures(*flatten([vocabulary.ids(t) for t in texts]))
    for text, row in zip(texts, sign, strict=True):
        # five standard errors of 128 draws, at most
        assert abs((sign[0] == row).mean() - jaccard(texts[0], text)) < 5 * 0.5 / 128**0.5 * 0.7


def test_near_duplicates_go_and_the_first_stays() -> None:
    base = WORDS[:150]
    changed = [*base[:70], "other", *base[71:]]
    texts = [" ".join(base), " ".join(changed), " ".join(WORDS[200:350]), " ".join(reversed(base))]
    assert near(texts, ["yes"] * 4) == [False, True, False, False]


def test_short_rows_that_differ_in_a_word_stay() -> None:
    texts = [f"What is the chemical symbol of the element {e}?" for e in ("gold", "iron", "tin")]
    assert not any(near(texts, ["Metal"] * 3))
    first = [f"{e}: name its family in the periodic table, in one word please" for e in "abc"]
    assert not any(near(first, ["metal"] * 3))


def test_a_different_short_answer_keeps_a_row() -> None:
    text = " ".join(WORDS[:200])
    assert near([text, text + " .", text], ["Yes", "No", "yes"]) == [False, False, True]


def test_a_chain_of_similar_rows_is_not_eaten_whole() -> None:
    """Each is near the next, the last is far from the first: every second one may stay."""
    rows = []
    words = WORDS[:300]
    for step in range(12):
        rows.append(" ".join(words))
        words = [*words]
        for place in range(step * 25, step * 25 + 3):
            words[place] = f"y{place}"
    dropped = near(rows, ["z"] * len(rows))
    kept = [r for r, d in zip(rows, dropped, strict=True) if not d]
    assert 1 < len(kept) < len(rows)
    for row, gone in zip(rows, dropped, strict=True):
        if gone:
            assert max(jaccard(row, k) for k in kept) > 0.75


def test_bands_find_pairs_at_the_threshold() -> None:
    for threshold in (0.5, 0.7, 0.85, 0.95):
        size = band_rows(threshold)
        assert (1 - threshold**size) ** (128 // size) <= 0.01
    assert band_rows(0.85) == 8


def test_exact_duplicates_keep_the_first_alive() -> None:
    rows = np.array([5, 7, 5, 7, 5], dtype=np.uint64)
    alive = np.array([False, True, True, True, True])
    assert exact_duplicates(rows, alive).tolist() == [-1, -1, -1, 1, 2]


QUESTION = (
    "Which court of appeal first held that a bargain without consideration binds nobody at all?"
)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (QUESTION, True),
        ("so: WHICH court, of appeal, first\nheld: a bargain", False),
        (f"so: {QUESTION.upper()[:90]}", True),
        ("which court of appeal first held that a bargain without consideration", False),
        ("nobody at all? which court of appeal first held that", False),
    ],
)  # fmt: skip
def test_thirteen_words_in_a_row_leak(row: str, expected: bool) -> None:
    assert leaks(QUESTION, row) is expected


@pytest.mark.parametrize(
    ("question", "row", "expected"),
    [
        ("What is the capital of Peru?", "tell me, what is the capital of peru, please", True),
        ("What is the capital of Peru?", "what is the capital of Chad", False),
        ("Define tort.", "Define tort", True),
        ("Define tort.", "please define tort for me", False),
        ("黄金的化学符号是什么", "请问黄金的化学符号是什么？谢谢", True),
        ("!!!", "!!!", False),
    ],
)
def test_short_questions_leak_as_a_whole(question: str, row: str, expected: bool) -> None:
    assert leaks(question, row) is expected


def test_runs_do_not_cross_rows_and_forms_of_asking_do_not_leak() -> None:
    index = LeakIndex(["one two three four five six"], 13)
    ids = flatten([Vocabulary().ids(t) for t in ("one two three", "four five six")])
    assert not index.leaking(*ids).any()
    form = "read the following clause of a contract and say whether it is of this kind number"
    many = LeakIndex([f"{form} {n}" for n in range(9)], 13)
    assert not many.leaking(*flatten([Vocabulary().ids(f"{form} x")])).any()


def test_weights_keep_the_largest_subset_in_proportion() -> None:
    source = np.array([0] * 10 + [1] * 6 + [2] * 3, dtype=np.int16)
    draw = np.linspace(0, 1, 19)
    alive = np.ones(19, dtype=bool)
    out = left_out_by_weight(source, draw, alive, [2.0, 1.0, 0.0])
    # ten rows at two thirds allow a total of fifteen, six at one third eighteen
    assert [int((~out & (source == s)).sum()) for s in range(3)] == [10, 5, 0]
    assert out[15]
    out = left_out_by_weight(source, draw, alive, [1.0, 1.0, 1.0])
    assert [int((~out & (source == s)).sum()) for s in range(3)] == [3, 3, 3]


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.data())
def test_weights_hold_for_any_counts(counts: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(counts), max_size=len(counts)))
    source = np.repeat(np.arange(len(counts)), counts).astype(np.int16)
    draw = np.random.default_rng(0).random(len(source))
    out = left_out_by_weight(source, draw, np.ones(len(source), bool), list(map(float, weights)))
    kept = np.bincount(source[~out], minlength=len(counts))
    total = min(c * sum(weights) / w for c, w in zip(counts, weights, strict=True))
    assert all(
        abs(k - total * w / sum(weights)) < 1 + 1e-6 for k, w in zip(kept, weights, strict=True)
    )
    assert any(k == c for k, c in zip(kept, counts, strict=True))


def test_limits_take_the_smallest_draws() -> None:
    draw = np.array([0.9, 0.1, 0.5, 0.3])
    alive = np.array([True, True, True, False])
    assert left_out_by_limit(draw, alive, 2).tolist() == [True, False, False, False]


def keys_of(domains: list[int], prompts: list[int]) -> Keys:
    n = len(domains)
    return Keys(
        domain=np.array(domains, dtype=np.int16),
        source=np.zeros(n, dtype=np.int16),
        row=np.array([key(f"{d} {i}") for i, d in enumerate(domains)], dtype=np.uint64),
        prompt=np.array([key(str(p)) for p in prompts], dtype=np.uint64),
        leaked=np.zeros(n, dtype=bool),
        answer=np.zeros(n, dtype=np.uint64),
        signature=None,
    )


def configs(n: int, **more: float) -> dict[str, DomainConfig]:
    entry = {"description": "d", "sources": [{"path": "a"}], **more}
    return {f"d{j}": DomainConfig.model_validate(entry) for j in range(n)}


def params(**more: object) -> CleanParams:
    return CleanParams.model_validate({"seed": 0, **more})


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=3, max_size=80),
    st.integers(0, 3),
)
def test_no_prompt_stands_on_both_sides(rows: list[tuple[int, int]], seed: int) -> None:
    rows = sorted(rows) + [(d, 100 + 10 * d + i) for d in range(3) for i in range(3)]
    rows.sort()
    keys = keys_of([d for d, _ in rows], [p for _, p in rows])
    domains = configs(3)
    domains["d1"] = domains["d1"].model_copy(update={"validation_fraction": 0.5})
    statuses = decide(keys, domains, params(seed=seed, validation_fraction=0.2))
    parts = (RowStatus.TRAIN, RowStatus.STEERING, RowStatus.REPORT)
    train, steering, report = (set(keys.prompt[statuses == part].tolist()) for part in parts)
    assert not train & steering
    assert not train & report
    assert not steering & report
    for d in range(3):
        assert set(parts) <= set(statuses[keys.domain == d].tolist())


def test_a_prompt_of_several_domains_is_moved_for_none() -> None:
    """Three domains of one common prompt and three of their own: each can be divided."""
    rows = [(d, p) for d in range(3) for p in (0, *range(100 + 10 * d, 103 + 10 * d))]
    keys = keys_of([d for d, _ in rows], [p for _, p in rows])
    domains = configs(3)
    domains["d1"] = domains["d1"].model_copy(update={"validation_fraction": 0.5})
    for seed in range(200):
        statuses = decide(keys, domains, params(seed=seed, validation_fraction=0.2))
        for d in range(3):
            assert len(set(statuses[keys.domain == d].tolist())) == 3, seed


def test_adding_rows_moves_no_other_row() -> None:
    few, many = (keys_of([0] * n + [1] * 200, [*range(n), *range(1000, 1200)]) for n in (300, 900))
    settings = params(validation_fraction=0.2)
    before = decide(few, configs(2), settings)[:300]
    assert (decide(many, configs(2), settings)[:300] == before).all()
    for part in (RowStatus.STEERING, RowStatus.REPORT):
        assert 15 < (before == part).sum() < 45
    other = decide(few, configs(2), params(validation_fraction=0.2, seed=1))[:300]
    assert (other != before).any()


def test_small_domains_hold_out_as_many_as_asked() -> None:
    keys = keys_of([0] * 20 + [1] * 500, list(range(520)))
    statuses = decide(keys, configs(2), params(validation_fraction=0.01, min_validation_rows=8))
    assert [
        (statuses[:20] == f).sum() for f in (RowStatus.TRAIN, RowStatus.STEERING, RowStatus.REPORT)
    ] == [4, 8, 8]


def test_both_halves_get_rows_even_where_nearly_all_is_held_out() -> None:
    keys = keys_of([0] * 3 + [1] * 50, list(range(53)))
    statuses = decide(keys, configs(2), params(validation_fraction=0.99))
    assert sorted(statuses[:3].tolist()) == [RowStatus.TRAIN, RowStatus.STEERING, RowStatus.REPORT]


def test_two_prompts_are_too_few_for_three_parts() -> None:
    with pytest.raises(VersatuneError, match=r"domains\.d0: 4 rows with 2 different prompts") as e:
        decide(keys_of([0] * 4 + [1] * 9, [1, 1, 2, 2, *range(10, 19)]), configs(2), params())
    assert "at least 1 each held out for steering and for the report" in str(e.value)


@pytest.mark.parametrize("rows", [[0, 1, 1], [0, 0, 1, 1, 1]])
def test_a_domain_of_one_prompt_is_refused(rows: list[int]) -> None:
    prompts = [7 if d == 0 else i for i, d in enumerate(rows)]
    with pytest.raises(VersatuneError, match=r"domains\.d0: .* rows with 1 different prompts"):
        decide(keys_of(rows, prompts), configs(2), params())


def test_a_domain_without_rows_is_refused() -> None:
    with pytest.raises(VersatuneError, match=r"domains\.d1: no rows are left \(none were sound\)"):
        decide(keys_of([0, 0], [1, 2]), configs(2), params())
    leaked = keys_of([0, 0, 1], [1, 2, 3])
    leaked.leaked[2] = True
    with pytest.raises(
        VersatuneError, match=r"no rows are left \(1 leaked from evaluation files\)"
    ):
        decide(leaked, configs(2), params())


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (0, r"domains\.d1: no rows are left \(4 exact duplicates; .*: 3 of d0, 1 of d2\)"),
        (1, r"domains\.d1: 1 rows .* \(4 exact duplicates; .*: 3 of d0, 1 of d2\) can't be div"),
    ],
)
def test_a_domain_of_other_domains_rows_is_told_whose_they_are(own: int, words: str) -> None:
    keys = keys_of([0] * 9 + [2] * 9 + [1] * (4 + own), list(range(22 + own)))
    rows = keys.row.copy()
    rows[18:22] = rows[[0, 1, 2, 9]]
    with pytest.raises(VersatuneError, match=words):
        decide(replace(keys, row=rows), configs(3), params())


def test_more_validation_rows_than_there_are_prompts_to_spare_are_refused() -> None:
    with pytest.raises(VersatuneError, match=r"lower ingest\.min_validation_rows"):
        decide(
            keys_of([0] * 5 + [1] * 50, list(range(55))), configs(2), params(min_validation_rows=5)
        )


def test_draws_are_uniform() -> None:
    draws = uniform(np.arange(20_000, dtype=np.uint64), 3)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.histogram(draws, 10, (0, 1))[0].min() > 1800
