"""Shares in doubt reach no training, whichever strategy would take them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.mixing.config import (
    ConstantParams,
    InverseParams,
    ProportionalParams,
    UniformParams,
)
from versatune.mixing.doubt import detected_shares, doubt_words, trusted_strategy
from versatune.mixing.strategies import Context, make_strategy
from versatune.retraining.challenger import first_shares
from versatune.retraining.config import RetrainParams

SHARES = {"law": 0.95, "code": 0.05}


def knowledge(*failed: str) -> dict[str, Any]:
    found = {name: {"share": share} for name, share in SHARES.items()}
    return {"domains": found, "doubts": {name: f"{name} failed." for name in failed}}


def test_a_sure_probe_gives_its_shares() -> None:
    assert detected_shares(knowledge(), {"strategy": "constant"}) == SHARES
    assert detected_shares({"domains": knowledge()["domains"]}, {}) == SHARES


def test_shares_in_doubt_are_kept_back_unless_asked_for() -> None:
    assert detected_shares(knowledge("shift"), {"on_doubt": "proportional"}) is None
    assert detected_shares(knowledge("shift"), {"on_doubt": "keep"}) == SHARES


def test_inverse_takes_what_stands_in_for_them() -> None:
    weights = np.array([0.7, 0.3])
    context = Context(("law", "code"), initial=weights, detected=None)
    assert make_strategy(InverseParams(), context).initial() == pytest.approx(weights)


def test_stop_ends_a_run_that_would_take_them_and_no_other() -> None:
    stop = {"on_doubt": "stop"}
    assert detected_shares(knowledge("too_wide"), stop, UniformParams()) is None
    with pytest.raises(VersatuneError, match=r"Too_wide failed\. .*keep"):
        detected_shares(knowledge("too_wide"), stop, UniformParams(), InverseParams())


def test_a_challenger_does_not_start_from_them_either(
    tiny_store: FolderRef, tmp_path: Path
) -> None:
    file = tmp_path / "knowledge.json"
    found = {"law": {"share": 0.9}, "medicine": {"share": 0.05}, "code": {"share": 0.05}}
    file.write_text(json.dumps({"domains": found, "doubts": {"shift": "unlike the rows."}}))

    def started(**given: Any) -> dict[str, float]:
        return first_shares(tiny_store, RetrainParams.model_validate(given), file)

    by_data = started(initial="proportional")
    assert started(initial="detected") == by_data != started(initial="uniform")
    assert started(initial="detected", on_doubt="uniform") == started(initial="uniform")
    assert started(initial="detected", on_doubt="keep")["law"] == 0.9
    with pytest.raises(VersatuneError, match=r"retrain\.on_doubt is 'stop'.*Unlike the rows"):
        started(initial="detected", on_doubt="stop")


@pytest.mark.parametrize(
    ("asked", "on_doubt", "taken"),
    [
        (ConstantParams(), "uniform", UniformParams()),
        (ConstantParams(), "proportional", ProportionalParams()),
        (InverseParams(), "proportional", ProportionalParams()),
        (InverseParams(), "keep", InverseParams()),
        (UniformParams(), "proportional", UniformParams()),
        (UniformParams(), "stop", UniformParams()),
    ],
)
def test_what_stands_in_for_shares_in_doubt(asked: Any, on_doubt: Any, taken: Any) -> None:
    failed = {"shift": "The texts are judged unlike the rows."}
    assert trusted_strategy(asked, failed, on_doubt, "mixture.on_doubt") == taken
    assert trusted_strategy(asked, {}, on_doubt, "mixture.on_doubt") == asked


def test_stop_names_its_key_and_what_failed() -> None:
    with pytest.raises(VersatuneError, match=r"^retrain\.doubt is 'stop'.* Unlike the rows\."):
        trusted_strategy(ConstantParams(), {"a": "unlike the rows."}, "stop", "retrain.doubt")


def test_the_words_of_a_doubt_know_what_was_asked_and_what_followed() -> None:
    mixture = {"on_doubt": "uniform", "asked": "constant"}
    failed = knowledge("shift")
    assert doubt_words(failed, mixture) == {"probed": True, "doubt": "uniform", "asked": "constant"}
    assert doubt_words(failed, {}) == {"probed": True, "doubt": "proportional", "asked": None}
    published = {**knowledge(), "source": "a paper"}
    assert doubt_words(published, mixture) == {"probed": False, "doubt": None, "asked": "constant"}
    assert doubt_words(None, {}) == {"probed": True, "doubt": None, "asked": None}
