"""What parameters alone can tell is told before any work; the project's own are all right."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from kedro.config import OmegaConfigLoader

from versatune.mixing.config import ExpandParams, MixingLawParams
from versatune.params import merged
from versatune.project import checks
from versatune.project.blocks import BLOCKS, read
from versatune.project.mix_checks import strategy_problems
from versatune.settings import CONFIG_LOADER_ARGS

ENVIRONMENTS = sorted(
    folder.name if folder.parent.name == "conf" else f"results/{folder.name}"
    for folder in (*Path("conf").iterdir(), *Path("conf/results").iterdir())
    if folder.is_dir() and folder.name != "results"
)


@pytest.fixture(scope="module")
def base(project_root: Path) -> dict[str, Any]:
    """The parameters of the environment `test`."""
    loader = OmegaConfigLoader(str(project_root / "conf"), env="test", **CONFIG_LOADER_ARGS)
    return loader["parameters"]


def told(base: dict[str, Any], changes: dict[str, Any], run: str | None = None) -> dict[str, str]:
    blocks, wrong = read(merged(base, changes), ())
    assert wrong == []
    asked = checks.ALWAYS if run is None else checks.WHEN_RUN[run]
    return {".".join(map(str, p.key)): p.message for p in checks.problems(blocks, asked)}


SELF = {"description": "", "sources": [{"self": True}]}
OWN: dict[str, Any] = {
    "domains": {"science": SELF},
    "mixture": {"strategy": {"name": "proportional"}},
}
EXPAND = {"name": "expand", "rule": "paper", "target": "lwa", "sigma": 1.0}
BOTH = {"name": "expand", "rule": "constrained", "target": ["Legal", "code"]}
HALF = {"name": "custom", "weights": {"law": 0.5, "medicine": 0.5}}
ONE = dict.fromkeys(["law", "medicine", "finance", "science", "code"], 0.2)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        (OWN | {"probe": {"known_distribution": "LLaMA-2-7B"}}, "probe.known_distribution",
         "science (`self: true`) train on its samples"),
        (OWN | {"domains": {**OWN["domains"], "code": SELF}}, "probe.judge.kind",
         "science, code have none"),
        ({"domains": OWN["domains"]}, "mixture.strategy.name", "that of science, which has no"),
        (OWN | {"mixture": {"strategy": {"name": "inverse"}}}, "mixture.strategy.name",
         "'inverse' takes the detected"),
        (OWN | {"train": {"interpolate": {}}}, "train.objective.tolerance", "is 0 for science"),
        (OWN | {"train": {"interpolate": {}, "objective": {"tolerance": {"stderrs": 0}}}},
         "train.objective.tolerance", "is 0 for science"),
        (OWN | {"train": {"strategy": BOTH}}, "train.objective.tolerance", "{science: 0.05}"),
        ({"tokenize": {"max_length": 300}}, "train.max_length", "tokenize.max_length (300)"),
        ({"train": {"max_length": 255}}, "train.max_length", "tokenize.max_length (256)"),
        (
            {"references": {"train": {"max_length": 128}}},
            "references.train.max_length",
            "128 is less",
        ),
        ({"compare": {"train": {"max_length": 9}}}, "compare.train.max_length", "9 is less"),
        ({"base_model": {"pretrain": {"max_length": 64}}}, "tokenize.max_length", "takes (base"),
        ({"probe": {"sampling": {"max_new_tokens": 512}}}, "probe.sampling.max_new_tokens",
         "base_model.pretrain.max_length is 512"),
        ({"train": {"unit": "rows"}}, "train.unit", "mixture.unit is 'supervised_tokens'"),
        ({"compare": {"train": {"unit": "rows"}}}, "compare.train.unit", "mixture.unit is"),
        ({"train": {"strategy": EXPAND}}, "train.strategy.target", "Did you mean 'law'?"),
        ({"retrain": {"strategy": EXPAND | {"potential_source": "progress"}}},
         "retrain.strategy.target", "no domain 'lwa'"),
        ({"compare": {"strategies": {"expand": EXPAND}}}, "compare.strategies.expand.target",
         "no domain 'lwa'"),
        ({"compare": {"target": "art"}}, "compare.target", "no domain 'art'"),
        ({"compare": {"bases": {"a": "x"}, "train": {"objective": {"kind": "worst"}}}},
         "compare.bases", "references of one base model"),
        ({"mixture": {"strategy": HALF}}, "mixture.strategy.weights", "finance, science, code, o"),
        ({"train": {"strategy": {"name": "custom", "weights": ONE}}}, "train.strategy.weights",
         "no share for other"),
        ({"train": {"epoch_cap": {"lawn": 2}}}, "train.epoch_cap.lawn", "Did you mean 'law'?"),
        ({"compare": {"train": {"epoch_cap": {"art": 2}}}}, "compare.train.epoch_cap.art", "'art'"),
        ({"evaluate": {"harness": {"tasks": {"medicin": ["x"]}}}}, "evaluate.harness.tasks.medicin",
         "'medicine'"),
        ({"retrain": {"promotion": {"limits": {"accuracy": {"domains": {"art": 0.1}}}}}},
         "retrain.promotion.limits.accuracy.domains.art", "no domain 'art'"),
        ({"retrain": {"strategy": {"potential_source": "reference"}}}, "retrain.strategy",
         "measures none"),
        ({"references": {"mode": "none"}}, "train.strategy", "references.mode is none"),
        (
            {"references": {"train": {"heldout_rows_per_domain": 5}}},
            "references.train.heldout_rows_per_domain",
            "of 8 rows",
        ),
        (
            {"references": {"train": {"heldout_rows_per_domain": None}}},
            "references.train.heldout_rows_per_domain",
            "all, but",
        ),
        ({"mixture": {"floor": 0.17}}, "mixture.floor", "at most 0.1667"),
        ({"train": {"strategy": {"floor": 0.2}}}, "train.strategy", "fit a floor of 0.2"),
        ({"train": {"strategy": {"cap": 0.1}}}, "train.strategy", "a cap of 0.1"),
        ({"compare": {"strategies": {"low": {"name": "odm", "cap": 0.1}}}},
         "compare.strategies.low", "a cap of 0.1"),
        ({"probe": {"judge": {"kind": "endpoint"}}}, "probe.judge.endpoint.server.model", "empty"),
        ({"probe": {"judge": {"kind": "likelihood"}}}, "probe.judge.likelihood.name_or_path",
         "instruct model"),
        ({"probe": {"sampling": {"source": "server"}}}, "probe.sampling.server.model", "empty"),
        ({"domains": {"art": {"description": "a", "sources": [{"path": "a.jsonl"}]}},
          "probe": {"known_distribution": "Qwen2-7B"}}, "probe.known_distribution", "art"),
        ({"evaluate": {"harness": {"tasks": {"legal": ["law"]}}}}, "domains.law.evaluation",
         "two tasks of law are called 'law'"),
        ({"domains": {"law": {"evaluation": [{"path": "held_out.jsonl"}]}}},
         "domains.law.evaluation", "a task can't be called 'held_out'"),
        ({"train": {"launcher": {"config_file": "none.yaml"}}}, "train.launcher.config_file",
         "there is no none.yaml"),
        ({"references": {"proxy": "no/model"}}, "references.proxy", "there is no no/model"),
        ({"evaluate": {"harness": {"include_path": "no/tasks"}}}, "evaluate.harness.include_path",
         "there is no no/tasks"),
        ({"train": {"lora": {"r": 4}}, "compare": {"train": {"dtype": "bfloat16"}}},
         "compare.train", "needs bf16: true"),
        ({"train": {"objective": {"tolerance": {"lawn": 0.1}}}}, "train.objective.tolerance.lawn",
         "Did you mean 'law'?"),
        ({"train": {"objective": {"kind": "weighted", "weights": ONE}}}, "train.objective.weights",
         "no weight for other"),
        ({"compare": {"train": {"objective": {"tolerance": {"art": 0.1}}}}},
         "compare.train.objective.tolerance.art", "no domain 'art'"),
        ({"compare": {"strategies": {"two": BOTH | {"target": ["law", "art"]}}}},
         "compare.strategies.two.target", "no domain 'art'"),
        ({"compare": {"strategies": {"law": {"name": "mixing_law", "floor": 0.2}}}},
         "compare.strategies.law", "fit a floor of 0.2"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told(
    base: dict[str, Any], changes: dict[str, Any], key: str, words: str
) -> None:
    found = told(base, changes)
    assert list(found) == [key], found
    assert words in found[key]


QLORA = {"quantization": "nf4", "lora": {"r": 4}, "bf16": True}


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"train": QLORA}, "train.quantization", "nf4 needs bitsandbytes"),
        ({"train": {"optim": "paged_adamw_8bit"}}, "train.optim", "versatune[quantized]"),
        (
            {"references": {"train": {"optim": "adamw_8bit"}}},
            "references.train.optim",
            "adamw_8bit needs",
        ),
        ({"compare": {"train": QLORA}}, "compare.train.quantization", "nf4 needs bitsandbytes"),
        ({"parallel": {"engine": "ray"}}, "parallel.engine", "versatune[ray]"),
    ],
)
def test_packages_that_are_missing_are_told(
    base: dict[str, Any],
    changes: dict[str, Any],
    key: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert told(base, changes) == {}
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in ("bitsandbytes", "ray") else real(name, *rest),
    )
    found = told(base, changes)
    assert list(found) == [key], found
    assert words in found[key]


@pytest.mark.parametrize(
    ("there", "changes", "key", "words"),
    [
        ((), {"probe": {"sampling": {"engine": "vllm"}}}, "probe.sampling.engine", "pip install"),
        ((), {"evaluate": {"engine": "vllm"}}, "evaluate.engine", "vLLM is not installed"),
        (
            ("vllm",),
            {"evaluate": {"engine": "vllm", "vllm": {"data_parallel_size": 2}}},
            "evaluate.engine",
            "versatune[ray]",
        ),
        (
            ("vllm", "ray"),
            {"evaluate": {"engine": "vllm"}, "train": {"lora": {"merge": False}}},
            "evaluate.engine",
            "train.lora.merge is false",
        ),
    ],
)
def test_what_vllm_lacks_is_told(
    base: dict[str, Any],
    there: tuple[str, ...],
    changes: dict[str, Any],
    key: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return (name in there or None) if name in ("vllm", "ray") else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    found = told(base, changes)
    assert list(found) == [key], found
    assert words in found[key]
    served = {"source": "server", "engine": "vllm", "server": {"model": "m"}}
    assert told(base, {"probe": {"sampling": served}}) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenize": {"max_length": 128}},
        {"train": {"unit": "rows"}, "mixture": {"unit": "rows"}},
        {"train": {"strategy": EXPAND | {"target": "Legal"}}},
        {"train": {"epoch_cap": {"legal": 2}}},
        {"train": {"objective": {"tolerance": {"legal": 0.1, "code": {"stderrs": 2}}}}},
        {"compare": {"strategies": {"two": BOTH, "law": {"name": "mixing_law"}}}},
        {"references": {"mode": "none"}, "train": {"strategy": {"name": "odm", "sigma": None}}},
        {"references": {"train": {"heldout_rows_per_domain": 8}}},
        {"mixture": {"floor": 0.3, "strategy": {"name": "custom", "weights": ONE | {"other": 0}}}},
        {"base_model": {"kind": "pretrained", "name_or_path": "m", "pretrain": {"max_length": 64}}},
        OWN,
        {"probe": {"known_distribution": "Qwen2-7B", "judge": {"kind": "endpoint"}}},
    ],
)
def test_what_goes_together_is_taken(base: dict[str, Any], changes: dict[str, Any]) -> None:
    if changes.get("train", {}).get("strategy", {}).get("sigma", 0) is None:
        changes["train"]["strategy"].pop("sigma")
        base = {**base, "train": {**base["train"], "strategy": {}}}
    assert told(base, changes) == {}


def test_some_things_matter_to_the_stages_that_run(base: dict[str, Any]) -> None:
    """The strategies compared by default need references, a project that never compares none."""
    none = {"references": {"mode": "none"}, "train": {"strategy": {"potential_source": "progress"}}}
    assert told(base, none) == {}
    found = told(base, none, run="compare")
    assert list(found) == ["compare.strategies.foster"]
    assert "references.mode is none" in found["compare.strategies.foster"]
    adapter = {"train": {"lora": {"r": 4, "merge": False}}}
    assert told(base, adapter) == {} and list(told(base, adapter, "retrain")) == [
        "train.lora.merge"
    ]
    gone = {"evaluate": {"extra_models": {"a": "/nowhere/m"}}, "compare": {"bases": {"b": "/no"}}}
    assert told(base, gone) == {}  # a report needs neither
    assert told(base, gone, "evaluate") == {"evaluate.extra_models.a": "there is no /nowhere/m"}
    assert told(base, gone, "compare") == {"compare.bases.b": "there is no /no"}


def test_the_largest_gap_to_the_references_needs_references(base: dict[str, Any]) -> None:
    worst = {"objective": {"kind": "worst"}}
    none = {"references": {"mode": "none"}, "train": {"strategy": {"potential_source": "progress"}}}
    assert told(base, {"train": worst}) == {}
    assert list(told(base, merged(none, {"train": worst}))) == ["train.objective.kind"]
    found = told(base, {"train": worst}, run="retrain")
    assert (
        list(found) == ["train.objective.kind"]
        and "retraining can't" in found["train.objective.kind"]
    )


def test_more_domains_than_a_law_can_take_are_refused_before_any_work() -> None:
    names = [f"d{i}" for i in range(101)]
    for strategy in (MixingLawParams(floor=0), ExpandParams(target="d1", rule="constrained")):
        (problem,) = strategy_problems(strategy, names, ("train", "strategy"))
        assert "101 domains are more than the 100" in problem.message
    paper = ExpandParams(target="d1", rule="paper")
    assert list(strategy_problems(paper, names, ("train", "strategy"))) == []


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_the_parameters_of_every_environment_go_together(
    env: str, project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from versatune.project.hook import check
    from versatune.project.places import Places

    monkeypatch.chdir(project_root)
    given = {name: name for name in ("model", "data") if "smollm2" in env}
    if env == "results/smollm2_expand":
        given.pop("model")
    loader = OmegaConfigLoader("conf", env=env, runtime_params=given, **CONFIG_LOADER_ARGS)
    assert check(loader, Places(loader)).keys() == BLOCKS.keys()
