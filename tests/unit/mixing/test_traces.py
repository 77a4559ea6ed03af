"""Traces: from reference_losses, as JSON, and stretch by stretch."""

import json
from typing import Any

import numpy as np
import pytest

from tests.helpers.laws import law, run
from tests.helpers.references import references_of
from versatune.mixing.traces import Trace, read_traces, traces_of

BASE = {"law": 2.0, "code": 3.0}
KNOWN = law([0.5, 0.2], nu=0.1, base=list(BASE.values()))


def test_json_and_back_with_what_was_not_measured() -> None:
    seen = run(KNOWN, [[0.5, 0.5], [0.9, 0.1]], noise=0.01)
    seen.losses[1, 0] = np.nan
    again = Trace.from_json(json.loads(json.dumps(seen.to_json())))
    for name, value in vars(seen).items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_passes_that_are_not_known_stay_what_they_were() -> None:
    trace = Trace.begin(np.ones(2)).then(np.ones(2) / 2, 1.0, 0.5, None, np.ones(2), np.zeros(2))
    assert trace.passes.tolist() == [[0, 0], [0, 0]] and trace.rate.tolist() == [0.5]


def test_runs_on_mixes_are_read_or_else_those_on_a_domain_alone() -> None:
    found = traces_of(references_of(KNOWN, BASE))
    assert found is not None and found["domains"] == ["law", "code"]
    first, second, *_ = read_traces(found)
    assert first.weights[0, 0] + second.weights[0, 0] == pytest.approx(1.0)
    np.testing.assert_allclose(first.losses[0], [2.0, 3.0])
    alone = traces_of(references_of(KNOWN, BASE) | {"mixes": []})
    assert alone is not None
    law_alone, code_alone = read_traces(alone)
    assert law_alone.weights[0].tolist() == [1, 0] and code_alone.weights[-1].tolist() == [0, 1]
    np.testing.assert_allclose(law_alone.learning, 5.0)


def test_runs_that_tell_nothing_of_shares_are_none() -> None:
    both: dict[str, Any] = references_of(KNOWN, BASE) | {"mixes": []}
    assert traces_of(both) is not None
    blind = json.loads(json.dumps(both))
    for point in blind["domains"]["law"]["curve"][1:]:
        del point["losses"]["code"]
    assert traces_of(blind) is None
    nothing = {"nats_per_token": None, "bits_per_byte": None, "step": None}
    assert traces_of({"domains": dict.fromkeys(BASE, nothing)}) is None


def test_repeats_of_a_run_alone_are_those_of_its_own_rows() -> None:
    given = references_of(KNOWN, BASE) | {"mixes": []}
    for n, point in enumerate(given["domains"]["law"]["curve"]):
        point["passes"] = 2.0 * n
    found = traces_of(given)
    assert found is not None
    assert read_traces(found)[0].passes[-1].tolist() == [8.0, 0.0]
