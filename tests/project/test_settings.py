"""The declared settings can be read, their tables follow from the runs, the page from these."""

import codecs
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.benchmarks.settings import memory, oracle, pages, tables
from tests.benchmarks.settings.campaign import Campaign
from tests.benchmarks.settings.declared import Declared, Given, Rows, Run, all_settings
from tests.benchmarks.settings.runs import Log
from tests.benchmarks.settings.schedule import KNOWN, expanding, fostering, known_oracle
from tests.benchmarks.settings.world import FACTS, altered
from versatune.demo.facts import load_facts, load_templates
from versatune.modeling.checkpoints import CheckpointRef

DOMAINS = ["law", "code"]


@pytest.fixture(autouse=True)
def at_root(project_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project_root)


def test_every_setting_can_be_read_and_has_seeds_of_its_own() -> None:
    assert {"equal", "sizes", "known", "wrong", "steep_flat", "expand"} <= set(all_settings())
    worlds = {}
    for name in all_settings():
        declared = Declared(name)
        seeds = declared.setting.seeds
        assert not {seeds.search, *seeds.confirm} & set(seeds.report)
        run = Run.of(declared)
        if not isinstance(declared.setting.base, Given):
            assert list(declared.setting.rows) == list(run.domains.active)
            worlds.setdefault(run.seed, set()).add(declared.setting.world or name)
    assert all(len(of) == 1 for of in worlds.values()) and 100 not in worlds


def test_the_pages_show_what_the_tables_hold() -> None:
    texts = [page.read_text(encoding="utf-8") for page in pages.PAGES]
    assert sum(text.count("<!-- table: ") for text in texts) == len(pages.TABLES)
    assert [pages.filled(text) for text in texts] == texts


def test_gains_in_the_tables_are_those_of_the_runs() -> None:
    found = pd.read_csv(pages.RESULTS / "settings_runs.csv", dtype={"version": str})
    found = found[found["split"] == "report"].fillna({"version": ""})
    means = found.groupby(["setting", "strategy", "version", "seed"])["loss"].mean()
    settings = pd.read_csv(pages.RESULTS / "settings.csv", dtype={"version": str})
    assert len(settings)
    for row in settings.fillna({"version": ""}).itertuples():
        if row.strategy == "uniform":
            continue
        mine = means[row.setting, row.strategy, row.version]
        uniform = means[row.setting, "uniform", ""]
        seeds = mine.index.intersection(uniform.index)
        gain = 100 * (1 - mine[seeds] / uniform[seeds])
        assert len(seeds) == row.n_seeds
        assert gain.mean() == pytest.approx(row.gain_over_uniform, abs=0.02)


def row(strategy: str, seed: int, loss: list[float], setting: str = "equal") -> dict[str, Any]:
    return {
        "setting": setting, "strategy": strategy, "version": "", "seed": seed, "split": "report",
        "domains": DOMAINS, "loss": loss, "base": [2.0, 4.0], "steps": 60, "cost_steps": 60,
        "shares": [[0.5, 0.5]], "spec": {},
    }  # fmt: skip


def test_parts_and_gains_are_paired_by_seed() -> None:
    losses = {
        "uniform": [[1.0, 3.0], [2.0, 2.0], [1.0, 1.0]],
        "oracle": [[0.9, 2.7], [1.8, 1.8], [0.9, 0.9]],
        "mixing_law": [[1.0, 2.8], [1.8, 2.0], [0.95, 0.95]],
    }
    rows = [row(name, seed, loss) for name, of in losses.items() for seed, loss in enumerate(of)]
    made = {r["strategy"]: r for r in tables.fostering([*rows, row("uniform", 9, [8.0, 8.0])])}
    law = made["mixing_law"]
    assert law["oracle_gain"] == pytest.approx(10)
    assert law["gain_over_uniform"] == pytest.approx(5)
    # Gains of 5, 5 and 5 per cent: no spread, so that the interval is the point.
    assert law["gain_over_uniform_low"] == pytest.approx(5)
    assert law["part_of_oracle"] == pytest.approx(0.5) and law["n_seeds"] == 3
    assert made["oracle"]["part_of_oracle"] == pytest.approx(1)
    assert "gain_over_uniform" not in made["uniform"]


