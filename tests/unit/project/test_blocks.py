"""Which blocks of parameters a project knows, and what is said of the others."""

from typing import Any

import pytest
import yaml
from kedro.framework.project import configure_project, pipelines

from versatune.project.blocks import BLOCKS, read, used
from versatune.project.in_use import in_use
from versatune.project.parameter_reference import parameter_models
from versatune.project.starter import HERE
from versatune.training.config import TrainParams
from versatune.training.reference_config import ReferenceParams


def told(parameters: dict[str, Any], *extra: str) -> dict[str, str]:
    return {".".join(map(str, p.key)): p.message for p in read(parameters, extra)[1]}


def test_the_blocks_are_those_that_nodes_ask_for() -> None:
    configure_project("versatune")
    assert dict(sorted(BLOCKS.items())) == parameter_models(dict(pipelines))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("trian", "'train'"),
        ("Train", "'train'"),
        ("evalaute", "'evaluate'"),
        ("base-model", "'base_model'"),
        ("reference", "'references'"),
        ("learning_rate", "train.learning_rate or retrain.learning_rate"),
        ("steps_per_round", "train.steps_per_round"),
    ],
)
def test_an_unknown_block_is_refused_with_the_nearest_name(name: str, meant: str) -> None:
    found = told({name: {"rounds": 3}, "train": {}})
    assert list(found) == [name] and f"did you mean {meant}" in found[name]


def test_a_block_that_is_near_nothing_is_refused_all_the_same() -> None:
    assert told({"zzz": 1}) == {"zzz": "there is no such block of parameters"}


def test_values_for_interpolation_may_be_there() -> None:
    assert told({"_rows": 3, "model": "m", "train": {"rounds": 3}}, "model") == {}


@pytest.mark.parametrize(
    ("value", "key", "words"),
    [
        ({"round": 3}, "train.round", "did you mean 'rounds'"),
        ({"lora": {"rank": 3}}, "train.lora.rank", "there is no such parameter"),
        ({"strategy": {"name": "foster", "sigm": 1}}, "train.strategy.sigm", "'sigma'"),
        ({"strategy": {"name": "foster", "sigma": -1}}, "train.strategy.sigma", "not -1"),
        ({"strategy": {"name": "expand"}}, "train.strategy.target", "is missing"),
        (
            {"strategy": {"name": "uniform", "sigma": 2}},
            "train.strategy.sigma",
            "there is no such parameter: uniform has no sigma, others have",
        ),
        (
            {"strategy": {"name": "fostr"}},
            "train.strategy",
            "there is no 'fostr' (did you mean 'foster'?); there are uniform, proportional",
        ),
        (None, "train", "the block is empty"),
        ([1], "train", "a block of keys with values is needed here, not a list"),
        (3, "train", "a block of keys with values is needed here, not 3"),
        ({"seed": -1}, "train.seed", "greater than or equal to 0"),  # numpy takes no such seed
        ({"seed": 1 << 32}, "train.seed", "less than 4294967296"),
        (
            {"attn_implementation": "flash_attention"},
            "train.attn_implementation",
            "no such attention (did you mean 'flash_attention_",
        ),
        ({"lora": 8}, "train.lora", "a block of keys with values is needed here, not 8"),
        ({"rounds": "many"}, "train.rounds", "a whole number is needed here, not 'many'"),
        ({"rounds": 2.5}, "train.rounds", "a whole number is needed here, not 2.5"),
        ({"learning_rate": "2e-5x"}, "train.learning_rate", "a number is needed here, not"),
        ({"packing": "perhaps"}, "train.packing", "true or false is needed here, not 'perhaps'"),
    ],
)
def test_a_wrong_value_is_told_by_the_key_as_it_is_written(
    value: Any, key: str, words: str
) -> None:
    found = told({"train": value})
    assert list(found) == [key] and words in found[key]


