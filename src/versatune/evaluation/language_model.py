"""The model behind lm-evaluation-harness's interface. Importing this imports the harness."""

from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import stop_sequences_criteria

from versatune.data.lengths import text_config, token_limit
from versatune.errors import VersatuneError
from versatune.evaluation import ranks
from versatune.evaluation.choices import lacking, lacking_words
from versatune.evaluation.conversations import Conversations
from versatune.evaluation.padding import MAX_BATCH, batch_size, one_by_one, reads_padding
from versatune.modeling.caching import generates_with_cache


class ConversationLM(Conversations, HFLM):
    """Run by transformers, here or in several processes that each ask a part of the questions."""

    def generation_config(self) -> Any:
        return self.model.generation_config

    @property
    def rank(self) -> int:
        return ranks.rank() if self.shares else 0

    @property
    def world_size(self) -> int:
        return ranks.world() if self.shares else 1

    def all_gather(self, tensor: Any) -> Any:
        """Shape (processes,), of a number of each."""
        if ranks.world() == 1:
            return tensor
        found = [torch.zeros_like(tensor) for _ in range(ranks.world())]
        dist.all_gather(found, tensor)
        return torch.stack(found)

    def barrier(self) -> None:
        if dist.is_initialized():
            dist.barrier()

    def _model_call(self, inps: Any, *_: Any, **__: Any) -> Any:
        """Logits of whole rows, for which no cache is made: some models can't make one."""
        self._refuse_lacking(inps)
        with torch.no_grad():
            return self.model(inps, use_cache=False).logits

    def _model_generate(
        self, context: Any, max_length: int, stop: list[str], attention_mask: Any, **settings: Any
    ) -> Any:
        def generate(context: Any, mask: Any, max_length: int) -> Any:
            if not self._takes_cache:
                return self._generate_without_cache(context, mask, max_length, stop, settings)
            return super(ConversationLM, self)._model_generate(
                context, max_length, stop, attention_mask=mask, **settings
            )

        self._refuse_lacking(context)
        if len(context) == 1 or not self._reads_padding:
            return generate(context, attention_mask, max_length)
        pad = self.tokenizer.pad_token_id
        return one_by_one(generate, context, attention_mask, max_length, pad)

    def _generate_without_cache(
        self, context: Any, mask: Any, max_length: int, stop: list[str], settings: dict[str, Any]
    ) -> Any:
        """As the harness, which always asks for a cache."""
        settings = {"do_sample": bool(settings.get("temperature")), **settings}
        if not settings["do_sample"]:
            settings.pop("temperature", None)
        return self.model.generate(
            input_ids=context,
            attention_mask=mask,
            max_length=max_length,
            stopping_criteria=stop_sequences_criteria(
                self.tokenizer, stop, context.shape[1], context.shape[0]
            ),
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=False,
            **settings,
        )

    def _refuse_lacking(self, ids: Any) -> None:
        """Of the harness's own questions; those of files are refused with their line before."""
        if self._lacking is not None and (last := int(ids.max())) >= self._lacking:
            raise VersatuneError(f"{lacking_words(self.tokenizer, last)}.")

    @cached_property
    def _lacking(self) -> int | None:
        return lacking(self.model, self.tokenizer)

    @cached_property
    def _takes_cache(self) -> bool:
        return generates_with_cache(self.model)

    @cached_property
    def _reads_padding(self) -> bool:
        return reads_padding(self.model)

    def tok_batch_encode(
        self, strings: list[str], padding_side: str = "left", **settings: Any
    ) -> tuple[Any, Any]:
        """Questions as training has them, padded; else as the harness encodes them."""
        if not (self.alone or all(string in self.asked for string in strings)):
            found: tuple[Any, Any] = super().tok_batch_encode(strings, padding_side, **settings)
            return found
        limit = settings.get("left_truncate_len") or 0
        rows = [self.tok_encode(string)[-limit:] for string in strings]
        padded = self.tokenizer.pad(
            {"input_ids": rows}, padding_side=padding_side, return_tensors="pt"
        )
        return padded["input_ids"], padded["attention_mask"]

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        """Control tokens stay in answers: the template's are taken out with it."""
        skip = skip_special_tokens and not self.asked
        return str(super().tok_decode(tokens, skip_special_tokens=skip))


class AnswerLM(ConversationLM):
    """Without the chat format, a choice is scored only by its own tokens.

    The harness takes white space at the end of the question for the beginning of every choice.
    Its log-probability is the same for all, so ``acc`` does not notice, but ``acc_norm`` divides
    it by the length of the choice and so favours long ones. Generations end where an answer ends,
    in models whose generation config says so and in others. A text begins as documents do in
    training, and nothing that a tokenizer puts behind texts ends a question.
    """

    alone = True

    def _model_generate(self, *args: Any, **settings: Any) -> Any:
        return super()._model_generate(*args, **{"eos_token_id": self.stops, **settings})


def language_model(
    kind: type[ConversationLM], model: Any, tokenizer: Any, size: int | str, longest: int
) -> Conversations:
    """``kind`` around a loaded model; ``size`` ``auto`` on a CPU is :func:`batch_size`.

    ``model`` is one of transformers, or what another engine has loaded, which then is asked as
    ``kind`` asks. ``longest``: tokens of the longest row that will be asked.
    """
    if isinstance(model, Conversations):
        model.begin(alone=issubclass(kind, AnswerLM))
        return model
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