def test_tables_of_settings_that_the_log_lacks_stay(tmp_path: Path) -> None:
    tables.write_tables(tmp_path, tmp_path)
    assert not list(tmp_path.glob("*.csv")), "nothing was run"
    log = Log(tmp_path / "runs.jsonl")
    for setting, loss in (("equal", 1.0), ("expand/law", 1.8)):
        log.add(row("target_only", 40, [loss, loss], setting) | {"measured": [loss, loss]})
    tables.write_tables(tmp_path, tmp_path)
    before = {f.name: f.read_text() for f in tmp_path.glob("*.csv")}
    assert before["settings_runs.csv"].count("\nequal,target_only") == 2
    (tmp_path / "runs.jsonl").unlink()
    log.add(row("uniform", 40, [1.5, 1.5]) | {"measured": [1.5, 1.5]})
    tables.write_tables(tmp_path, tmp_path)
    after = (tmp_path / "settings_runs.csv").read_text()
    assert "target_only" not in after.replace("expand/law,target_only", "")
    assert after.count("\nexpand/law,") == 2 and after.count("\nequal,uniform") == 2
    assert (tmp_path / "expansion.csv").read_text() == before["expansion.csv"]
    assert before["expansion.csv"].count("\nexpand,law,target_only") == 1


def test_an_expansions_earlier_versions_stay(tmp_path: Path) -> None:
    def add(log: Log, version: str) -> None:
        for strategy, of in (("target_only", ""), ("constrained", version)):
            made = row(strategy, 40, [1.0, 1.8], "expand/law") | {"measured": [1.0, 1.8]}
            log.add(made | {"version": of})

    for version in ("old", "new", "new"):
        (tmp_path / "runs.jsonl").unlink(missing_ok=True)
        add(Log(tmp_path / "runs.jsonl"), version)
        tables.write_tables(tmp_path, tmp_path)
    found = pd.read_csv(tmp_path / "expansion.csv").fillna("")
    assert found["version"].tolist() == ["old", "", "new"]
    assert (tmp_path / "settings_runs.csv").read_text().count("constrained,old") == 2


def test_expansion_counts_the_other_domain_that_fell_most() -> None:
    rows = [
        *(row("target_only", s, [1.0, 5.0 + s], "expand/medicine") for s in range(3)),
        *(row("constrained", s, [1.2, 3.8 + 0.2 * s], "expand/medicine") for s in range(3)),
    ]
    for r in rows:
        r["domains"] = ["medicine", "code"]
    made = {r["strategy"]: r for r in tables.expanding(rows)}
    assert made["constrained"]["part_of_target_gain"] == pytest.approx(0.8)
    assert made["constrained"]["least_other_change"] == pytest.approx(100 * 0.0)
    assert made["constrained"]["part_within_tolerance"] == pytest.approx(2 / 3)
    assert made["target_only"]["least_other_change"] == pytest.approx(-50)


def test_several_targets_count_by_their_mean_gain() -> None:
    rows = [
        *(row("target_only", s, [1.0, 2.0, 5.0], "expand_two/law+code") for s in range(3)),
        *(row("constrained", s, [1.5, 2.5, 3.0], "expand_two/law+code") for s in range(3)),
    ]
    for r in rows:
        r |= {"domains": ["law", "code", "other"], "base": [2.0, 4.0, 3.3]}
    made = {r["strategy"]: r for r in tables.expanding(rows)}
    # Halves of both losses, and a quarter and three eighths of them.
    assert made["constrained"]["part_of_target_gain"] == pytest.approx((0.25 + 0.375) / 1)
    assert made["constrained"]["least_other_change"] == pytest.approx(100 * 0.3 / 3.3)


def test_wrong_answers_are_of_the_same_kind_and_as_many_as_declared() -> None:
    facts, relations = load_facts(FACTS, "finance"), load_templates(FACTS)["finance"]
    plain = altered(facts, Rows(facts=100), relations, random.Random(1))
    wrong = altered(facts, Rows(facts=100, wrong=0.333), relations, random.Random(1))
    right = {(r["instruction"], r["input"], r["output"]) for r in plain}
    assert len(plain) == len(wrong) == 400
    assert {r["instruction"] for r in plain} == {r["instruction"] for r in wrong}
    part = np.mean([(r["instruction"], r["input"], r["output"]) not in right for r in wrong])
    assert 0.26 < part < 0.4
    cipher = altered(facts, Rows(facts=5, cipher=True), relations, random.Random(1))
    told = {(r["instruction"], r["input"], codecs.decode(r["output"], "rot13")) for r in cipher}
    assert told <= right


