"""The model as lm-evaluation-harness calls it. Importing this imports the harness."""

from typing import Any

from lm_eval.models.huggingface import HFLM

from versatune.data.limits import text_config, token_limit

CPU_LOGITS = 2 * 10**8
"""Logits of a batch on a CPU, at most: 0.8 GB in float32, and the harness keeps three copies."""

MAX_BATCH = 64


class AnswerLM(HFLM):
    """Scores a choice by its own tokens alone.

    The harness takes white space at the end of the question, such as the line break that ends a
    chat template, for the beginning of every choice. Its log-probability is the same for all, so
    ``acc`` does not notice, but ``acc_norm`` divides it by the length of the choice and so favours
    long ones.
    """

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The tokens of both; as the harness does it where the tokenizer merges their border."""
        before, both = self.tok_encode(context), self.tok_encode(context + continuation)
        if both[: len(before)] != before:
            pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
            return pair
        return before, both[len(before) :]


def language_model(
    kind: type[HFLM], model: Any, tokenizer: Any, size: int | str, longest: int
) -> HFLM:
    """``kind`` around a loaded model; ``size`` ``auto`` on a CPU is :func:`batch_size`.

    ``longest``: tokens of the longest row that will be asked.
    """
    limit = token_limit(model.config)
    if size == "auto" and model.device.type == "cpu":
        vocabulary = text_config(model.config).vocab_size
        size = batch_size(vocabulary, min(longest, limit or longest))
    return kind(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=size,
        max_batch_size=MAX_BATCH,
        # What load_model loads, though the kind has a form with an encoder, too (BART).
        backend="causal",
        # None leaves it to the harness, which doesn't look into the parts of a configuration.
        max_length=limit,
    )


def batch_size(vocabulary: int, longest: int) -> int:
    """Rows in a batch on a CPU: as many as :data:`CPU_LOGITS` allows, at most MAX_BATCH.

    A rule and not a trial: a trial on a CPU ends in the machine's memory being used up, and gives
    another number each time.
    """
    return max(1, min(MAX_BATCH, CPU_LOGITS // (vocabulary * longest)))
