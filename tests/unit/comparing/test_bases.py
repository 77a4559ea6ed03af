"""Comparisons of other base models, read beside the project's own."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from versatune.comparing.bases import COMPARISON, ITEMS, with_other_bases
from versatune.comparing.config import CompareParams
from versatune.errors import VersatuneError
from versatune.evaluation.results import LOSS
from versatune.pipelines.compare.nodes import compare
from versatune.training.config import TrainParams


def runs(losses: dict[str, list[float]], kind: str = "foster") -> pd.DataFrame:
    """``losses``: by strategy the loss of law with each seed."""
    rows = [
        {
            **{"strategy": name, "kind": kind if name == "foster" else name, "seed": seed},
            **{"domain": "law", "task": "held_out", "metric": LOSS, "value": value, "base": 3.0},
            **{"change": value - 3, "change_low": value - 3.1, "change_high": value - 2.9},
        }
        for name, values in losses.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def items(table: pd.DataFrame) -> pd.DataFrame:
    one = table[["strategy", "seed", "domain", "task", "metric"]]
    each = [one.assign(item=f"law:{i}", score=table["value"] + i, weight=1.0) for i in (0, 1)]
    return pd.concat(each, ignore_index=True)


def write(folder: Path, table: pd.DataFrame) -> Path:
    for file, content in ((COMPARISON, table), (ITEMS, items(table))):
        (folder / file).parent.mkdir(parents=True)
        content.to_parquet(folder / file)
    return folder


OWN = runs({"uniform": [2.0, 2.2], "foster": [1.9, 2.0], "proportional": [2.1, 2.1]})
OTHER = runs({"uniform": [1.0, 1.1], "foster": [0.9, 1.0], "proportional": [1.0, 1.0]})


def test_the_places_are_those_of_the_catalog(project_root: Path) -> None:
    catalog = yaml.safe_load((project_root / "conf/base/catalog_compare.yml").read_text())
    globals_ = yaml.safe_load((project_root / "conf/base/globals.yml").read_text())
    places = {
        name: catalog[name]["filepath"]
        .replace("${globals:data}/", "")
        .replace("${globals:reporting}", globals_["reporting"])
        for name in ("comparison", "comparison_items")
    }
    assert places == {"comparison": COMPARISON, "comparison_items": ITEMS}


def test_without_others_the_tables_are_as_they_were() -> None:
    found = with_other_bases(OWN, items(OWN), {})
    assert found[0] is OWN and "base_model" not in found[1]


def test_the_verdict_is_over_all_base_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("versatune.tracking.log_metrics", lambda _: None)
    others = {name: write(tmp_path / name, OTHER) for name in ("second", "third")}
    params = CompareParams.model_validate(
        {"strategies": {"uniform": {}, "foster": {}}, "bases": others}
    )
    summary = compare(OWN, items(OWN), {}, params, TrainParams())
    found = summary[(summary["measure"] == "value") & (summary["domain"] == "law")]
    foster = found.set_index("strategy").loc["foster"]
    assert (foster["n_seeds"], foster["n_bases"]) == (6, 3)
    assert foster["difference"] == pytest.approx((-0.15 - 0.1 - 0.1) / 3)
    assert foster["value"] == pytest.approx((1.95 + 0.95 + 0.95) / 3)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (OTHER[OTHER["strategy"] != "foster"], "strategy foster of this comparison .* was not run"),
        (OTHER.assign(kind="odm"), "uniform of this comparison .uniform. is of kind odm"),
        (OTHER.assign(domain="code"), "compares the domains code, and this project has law"),
    ],
)
def test_what_can_not_be_compared_is_refused(
    tmp_path: Path, other: pd.DataFrame, said: str
) -> None:
    folder = write(tmp_path / "other", other)
    with pytest.raises(VersatuneError, match=rf"compare\.bases\.b: .*{said}"):
        with_other_bases(OWN, items(OWN), {"b": folder})


def test_a_folder_without_a_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        VersatuneError, match=r"compare\.bases\.b: there is no .*comparison\.parquet"
    ):
        with_other_bases(OWN, items(OWN), {"b": tmp_path})