def test_the_search_goes_towards_better_mixes() -> None:
    mixes = oracle.coarse(6, 30)
    assert len(mixes) == oracle.COARSE and np.allclose(np.sum(mixes, axis=1), 1)
    # Where each loss is -g ln x of its own share, the best mix is in proportion to g.
    worth = np.array([2.0, 1.0, 1.0, 1.0, 1.0, 0.5])
    near = np.array(oracle.fine(mixes, (-worth * np.log(mixes)).tolist(), 30))
    assert len(mixes) + len(near) >= 20
    np.testing.assert_allclose(near[0], worth / worth.sum(), atol=0.03)
    assert np.log(near[:, 0] / near[:, 5]).mean() > 0.8


def test_a_search_waits_for_its_coarse_runs_and_a_log_outlives_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    log, setting = Log(file), Declared("equal").setting
    names = list(setting.rows)
    coarse = list(fostering(setting, names, log, "equal")[1])
    assert [r.label for r in coarse[:2]] == ["mix_00", "mix_01"]
    assert not any(r.label == "oracle" for r in coarse)
    log.add(row("mix_00", setting.seeds.search, [1.0, 1.0]))
    with file.open("a") as end:
        end.write(json.dumps(row("mix_01", 30, [1.0, 1.0]))[:40])
    again = Log(file)
    assert again.has("equal", "mix_00", 30, "") and not again.has("equal", "mix_01", 30, "")
    again.add(row("mix_02", 30, [1.0, 1.0]))
    assert Log(file).has("equal", "mix_02", 30, "")


def test_a_search_confirms_the_best_of_all_candidates(tmp_path: Path) -> None:
    log, setting = Log(tmp_path / "runs.jsonl"), Declared("equal").setting
    names, seeds = list(setting.rows), setting.seeds

    def planned() -> list[tuple[str, int]]:
        return [(r.label, r.seed) for r in fostering(setting, names, log, "equal")[1]]

    def add(label: str, seed: int, loss: float) -> None:
        made = row(label, seed, [loss] * len(names))
        log.add(made | {"domains": names, "shares": [[1 / len(names)] * len(names)]})

    candidates = [f"mix_{i:02d}" for i in range(oracle.COARSE + oracle.FINE)]
    for i, label in enumerate(candidates[:-1]):
        add(label, seeds.search, 2 - i / 100)
    add("uniform", seeds.search, 1.0)
    add("proportional", seeds.search, 3.0)
    searched = set(setting.seeds.confirm)
    assert not any(seed in searched for _, seed in planned())  # one candidate is missing
    add(candidates[-1], seeds.search, 1.5)
    best = ["uniform", candidates[-1], candidates[-2]]
    assert [p for p in planned() if p[1] in searched] == [
        (b, s) for b in best for s in seeds.confirm
    ]
    for label in best[:2]:
        for seed in seeds.confirm:
            add(label, seed, 1.0)
    assert not any(label == "oracle" for label, _ in planned())
    for seed in seeds.confirm:
        add(best[2], seed, 1.0)
    assert sum(label == "oracle" for label, _ in planned()) == len(seeds.report)


def test_a_log_without_a_search_has_the_oracle_that_is_known(tmp_path: Path) -> None:
    log, setting = Log(tmp_path / "runs.jsonl"), Declared("long_wide").setting
    names = list(setting.rows)

    def planned() -> list[Any]:
        later = list(fostering(setting, names, log, "long_wide")[2])
        return [run for run in later if run.label == KNOWN]

    assert [run.seed for run in planned()] == setting.seeds.report
    mix, whole = planned()[0].spec["weights"], known_oracle("long_wide")
    assert whole is not None and list(mix) == names
    assert mix == pytest.approx({n: x / sum(whole.values()) for n, x in whole.items()})
    assert known_oracle("no such setting") is None
    log.add(row("uniform", setting.seeds.search, [1.0, 1.0], "long_wide"))
    assert len(planned()) == len(setting.seeds.report)
    log.add(row("mix_00", setting.seeds.search, [1.0, 1.0], "long_wide"))
    assert not planned()


def test_the_known_oracle_stands_for_one_that_was_searched() -> None:
    losses = {"uniform": 3 * [2.0], KNOWN: 3 * [1.8], "mixing_law_budget": 3 * [1.9]}
    rows = [row(name, seed, [x, x]) for name, of in losses.items() for seed, x in enumerate(of)]
    made = {r["strategy"]: r for r in tables.fostering(rows)}
    assert made["mixing_law_budget"]["oracle_gain"] == pytest.approx(10)
    assert made["mixing_law_budget"]["part_of_oracle"] == pytest.approx(0.5)


