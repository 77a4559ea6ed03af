"""Strategies, judges and file formats are registered in one place each: what is named is there."""

import importlib
import sys
import types
import typing
from collections.abc import Iterable
from typing import Any

import pytest

from versatune.artifacts import FolderRef
from versatune.data.config import Source
from versatune.data.file_formats import FORMATS
from versatune.mixing.config import StrategyParams
from versatune.probing import judges
from versatune.probing.config import ClassifierParams, JudgeParams, OneJudgeParams
from versatune.probing.judges.base import About
from versatune.work import Piece


def missing(package: str, names: Iterable[str]) -> list[str]:
    """Of ``module:name`` below ``package`` those that can't be imported."""
    found = []
    for each in names:
        module, _, name = each.partition(":")
        try:
            getattr(importlib.import_module(f"versatune.{package}.{module}"), name)
        except (ImportError, AttributeError):
            found.append(each)
    return found


def test_every_format_has_its_reader() -> None:
    assert missing("data", (written.reader for written in FORMATS.values())) == []
    assert missing("data", ["readers:read_csv", "readers:nothing", "nowhere:read"]) == [
        "readers:nothing",
        "nowhere:read",
    ]
    for name in FORMATS:
        assert Source(path="x", format=name).format == name
    with pytest.raises(ValueError, match="format"):
        Source(path="x", format="nothing")


def test_every_strategy_has_its_class() -> None:
    union = typing.get_args(StrategyParams)[0]
    assert missing("mixing", (params.made_by for params in typing.get_args(union))) == []


def test_every_judge_has_its_module() -> None:
    kinds = [name for name in JudgeParams.model_fields if name != "kind"]
    parts = [f"{kind}:{part}" for kind in kinds for part in ("train", "open_judge")]
    assert missing("probing.judges", parts) == []
    assert all(isinstance(JudgeParams(kind=kind).own, OneJudgeParams) for kind in kinds)
    with pytest.raises(ValueError, match="there is no judge 'oracle'; there are classifier, "):
        JudgeParams(kind="oracle")


def test_a_judge_is_a_field_and_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wider(JudgeParams):
        coin: ClassifierParams = ClassifierParams(held_out=0.5)

    def train(clean: FolderRef, params: Any, about: About) -> Piece:
        return Piece({"rows": clean.fingerprint, "half": params.held_out, "seed": about.seed}, dict)

    module: Any = types.ModuleType("versatune.probing.judges.coin")
    module.train = train
    module.open_judge = lambda ref, params, about: (ref.metadata["kind"], params.held_out, about)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    rows, about = FolderRef(path="rows", fingerprint="f", metadata={}), About(seed=7)  # type: ignore[arg-type]
    made = judges.train_judge(rows, Wider(kind="coin"), about)
    assert made.inputs == {"rows": "f", "half": 0.5, "seed": 7}
    ref = FolderRef(path="judge", fingerprint="g", metadata={"kind": "coin"})  # type: ignore[arg-type]
    assert judges.open_judge(ref, Wider(), about) == ("coin", 0.5, about)  # type: ignore[comparison-overlap]
