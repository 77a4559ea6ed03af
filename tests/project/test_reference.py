"""The parameter reference in the documentation is the one the models give."""

from pathlib import Path
from typing import Annotated, Literal

from kedro.framework.project import configure_project, pipelines
from pydantic import Field

from versatune.mixing.config import FosterParams, StrategyParams, UniformParams
from versatune.params import Params
from versatune.project.parameter_reference import _models, markdown, rows_of


def test_the_parameter_reference_is_current(project_root: Path) -> None:
    configure_project("versatune")
    written = (project_root / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert written == markdown(dict(pipelines)), "run: kedro parameters > docs/parameters.md"


def test_the_readme_links_what_is_there(project_root: Path) -> None:
    import re

    text = (project_root / "README.md").read_text(encoding="utf-8")
    links = [t for t in re.findall(r"\]\(([^)#\s]+)", text) if not t.startswith("http")]
    assert links
    assert [link for link in links if not (project_root / link).exists()] == []


class _Of(Params):
    """Every form of a type that has words of its own."""

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1)
    kind: Literal["a", "b"] | None = None
    size: int | Literal["auto"] = "auto"
    limits: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    folder: Path | None = None
    strategy: StrategyParams = FosterParams(sigma=3.0)


def test_types_and_defaults_are_in_words() -> None:
    rows = [row[:3] for row in rows_of(_Of, elsewhere={UniformParams})]
    assert rows[:5] == [
        ("seeds", "list of int", "`[0, 1]`"),
        ("kind", "`a`, `b` or null", "null"),
        ("size", "int or `auto`", "`auto`"),
        ("limits", "float by name", "none"),
        ("folder", "path or null", "null"),
    ]
    assert rows[5][0] == "strategy" and rows[5][2] == "`{name: foster, sigma: 3.0}`"
    assert ("strategy (foster).sigma", "float", "`3.0`") in rows


def test_keys_that_are_listed_elsewhere_are_referred_to() -> None:
    strategies = set(_models(_Of.model_fields["strategy"].annotation))
    key, _, _, text = list(rows_of(_Of, elsewhere=strategies))[-1]
    assert key == "strategy" and text.endswith("[`train.strategy`](#train).")
