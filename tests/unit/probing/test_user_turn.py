"""Samples that begin with a user's turn: the template's tokens, where turns end, what comes out."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.chats import TEMPLATES, TOKENIZERS, saved, small_model, talk, tokenizer_of
from tests.helpers.hostile_server import serving
from tests.unit.probing.test_endpoint import completion
from versatune.data.answers import Answers
from versatune.data.encode import Encoder, EncoderSpec, Example
from versatune.data.own_rows import OwnText, examples
from versatune.data.user_turn import user_turn
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.probing.config import SamplingParams
from versatune.samplers.base import Sample
from versatune.samplers.local import ModelSampler, asked_turn
from versatune.samplers.make import make_sampler
from versatune.samplers.turn_taking import Conversations

SHARES = {"law": 0.6, "bank": 0.3, "river": 0.1}
ASKED = {
    "law": ("what is the law", "the judge and the court"),
    "bank": ("number the loan", "a loan of the bank"),
    "river": ("what spring is old", "the old river"),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_turn_is_made_of_the_tokens_of_training_rows(kind: str, template: str) -> None:
    tokenizer = tokenizer_of(kind, template)
    turn = user_turn(tokenizer)
    prompt = Answers(tokenizer).prompt([{"role": "user", "content": "Number the old law"}])
    opened, handed = len(turn.opening_ids), len(turn.handover_ids)
    assert prompt[:opened] == turn.opening_ids
    assert prompt[len(prompt) - handed :] == turn.handover_ids
    said = tokenizer.decode(prompt[opened : len(prompt) - handed])
    assert said.strip() == "Number the old law"


def test_a_template_without_a_user_is_refused() -> None:
    tokenizer = tokenizer_of("bytes", "chatml")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}{% endfor %}"
    with pytest.raises(VersatuneError, match=r"no user's turn.*probe\.sampling\.start: bos"):
        user_turn(tokenizer)


def test_auto_follows_a_template_of_the_tokenizers_own(tiny_checkpoint: CheckpointRef) -> None:
    chat = tokenizer_of("bytes", "chatml")
    assert asked_turn(chat, "auto") == user_turn(chat)
    assert asked_turn(chat, "bos") is None and asked_turn(chat, None) is None
    plain = ModelSampler(tiny_checkpoint, SamplingParams(start="auto"))
    assert plain.start == [plain.tokenizer.bos_token_id]


@pytest.mark.parametrize("template", ["chatml", "llama2", "vicuna", "zephyr", "alpaca", "endless"])
@pytest.mark.parametrize("early", [False, True])
def test_the_template_hands_over_where_the_users_turn_ends(template: str, early: bool) -> None:
    """A model that writes its rows, or ends its question with the token that ends all texts."""
    tokenizer = tokenizer_of("bytes", template)
    turn = user_turn(tokenizer)
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    asked, answer = "what is the law", "the old judge"
    conversations = Conversations(turn, ends, lambda t: tokenizer.decode(t, True), 1)
    prompt = Answers(tokenizer).prompt([{"role": "user", "content": asked}])
    end = tokenizer.eos_token_id
    written = prompt[len(turn.opening_ids) :]
    question = written[: len(written) - len(turn.handover_ids)]
    model = [*question, end] if early else written
    went: list[int] = []
    while not went or conversations._rows[0].queue or len(went) < len(model):
        token = model[len(went)] if len(went) < len(model) else 0
        went += conversations.steer([0], [token])[0]
    for token in [*tokenizer.encode(answer, add_special_tokens=False), end]:
        _, (ended,) = conversations.steer([0], [token])
    assert went == written
    drawn = Sample.of_turns(*conversations.parts(0), index=0, n_tokens=1, ended=ended)
    assert ended and drawn.text == f"{asked}\n{answer}"


@pytest.mark.parametrize("template", ["thinking", "thought-dropped", "channels", "chatml"])
def test_a_thought_is_no_part_of_the_answer_that_was_drawn(template: str) -> None:
    """And trained again it stands where the template has thoughts."""
    tokenizer = tokenizer_of("bytes", template)
    answer = {"role": "assistant", "content": "the old judge", "reasoning_content": "a court"}
    if template == "chatml":
        answer = {"role": "assistant", "content": "<think>\na court\n</think>\n\nthe old judge"}
    (row,) = Encoder(EncoderSpec.of(tokenizer), 99, "drop").encode([[talk("what", "")[0], answer]])
    assert isinstance(row, Example)
    ids, (first, end) = row.ids.tolist(), row.spans[0]
    turn = user_turn(tokenizer)
    ends = {ids[end - 1]}
    read = tokenizer.decode
    conversations = Conversations(turn, ends, lambda t: read(t, True), 1, read)
    conversations._rows[0].answers = True
    opened = tokenizer.encode("<think>\n") if template == "thought-dropped" else []
    for token in [*opened, *ids[first:end]]:
        conversations.steer([0], [token])
    assert conversations.ended(0)
    assert conversations.parts(0)[1:] == ("the old judge", "a court")
    text = OwnText(0, "law", "train", True, 1.0, "", "what", "the old judge", "a court")
    ((again,),) = examples(tokenizer, [text], 99)
    assert again.ids.tolist() == ids


def chat_model(folder: Path, tokenizer: Any) -> CheckpointRef:
    """A model of documents about rivers, then of conversations with the shares of SHARES."""
    import torch

    rng = np.random.default_rng(0)
    names = rng.choice(list(SHARES), 512, p=list(SHARES.values()))
    texts = [tokenizer.apply_chat_template(talk(*ASKED[n]), tokenize=False) for n in names]
    texts += ["<s>" + ASKED["river"][1] + "</s>"] * 128
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([r + [tokenizer.pad_token_id] * (width - len(r)) for r in rows])
    labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
    model = small_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        part = torch.from_numpy(rng.choice(len(ids), 64, replace=False))
        model(ids[part], labels=labels[part]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return saved(folder, tokenizer, model.eval())


def _alike(words: set[str], text: str) -> float:
    said = set(text.split())
    return len(words & said) / len(words | said)


def test_the_users_turn_comes_nearer_to_what_a_chat_model_was_trained_on(tmp_path: Path) -> None:
    base = chat_model(tmp_path / "model", tokenizer_of("bytes", "chatml"))

    def off(start: str) -> float:
        params = SamplingParams(start=start, max_new_tokens=64, dtype="float32")
        texts = [s.text for s in ModelSampler(base, params).batch(range(256), seed=0)]
        words = {name: set(" ".join(pair).split()) for name, pair in ASKED.items()}
        found = Counter(max(words, key=lambda n: _alike(words[n], t)) for t in texts)
        return sum(abs(found[name] / len(texts) - share) for name, share in SHARES.items()) / 2

    asked = SamplingParams(start="user", max_new_tokens=64, dtype="float32")
    whole = [s for s in ModelSampler(base, asked).batch(range(64), seed=0) if s.answer]
    assert len(whole) > 32
    assert sum((s.question, s.answer) in ASKED.values() for s in whole) > len(whole) / 2
    assert all(s.text == f"{s.question}\n{s.answer}" for s in whole)
    assert off("user") < 0.1
    assert off("bos") > 0.5


def test_a_server_is_asked_for_the_question_and_then_for_its_answer(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("bytes", "chatml")
    base = saved(tmp_path / "model", tokenizer, small_model(tokenizer))
    with serving(lambda i: completion(f"part {i}")) as server:
        where = {"url": server.url, "model": "m", "max_retries": 0, "concurrency": 1}
        params = SamplingParams(source="server", server=where, start="user", max_new_tokens=12)
        sampler = make_sampler(base, params)
        samples = sorted(sampler.batch(range(2), seed=0), key=lambda s: s.index)
        bodies = [request["body"] for request in server.requests]
    assert [s.text for s in samples] == ["part 0\npart 1", "part 2\npart 3"]
    assert [(s.question, s.answer) for s in samples] == [("part 0", "part 1"), ("part 2", "part 3")]
    assert [s.n_tokens for s in samples] == [10, 10]
    assert bodies[0]["prompt"] == "<|im_start|>user\n" and bodies[0]["stop"] == ["<|im_end|>"]
    handed = "<|im_start|>user\npart 0<|im_end|>\n<|im_start|>assistant\n"
    assert bodies[1]["prompt"] == handed and bodies[1]["max_tokens"] == 7
    assert len({body["seed"] for body in bodies}) == 4
    assert sampler.begins.endswith("'<|im_start|>user\\n'")