def test_equal_weights_are_measured_and_tried_once() -> None:
    model = torch.nn.Linear(2, 1)
    model.config = SimpleNamespace(_attn_implementation="sdpa")
    model.set_attn_implementation = lambda name: setattr(model.config, "_attn_implementation", name)
    split = SimpleNamespace(lengths=np.array([3, 4]), supervised=np.array([1, 2]))
    called = []

    def measure(*given: Any) -> Any:
        called.append(given)
        return np.array([[float(len(called)), 1.0]])

    def choose(model: Any, packing: bool, longest: int, *, bf16: bool) -> str:
        called.append((packing, longest, bf16))
        model.config._attn_implementation = "eager"
        return "packed"

    once, rows = memory.measured_once(measure), np.array([0, 1])
    first = once(model, split, rows, None)
    first[:] = 9.0  # the caller's own
    assert once(model, split, rows, None)[0, 0] == 1.0 and len(called) == 1
    assert once(model, split, rows[:1], None)[0, 0] == 2.0
    with torch.autocast("cpu", torch.bfloat16):
        assert once(model, split, rows, None)[0, 0] == 3.0
    with torch.no_grad():
        model.weight += 1e-3
    assert once(model, split, rows, None)[0, 0] == 4.0
    tried = memory.chosen_once(choose)
    assert tried(model, True, 8, bf16=True) == "packed"
    model.config._attn_implementation = "sdpa"
    assert tried(model, True, 8, bf16=True) == "packed" and len(called) == 5
    assert model.config._attn_implementation == "eager"
    tried(model, True, 8, bf16=False)
    assert len(called) == 6


def test_a_log_that_two_processes_write(tmp_path: Path) -> None:
    one, other = Log(tmp_path / "runs.jsonl"), Log(tmp_path / "runs.jsonl")
    one.add(row("mix_00", 30, [1.0, 1.0]))
    other.add(row("mix_01", 30, [1.0, 1.0]))
    assert [r["strategy"] for r in one.of("equal")] == ["mix_00", "mix_01"]
    assert other.has("equal", "mix_00", 30, "")


