"""Drawing by transformers' own ``generate`` from a key-value cache of fixed size.

On a GPU transformers compiles the step of such a cache, so that a step is one launch and not
hundreds. Each row keeps its own random numbers: the token is drawn where ``generate`` asks its
logits processors, and they leave it no other choice. Rows that ended stay until all have.
"""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from versatune.samplers.decoding import Batch, Drawn, draw, filtered


class StaticDecoder:
    """Draws the tokens that :class:`versatune.samplers.decoding.Decoder` draws."""

    def __init__(self, model: PreTrainedModel, start: list[int], limit: int) -> None:
        self.model: Any = model
        self.start = start
        # In place of the model's own, which ``generate`` would take missing settings from.
        model.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=limit, cache_implementation="static"
        )

    def sample(self, batch: Batch) -> Iterator[Drawn]:
        """As :meth:`versatune.samplers.decoding.Decoder.sample`; rows come at the end, in order."""
        device, (rows, limit) = self.model.device, batch.uniforms.shape
        prompt = torch.tensor([self.start], device=device).expand(rows, -1)
        choice = _Choice(batch, device)
        with torch.inference_mode():
            written = self.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=limit,
                logits_processor=LogitsProcessorList([choice]),
                stopping_criteria=StoppingCriteriaList([_Ended(choice)]),
            )
        tokens = written[:, len(self.start) :].tolist()
        for row, length in enumerate(choice.lengths.tolist()):
            ended = length < limit
            yield row, tokens[row][:length], ended


class _Choice(LogitsProcessor):
    """Draws the next token of every row by its own number, and forbids all others."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self.params, self.turns = batch.params, batch.turns
        self.numbers = torch.from_numpy(batch.uniforms).to(device)
        self.ends = torch.tensor(sorted(batch.ends), device=device)
        rows, limit = self.numbers.shape
        self.lengths = torch.full((rows,), limit, device=device)
        """Tokens before each row's end; the limit where it has not ended."""
        self.step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """``scores`` (rows, vocabulary): 0 at the token that is drawn, and -inf elsewhere."""
        scores_left = torch.full_like(scores, -torch.inf)
        drawn = draw(filtered(scores, input_ids, self.params), self.numbers[:, self.step])
        if self.turns is None:
            over = torch.isin(drawn[:, 0], self.ends)
        else:
            went, ended = self.turns.steer(range(len(drawn)), drawn[:, 0].tolist())
            drawn = torch.tensor(went, device=scores.device)[:, None]
            over = torch.tensor(ended, device=scores.device)
        now = over & (self.lengths == self.numbers.shape[1])
        self.lengths = torch.where(now, self.step, self.lengths)
        self.step += 1
        return scores_left.scatter_(1, drawn, 0.0)  # type: ignore[return-value]


class _Ended(StoppingCriteria):
    """Which rows have ended, by the choice that was just made."""

    def __init__(self, choice: _Choice) -> None:
        self.choice = choice

    def __call__(self, *_: object, **__: object) -> torch.BoolTensor:
        return self.choice.lengths < self.choice.step  # type: ignore[return-value]
