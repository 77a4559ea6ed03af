"""How domains are spelled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.domains import ALIASES, canonical, choose
from versatune.errors import VersatuneError

SIX = ["law", "medicine", "finance", "science", "code", "other"]


@pytest.mark.parametrize(
    ("given_name", "settled"),
    [
        ("law", "law"),
        (" Law ", "law"),
        ("MEDICAL", "medicine"),
        ("general", "other"),
        ("General Knowledge", "other"),
        ("general-knowledge", "other"),
        ("programming", "code"),
        ("patent law", "patent_law"),
        ("chemistry2", "chemistry2"),
    ],
)
def test_canonical(given_name: str, settled: str) -> None:
    assert canonical(given_name) == settled


@pytest.mark.parametrize("name", ["", " ", "2nd", "_x", "../etc", "a/b", "a.b", "droit-é", "法"])
def test_what_cannot_be_a_file_name_is_refused(name: str) -> None:
    with pytest.raises(VersatuneError, match="can't be a domain name"):
        canonical(name)


def test_a_name_longer_than_file_names_and_metrics_can_be_is_refused() -> None:
    assert canonical("a" * 60) == "a" * 60
    with pytest.raises(VersatuneError, match="61 characters"):
        canonical("a" * 61)


def test_names_that_yaml_reads_as_other_values_are_refused_with_the_remedy() -> None:
    from versatune.data.config import Domains

    for name in (True, False, None, 7):
        given = {name: {"description": "d", "sources": [{"path": "a.jsonl"}]}}
        with pytest.raises(ValueError, match=f"name is {name}.*in quotes"):
            Domains.model_validate(given)


@given(st.text(max_size=20))
def test_canonical_is_settled_once_and_for_all(name: str) -> None:
    try:
        key = canonical(name)
    except VersatuneError:
        return
    assert canonical(key) == key
    assert key.isascii() and key == key.lower() and not set(key) & set("/\\. ")


def test_aliases_lead_to_the_six_and_are_themselves_reachable() -> None:
    assert set(ALIASES.values()) <= set(SIX)
    assert not set(ALIASES) & set(SIX)
    for alias, settled in ALIASES.items():
        assert canonical(alias) == canonical(alias.upper().replace("_", " ")) == settled


def test_choose_takes_aliases_and_iterators() -> None:
    assert choose("Legal", iter(SIX), "sample.shares") == "law"


def test_choose_names_the_place_the_domains_and_the_nearest() -> None:
    with pytest.raises(VersatuneError) as caught:
        choose("sciense", SIX, "expand.target")
    assert str(caught.value) == (
        "expand.target: there is no domain 'sciense'; the domains are law, medicine, finance, "
        "science, code, other. Did you mean 'science'?"
    )
    with pytest.raises(VersatuneError, match=r"code, other\.$"):
        choose("zzz", SIX, "x")