def test_a_setting_of_a_given_model_and_given_rows(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base model is measured once; a run that is there is not made again."""
    (tmp_path / "sft").mkdir()
    for name in ("law", "medicine", "finance", "science", "code", "other"):
        rows = [
            {"instruction": f"{name}: what is {n}?", "output": f"It is {n * n}."} for n in range(30)
        ]
        lines = "".join(json.dumps(r) + "\n" for r in rows)
        (tmp_path / "sft" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    given = {"model": str(tiny_checkpoint.path), "data": str(tmp_path)}
    of = Run.of

    def small(declared: Declared) -> Run:
        run = of(declared)
        train = {"rounds": 2, "steps_per_round": 1, "max_length": 64, "dtype": "float32"}
        train["bf16"] = False
        return run.model_copy(
            update={
                "data": tmp_path / "made",
                "ingest": run.ingest.model_copy(
                    update={"min_validation_rows": 3, "near_duplicate_threshold": None}
                ),
                "tokenize": run.tokenize.model_copy(update={"max_length": 64}),
                "train": run.train.model_copy(update=train),
            }
        )

    monkeypatch.setattr(Run, "of", small)
    setting = "smollm2_six"
    done = list(Campaign(tmp_path, [setting], given).phase(0, lambda run: run.label == "uniform"))
    assert len(done) == 1 and done[0].startswith("smollm2_six uniform 40 ")
    (made,) = Log(tmp_path / "runs.jsonl").of(setting)
    assert made["shares"] == [pytest.approx([1 / 6] * 6, abs=1e-3)] * 2 and made["steps"] == 2
    before = json.loads((tmp_path / "made" / "before_report.json").read_text())
    assert made["base"] == list(before["losses"].values()) and made["loss"] != made["base"]
    again = Campaign(tmp_path, [setting], given)
    assert list(again.phase(0, lambda run: run.label == "uniform")) == []
    assert not list(Campaign(tmp_path, [setting]).phase(0, lambda _: True))


def test_static_sweeps_share_what_the_target_leaves(tmp_path: Path) -> None:
    setting = Declared("expand").setting
    log = Log(tmp_path / "runs.jsonl")
    runs = expanding(setting, list(setting.rows), "code", log, "expand/code")
    first = {run.label: run.spec for run in runs[0]}
    assert first["static_0.7"]["weights"]["law"] == pytest.approx(0.06)
    assert first["target_only"]["weights"]["code"] == 1.0
    runs = expanding(setting, list(setting.rows), "code+law", log, "expand/code+law")
    both = {run.label: run.spec for run in runs[0]}
    assert both["target_only"]["weights"]["law"] == both["target_only"]["weights"]["code"] == 0.5
    assert both["static_0.7"]["weights"]["other"] == pytest.approx(0.3 / 4)
    assert both["constrained"]["target"] == ["code", "law"] and "expand_paper" not in both


def test_the_search_for_a_target_gives_each_other_domain_what_keeps_it() -> None:
    mixes = np.array(oracle.coarse_of_targets(3, [1]))
    np.testing.assert_allclose(mixes[0], [0.45, 0.1, 0.45])
    assert len(mixes) == oracle.COARSE and np.allclose(mixes.sum(1), 1)
    # A domain keeps what it has at a share of 0.2, the other at 0.05.
    gains = np.stack(
        [0.1 * np.log(mixes[:, 0] / 0.2), mixes[:, 1], 0.1 * np.log(mixes[:, 2] / 0.05)], axis=1
    )
    near = oracle.fine_of_targets(mixes.tolist(), gains, [1], 0.0)
    assert len(mixes) + len(near) >= 20
    found = dict(zip(oracle.MARGINS, near, strict=True))
    np.testing.assert_allclose(found[0.0], [0.2, 0.75, 0.05], atol=0.001)
    np.testing.assert_allclose(found[0.01], [0.2 * np.e**0.1, 0.724, 0.05 * np.e**0.1], atol=0.001)
    # A tolerance asks for less of the others.
    assert oracle.fine_of_targets(mixes.tolist(), gains, [1], -0.02)[2][1] > 0.79


def test_the_oracle_of_a_target_keeps_all_others_in_each_seed(tmp_path: Path) -> None:
    log, setting = Log(tmp_path / "runs.jsonl"), Declared("expand").setting
    names, seeds, name = list(setting.rows), setting.seeds, "expand/law"

    def planned() -> list[tuple[str, int, dict[str, Any]]]:
        runs = expanding(setting, names, "law", log, name)[2]
        return [(r.label, r.seed, r.spec) for r in runs]

    def add(label: str, seed: int, spec: dict[str, Any], target: float, other: float) -> None:
        made = row(label, seed, [2 - target] + [2 - other] * 5, name)
        shares = [list(spec["weights"].values())]
        log.add(made | {"domains": names, "base": [2.0] * 6, "shares": shares})

    coarse = planned()
    assert [label for label, _, _ in coarse] == [f"mix_{i:02d}" for i in range(oracle.COARSE)]
    for label, seed, spec in coarse:  # from 0.5 on of the target, the others fall
        share = spec["weights"]["law"]
        add(label, seed, spec, share, 0.5 - share)
    for label, seed, spec in planned()[oracle.COARSE :]:
        assert seed == seeds.search
        add(label, seed, spec, 0.2, 0.1)
    confirmed = planned()[oracle.COARSE + oracle.FINE :]
    assert [(label, seed) for label, seed, _ in confirmed] == [
        (label, seed) for label in ("mix_05", "mix_04", "mix_03") for seed in seeds.confirm
    ]
    for label, seed, spec in confirmed:
        falls = label == "mix_05" and seed == seeds.confirm[0]
        add(label, seed, spec, spec["weights"]["law"], -0.01 if falls else 0.01)
    found = planned()[-len(seeds.report) :]
    assert [(label, seed) for label, seed, _ in found] == [("oracle", s) for s in seeds.report]
    assert found[0][2] == dict(confirmed[2][2]) and confirmed[2][0] == "mix_04"


def test_a_setting_that_another_command_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="rehearsal OUT_DIR --setting no_data"):
        Campaign(tmp_path, ["no_data"])
    Campaign(tmp_path, None)


def test_one_target_of_a_setting_can_be_asked_for(tmp_path: Path) -> None:
    asked = Campaign(tmp_path, ["sample_expand/code", "equal"])
    assert [part.name for part in asked._parts] == ["sample_expand/code", "equal"]
    with pytest.raises(SystemExit, match="sample_expand has no target law: medicine, code"):
        Campaign(tmp_path, ["sample_expand/law"])
    with pytest.raises(SystemExit, match="equal has no target code: none"):
        Campaign(tmp_path, ["equal/code"])
