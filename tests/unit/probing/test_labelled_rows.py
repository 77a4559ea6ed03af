"""Labelled rows and the base model's own texts in the place of rows, by hand."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.helpers.probe_rows import cleaned
from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.probing.judges.base import (
    LABELLED,
    Background,
    Judgement,
    Labelled,
    labelled_texts,
    with_new_names,
    without_rows,
)
from versatune.samplers.base import Sample


def rows(folder: Path, *counts: int) -> FolderRef:
    """So many rows of each of some domains: ``0 ask 3`` and its answer, say."""
    return cleaned(
        folder,
        {
            f"domain{number}": [(f"{number} ask {i}", f"answer {i} ") for i in range(count)]
            for number, count in enumerate(counts)
        },
    )


def test_rows_are_texts_of_all_their_turns(tmp_path: Path) -> None:
    texts, labels, domains = labelled_texts(rows(tmp_path, 5, 6), 100, 0)
    assert texts == [f"{d} ask {i}\nanswer {i}" for d, n in ((0, 5), (1, 6)) for i in range(n)]
    assert labels.tolist() == [0] * 5 + [1] * 6 and labels.dtype == np.int64
    assert domains == ("domain0", "domain1")


def test_so_many_of_a_domain_are_drawn_in_their_order(tmp_path: Path) -> None:
    clean = rows(tmp_path, 5, 40)
    texts, labels, _ = labelled_texts(clean, 5, 0)
    assert labels.tolist() == [0] * 5 + [1] * 5
    assert texts[:5] == [f"0 ask {i}\nanswer {i}" for i in range(5)], "all of just so many"
    numbers = [int(text.split()[2]) for text in texts[5:]]
    assert numbers == sorted(set(numbers)) and numbers != list(range(5))
    assert labelled_texts(clean, 5, 1)[0] != texts


def test_a_row_without_a_word_is_no_text(tmp_path: Path) -> None:
    pairs = [(f"ask {i}", "yes") for i in range(5)]
    clean = cleaned(tmp_path, {"one": [*pairs, (" ", "\n")], "two": pairs})
    assert labelled_texts(clean, 9, 0)[1].tolist() == [0] * 5 + [1] * 5


def test_four_rows_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(VersatuneError) as told:
        labelled_texts(rows(tmp_path, 5, 4), 9, 0)
    assert str(told.value) == (
        "the judge needs at least 5 rows of each domain; domain1 has 4 after cleaning. Add rows or "
        "remove the domain."
    )


def test_texts_stand_for_a_domain_without_rows(tmp_path: Path) -> None:
    clean = rows(tmp_path, 5, 0, 5)
    assert without_rows(clean) == ["domain1"]
    texts, labels, _ = labelled_texts(clean, 6, 0, [f"text {i}" for i in range(9)])
    assert texts[10:] == [f"text {i}" for i in range(6)]
    assert labels.tolist() == [0] * 5 + [2] * 5 + [1] * 6
    # Without such texts the domain is left out, and with too few of them it is refused.
    assert labelled_texts(clean, 6, 0)[1].tolist() == [0] * 5 + [2] * 5
    with pytest.raises(VersatuneError, match="domain1 has 4"):
        labelled_texts(clean, 6, 0, ["text"] * 4)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    known = Labelled(np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([1, 0]), np.array([1.0, 0.5]))
    known.save(tmp_path)
    found = Labelled.load(FolderRef(path=tmp_path, fingerprint=""))
    assert found.probabilities.tolist() == [[0.75, 0.25], [0.5, 0.5]]
    assert found.labels.tolist() == [1, 0] and found.labels.dtype == np.int64
    assert found.vocab_coverage.tolist() == [1.0, 0.5]
    kept = load_file(tmp_path / LABELLED)
    kept["familiarity"] = kept.pop("vocab_coverage")
    save_file(kept, tmp_path / LABELLED)
    assert sorted(with_new_names(kept)) == ["labels", "probabilities", "vocab_coverage"]


def test_right_answers_for_domains_that_have_none() -> None:
    known = Labelled(np.array([[0.7, 0.2, 0.1]]), np.array([0]), np.array([0.5]))
    found = known.with_oracle([2])
    assert found.probabilities.tolist() == [[0.7, 0.2, 0.1], [0, 0, 1]]
    assert found.labels.tolist() == [0, 2]
    np.testing.assert_array_equal(found.vocab_coverage, [0.5, np.nan])
    oracle = Labelled.oracle(2)
    assert oracle.probabilities.tolist() == [[1, 0], [0, 1]] and oracle.labels.tolist() == [0, 1]
    assert np.isnan(oracle.vocab_coverage).tolist() == [True, True]


def test_which_texts_were_judged() -> None:
    found = Judgement(np.zeros((3, 2)), ["ok", "refused", "ok"], np.zeros(3))
    assert found.ok.tolist() == [True, False, True] and found.ok.dtype == bool


def test_the_first_samples_stand_for_what_is_said_unasked(tmp_path: Path) -> None:
    """Each text once, no empty ones, no loops, none beyond the first six."""
    texts = ["a poem", "", "a poem", "loop " * 100, "a song", "a river", "a garden"]
    lines = [
        Sample(index=i, text=text, n_tokens=1, ended=True).model_dump_json()
        for i, text in enumerate(texts)
    ]
    (tmp_path / "wave_00000.jsonl").write_text("\n".join(lines) + "\n")
    background = Background(FolderRef(path=tmp_path, fingerprint="samples"), 6)
    assert background.texts() == ["a poem", "a song", "a river"]
