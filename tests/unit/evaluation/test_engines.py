"""Evaluation by other engines and in several processes gives what it gives in one.

transformers' ways run for real, on CPUs. vLLM needs a GPU and is not installed here: a stand-in
takes its calls and answers them with the tiny model, so that what lm-evaluation-harness's vLLM is
asked by this project is checked, and nothing of vLLM itself is.
"""

import importlib.machinery
import importlib.metadata
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from versatune.artifacts import FolderRef
from versatune.data.lengths import token_limit
from versatune.errors import VersatuneError
from versatune.evaluation import measure
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.results import Measured
from versatune.evaluation.tasks import LocalTask, read_task
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer

CHOICES = [
    {"question": "what is a court", "choices": ["a judge", "drug dose and heart"], "answer": 0},
    {"question": "why", "choices": ["loan", "bank", "river and map"], "answer": 2},
    {"question": "how does light treat", "choices": ["a", "cell", "of"], "answer": 1},
]
TEXTS = [{"question": f"what is the mean of {n}", "answer": "x"} for n in ("a", "the share", "b c")]


@pytest.fixture
def tasks(tmp_path: Path) -> list[LocalTask]:
    found = []
    for name, items in (("choices", CHOICES), ("texts", TEXTS), ("alone", CHOICES[:1])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
        found.append(read_task("law", name, path))
    return found


@pytest.fixture
def measured(
    tiny_checkpoint: CheckpointRef, tiny_store: FolderRef, tasks: list[LocalTask], tmp_path: Path
) -> Any:
    def run(**how: Any) -> Measured:
        settings = {"rows_per_domain": 3, "examples": 1, "max_new_tokens": 6, **how}
        return measure.evaluate_checkpoint(
            tiny_checkpoint,
            model="base",
            store=tiny_store,
            tasks=tasks,
            params=EvaluateParams.model_validate(settings),
            folder=tmp_path / str(len(list(tmp_path.iterdir()))),
            answers=True,
        )

    return run


def same(found: Measured, wanted: Measured) -> None:
    pd.testing.assert_frame_equal(found.answers, wanted.answers)
    pd.testing.assert_frame_equal(found.rows, wanted.rows, rtol=1e-5)
    pd.testing.assert_frame_equal(found.items, wanted.items, rtol=1e-5)


def test_other_ways_of_transformers_measure_the_same(measured: Any) -> None:
    wanted = measured()
    assert set(wanted.rows["task"]) == {"held_out", "choices", "texts", "alone"}
    same(measured(engine="static"), wanted)
    same(measured(parallelize=True), wanted)
    same(measured(processes=2), wanted)  # one item of the last task: not divided


def test_vllm_is_asked_what_transformers_is_asked(
    measured: Any, stand_in: list[dict[str, Any]], tiny_checkpoint: CheckpointRef
) -> None:
    for chat in (True, False):
        how = {"apply_chat_template": chat, "rows_per_domain": 1, "examples": 0}
        wanted = measured(**how)
        same(measured(engine="vllm", vllm={"tensor_parallel_size": 2}, **how), wanted)
    assert len(stand_in) == 2, "loaded once for all tasks of a measurement"
    asked = {"dtype": "float32", "tensor_parallel_size": 2, "gpu_memory_utilization": 0.9}
    assert stand_in[0].items() >= asked.items()
    assert stand_in[0]["max_model_len"] == token_limit(load_model(tiny_checkpoint).config)
    measured(engine="vllm", vllm={"max_model_len": 48}, **how)
    assert stand_in[2]["max_model_len"] == 48, "which a GPU may have no more room for"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"processes": 2, "parallelize": True}, "choose one of the two"),
        ({"engine": "vllm", "processes": 2}, "vllm.data_parallel_size"),
        ({"engine": "vllm", "parallelize": True}, "vllm.tensor_parallel_size"),
    ],
)
def test_ways_that_exclude_each_other_are_refused(how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EvaluateParams.model_validate(how)


def test_more_processes_than_gpus_are_refused(
    measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(VersatuneError, match=r"evaluate\.processes is 3.*has 2 GPUs"):
        measured(processes=3)


def test_transformers_numbers_are_kept_whatever_way_they_came_in() -> None:
    plain = EvaluateParams().fingerprint_fields()
    for how in ({"engine": "static"}, {"processes": 2}, {"parallelize": True}):
        assert EvaluateParams.model_validate(how).fingerprint_fields() == plain
    vllm = EvaluateParams(engine="vllm").fingerprint_fields()
    short = EvaluateParams.model_validate({"engine": "vllm", "vllm": {"max_model_len": 48}})
    assert plain != vllm != short.fingerprint_fields() != plain


class StandIn:
    """vllm.LLM, answering with transformers."""

    def __init__(self, **how: Any) -> None:
        folder = Path(how["model"])
        self.network: Any = load_model(folder, dtype=how["dtype"])
        self.tokenizer: Any = load_tokenizer(folder)
        config = types.SimpleNamespace(max_model_len=how["max_model_len"])
        self.llm_engine = types.SimpleNamespace(model_config=config)

    def generate(self, prompts: Any, sampling_params: Any, **_: Any) -> list[Any]:
        return [
            (self._scored if how.get("prompt_logprobs") else self._written)(
                prompt["prompt_token_ids"], how
            )
            for prompt, how in zip(prompts, sampling_params, strict=True)
        ]

    def _scored(self, ids: list[int], _: dict[str, Any]) -> Any:
        with torch.no_grad():
            scores = self.network(torch.tensor([ids])).logits[0].log_softmax(-1)
        found: list[Any] = [None]
        for at, token in enumerate(ids[1:]):
            best = int(scores[at].argmax())
            found.append({t: float(scores[at, t]) for t in dict.fromkeys((token, best))})
        return types.SimpleNamespace(prompt_logprobs=found)

    def _written(self, ids: list[int], how: dict[str, Any]) -> Any:
        assert how["temperature"] == 0, "greedy"
        made: list[int] = []
        text = ""
        while len(made) < how["max_tokens"]:
            with torch.no_grad():
                logits = self.network(torch.tensor([ids + made])).logits[0, -1]
            token = int(logits.argmax())
            if token in how["stop_token_ids"]:
                break
            made.append(token)
            text = self.tokenizer.decode(made, skip_special_tokens=how["skip_special_tokens"])
            at = [text.find(stop) for stop in how["stop"] if stop in text]
            if at:
                text = text[: min(at)]
                break
        return types.SimpleNamespace(outputs=[types.SimpleNamespace(text=text)])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Modules in vLLM's place; grows with the settings of each model that is loaded."""
    loaded: list[dict[str, Any]] = []

    def load(**how: Any) -> StandIn:
        loaded.append(how)
        return StandIn(**how)

    names = ("vllm", "vllm.lora", "vllm.lora.request", "vllm.renderers", "vllm.renderers.hf")
    modules: dict[str, Any] = {name: types.ModuleType(name) for name in (*names, "vllm.tokenizers")}
    for name, module in modules.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    modules["vllm"].LLM = load
    modules["vllm"].SamplingParams = modules["vllm"].TokensPrompt = dict
    modules["vllm.lora.request"].LoRARequest = object
    modules["vllm.renderers.hf"].resolve_chat_template = lambda **_: None
    modules["vllm.tokenizers"].get_tokenizer = lambda folder, **_: load_tokenizer(Path(folder))
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.20.0" if name == "vllm" else real(name)
    )
    yield loaded
    for name in ("lm_eval.models.vllm_causallms", "versatune.evaluation.in_vllm"):
        sys.modules.pop(name, None)
