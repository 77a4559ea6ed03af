"""Engines of the probe: what they draw, and what is refused.

transformers' engines run for real. vLLM needs a GPU and is not installed here: a stand-in takes its
calls, so that their arguments are checked, and nothing of vLLM itself is.
"""

import dataclasses
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from tests.helpers.chats import tokenizer_of
from tests.unit.probing.test_decoding import models
from versatune.data.user_turn import user_turn
from versatune.errors import VersatuneError
from versatune.modeling import room
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.modeling.engines import VllmParams
from versatune.samplers.base import Sample, draw_batch
from versatune.samplers.config import SamplingParams
from versatune.samplers.decoding import Batch, Decoder
from versatune.samplers.faster import Drawn, FasterEngine, faster_engine
from versatune.samplers.in_vllm import VllmDecoder
from versatune.samplers.local import ModelSampler
from versatune.samplers.static import StaticDecoder
from versatune.samplers.turn_taking import Conversations


def batch(checkpoint: CheckpointRef, **how: Any) -> list[Sample]:
    settings = {"max_new_tokens": 40, "dtype": "float32", **how}
    return draw_batch(ModelSampler(checkpoint, SamplingParams.model_validate(settings)), 3, 12, 0)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({}, id="as the model draws"),
        pytest.param({"top_k": 9, "top_p": 0.8, "temperature": 0.7}, id="filtered"),
        pytest.param({"repetition_penalty": 1.3}, id="repeated less"),
    ],
)
def test_a_static_cache_draws_the_same_samples(
    tiny_checkpoint: CheckpointRef, how: dict[str, Any]
) -> None:
    dynamic = batch(tiny_checkpoint, engine="dynamic", **how)
    assert batch(tiny_checkpoint, engine="static", **how) == dynamic
    assert len({s.text for s in dynamic}) == 12


@pytest.mark.parametrize("name", ["gpt2", "sliding"])
def test_other_architectures_too(name: str) -> None:
    numbers, ends = np.random.default_rng(3).random((24, 41)), set(range(40, 45))
    found = {
        kind: sorted(kind(models()[name], [0, 7], 41).sample(Batch(numbers, ends)))
        for kind in (Decoder, StaticDecoder)
    }
    assert found[Decoder] == found[StaticDecoder]
    assert 0 < sum(ended for _, _, ended in found[Decoder]) < 24


def test_turns_are_taken_alike() -> None:
    tokenizer = tokenizer_of("bytes", "chatml")
    turn = user_turn(tokenizer)
    found = []
    for kind in (Decoder, StaticDecoder):
        torch.manual_seed(0)
        model = models()["gpt2"]
        model.resize_token_embeddings(len(tokenizer))
        ends = {tokenizer.eos_token_id, *range(30, 40)}
        talks = Conversations(turn, ends, tokenizer.decode, 16)
        numbers = np.random.default_rng(2).random((16, 60))
        rows = sorted(kind(model, turn.opening_ids, 60).sample(Batch(numbers, ends, turns=talks)))
        found.append((rows, [talks.parts(row) for row in range(16)]))
    assert found[0] == found[1]
    assert any(ended for _, _, ended in found[0][0])


def test_on_a_cpu_auto_is_the_loop_of_this_project(tiny_checkpoint: CheckpointRef) -> None:
    assert type(ModelSampler(tiny_checkpoint, SamplingParams())._load()) is Decoder


def test_engines_that_draw_the_same_share_their_samples(tiny_checkpoint: CheckpointRef) -> None:
    about = {
        engine: ModelSampler(tiny_checkpoint, SamplingParams(engine=engine)).about
        for engine in ("auto", "dynamic", "static", "vllm")
    }
    assert about["auto"] == about["dynamic"] == about["static"] != about["vllm"]


def test_a_model_with_a_state_has_no_static_cache(
    tiny_checkpoint: CheckpointRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    mamba = MambaForCausalLM(MambaConfig(vocab_size=400, **shape)).eval()
    monkeypatch.setattr(room, "load_model", lambda *_, **__: mamba)
    with pytest.raises(VersatuneError, match=r"engine is static.*MambaForCausalLM.*use auto"):
        batch(tiny_checkpoint, engine="static")


def test_without_vllm_it_is_refused_in_a_sentence(tiny_checkpoint: CheckpointRef) -> None:
    with pytest.raises(VersatuneError, match=r"probe\.sampling\.engine: vLLM is not installed"):
        batch(tiny_checkpoint, engine="vllm")


@dataclasses.dataclass
class Calls:
    """What the stand-in was asked."""

    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    prompts: list[list[int]] = dataclasses.field(default_factory=list)
    settings: list[dict[str, Any]] = dataclasses.field(default_factory=list)


Writes = Callable[[list[int]], list[int]]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Writes], Calls]:
    """A module in vLLM's place that notes its calls and writes what it is given."""

    def install(writes: Writes) -> Calls:
        calls = Calls()

        class LLM:
            def __init__(self, **how: Any) -> None:
                calls.model = how

            def generate(self, prompts: Any, sampling_params: Any, use_tqdm: bool) -> list[Any]:
                assert len(prompts) == len(sampling_params) and use_tqdm is False
                calls.prompts += [prompt["prompt_token_ids"] for prompt in prompts]
                calls.settings += sampling_params
                texts = [writes(prompt["prompt_token_ids"]) for prompt in prompts]
                output = types.SimpleNamespace
                return [output(outputs=[output(token_ids=tuple(text))]) for text in texts]

        module: Any = types.ModuleType("vllm")
        module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
        module.LLM, module.SamplingParams, module.TokensPrompt = LLM, dict, dict
        monkeypatch.setitem(sys.modules, "vllm", module)
        return calls

    return install


