"""Counts shipped with the paper's code, by name."""

import pytest
from pydantic import ValidationError

from versatune.errors import VersatuneError
from versatune.probing.config import ProbeParams
from versatune.probing.known import DOMAINS, KNOWN, known_distribution


def test_shares_of_llama_2_by_hand():
    found = known_distribution("LLaMA-2-7B", DOMAINS)
    # 571 of 9987 labelled; Wilson: centre (571 + 1.92) / (9987 + 3.84), half width 0.00455
    assert found["domains"]["law"]["share"] == pytest.approx(571 / 9987)
    assert found["domains"]["law"]["low"] == pytest.approx(0.05278, abs=5e-5)
    assert found["domains"]["law"]["high"] == pytest.approx(0.06191, abs=5e-5)
    assert found["domains"]["law"]["raw_share"] == found["domains"]["law"]["share"]
    assert (found["n_samples"], found["n_rejected"]) == (10_000, 13)
    assert (found["seed"], found["rounds"], found["base_model"]) == (None, 1, "LLaMA-2-7B")
    assert "8023" not in found["judge"]
    assert "2411.11266" in found["source"]


@pytest.mark.parametrize("name", KNOWN)
def test_shares_sum_to_one_in_the_projects_order(name):
    order = tuple(reversed(DOMAINS))
    found = known_distribution(name, order)
    assert tuple(found["domains"]) == order
    assert sum(d["share"] for d in found["domains"].values()) == pytest.approx(1)


def test_other_domains_are_refused():
    with pytest.raises(VersatuneError, match="law, cooking"):
        known_distribution("LLaMA-2-7B", ["law", "cooking"])


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(ValidationError, match=r"'GPT-2'.*Qwen2.5-14B"):
        ProbeParams(seed=0, known_distribution="GPT-2")
