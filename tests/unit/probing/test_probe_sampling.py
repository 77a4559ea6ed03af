"""Samples on disk: resumable, repeatable, flagged."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.helpers.chats import TEMPLATES, byte_level, saved, small_model
from tests.helpers.probing import first_samples
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.samplers.base import Sample, draw, draw_batch, stream
from versatune.samplers.config import SamplingParams
from versatune.samplers.local import ModelSampler, start_tokens
from versatune.work import make_folder

PARAMS = SamplingParams(max_new_tokens=12, batch_size=8, dtype="float32")


def first(folder, n: int, checkpoint: CheckpointRef, seed: int = 0, **changed) -> list[Sample]:
    params = PARAMS.model_copy(update=changed)
    return first_samples(folder, ModelSampler(checkpoint, params), seed, params.batch_size, n)


def test_the_first_samples_are_the_same_however_many_are_drawn(tmp_path, tiny_checkpoint):
    few = first(tmp_path / "a", 5, tiny_checkpoint)
    many = first(tmp_path / "b", 20, tiny_checkpoint)
    assert len(many) == 20
    assert few == many[:5]
    assert [s.index for s in many] == list(range(20))


def test_a_killed_probe_goes_on_and_yields_the_same_set(tmp_path, tiny_checkpoint, monkeypatch):
    whole = first(tmp_path / "whole", 24, tiny_checkpoint)
    batch, calls = ModelSampler.batch, []

    def dies(self, indices, seed):
        calls.append(indices)
        for number, sample in enumerate(batch(self, indices, seed)):
            if len(calls) == 2 and number == 3:
                raise KeyboardInterrupt
            yield sample

    monkeypatch.setattr(ModelSampler, "batch", dies)
    with pytest.raises(KeyboardInterrupt):
        first(tmp_path / "broken", 24, tiny_checkpoint)
    calls.clear()
    calls.append(range(0))
    monkeypatch.setattr(
        ModelSampler, "batch", lambda s, i, seed: (calls.append(i), batch(s, i, seed))[1]
    )
    assert first(tmp_path / "broken", 24, tiny_checkpoint) == whole
    assert calls[1:] == [range(8, 16), range(16, 24)]


def test_any_sample_can_be_made_again(tmp_path, tiny_checkpoint):
    samples = first(tmp_path / "a", 24, tiny_checkpoint)
    sampler = ModelSampler(tiny_checkpoint, PARAMS)
    assert draw_batch(sampler, 0, PARAMS.batch_size, 2) == samples[16:24]


def test_a_finished_store_grows(tmp_path, tiny_checkpoint):
    sampler, folder = ModelSampler(tiny_checkpoint, PARAMS), tmp_path / "a"
    assert make_folder(draw(sampler, 0, 8, 5), folder).metadata["drawn"] == 8
    ref = make_folder(draw(sampler, 0, 8, 16), folder)
    assert ref.metadata["drawn"] == 16
    assert ref.metadata["begins"] == "<s>"
    assert make_folder(draw(sampler, 0, 8, 3), folder) == ref, "fewer are a part of what is there"


@pytest.mark.parametrize("changed", [{"temperature": 0.5}, {"max_new_tokens": 6}])
def test_other_parameters_never_meet_old_samples(tmp_path, tiny_checkpoint, changed):
    before = first(tmp_path / "a", 8, tiny_checkpoint)
    after = first(tmp_path / "a", 8, tiny_checkpoint, **changed)
    assert before != after


def test_seeds_differ(tmp_path, tiny_checkpoint):
    one = first(tmp_path / "a", 8, tiny_checkpoint, seed=1)
    two = first(tmp_path / "b", 8, tiny_checkpoint, seed=2)
    assert one != two


def test_streams_are_uniform_and_unlike():
    numbers = np.stack([stream(0, i, 50) for i in range(200)])
    assert 0 <= numbers.min() < 0.01
    assert 0.99 < numbers.max() < 1
    assert abs(np.corrcoef(numbers[0], numbers[1])[0, 1]) < 0.5
    assert (stream(3, 4, 5) == stream(3, 4, 9)[:5]).all()


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("The court ruled.", ""),
        ("", "empty"),
        (" \n...!", "empty"),
        ("no no " * 100, "loop"),
        ("no no " * 5, ""),
    ],
)
def test_degenerate_samples_are_flagged(text, flag):
    assert Sample(index=0, text=text, n_tokens=3, ended=True).flag == flag


def tokenizer(**special) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel({"<b>": 0, "<e>": 1, "<doc>": 2, "a": 3}, unk_token="a"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, **special)


def framed(token: str) -> PreTrainedTokenizerFast:
    """Has no begin token, but puts ``token`` before every text."""
    made = tokenizer(eos_token="<e>")
    number = made.convert_tokens_to_ids(token)
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, number)]
    )
    return made


def test_sequences_begin_with_the_begin_token_else_the_tokenizers_own_start_else_the_end_token():
    assert start_tokens(tokenizer(bos_token="<b>", eos_token="<e>"), None) == [0]
    assert start_tokens(tokenizer(eos_token="<e>"), None) == [1]
    assert start_tokens(framed("<doc>"), None) == [2]  # what it puts before any text
    assert start_tokens(framed("<e>"), None) == [1]
    assert start_tokens(tokenizer(bos_token="<b>", eos_token="<e>"), "<doc>") == [2]
    with pytest.raises(VersatuneError, match=r"probe.sampling.start.*'<x>'"):
        start_tokens(tokenizer(eos_token="<e>"), "<x>")


def test_a_limit_the_model_can_not_read_is_refused(tmp_path, tiny_checkpoint):
    with pytest.raises(VersatuneError, match="reads 256 at most"):
        first(tmp_path / "a", 1, tiny_checkpoint, max_new_tokens=256)


def test_shards_are_json_lines(tmp_path, tiny_checkpoint):
    first(tmp_path / "a", 8, tiny_checkpoint)
    lines = (tmp_path / "a" / "wave_00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(8))


def test_marks_of_turns_that_were_only_added_are_no_part_of_a_sample(tmp_path):
    tokenizer = byte_level(special=False)
    tokenizer.chat_template = TEMPLATES["chatml"]
    base = saved(tmp_path / "base", tokenizer, small_model(tokenizer))
    ids = tokenizer("<|im_start|>the law<|im_end|>", add_special_tokens=False).input_ids
    assert ModelSampler(base, PARAMS)._decode(ids) == "the law"
