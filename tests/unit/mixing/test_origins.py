"""What is said of where shares come from, for each way that they can."""

from typing import Any

import pytest

from versatune.mixing.origins import follows_probe, shares_in_words, start_in_words

PROBE = "those the probe found"
DOUBTED = ", since the probe failed its own checks"
TARGETS = {"name": "expand", "rule": "constrained", "target_share": {"start": 0.2}}


@pytest.mark.parametrize(
    ("strategy", "initial", "more", "said"),
    [
        ({"name": "uniform"}, "constant", {}, "the same for every domain"),
        ({"name": "odm"}, "constant", {}, "the same for every domain"),
        ({"name": "proportional"}, None, {}, "those of the data"),
        ({"name": "custom"}, "constant", {}, "set by hand"),
        ({"name": "constant"}, "constant", {}, PROBE),
        ({"name": "foster"}, "constant", {}, PROBE),
        ({"name": "foster", "start": "initial"}, "inverse", {}, f"the inverse of {PROBE}"),
        ({"name": "foster", "start": "uniform"}, "constant", {}, "the same for every domain"),
        ({"name": "foster"}, "proportional", {}, "those of the data"),
        ({"name": "foster"}, None, {}, "those of the initial mixture"),
        ({"name": "inverse"}, "constant", {}, f"the inverse of {PROBE}"),
        (
            TARGETS,
            "constant",
            {},
            "those of the data, but for the targets' 0.2, unless others are forecast to end better",
        ),
        ({"name": "expand", "rule": "paper", "target": "law"}, "constant", {}, PROBE),
        (
            {"name": "mixing_law", "stay": "uniform"},
            "constant",
            {},
            "the same for every domain, unless others are forecast to end better",
        ),
        (
            {"name": "foster"},
            "constant",
            {"probed": False},
            "those of a published distribution",
        ),
        (
            {"name": "foster"},
            "constant",
            {"doubt": "keep", "asked": "constant"},
            f"{PROBE}, although it failed its own checks",
        ),
        (
            {"name": "foster"},
            "proportional",
            {"doubt": "proportional", "asked": "constant"},
            f"those of the data{DOUBTED}",
        ),
        (
            {"name": "foster"},
            "proportional",
            {"doubt": "proportional", "asked": "proportional"},
            "those of the data",
        ),
        (
            {"name": "inverse"},
            "uniform",
            {"doubt": "uniform", "asked": "constant"},
            f"the same for every domain{DOUBTED}",
        ),
    ],
)
def test_where_shares_start(
    strategy: dict[str, Any], initial: str | None, more: dict[str, Any], said: str
) -> None:
    assert start_in_words(strategy, initial, **more) == said
    if strategy["name"] == "foster":
        whole = shares_in_words(strategy, initial, **more)
        assert whole == f"strategy foster; starting shares: {said}"


def test_fixed_shares_and_targets_are_named() -> None:
    assert shares_in_words({"name": "constant"}, "constant") == (
        f"shares: {PROBE}, fixed (strategy constant)"
    )
    assert shares_in_words({}, "constant") == (
        "shares: those the probe found, fixed (strategy uniform)"
    )
    for target, names in (("law", "law"), (["law", "code"], "law, code")):
        said = shares_in_words({"name": "expand", "target": target}, "constant")
        assert said == f"strategy expand towards {names}; starting shares: {PROBE}"


@pytest.mark.parametrize(
    ("strategy", "initial", "more", "follows"),
    [
        ("foster", "constant", {}, True),
        ("foster", None, {}, True),
        ("foster", "proportional", {}, False),
        ("uniform", "constant", {}, False),
        ("inverse", "constant", {}, True),
        ("foster", "constant", {"doubt": "keep", "asked": "constant"}, True),
        ("foster", "constant", {"doubt": "uniform", "asked": "constant"}, False),
        ("inverse", "uniform", {"doubt": "uniform"}, False),
        ("inverse", "constant", {"doubt": "keep"}, True),
        ("foster", "constant", {"doubt": "uniform", "asked": "proportional"}, True),
    ],
)
def test_whether_shares_come_from_the_probe(
    strategy: str, initial: str | None, more: dict[str, Any], follows: bool
) -> None:
    assert follows_probe({"name": strategy}, initial, **more, probed=True) is follows