def test_what_vllm_is_asked(
    tiny_checkpoint: CheckpointRef, stand_in: Callable[[Writes], Calls]
) -> None:
    eos = load_tokenizer(tiny_checkpoint).eos_token_id
    calls = stand_in(lambda _: [50, 51, eos])
    how = {"top_k": 9, "top_p": 0.8, "temperature": 0.7, "repetition_penalty": 1.1}
    vllm = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5}
    found = batch(tiny_checkpoint, engine="vllm", vllm=vllm, **how)
    assert calls.model == {
        "model": str(tiny_checkpoint.path),
        "dtype": "float32",
        "max_model_len": 41,
        "trust_remote_code": False,
        **vllm,
    }
    assert calls.prompts == [[load_tokenizer(tiny_checkpoint).bos_token_id]] * 12
    first = calls.settings[0]
    assert {name: first[name] for name in how} == how
    assert first["max_tokens"] == 40 and first["stop_token_ids"] == [eos] and first["ignore_eos"]
    assert len({s["seed"] for s in calls.settings}) == 12
    assert all(s.ended and s.n_tokens == 2 for s in found)
    again = batch(tiny_checkpoint, engine="vllm", vllm=vllm, **how)
    assert again == found and calls.settings[0]["seed"] == calls.settings[12]["seed"]


def test_vllm_is_asked_for_the_answer_behind_the_question(
    stand_in: Callable[[Writes], Calls], tmp_path: Path
) -> None:
    tokenizer = tokenizer_of("bytes", "chatml")
    turn, end = user_turn(tokenizer), tokenizer.eos_token_id
    asked, said = (tokenizer.encode(t, add_special_tokens=False) for t in ("the law", "a judge"))
    assert turn.end_id is not None

    def writes(prompt: list[int]) -> list[int]:
        return [*asked, turn.end_id] if prompt == turn.opening_ids else [*said, end]

    calls = stand_in(writes)
    decoder = VllmDecoder(tmp_path, turn.opening_ids, 80, "auto", VllmParams(), turn)
    talks = Conversations(turn, {end}, tokenizer.decode, 1)
    ((_, _, ended),) = decoder.sample(Batch(np.full((1, 80), 0.5), {end}, turns=talks))
    assert ended and talks.parts(0) == ("the law", "a judge", "")
    question, answer = calls.prompts
    assert question == turn.opening_ids
    assert answer == [*turn.opening_ids, *asked, *turn.handover_ids]
    assert set(calls.settings[0]["stop_token_ids"]) == {turn.end_id, end}
    assert calls.settings[1]["max_tokens"] == 80 - len(asked) - len(turn.handover_ids)


def by_the_clock(checkpoint: CheckpointRef, seconds: dict[str, float]) -> FasterEngine:
    """On a clock that shows ``seconds`` for a batch, whatever it really took."""
    at = [0.0]
    engine = faster_engine(load_model(checkpoint), [1], 20, clock=lambda: at[0])
    for name, one in engine._engines.items():

        def sample(*given: Any, name: str = name, one: Any = one) -> Iterator[Drawn]:
            yield from one.sample(*given)
            at[0] += seconds[name]

        engine._engines[name] = SimpleNamespace(sample=sample)
    return engine


@pytest.mark.parametrize("faster", ["dynamic", "static"])
def test_the_faster_engine_is_measured_and_all_draw_the_same(
    tiny_checkpoint: CheckpointRef, faster: str
) -> None:
    seconds = {"dynamic": 2.0, "static": 1.0 if faster == "static" else 3.0}
    engine = by_the_clock(tiny_checkpoint, seconds)
    plain = Decoder(load_model(tiny_checkpoint), [1], 20)
    rng = np.random.default_rng(0)
    for batch_number, rows in enumerate((6, 6, 4, 6, 6, 4)):
        uniforms = rng.random((rows, 20))
        drawn = sorted(engine.sample(Batch(uniforms, {2})))
        assert drawn == sorted(plain.sample(Batch(uniforms, {2})))
        assert engine.chosen == (faster if batch_number >= 3 else None)
        tokens = sum(len(row[1]) for row in drawn)
        if batch_number == 3:  # the first batch that nothing had to be compiled for
            assert engine.tokens_per_second["static"] == tokens / seconds["static"]
    assert set(engine.tokens_per_second) == {"dynamic", "static"}


@pytest.mark.parametrize("name", ["data_parallel_size", "max_model_len"])
def test_what_is_of_evaluation_alone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is of `evaluate.vllm`"):
        SamplingParams.model_validate({"engine": "vllm", "vllm": {name: 2}})