@pytest.mark.parametrize(
    ("value", "key", "words"),
    [
        ({"sampling": {"dtype": "fp16"}}, "probe.sampling.dtype", "'bfloat16' or 'float16'"),
        ({"judge": {"likelihood": {"dtype": "half"}}}, "probe.judge.likelihood.dtype", "'float16'"),
        (
            {"sampling": {"server": {"url": "localhost:8000/v1"}}},
            "probe.sampling.server.url",
            "an address begins with http:// or https://, got 'localhost:8000/v1'",
        ),
    ],
)
def test_what_only_a_later_stage_would_notice_is_told(value: Any, key: str, words: str) -> None:
    found = told({"probe": {"seed": 0, **value}})
    assert list(found) == [key] and words in found[key]


def test_a_list_without_brackets_is_told() -> None:
    found = told({"evaluate": {"harness": {"tasks": {"law": "arc"}}}})
    assert found == {"evaluate.harness.tasks.law": "a list is needed here, as [arc], not 'arc'"}


def test_everything_wrong_is_told_at_once() -> None:
    wrong = {"train": {"rounds": 0, "unti": "rows"}, "evaluate": {"limt": 3}, "trian": {}}
    assert {"train.rounds", "train.unti", "evaluate.limt", "trian"} <= set(told(wrong))


def test_references_are_shown_as_they_are_measured() -> None:
    blocks = {
        "train": TrainParams(learning_rate=1e-4, max_length=64, heldout_rows_per_domain=7),
        "references": ReferenceParams.model_validate(
            {"max_steps": 9, "train": {"weight_decay": 0.5}}
        ),
    }
    shown = used(blocks)["references"]
    assert shown["heldout_rows_per_domain"] == 7
    assert (shown["learning_rate"], shown["max_length"]) == (1e-4, 64)
    assert (shown["max_steps"], shown["weight_decay"]) == (9, 0.5)
    assert used(blocks)["train"]["learning_rate"] == 1e-4


def test_a_value_that_the_message_ends_with_is_not_said_twice() -> None:
    (said,) = told({"train": {"objective": {"tolerance": -0.1}}}).values()
    assert said.endswith("; got -0.1")
    (said,) = told({"train": {"rounds": 0}}).values()
    assert said.endswith("greater than or equal to 1, not 0")


def test_blocks_of_choices_that_were_not_taken_are_left_out() -> None:
    judge = {"kind": "endpoint", "endpoint": {"max_tokens": 8}, "classifier": {"held_out": 0.3}}
    given = {
        "base_model": {"kind": "pretrained", "pretrain": {"seed": 3}},
        "probe": {
            "sampling": {"source": "model", "server": {"url": "u"}, "engine": "vllm", "vllm": {}},
            "judge": judge,
            "audit": {"n": 0, "judge": judge},
        },
        "references": {"mode": "none", "max_steps": 9},
        "domains": {"law": {"description": "l"}, "code": None},
        "train": {"seed": 1},
        "sample": {"documents": 9},
    }
    assert in_use(given) == {
        "base_model": {"kind": "pretrained"},
        "probe": {
            "sampling": {"source": "model", "engine": "vllm", "vllm": {}},
            "judge": {"kind": "endpoint", "endpoint": {"max_tokens": 8}},
            "audit": {"n": 0},
        },
        "references": {"mode": "none"},
        "domains": {"law": {"description": "l"}},
        "train": {"seed": 1},
    }
    assert given["domains"] == {"law": {"description": "l"}, "code": None}
    taken = {"base_model": {"kind": "pretrain", "pretrain": {"seed": 3}}, "evaluate": {"code": {}}}
    assert in_use(taken) == taken
    base = yaml.safe_load((HERE / "conf/base/parameters_domains.yml").read_text("utf-8"))
    for of_sample in (
        {"domains": base["domains"]},
        {"base_model": {"kind": "pretrain"}},
    ):
        assert in_use({**given, **of_sample})["sample"] == {"documents": 9}
